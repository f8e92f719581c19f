//! The Python binding of `sharpwave-core`: arrays in, arrays out, and no logic.
//!
//! A call parses its arguments attached to the interpreter, detaches ([`detach`]), takes the store's lock
//! ([`handle`]), computes, attaches again and wraps the result ([`convert`], [`parts`], [`errors`]).

// PyO3 passes extracted arguments by value, as many as Python has, and returns what Python unpacks.
#![allow(
    clippy::needless_pass_by_value,
    clippy::too_many_arguments,
    clippy::type_complexity
)]

mod convert;
mod detach;
mod errors;
mod handle;
mod parts;
mod store;
mod view;

use pyo3::prelude::*;

/// The compiled core: flat arrays in, flat arrays out. `sharpwave.ValueStore` is the face of it.
#[pymodule]
mod _core {
    use std::path::PathBuf;

    use pyo3::prelude::*;
    use pyo3::types::PyDict;
    use sharpwave_core as core;

    use crate::detach::{Detach, to_be_worded};
    use crate::errors::with_path;

    #[pymodule_export]
    use crate::errors::{EmbedderError, FormatError};
    #[pymodule_export]
    use crate::store::Store;
    #[pymodule_export]
    use crate::view::View;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// The numbers, JSON to JSON, as the core holds them; or an error naming the one out of range.
    #[pyfunction]
    fn check_config(config: &str) -> PyResult<String> {
        crate::convert::config_json(&crate::convert::config(config)?)
    }

    /// Save what is intact in a damaged directory; the fields of `sharpwave.Repair` by name.
    #[pyfunction]
    fn repair(py: Python<'_>, directory: PathBuf) -> PyResult<Bound<'_, PyDict>> {
        let done = py.without_gil(|| to_be_worded(core::repair(&directory)))?;
        let done = done.map_err(|error| with_path(error, &directory))?;
        let report = PyDict::new(py);
        report.set_item("complete", done.is_complete())?;
        report.set_item("rebuilt", done.rebuilt)?;
        report.set_item("archive_lost", done.archive_lost)?;
        report.set_item("proposals_lost", done.proposals_lost)?;
        report.set_item("operations", done.operations)?;
        report.set_item("damaged", done.damaged)?;
        report.set_item("refused", done.refused)?;
        report.set_item("cut", done.cut)?;
        report.set_item("missing", done.missing)?;
        report.set_item("set_aside", done.set_aside)?;
        Ok(report)
    }

    /// How many threads a call uses unless it says otherwise.
    #[pyfunction]
    fn set_num_threads(n: usize) -> PyResult<()> {
        core::set_num_threads(n).map_err(crate::errors::to_python)
    }

    /// How many threads a call uses unless it says otherwise; all processors by default.
    #[pyfunction]
    fn get_num_threads() -> usize {
        core::num_threads()
    }

    /// The instruction sets found, and the one in use.
    #[pyfunction]
    fn cpu_features(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let features = PyDict::new(py);
        features.set_item("available", core::linalg::available())?;
        features.set_item("used", core::linalg::instruction_set())?;
        Ok(features)
    }

    /// The names of the functionals of `score`, the default first.
    #[pyfunction]
    fn functionals() -> Vec<&'static str> {
        core::functionals()
    }
}

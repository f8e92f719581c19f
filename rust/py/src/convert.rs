//! Arrays of Python borrowed as slices, vectors given to it as arrays.

use numpy::PyUntypedArrayMethods;
use numpy::ndarray::{Array2, Dimension};
use numpy::{Element, IntoPyArray, PyArray1, PyArray2, PyReadonlyArray, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sharpwave_core::Config;

use crate::errors::to_python;

/// A C-contiguous array as the slice of its numbers, row by row.
pub fn borrowed<'a, T: Element, D: Dimension>(
    name: &str,
    array: &'a PyReadonlyArray<'_, T, D>,
) -> PyResult<&'a [T]> {
    let refused = || PyValueError::new_err(format!("{name} must be C-contiguous"));
    if !array.is_c_contiguous() {
        return Err(refused());
    }
    array.as_slice().map_err(|_| refused())
}

/// `borrowed`, where there may be no array.
pub fn borrowed_if<'a, T: Element, D: Dimension>(
    name: &str,
    array: Option<&'a PyReadonlyArray<'_, T, D>>,
) -> PyResult<Option<&'a [T]>> {
    array.map(|array| borrowed(name, array)).transpose()
}

/// Counts, which are never negative.
pub fn counts(array: &PyReadonlyArray1<'_, i64>) -> PyResult<Vec<usize>> {
    borrowed("counts", array)?
        .iter()
        .map(|&n| usize::try_from(n).map_err(|_| PyValueError::new_err(format!("{n} is negative"))))
        .collect()
}

/// A vector as a 1-D array.
pub fn vector<T: Element>(py: Python<'_>, numbers: Vec<T>) -> Bound<'_, PyArray1<T>> {
    numbers.into_pyarray(py)
}

/// A vector, row by row, as a 2-D array of the given number of columns.
pub fn matrix<T: Element>(
    py: Python<'_>,
    numbers: Vec<T>,
    rows: usize,
    columns: usize,
) -> PyResult<Bound<'_, PyArray2<T>>> {
    let matrix = Array2::from_shape_vec((rows, columns), numbers)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(matrix.into_pyarray(py))
}

/// A config from its JSON, validated.
pub fn config(json: &str) -> PyResult<Config> {
    let config: Config =
        serde_json::from_str(json).map_err(|error| PyValueError::new_err(error.to_string()))?;
    config.validate().map_err(to_python)?;
    Ok(config)
}

/// The JSON of a config.
pub fn config_json(config: &Config) -> PyResult<String> {
    serde_json::to_string(config).map_err(|error| PyValueError::new_err(error.to_string()))
}

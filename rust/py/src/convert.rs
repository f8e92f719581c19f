//! Arrays of Python borrowed as slices, vectors given to it as arrays.

use std::mem::MaybeUninit;

use numpy::PyUntypedArrayMethods;
use numpy::ndarray::{Array2, Dimension};
use numpy::{Element, IntoPyArray, PyArray1, PyArray2, PyReadonlyArray, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use sharpwave_core::{Cancel, Config, Veto};

use crate::detach::Detach;
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

/// Bytes as an object of Python. Other threads run while they are copied.
pub fn bytes<'py>(py: Python<'py>, from: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    const SLICE: usize = 1 << 20;
    let length = ffi::Py_ssize_t::try_from(from.len())?;
    // SAFETY: Python is attached. Without a source it reserves room for so many bytes, whatever they are, and gives the
    // reference away, or none with an error set.
    let object = unsafe {
        Bound::from_owned_ptr_or_err(py, ffi::PyBytes_FromStringAndSize(std::ptr::null(), length))
    }?
    .cast_into::<PyBytes>()?;
    // SAFETY: the room of these bytes, which stays where it is while they live, and they do until this returns. Nobody
    // else knows of them yet, so nobody else reads or writes there, with the GIL or without.
    let to = unsafe {
        let begin = ffi::PyBytes_AsString(object.as_ptr());
        std::slice::from_raw_parts_mut(begin.cast::<MaybeUninit<u8>>(), from.len())
    };
    py.without_gil(|| {
        let cancel = Cancel::current();
        for (to, from) in to.chunks_mut(SLICE).zip(from.chunks(SLICE)) {
            if cancel.is_cancelled() {
                break;
            }
            for (to, &from) in to.iter_mut().zip(from) {
                to.write(from);
            }
        }
        Ok(())
    })?;
    Ok(object)
}

/// A list of items that are made one after the other, unless a signal handler raises meanwhile.
pub fn list<'py, T: IntoPyObject<'py>>(
    py: Python<'py>,
    items: impl Iterator<Item = T>,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (at, item) in items.enumerate() {
        if at % 256 == 0 {
            py.check_signals()?;
        }
        list.append(item)?;
    }
    Ok(list)
}

/// What a veto is to forget: a memory, or episodes.
pub fn vetoed(memory: Option<i64>, episodes: Option<&PyReadonlyArray1<'_, i64>>) -> PyResult<Veto> {
    match (memory, episodes) {
        (Some(id), None) => Ok(Veto::Memory(id)),
        (None, Some(ids)) => Ok(Veto::Episodes(borrowed("episodes", ids)?.to_vec())),
        _ => Err(PyValueError::new_err("a veto takes a memory or episodes")),
    }
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

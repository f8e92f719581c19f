//! What went wrong, as the Python exception that a caller would expect.

use std::io;
use std::path::Path;

use pyo3::exceptions::{
    PyBlockingIOError, PyKeyError, PyKeyboardInterrupt, PyOSError, PyRuntimeError, PyValueError,
};
use pyo3::prelude::*;
use sharpwave_core::{Denied, Error};

/// "Try again later", as Linux numbers it.
const EAGAIN: i32 = 11;

pyo3::create_exception!(
    sharpwave,
    FormatError,
    PyValueError,
    "A damaged or foreign file; the message says which section."
);
pyo3::create_exception!(
    sharpwave,
    EmbedderError,
    PyValueError,
    "The store was filled by another embedder: its keys and these steps lie in different spaces."
);

/// Why a call that worked without the GIL has no result.
pub enum Failure {
    /// The core said no.
    Core(Error),
    /// The store is not to be had.
    Denied(Denied),
    /// A signal handler raised, usually `KeyboardInterrupt`.
    Interrupted(PyErr),
    /// A bug.
    Panic(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Core(error) => to_python(error),
            Failure::Denied(denied) => refused(denied),
            Failure::Interrupted(error) => error,
            Failure::Panic(message) => {
                PyRuntimeError::new_err(format!("internal error, a bug in sharpwave: {message}"))
            }
        }
    }
}

fn refused(denied: Denied) -> PyErr {
    match denied {
        Denied::Closed => PyValueError::new_err("store is closed"),
        Denied::ReadOnly => PyValueError::new_err("store was opened read-only"),
        Denied::Poisoned => PyRuntimeError::new_err(
            "an internal error broke this store off in the middle of a write: open or load it again",
        ),
        Denied::Forked => PyRuntimeError::new_err(
            "another thread was working on this store when the process was forked: load or unpickle it in the child",
        ),
        Denied::Busy => PyRuntimeError::new_err(
            "this thread is in the middle of a call on this store, which a signal handler interrupted: \
             use it when that call has returned",
        ),
        Denied::Interrupted => PyKeyboardInterrupt::new_err(()),
    }
}

/// The exception for an error of the core.
pub fn to_python(error: Error) -> PyErr {
    match error {
        Error::Unknown { .. } => PyKeyError::new_err(error.to_string()),
        Error::Embedder { .. } => EmbedderError::new_err(error.to_string()),
        Error::Format { .. } => FormatError::new_err(error.to_string()),
        Error::Io(error) => os_error(error, None),
        Error::Locked { ref path, .. } => {
            let path = path.display().to_string();
            let message = error.to_string();
            let reason = message
                .strip_prefix(&format!("{path}: "))
                .unwrap_or(&message);
            PyBlockingIOError::new_err((EAGAIN, reason.to_owned(), path))
        }
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// `to_python`, naming the file that the operating system refused.
pub fn with_path(error: Error, path: &Path) -> PyErr {
    match error {
        Error::Io(error) => os_error(error, Some(path)),
        error => to_python(error),
    }
}

/// The right subclass of `OSError`, with its errno and, where it is known, the path.
fn os_error(error: io::Error, path: Option<&Path>) -> PyErr {
    let Some(code) = error.raw_os_error() else {
        return error.into();
    };
    let message = error.to_string();
    let reason = message
        .split_once(" (os error")
        .map_or(message.as_str(), |(reason, _)| reason)
        .to_owned();
    match path {
        Some(path) => PyOSError::new_err((code, reason, path.display().to_string())),
        None => PyOSError::new_err((code, reason)),
    }
}

//! Explanations and paths as the tuples that Python unpacks into its records.

use numpy::PyArray1;
use pyo3::prelude::*;
use sharpwave_core::{Explanation, Path, Store};

use crate::convert::vector;

/// Id, φ, gain, advantage, pay, terminal, text.
pub type PayerParts = (i64, f64, f64, f64, f64, bool, Option<String>);

/// Source, target, weight, agreement.
pub type AssociationParts = (i64, i64, f64, f64);

/// Pay, support, edge, redundancy, memories, pay by channel, associations.
pub type ExplanationParts = (
    f64,
    f64,
    f64,
    f64,
    Vec<PayerParts>,
    Vec<f64>,
    Vec<AssociationParts>,
);

/// Ids, score, values, texts.
pub type PathParts<'py> = (
    Bound<'py, PyArray1<i64>>,
    f64,
    Bound<'py, PyArray1<f32>>,
    Vec<Option<String>>,
);

/// An explanation, with the texts of its memories.
pub fn explained(explanation: Explanation, store: &Store) -> ExplanationParts {
    let memories = explanation.memories.into_iter();
    let associations = explanation.associations.into_iter();
    (
        explanation.pay,
        explanation.support,
        explanation.edge,
        explanation.redundancy,
        memories
            .map(|m| {
                (
                    m.id,
                    m.phi,
                    m.gain,
                    m.advantage,
                    m.pay,
                    m.terminal,
                    text(store, m.id),
                )
            })
            .collect(),
        explanation.channels,
        associations
            .map(|a| (a.source, a.target, a.weight, a.agreement))
            .collect(),
    )
}

fn text(store: &Store, id: i64) -> Option<String> {
    given(store.text(id).map(str::to_owned))
}

/// A text that was not given is empty in the core.
pub fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// The texts along a path.
pub fn texts(path: &Path, store: &Store) -> Vec<Option<String>> {
    path.ids.iter().map(|&id| text(store, id)).collect()
}

/// A path, with the texts along it.
pub fn recalled(py: Python<'_>, path: Path, texts: Vec<Option<String>>) -> PathParts<'_> {
    (
        vector(py, path.ids),
        path.score,
        vector(py, path.values),
        texts,
    )
}

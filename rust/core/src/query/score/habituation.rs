//! Habituation: what was used by many episodes lately pays less.

use crate::error::{Error, Result, invalid_if};

/// Uses of memories by recent episodes, in a table that the caller owns: scoring stays free of state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Habituation {
    /// `(id, uses)` by rising id.
    uses: Vec<(i64, f64)>,
    eta: f64,
}

impl Habituation {
    /// A table of `(id, uses)` pairs with strength η.
    ///
    /// # Errors
    /// [`Error::Invalid`] if η or a number of uses is negative or not finite, or an id comes twice.
    pub fn new(mut uses: Vec<(i64, f64)>, eta: f64) -> Result<Self> {
        invalid_if!(
            !(eta.is_finite() && eta >= 0.0),
            "habituation",
            "eta {eta} is not ≥ 0"
        );
        uses.sort_by_key(|&(id, _)| id);
        if let Some(pair) = uses.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::invalid(
                "habituation",
                format!("memory {} comes twice", pair[0].0),
            ));
        }
        if let Some((id, n)) = uses.iter().find(|(_, n)| !(n.is_finite() && *n >= 0.0)) {
            return Err(Error::invalid(
                "habituation",
                format!("memory {id} has {n} uses"),
            ));
        }
        Ok(Self { uses, eta })
    }

    /// `1/(1 + η·uses_i)`.
    pub(crate) fn freshness(&self, id: i64) -> f64 {
        match self.uses.binary_search_by_key(&id, |&(id, _)| id) {
            Ok(at) => 1.0 / (1.0 + self.eta * self.uses[at].1),
            Err(_) => 1.0,
        }
    }
}

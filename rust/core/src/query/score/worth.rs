//! What a memory is worth under the weights of this call.

use crate::base::Slot;
use crate::error::{Error, Result, invalid_if};
use crate::store::Store;

/// Values, advantages and weights as the functionals read them.
pub(crate) struct Worth<'a> {
    store: &'a Store,
    weights: Vec<f64>,
    habituation: Option<&'a Habituation>,
}

impl<'a> Worth<'a> {
    pub(crate) fn new(
        store: &'a Store,
        weights: Option<&[f64]>,
        habituation: Option<&'a Habituation>,
    ) -> Result<Self> {
        Ok(Self {
            store,
            weights: checked_weights(store, weights)?,
            habituation,
        })
    }

    pub(crate) fn channels(&self) -> usize {
        self.weights.len()
    }

    /// `w_q`.
    pub(crate) fn weight(&self, q: usize) -> f64 {
        self.weights[q]
    }

    pub(crate) fn is_terminal(&self, slot: Slot) -> bool {
        self.store.memories.columns().terminal[slot as usize]
    }

    /// `w_q·[v_iq − b_q]⁺`: what channel `q` adds to the advantage of a memory.
    pub(crate) fn advantage(&self, slot: Slot, q: usize) -> f64 {
        let values = &self.store.values;
        let over = f64::from(values.of(slot)[q]) - f64::from(values.baseline[q]);
        self.weights[q] * over.max(0.0)
    }

    /// `Σ_q w_q a_iq`.
    pub(crate) fn total_advantage(&self, slot: Slot) -> f64 {
        (0..self.channels()).fold(0.0, |sum, q| sum + self.advantage(slot, q))
    }

    /// `v_iq`, less what habituation takes.
    pub(crate) fn value(&self, slot: Slot, q: usize) -> f64 {
        f64::from(self.store.values.of(slot)[q]) * self.freshness(slot)
    }

    /// `1/(1 + η·uses_i)`; 1 without habituation.
    pub(crate) fn freshness(&self, slot: Slot) -> f64 {
        self.habituation
            .map_or(1.0, |table| table.freshness(self.store.memories.id(slot)))
    }
}

/// The given weights, or 1/Q each.
pub(crate) fn checked_weights(store: &Store, weights: Option<&[f64]>) -> Result<Vec<f64>> {
    let channels = store.channels().len();
    let Some(weights) = weights else {
        return Ok(vec![1.0 / channels as f64; channels]);
    };
    let n = weights.len();
    let fit = n == channels;
    invalid_if!(!fit, "weights", "{n} weights for {channels} channels");
    if let Some(q) = weights.iter().position(|w| !w.is_finite()) {
        return Err(Error::invalid(
            "weights",
            format!("entry {q} is not finite"),
        ));
    }
    Ok(weights.to_vec())
}

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
        let sound = eta.is_finite() && eta >= 0.0;
        invalid_if!(!sound, "habituation", "eta {eta} is not ≥ 0");
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

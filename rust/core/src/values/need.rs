//! Need: how often a memory is expected to be visited (Mattar & Daw 2018).

use serde::{Deserialize, Serialize};

use crate::base::{HeapSize, Slot};
use crate::error::{Error, Result, invalid_if};
use crate::graph::Flow;
use crate::values::Model;

/// The weight of a memory's gain when replay chooses the next backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Recorded", try_from = "Recorded")]
pub enum Need {
    /// All memories alike.
    Uniform,
    /// `(1 + n_i)/Σ(1 + n)`: how often the memory was gone through.
    Frequency,
    /// The row of `(I − γP)^{-1}` from these memories, each equally likely.
    From(Vec<i64>),
}

/// A need as the archive writes it.
#[derive(Serialize, Deserialize)]
struct Recorded {
    need: String,
    starts: Vec<i64>,
}

impl From<Need> for Recorded {
    fn from(need: Need) -> Self {
        let (need, starts) = match need {
            Need::Uniform => ("uniform", Vec::new()),
            Need::Frequency => ("frequency", Vec::new()),
            Need::From(starts) => ("from", starts),
        };
        let need = need.into();
        Self { need, starts }
    }
}

impl TryFrom<Recorded> for Need {
    type Error = String;

    fn try_from(Recorded { need, starts }: Recorded) -> std::result::Result<Self, String> {
        match need.as_str() {
            "uniform" => Ok(Self::Uniform),
            "frequency" => Ok(Self::Frequency),
            "from" => Ok(Self::From(starts)),
            _ => Err(format!("the need {need:?} is unknown")),
        }
    }
}

impl HeapSize for Need {
    fn heap_size(&self) -> usize {
        match self {
            Self::Uniform | Self::Frequency => 0,
            Self::From(starts) => starts.heap_size(),
        }
    }
}

/// The need of every slot, computed on demand.
pub(crate) enum Needs {
    Uniform,
    /// `Σ(1 + n)`.
    Frequency(f64),
    Row(Vec<f64>),
}

impl Need {
    /// Checks that the starts are there.
    pub(crate) fn check(&self, model: Model<'_>) -> Result<()> {
        match self {
            Self::From(starts) => slots(starts, model).map(|_| ()),
            _ => Ok(()),
        }
    }

    pub(crate) fn of_slots(&self, model: Model<'_>) -> Result<Needs> {
        Ok(match self {
            Self::Uniform => Needs::Uniform,
            Self::Frequency => {
                let order = model.memories.in_order().iter();
                Needs::Frequency(order.fold(0.0, |sum, &slot| sum + frequency(slot, model)))
            }
            Self::From(starts) => Needs::Row(successor_row(&slots(starts, model)?, model)),
        })
    }
}

impl Needs {
    pub(crate) fn of(&self, slot: Slot, model: Model<'_>) -> f64 {
        match self {
            Self::Uniform => 1.0,
            Self::Frequency(total) => frequency(slot, model) / total,
            Self::Row(need) => need[slot as usize],
        }
    }
}

fn frequency(slot: Slot, model: Model<'_>) -> f64 {
    1.0 + model.graph.mass(slot)
}

fn slots(starts: &[i64], model: Model<'_>) -> Result<Vec<Slot>> {
    invalid_if!(starts.is_empty(), "need", "no start memories");
    let slot = |&id| {
        let slot = model.memories.slot(id);
        slot.ok_or_else(|| Error::unknown("memory", id))
    };
    starts.iter().map(slot).collect()
}

/// `Σ_t (γPᵀ)^t start`, until a term adds less than 1e-9. Only memories reachable from a start are visited.
fn successor_row(starts: &[Slot], model: Model<'_>) -> Vec<f64> {
    let Model {
        config,
        memories,
        graph,
    } = model;
    let mut flow = Flow::new(memories.slots());
    let share = 1.0 / starts.len() as f64;
    flow.begin(starts.iter().map(|&slot| (slot, share)), memories);
    let mut need = vec![0.0; memories.slots()];
    for (slot, weight) in flow.weights() {
        need[slot as usize] = weight;
    }
    for _ in 0..1000 {
        flow.step(std::iter::empty(), config.gamma, graph, memories);
        let mut added = 0.0;
        for (slot, weight) in flow.weights() {
            need[slot as usize] += weight;
            added += weight;
        }
        if added < 1e-9 {
            break;
        }
    }
    need
}

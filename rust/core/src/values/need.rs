//! Need: how much a memory's value will be asked for (Mattar & Daw 2018).

use crate::base::slot::Slot;
use crate::error::{Error, Result, invalid_if};
use crate::values::backup::Model;

/// What weighs a memory's gain when replay chooses the next backup.
#[derive(Clone, Debug, PartialEq)]
pub enum Need {
    /// All memories alike.
    Uniform,
    /// `(1 + n_i)/Σ(1 + n)`: how often the memory was gone through.
    Frequency,
    /// The row of `(I − γP)^{-1}` from these memories, each equally likely.
    From(Vec<i64>),
}

/// The need of every slot, worked out where it is asked for.
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

/// `Σ_t (γPᵀ)^t start`, until a term adds less than 1e-9. Only what a start leads to is touched.
fn successor_row(starts: &[Slot], model: Model<'_>) -> Vec<f64> {
    let by_id = |slots: &mut Vec<Slot>| slots.sort_unstable_by_key(|&slot| model.memories.id(slot));
    let mut now = vec![0.0; model.memories.slots()];
    let mut reached = Vec::new();
    for &slot in starts {
        if now[slot as usize] == 0.0 {
            reached.push(slot);
        }
        now[slot as usize] += 1.0 / starts.len() as f64;
    }
    let mut need = now.clone();
    let mut next = vec![0.0; now.len()];
    by_id(&mut reached);
    for _ in 0..1000 {
        let mut ahead = Vec::new();
        for &slot in &reached {
            let here = std::mem::take(&mut now[slot as usize]);
            for (successor, p) in model.graph.successors(slot) {
                let flow = model.config.gamma * here * p;
                let next = &mut next[successor as usize];
                if *next == 0.0 && flow > 0.0 {
                    ahead.push(successor);
                }
                *next += flow;
            }
        }
        by_id(&mut ahead);
        let mut added = 0.0;
        for &slot in &ahead {
            need[slot as usize] += next[slot as usize];
            added += next[slot as usize];
        }
        if added < 1e-9 {
            break;
        }
        std::mem::swap(&mut now, &mut next);
        reached = ahead;
    }
    need
}

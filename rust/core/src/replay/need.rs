//! Need: how much a memory's value will be asked for (Mattar & Daw 2018).

use crate::error::{Error, Result};
use crate::memory::Slot;
use crate::replay::backup::Model;

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

impl Need {
    /// The need of every slot.
    pub(crate) fn of_slots(&self, model: Model<'_>) -> Result<Vec<f64>> {
        let slots = model.memories.slots();
        let order = model.memories.in_order();
        match self {
            Self::Uniform => Ok(vec![1.0; slots]),
            Self::Frequency => {
                let mut need = vec![0.0; slots];
                let mut total = 0.0;
                for &slot in order {
                    need[slot as usize] = 1.0 + model.graph.mass(slot);
                    total += need[slot as usize];
                }
                for need in &mut need {
                    *need /= total;
                }
                Ok(need)
            }
            Self::From(starts) => successor_row(starts, model),
        }
    }
}

/// `Σ_t (γPᵀ)^t start`, until a term adds less than 1e-9.
fn successor_row(starts: &[i64], model: Model<'_>) -> Result<Vec<f64>> {
    if starts.is_empty() {
        return Err(Error::invalid("need", "no start memories"));
    }
    let slots = starts
        .iter()
        .map(|&id| {
            model
                .memories
                .slot(id)
                .ok_or_else(|| Error::unknown("memory", id))
        })
        .collect::<Result<Vec<Slot>>>()?;
    let mut now = vec![0.0; model.memories.slots()];
    for &slot in &slots {
        now[slot as usize] += 1.0 / slots.len() as f64;
    }
    let mut need = now.clone();
    for _ in 0..1000 {
        let mut next = vec![0.0; now.len()];
        for &slot in model.memories.in_order() {
            let here = now[slot as usize];
            if here > 0.0 {
                for (successor, p) in model.graph.successors(slot) {
                    next[successor as usize] += model.config.gamma * here * p;
                }
            }
        }
        let mut added = 0.0;
        for (need, next) in need.iter_mut().zip(&next) {
            *need += next;
            added += next;
        }
        if added < 1e-9 {
            break;
        }
        now = next;
    }
    Ok(need)
}

//! Explanations: which memories, associations and channels paid for a step.

use std::collections::BTreeMap;

use crate::base::{Slot, cancel};
use crate::error::Result;
use crate::graph::successors;
use crate::linalg;
use crate::memory::Batch;
use crate::query::score::{ScoreRequest, Scorer, check_context};
use crate::store::Store;

/// What one memory had to do with a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Payment {
    /// The memory's id.
    pub id: i64,
    /// φ.
    pub phi: f64,
    /// The part of φ that this episode had not shown before.
    pub gain: f64,
    /// `Σ_q w_q [v_iq − b_q]⁺`.
    pub advantage: f64,
    /// What it paid; 0 where the functional does not pay memory by memory.
    pub pay: f64,
    /// Whether it is a terminal.
    pub terminal: bool,
}

/// One association that predicted a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Association {
    /// The memory that answered to the step before.
    pub source: i64,
    /// The memory it led to.
    pub target: i64,
    /// `φ_i P_ij`.
    pub weight: f64,
    /// The cosine of the target's key and the step.
    pub agreement: f64,
}

/// Why one step was paid what it was paid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    /// Row in the batch.
    pub step: usize,
    /// The step's pay.
    pub pay: f64,
    /// σ.
    pub support: f64,
    /// E.
    pub edge: f64,
    /// H.
    pub redundancy: f64,
    /// The memories that answered, by falling pay, then φ.
    pub memories: Vec<Payment>,
    /// Pay by channel, in the order of the channels.
    pub channels: Vec<f64>,
    /// The strongest predictions of this step, at most eight.
    pub associations: Vec<Association>,
}

const ASSOCIATIONS: usize = 8;

pub(crate) fn explain(
    store: &Store,
    batch: &Batch,
    request: &ScoreRequest<'_>,
) -> Result<Vec<Explanation>> {
    check_context(request.context, batch)?;
    let activations = store.activate_rows(batch.rows(), request.threads)?;
    let scorer = Scorer::new(store, batch, request, &activations, request.threads)?;
    let mut explanations = Vec::with_capacity(batch.len());
    for e in 0..batch.episodes() {
        cancel::check()?;
        let trajectory = scorer.trajectory(batch, e, request.context[e], &activations);
        let mut paid: BTreeMap<(usize, Slot), f64> = BTreeMap::new();
        let mut channels = vec![vec![0.0; store.channels().len()]; trajectory.len()];
        let pay = scorer.pay(&trajectory, |payment| {
            channels[payment.step][payment.channel] += payment.amount;
            if let Some(slot) = payment.memory {
                *paid.entry((payment.step, slot)).or_default() += payment.amount;
            }
        });
        let mut shown: BTreeMap<Slot, f64> = BTreeMap::new();
        for (t, channels) in channels.into_iter().enumerate() {
            let gate = &trajectory.gates[t];
            let mut memories = Vec::new();
            for answer in &trajectory.activations[t].answers {
                let level = shown.entry(answer.slot).or_default();
                memories.push(Payment {
                    id: answer.id,
                    phi: answer.phi,
                    gain: (answer.phi - *level).max(0.0),
                    advantage: trajectory.worth.total_advantage(answer.slot),
                    pay: paid.get(&(t, answer.slot)).copied().unwrap_or(0.0),
                    terminal: trajectory.worth.is_terminal(answer.slot),
                });
                *level = level.max(answer.phi);
            }
            memories.sort_by(|a, b| {
                let phi = b.phi.total_cmp(&a.phi);
                (b.pay + 0.0)
                    .total_cmp(&(a.pay + 0.0))
                    .then(phi)
                    .then(a.id.cmp(&b.id))
            });
            let step = batch.range(e).start + t;
            explanations.push(Explanation {
                step,
                pay: pay[t],
                support: gate.support,
                edge: gate.edge,
                redundancy: gate.redundancy,
                memories,
                channels,
                associations: if t > 0 {
                    associations(store, &trajectory.activations[t - 1], batch.step(step))
                } else {
                    Vec::new()
                },
            });
        }
    }
    Ok(explanations)
}

/// The associations that said most about `x` beforehand.
fn associations(
    store: &Store,
    before: &crate::index::activation::Activation,
    x: &[f32],
) -> Vec<Association> {
    let memories = &store.memories;
    let mut found = Vec::new();
    for answer in &before.answers {
        let alone = crate::index::activation::Activation {
            support: before.support,
            answers: vec![*answer],
        };
        for (slot, weight) in successors(&alone, &store.graph, memories) {
            found.push(Association {
                source: answer.id,
                target: memories.id(slot),
                weight,
                agreement: f64::from(linalg::dot(memories.key(slot), x)),
            });
        }
    }
    found.sort_by(|a, b| {
        let said = |a: &Association| a.weight * a.agreement.max(0.0);
        said(b)
            .total_cmp(&said(a))
            .then(a.source.cmp(&b.source))
            .then(a.target.cmp(&b.target))
    });
    found.truncate(ASSOCIATIONS);
    found
}

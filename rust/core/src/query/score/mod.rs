//! Scoring: what an episode is worth, by the path it takes. Never writes to the store.

use crate::base::{Slot, threads};
use crate::error::{Result, in_range, invalid_if};
use crate::index::{Activation, pad};
use crate::memory::Batch;
use crate::store::Store;

pub(crate) mod coverage;
pub(crate) mod explain;
pub(crate) mod functional;
pub(crate) mod gates;
pub(crate) mod worth;

pub use explain::{Association, Explanation, Payment};
pub use functional::functionals;
pub use worth::Habituation;

use gates::Gate;
use worth::Worth;

/// How to score.
#[derive(Clone)]
pub struct ScoreRequest<'a> {
    /// `(Q,)`; `None` is 1/Q each. A negative weight makes a channel something to avoid.
    pub weights: Option<&'a [f64]>,
    /// The name of the functional: `"coverage"`, `"progress"`, `"potential"` or `"mean"`.
    pub functional: &'a str,
    /// How many leading steps of each episode are prompt, `(E,)`.
    pub context: &'a [usize],
    /// Memories that were used lately and pay less.
    pub habituation: Option<&'a Habituation>,
    /// γ' of `potential`: the trainer's discount.
    pub discount: f64,
    /// Return the activations too.
    pub details: bool,
    /// Threads; `None` is the default number.
    pub threads: Option<usize>,
}

/// The scores of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `(E,)`: the sum of each episode's pay.
    pub total: Vec<f32>,
    /// `(ΣT,)`: the pay per step; 0 for prompt steps.
    pub step: Vec<f32>,
    /// `(ΣT,)`: σ.
    pub support: Vec<f32>,
    /// `(ΣT,)`: E; 0 for prompt steps.
    pub edge: Vec<f32>,
    /// `(ΣT,)`: H; 1 for prompt steps.
    pub redundancy: Vec<f32>,
    /// `(ΣT, k)`: the ids of the memories that answered, padded with −1; empty without `details`.
    pub ids: Vec<i64>,
    /// `(ΣT, k)`: φ; empty without `details`.
    pub phi: Vec<f32>,
    /// `(ΣT, k)`: the cosines; empty without `details`.
    pub similarity: Vec<f32>,
}

/// One episode on its way to be paid.
pub(crate) struct Trajectory<'a> {
    /// Leading steps that set the levels and earn nothing.
    pub(crate) context: usize,
    pub(crate) activations: &'a [Activation],
    pub(crate) gates: Vec<Gate>,
    /// `(T, Q)`: what is left of each channel's pay; see [`gates::fades`].
    pub(crate) fades: Vec<f64>,
    pub(crate) worth: &'a Worth<'a>,
    pub(crate) discount: f64,
}

impl Trajectory<'_> {
    pub(crate) fn len(&self) -> usize {
        self.activations.len()
    }

    /// What is left of channel `q`'s pay at step `t`.
    pub(crate) fn fade(&self, t: usize, q: usize) -> f64 {
        self.fades[t * self.worth.channels() + q]
    }

    /// `Φ_q(x_t)`, less what habituation takes.
    pub(crate) fn phi(&self, t: usize, q: usize) -> f64 {
        let answers = self.activations[t].answers.iter();
        answers.fold(0.0, |sum, a| sum + a.phi * self.worth.value(a.slot, q))
    }

    /// The steps that earn.
    pub(crate) fn scored(&self) -> std::ops::Range<usize> {
        self.context.min(self.len())..self.len()
    }
}

/// Everything a score or an explanation of it begins with.
pub(crate) struct Scorer<'a> {
    store: &'a Store,
    functional: &'static dyn Functional,
    worth: Worth<'a>,
    /// E of every step.
    edges: Vec<f64>,
    discount: f64,
}

impl<'a> Scorer<'a> {
    pub(crate) fn new(
        store: &'a Store,
        batch: &Batch,
        request: &ScoreRequest<'a>,
        activations: &[Activation],
        threads: Option<usize>,
    ) -> Result<Self> {
        in_range("discount", request.discount, 0.0, 1.0)?;
        Ok(Self {
            store,
            functional: functional::by_name(request.functional)?,
            worth: Worth::new(store, request.weights, request.habituation)?,
            edges: gates::edge_supports(
                store,
                batch,
                request.context,
                activations,
                store.edge_range(),
                threads,
            )?,
            discount: request.discount,
        })
    }

    pub(crate) fn trajectory(
        &self,
        batch: &Batch,
        e: usize,
        context: usize,
        activations: &'a [Activation],
    ) -> Trajectory<'_> {
        let range = batch.range(e);
        Trajectory {
            context,
            activations: &activations[range.clone()],
            fades: gates::fades(self.store, &self.worth, batch, range.clone()),
            gates: gates::gates(self.store, batch, range, context, activations, &self.edges),
            worth: &self.worth,
            discount: self.discount,
        }
    }

    /// The pay of every step, and each payment on its way there.
    pub(crate) fn pay(
        &self,
        trajectory: &Trajectory<'_>,
        mut witness: impl FnMut(&Share),
    ) -> Vec<f64> {
        let mut pay = vec![0.0; trajectory.len()];
        self.functional.pay(trajectory, &mut |payment| {
            pay[payment.step] += payment.amount;
            witness(&payment);
        });
        pay
    }
}

/// Checks that `context` holds one number an episode.
pub(crate) fn check_context(context: &[usize], batch: &Batch) -> Result<()> {
    let (n, episodes) = (context.len(), batch.episodes());
    invalid_if!(
        n != episodes,
        "context",
        "{n} numbers for {episodes} episodes"
    );
    Ok(())
}

/// Scores a batch.
pub(crate) fn score(store: &Store, batch: &Batch, request: &ScoreRequest<'_>) -> Result<Scores> {
    check_context(request.context, batch)?;
    let activations = store.activate_rows(batch.rows(), request.threads)?;
    // Most of the work on a step is its edge support: k rows of associations, each a key long.
    let work = batch.len() * store.config().dim * store.config().k * 8;
    let threads = threads::worth_waking(request.threads, work);
    let scorer = Scorer::new(store, batch, request, &activations, threads)?;
    let episodes = threads::map(batch.episodes(), threads, |e| {
        let trajectory = scorer.trajectory(batch, e, request.context[e], &activations);
        let pay = scorer.pay(&trajectory, |_| ());
        (pay, trajectory.gates)
    })?;
    let mut scores = Scores::default();
    for (pay, gates) in episodes {
        scores
            .total
            .push(pay.iter().fold(0.0, |sum, pay| sum + pay) as f32);
        scores.step.extend(pay.iter().map(|&pay| pay as f32));
        scores
            .support
            .extend(gates.iter().map(|g| g.support as f32));
        scores.edge.extend(gates.iter().map(|g| g.edge as f32));
        scores
            .redundancy
            .extend(gates.iter().map(|g| g.redundancy as f32));
    }
    if request.details {
        details(&mut scores, &activations, store.config().k);
    }
    Ok(scores)
}

fn details(scores: &mut Scores, activations: &[Activation], k: usize) {
    for Activation { answers, .. } in activations {
        let (ids, phi) = (
            answers.iter().map(|a| a.id),
            answers.iter().map(|a| a.phi as f32),
        );
        let cosines = answers.iter().map(|a| a.similarity);
        pad(&mut scores.ids, k, -1, ids);
        pad(&mut scores.phi, k, 0.0, phi);
        pad(&mut scores.similarity, k, f32::NEG_INFINITY, cosines);
    }
}

/// A part of a step's pay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) step: usize,
    pub(crate) channel: usize,
    /// The memory that paid, where one did.
    pub(crate) memory: Option<Slot>,
    pub(crate) amount: f64,
}

/// Turns a trajectory into pay.
pub(crate) trait Functional: Sync {
    /// Reports every payment once, in a fixed order. A step's pay is the sum of its payments.
    fn pay(&self, trajectory: &Trajectory<'_>, payments: &mut dyn FnMut(Share));
}

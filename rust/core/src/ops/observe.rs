//! Writing an episode: gate, associate, evict, replay awake.

use std::collections::VecDeque;

use crate::archive::Operation;
use crate::base::{Cancel, Slot, cancel, threads};
use crate::error::{Error, Result, invalid_if};
use crate::graph::{hebbian, predict};
use crate::index::{Activation, MAX_WINDOW_STEPS, Nearest, Window, activate};
use crate::memory::{Batch, Episode, Episodes, normalised_rows};
use crate::ops::gate;
use crate::ops::gate::Outcome;
use crate::store::{Store, model};
use crate::values::sweep;

/// Observed scalar rewards; NaN is "not observed".
#[derive(Clone, Copy, Debug)]
pub enum Drives<'a> {
    /// `(ΣT, Qs)`: one row a step.
    Steps(&'a [f32]),
    /// `(E, Qs)`: one row an episode, credited to its last step.
    Episodes(&'a [f32]),
}

/// A batch of episodes to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation<'a> {
    /// The episodes.
    pub episodes: Episodes<'a>,
    /// What the scalar channels said.
    pub drives: Option<Drives<'a>>,
    /// `(ΣT,)` texts, kept with the memories that the steps create.
    pub texts: Option<&'a [String]>,
    /// `(E,)` ids; given out in order if absent.
    pub ids: Option<&'a [i64]>,
    /// Where the episodes come from, kept with the archive.
    pub source: Option<&'a str>,
    /// Put the episodes aside instead of writing them.
    pub propose: bool,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObserveReport {
    /// `(ΣT,)`: the memory each step went to, −1 where it went nowhere.
    pub memory_ids: Vec<i64>,
    /// `(ΣT,)`.
    pub outcomes: Vec<Outcome>,
    /// `(E,)`.
    pub episode_ids: Vec<i64>,
    /// Backups of the awake replays.
    pub backups: u64,
    /// Whether the call was cancelled; the report is of what was written.
    pub interrupted: bool,
}

/// A checked batch on its way into the store.
#[derive(Debug)]
struct Pending {
    episodes: VecDeque<Episode>,
    propose: bool,
    /// The steps of all of them, normalised, and how many of these have been searched for.
    batch: Batch,
    searched: usize,
    /// What was searched for the next episodes.
    window: Window,
}

/// A store that may be shared: what it takes to read it, and to write to it for a moment.
pub trait Access {
    /// Why it refuses; as [`Error`] where the store itself does.
    type Error: From<Error>;

    /// Reads the store, beside other readers.
    ///
    /// # Errors
    /// As `work`, or if the store is not to be had.
    fn read<T>(
        &mut self,
        work: impl FnOnce(&Store) -> Result<T>,
    ) -> std::result::Result<T, Self::Error>;

    /// Writes to the store.
    ///
    /// # Errors
    /// As `work`, or if the store is not to be had.
    fn write<T>(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<T>,
    ) -> std::result::Result<T, Self::Error>;
}

impl Access for Store {
    type Error = Error;

    fn read<T>(&mut self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        work(self)
    }

    fn write<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        work(self)
    }
}

/// Writes (or proposes) a batch, episode by episode: between two of them, and during most of the work, readers may have the
/// store. Cancelled, it ends between two episodes; [`ObserveReport::interrupted`] says so.
///
/// # Errors
/// [`Error::Invalid`] naming the argument and row; nothing is written then.
pub fn observe<A: Access>(
    store: &mut A,
    observation: &Observation<'_>,
) -> std::result::Result<ObserveReport, A::Error> {
    let mut pending = store.read(|store| store.check(observation))?;
    let mut report = ObserveReport::default();
    loop {
        // A search that is cancelled has written nothing: it only ends the batch.
        match store.read(|store| Ok(store.look_ahead(&mut pending)))? {
            Err(Error::Interrupted) => report.interrupted = true,
            searched => searched?,
        }
        if report.interrupted
            || !store.write(|store| store.observe_next(&mut pending, &mut report))?
        {
            return Ok(report);
        }
        report.interrupted = Cancel::current().is_cancelled();
    }
}

/// How many steps are searched for together: those of the first episode, and of as many more as fit a window.
fn in_one_window(lengths: impl Iterator<Item = usize>) -> usize {
    let mut steps = 0;
    for length in lengths {
        if steps > 0 && steps + length > MAX_WINDOW_STEPS {
            break;
        }
        steps += length;
    }
    steps
}

impl Store {
    /// [`observe`] of a store that nobody shares.
    ///
    /// # Errors
    /// As [`observe`].
    pub fn observe(&mut self, observation: &Observation<'_>) -> Result<ObserveReport> {
        observe(self, observation)
    }

    /// Checks a batch, to be written episode by episode: between two of them, readers may have the store.
    fn check(&self, observation: &Observation<'_>) -> Result<Pending> {
        let batch = observation.episodes.checked(self.config.dim)?;
        Ok(Pending {
            episodes: self.read_episodes(observation, &batch)?.into(),
            propose: observation.propose,
            batch,
            searched: 0,
            window: Window::default(),
        })
    }

    /// Searches for the next episodes of a checked batch, unless that is done: most of the work of writing them, and
    /// readers may have the store meanwhile.
    ///
    /// Nothing else may have written to the store since [`Store::check`].
    fn look_ahead(&self, pending: &mut Pending) -> Result<()> {
        if pending.propose || pending.window.left() > 0 {
            return Ok(());
        }
        let lengths = pending.episodes.iter().map(Episode::len);
        let rows = pending.searched..pending.searched + in_one_window(lengths);
        let steps = rows.clone().flat_map(|t| pending.batch.step(t)).copied();
        pending.window = Window::of(&self.memories, steps.collect(), self.config.k)?;
        pending.searched = rows.end;
        Ok(())
    }

    /// A window that holds the first of some recorded episodes, and as many more as belong in one.
    pub(crate) fn window<'a>(
        &self,
        episodes: impl IntoIterator<Item = &'a Episode, IntoIter: Clone>,
    ) -> Result<Window> {
        let episodes = episodes.into_iter();
        let mut left = in_one_window(episodes.clone().map(Episode::len));
        let mut steps = Vec::new();
        for episode in episodes {
            match left.checked_sub(episode.len()) {
                Some(less) => left = less,
                None => break,
            }
            steps.extend(normalised_rows("steps", &episode.steps, self.config.dim)?);
        }
        Window::of(&self.memories, steps, self.config.k)
    }

    /// Writes (or proposes) the next episode of a checked batch; `false` if there was none left.
    ///
    /// Nothing else may have written to the store since [`Store::check`].
    fn observe_next(&mut self, pending: &mut Pending, report: &mut ObserveReport) -> Result<bool> {
        cancel::check()?;
        self.look_ahead(pending)?;
        let Some(episode) = pending.episodes.pop_front() else {
            return Ok(false);
        };
        report.episode_ids.push(episode.id);
        if pending.propose {
            report.memory_ids.extend(vec![-1; episode.len()]);
            report
                .outcomes
                .extend(vec![Outcome::Proposed; episode.len()]);
            self.propose(episode)?;
        } else {
            self.observe_within(&mut pending.window, &episode, report)?;
        }
        Ok(true)
    }

    /// Cuts a checked batch into episodes, or says what is wrong with what came along with it.
    fn read_episodes(&self, observation: &Observation<'_>, batch: &Batch) -> Result<Vec<Episode>> {
        let scalars = self.scalar_count();
        let drives = self.step_rows(observation.drives, batch)?;
        if let Some(texts) = observation.texts
            && texts.len() != batch.len()
        {
            return Err(Error::invalid(
                "texts",
                format!("{} texts for {} steps", texts.len(), batch.len()),
            ));
        }
        let ids = self.episode_ids(observation.ids, batch.episodes())?;
        let dim = self.config.dim;
        let mut episodes = Vec::with_capacity(ids.len());
        for (e, id) in ids.into_iter().enumerate() {
            cancel::check()?;
            let range = batch.range(e);
            episodes.push(Episode {
                id,
                steps: observation.episodes.steps[range.start * dim..range.end * dim].to_vec(),
                drives: drives[range.start * scalars..range.end * scalars].to_vec(),
                texts: observation
                    .texts
                    .map_or_else(Vec::new, |texts| texts[range.clone()].to_vec()),
                source: observation.source.map(str::to_owned),
                positions: (0..range.len() as u32).collect(),
            });
        }
        Ok(episodes)
    }

    /// `(ΣT, Qs)` drives of every step, NaN where nothing was observed.
    fn step_rows(&self, drives: Option<Drives<'_>>, batch: &Batch) -> Result<Vec<f32>> {
        let scalars = self.scalar_count();
        let mut rows = vec![f32::NAN; batch.len() * scalars];
        let (given, expected) = match drives {
            None => return Ok(rows),
            Some(Drives::Steps(given)) => (given, batch.len()),
            Some(Drives::Episodes(given)) => (given, batch.episodes()),
        };
        invalid_if!(
            given.len() != expected * scalars,
            "drives",
            "{} numbers are not {expected} rows of {scalars} scalar channels",
            given.len()
        );
        self.check_drives(given)?;
        match drives {
            Some(Drives::Episodes(_)) => {
                for e in 0..batch.episodes() {
                    let range = batch.range(e);
                    if !range.is_empty() {
                        rows[(range.end - 1) * scalars..range.end * scalars]
                            .copy_from_slice(&given[e * scalars..(e + 1) * scalars]);
                    }
                }
            }
            _ => rows.copy_from_slice(given),
        }
        Ok(rows)
    }

    fn episode_ids(&self, given: Option<&[i64]>, episodes: usize) -> Result<Vec<i64>> {
        let Some(given) = given else {
            let none = self.next_episode.checked_add(episodes as i64).is_none();
            invalid_if!(none, "episode_ids", "no fresh ones are left: give them");
            return Ok((0..episodes as i64)
                .map(|e| self.next_episode + e)
                .collect());
        };
        let n = given.len();
        let name = "episode_ids";
        invalid_if!(n != episodes, name, "{n} ids for {episodes} episodes");
        let mut seen = std::collections::BTreeSet::new();
        for (row, &id) in given.iter().enumerate() {
            let taken =
                self.ordinals.contains_key(&id) || self.proposals.iter().any(|p| p.id == id);
            let inside = (0..i64::MAX).contains(&id);
            invalid_if!(!inside, name, "row {row} is {id}");
            invalid_if!(
                taken || !seen.insert(id),
                name,
                "row {row}: there is an episode {id} already"
            );
        }
        Ok(given.to_vec())
    }

    pub(crate) fn propose(&mut self, episode: Episode) -> Result<()> {
        self.record(|| Operation::Propose(episode.clone()))?;
        self.next_episode = self.next_episode.max(episode.id + 1);
        self.proposals.push(episode);
        Ok(())
    }

    /// Writes one episode, which has been checked.
    pub(crate) fn observe_episode(
        &mut self,
        episode: &Episode,
        report: &mut ObserveReport,
    ) -> Result<()> {
        let mut window = self.window([episode])?;
        self.observe_within(&mut window, episode, report)
    }

    /// Writes the next episode of a window.
    pub(crate) fn observe_within(
        &mut self,
        window: &mut Window,
        episode: &Episode,
        report: &mut ObserveReport,
    ) -> Result<()> {
        // Finding what is near takes long in a large store, and changes nothing: it can be cancelled. From the record on,
        // the episode is written whole.
        let (steps, mut nearest) = window.next(&self.memories, episode.len())?;
        let activations = Cancel::never().scope(|| {
            self.record(|| Operation::Observe(episode.clone()))?;
            self.admit_all(episode, &steps, &mut nearest, report)
        })?;
        window.touch(self.wire(episode, nearest, &activations, report));
        self.next_episode = self.next_episode.max(episode.id + 1);
        self.ordinals.insert(episode.id, self.clock);
        self.episode_ids.push(episode.id);
        self.clock += 1;
        Ok(())
    }

    /// The first two phases: predictions are tested and the steps pass through the gate. Returns how they answer to what is
    /// there then.
    fn admit_all(
        &mut self,
        episode: &Episode,
        steps: &[f32],
        nearest: &mut Nearest,
        report: &mut ObserveReport,
    ) -> Result<Vec<Activation>> {
        let dim = self.config.dim;
        let before = nearest.activations(&self.config);
        self.test_predictions(episode, steps, &before)?;

        let channels = self.channels.len();
        let drives = gate::step_drives(self, episode, steps);
        let surprises = if self.config.w_surprise == 0.0 {
            vec![0.0; episode.len()]
        } else {
            gate::surprises(self, episode, &drives, &before)
        };
        for (t, x) in steps.chunks_exact(dim).enumerate() {
            let drive = drives[t * channels..(t + 1) * channels]
                .iter()
                .copied()
                .reduce(f32::max)
                .map_or(0.0, f64::from);
            let closest = nearest.now(&self.memories, x, t, 1)?.first().copied();
            let admission = self.admit(episode, t, x, closest, surprises[t], drive);
            if let Some((_, slot)) = admission.memory {
                nearest.touch(slot);
            }
            report
                .memory_ids
                .push(admission.memory.map_or(-1, |(id, _)| id));
            report.outcomes.push(admission.outcome);
        }

        let nearest = &*nearest;
        // Each is compared with what the others touched.
        let threads = threads::worth_waking(None, episode.len() * steps.len());
        threads::map(episode.len(), threads, |t| {
            let x = &steps[t * dim..(t + 1) * dim];
            let hits = nearest.now(&self.memories, x, t, self.config.k)?;
            Ok(activate(&hits, &self.config))
        })?
        .into_iter()
        .collect()
    }

    /// The last two phases: associations, and the replay of what was just lived. Returns the memories that are new, moved or
    /// gone.
    fn wire(
        &mut self,
        episode: &Episode,
        nearest: Nearest,
        activations: &[Activation],
        report: &mut ObserveReport,
    ) -> Vec<Slot> {
        let follows = |t| episode.continues(t);
        let touched = hebbian::associate(
            &mut self.graph,
            &self.memories,
            activations,
            follows,
            &self.config,
        );
        for slot in touched {
            self.changed(slot);
        }

        let mut touched: Vec<Slot> = nearest.into_touched().into_iter().collect();
        touched.extend(self.evict());

        report.backups += sweep::awake(&mut self.values, model!(self), activations);
        touched
    }

    /// Tests the store's predictions on an episode it has not seen yet.
    fn test_predictions(
        &mut self,
        episode: &Episode,
        steps: &[f32],
        before: &[Activation],
    ) -> Result<()> {
        let dim = self.config.dim;
        let led_to: Vec<usize> = (1..episode.len())
            .filter(|&t| episode.continues(t - 1))
            .collect();
        let before: Vec<&Activation> = led_to.iter().map(|&t| &before[t - 1]).collect();
        let (graph, memories) = (&self.graph, &self.memories);
        let predicted = predict(&before, graph, memories, Some(1), |_, mu| {
            mu.map(<[f32]>::to_vec)
        })?;
        for (&t, mu) in led_to.iter().zip(predicted) {
            if let Some(mu) = mu {
                let came = &steps[t * dim..(t + 1) * dim];
                self.edge_statistics.count(&mu, came, &self.memories);
            }
        }
        Ok(())
    }

    /// Drops the memories of least retention `m_i·2^−⌊age/h⌋ + max_q|v_iq|` until the capacity holds, and
    /// returns where they were.
    fn evict(&mut self) -> Vec<Slot> {
        let Some(capacity) = self.config.capacity else {
            return Vec::new();
        };
        let excess = self.memories.len().saturating_sub(capacity);
        if excess == 0 {
            return Vec::new();
        }
        let mut candidates: Vec<(f64, i64, Slot)> = self
            .memories
            .ordinary()
            .map(|slot| (self.retention(slot), self.memories.id(slot), slot))
            .collect();
        candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        candidates.truncate(excess);
        let evicted: Vec<Slot> = candidates.into_iter().map(|(.., slot)| slot).collect();
        for &slot in &evicted {
            self.forget(slot);
        }
        evicted
    }

    fn retention(&self, slot: Slot) -> f64 {
        let at = slot as usize;
        let halvings = (self.clock - self.memories.columns().written[at]) / self.config.half_life;
        let mut kept = self.memories.columns().merged[at] as f64;
        for _ in 0..halvings.min(1100) {
            kept *= 0.5;
        }
        let value = self
            .values
            .of(slot)
            .iter()
            .fold(0.0f32, |most, v| most.max(v.abs()));
        kept + f64::from(value)
    }
}

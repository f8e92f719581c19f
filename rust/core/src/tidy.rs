//! Memories laid out in the order of their age, which is the order in which they lead to each other.
//!
//! What follows each other was lived at about the same time: of the orders that were tried (by age, by bandwidth, by clusters
//! of keys) sweeps are the quickest in that of age. A store that forgets gives the slots of what it forgot to what is new, and so
//! comes out of that order; a store that is opened is in it, and so is one after [`Store::tidied`]. No result depends on it.

use crate::error::Result;
use crate::interrupt;
use crate::memory::Slot;
use crate::replay::sleep::Interrupt;
use crate::store::Store;

/// Where each slot of a store goes.
pub(crate) struct Moves<'a> {
    /// The slots that were, in the order in which they will be.
    pub(crate) order: &'a [Slot],
    to: Vec<Slot>,
}

impl<'a> Moves<'a> {
    fn of(order: &'a [Slot], slots: usize) -> Self {
        let mut to = vec![Slot::MAX; slots];
        for (new, &old) in order.iter().enumerate() {
            to[old as usize] = new as Slot;
        }
        Self { order, to }
    }

    /// The new place of a live slot.
    pub(crate) fn to(&self, old: Slot) -> Slot {
        self.to[old as usize]
    }
}

impl Store {
    /// The same store, memories in the order of their age, if so many are out of it that a copy is worth its time: a
    /// quarter. `None` for one in blocks ([`Store::partition`]), which have an order of their own.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn tidied(&self, interrupt: Interrupt<'_>) -> Result<Option<Self>> {
        let order = self.memories.in_order();
        let torn = order.windows(2).filter(|pair| pair[1] != pair[0] + 1);
        if self.memories.partition().is_some() || torn.count() <= order.len() / 4 {
            return Ok(None);
        }
        let moves = Moves::of(order, self.memories.slots());
        // Whoever takes part in it on other threads asks for itself.
        let memories = self.memories.moved(&moves, interrupt)?;
        let graph = self.graph.moved(&moves, interrupt)?;
        let values = self.values.moved(&moves);
        interrupt::check()?;
        let tidy = self.around(memories, graph, values, interrupt)?;
        Ok(Some(self.remembered(tidy, interrupt)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::episodes::Episodes;
    use crate::observe::{Drives, Observation};
    use crate::rng::splitmix64;

    /// Steps of four numbers, six an episode.
    fn episode(seed: u64) -> Vec<f32> {
        let number = |at: u64| (splitmix64(seed * 24 + at) % 2001) as f32 / 1000.0 - 1.0;
        (0..24).map(number).collect()
    }

    fn live(store: &mut Store, n: u64) {
        let steps = episode(n);
        let drives: Vec<f32> = steps.iter().step_by(4).map(|x| x.abs()).collect();
        let texts: Vec<String> = (0..6).map(|t| format!("{n} {t}")).collect();
        let observation = Observation {
            episodes: Episodes {
                steps: &steps,
                offsets: &[0, 6],
            },
            drives: Some(Drives::Steps(&drives)),
            texts: Some(&texts),
            ids: None,
            source: None,
            propose: n % 7 == 3,
        };
        store.observe(&observation, &|| false).unwrap();
    }

    /// A store of 40 memories, nearly all of which took the place of others.
    fn churned() -> Store {
        let mut store = Store::new(Config {
            capacity: Some(40),
            half_life: 3,
            novelty: 0.01,
            ..Config::new(4)
        })
        .unwrap();
        store
            .add_terminal("t", &[1.0, 0.0, 0.0, 0.0], None, None)
            .unwrap();
        store.add_channel("s", 0.0, 1.0).unwrap();
        for n in 0..60 {
            live(&mut store, n);
        }
        store
    }

    #[test]
    fn a_store_in_order_is_the_same_store_also_in_what_becomes_of_it() {
        let never = || false;
        let mut store = churned();
        let mut tidy = store.tidied(&never).unwrap().expect("it is torn");
        let order = tidy.memories.in_order();
        assert!(
            order
                .iter()
                .enumerate()
                .all(|(rank, &slot)| slot as usize == rank)
        );
        assert!(tidy.tidied(&never).unwrap().is_none());
        for n in 100..120 {
            assert_eq!(store.digest(), tidy.digest());
            assert_eq!(
                store.search(&episode(n), 5, None).unwrap(),
                tidy.search(&episode(n), 5, None).unwrap()
            );
            live(&mut store, n);
            live(&mut tidy, n);
        }
        store.veto_episode(70).unwrap();
        tidy.veto_episode(70).unwrap();
        assert_eq!(store.digest(), tidy.digest());
    }
}

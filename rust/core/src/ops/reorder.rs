//! Memories laid out in the order of their age, which is the order in which they lead to each other.
//!
//! What follows each other was lived at about the same time: of the orders that were tried (by age, by bandwidth, by clusters
//! of keys) sweeps are the quickest in that of age. A store that forgets gives the slots of what it forgot to what is new, and so
//! comes out of that order; a snapshot that is read is in it, and so is a store after [`Store::reordered`]. No result depends on it.

use crate::base::cancel;
use crate::error::Result;
use crate::memory::slot_map::SlotMap;
use crate::store::Store;

impl Store {
    /// The same store, memories in the order of their age, if so many are out of it that a copy is worth its time: a
    /// quarter. `None` for one in blocks ([`Store::partition`]), which have an order of their own.
    pub(crate) fn reordered(&self) -> Result<Option<Self>> {
        let order = self.memories.in_order();
        let breaks = order.windows(2).filter(|pair| pair[1] != pair[0] + 1);
        if self.memories.partition().is_some() || breaks.count() <= order.len() / 4 {
            return Ok(None);
        }
        let map = SlotMap::of(order, self.memories.slots());
        let memories = self.memories.permuted(&map)?;
        cancel::check()?;
        let store = self.around(
            memories,
            self.graph.permuted(&map),
            self.values.permuted(&map),
        );
        Ok(Some(Self {
            proposals: self.proposals.clone(),
            history: self.history.clone(),
            checkpoints: self.checkpoints.clone(),
            ..store
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::heap::HeapSize;
    use crate::base::rng::splitmix64;
    use crate::config::Config;
    use crate::index::uses_codes;
    use crate::memory::episodes::Episodes;
    use crate::ops::observe::{Drives, Observation};

    const STEPS: usize = 6;

    /// An episode of steps of `dim` numbers.
    fn episode(dim: usize, seed: u64) -> Vec<f32> {
        let first = seed * (dim * STEPS) as u64;
        let number = |at: u64| (splitmix64(first + at) % 2001) as f32 / 1000.0 - 1.0;
        (0..(dim * STEPS) as u64).map(number).collect()
    }

    fn live(store: &mut Store, n: u64) {
        let dim = store.config().dim;
        let steps = episode(dim, n);
        let drives: Vec<f32> = steps.iter().step_by(dim).map(|x| x.abs()).collect();
        let texts: Vec<String> = (0..STEPS).map(|t| format!("{n} {t}")).collect();
        let observation = Observation {
            episodes: Episodes {
                steps: &steps,
                offsets: &[0, STEPS as i64],
            },
            drives: Some(Drives::Steps(&drives)),
            texts: Some(&texts),
            propose: n % 7 == 3,
            ..Observation::default()
        };
        store.observe(&observation).unwrap();
    }

    /// A store that lived through `episodes`, and of which most memories took the place of others.
    fn churned(dim: usize, capacity: usize, episodes: u64) -> Store {
        let mut store = Store::new(Config {
            capacity: Some(capacity),
            half_life: 3,
            min_novelty: 0.01,
            ..Config::new(dim)
        })
        .unwrap();
        let mut end = vec![0.0; dim];
        end[0] = 1.0;
        store.add_terminal("t", &end, None, None).unwrap();
        store.add_channel("s", 0.0, 1.0).unwrap();
        for n in 0..episodes {
            live(&mut store, n);
        }
        assert!(store.memories.in_order().len() > capacity / 2);
        store
    }

    /// What is in order is the same store, and so is what becomes of both.
    fn same_in_order(mut store: Store, more: std::ops::Range<u64>) {
        let dim = store.config().dim;
        let mut reordered = store.reordered().unwrap().expect("it is out of order");
        let order = reordered.memories.in_order();
        assert!(
            order
                .iter()
                .enumerate()
                .all(|(rank, &slot)| slot as usize == rank)
        );
        assert!(reordered.reordered().unwrap().is_none());
        for n in more {
            assert_eq!(store.digest(), reordered.digest());
            let asked = episode(dim, n);
            assert_eq!(
                store.search(&asked, 5, None).unwrap(),
                reordered.search(&asked, 5, None).unwrap()
            );
            live(&mut store, n);
            live(&mut reordered, n);
        }
        store.veto_episodes(vec![70]).unwrap();
        reordered.veto_episodes(vec![70]).unwrap();
        assert_eq!(store.digest(), reordered.digest());
    }

    #[test]
    fn a_store_in_order_is_the_same_store() {
        same_in_order(churned(4, 40, 80), 100..120);
    }

    #[test]
    fn so_is_one_with_codes_and_many_pages() {
        let store = churned(64, 1200, 320);
        assert_eq!(store.memories.codes().is_some(), uses_codes(64));
        let mut reordered = store.reordered().unwrap().expect("it is out of order");
        let room = reordered.memories.columns().keys.heap_size();
        live(&mut reordered, 600);
        assert_eq!(
            reordered.memories.columns().keys.heap_size(),
            room,
            "nothing is copied again"
        );
        same_in_order(store, 600..603);
    }

    #[test]
    fn it_can_be_given_up() {
        let store = churned(4, 40, 80);
        assert!(matches!(
            crate::Cancel::new(|| true).scope(|| store.reordered()),
            Err(crate::Error::Interrupted)
        ));
    }
}

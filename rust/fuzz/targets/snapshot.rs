//! Any bytes as a snapshot: refused, or a store that can be used and written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sharpwave_core::{Episodes, Observation, ReplayRequest, ScoreRequest, Store};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut store) = Store::from_bytes(bytes) else {
        return;
    };
    let again = Store::from_bytes(&store.to_bytes().unwrap()).unwrap();
    assert_eq!(again.digest(), store.digest());
    let d = store.config().dim;
    if d > 64 || store.len() > 1000 {
        return;
    }
    let steps: Vec<f32> = (0..2 * d).map(|i| 1.0 + (i % 3) as f32).collect();
    let episodes = Episodes {
        steps: &steps,
        offsets: &[0, 2],
    };
    let request = ScoreRequest {
        weights: None,
        functional: "coverage",
        context: &[1],
        habituation: None,
        discount: 1.0,
        details: true,
        threads: Some(1),
    };
    let scores = store.score(&episodes, &request).unwrap();
    assert!(scores.support.iter().all(|s| (0.0..=1.0).contains(s)));
    let _ = store.replay(
        &ReplayRequest {
            budget: Some(20),
            consolidate: true,
            ..ReplayRequest::default()
        });
    let _ = store.veto_episodes(vec![0]);
    let _ = store.observe(
        &Observation {
            episodes,
            drives: None,
            texts: None,
            ids: None,
            source: None,
            propose: false,
        });
    let _ = store.digest();
});

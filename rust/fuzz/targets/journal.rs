//! Any bytes as the records of a journal: done as far as they go, then torn or refused; what they made is a store.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sharpwave_core::{Config, Store, follow_records};

fuzz_target!(|bytes: &[u8]| {
    let mut store = Store::new(Config {
        capacity: Some(40),
        ..Config::new(4)
    })
    .unwrap();
    let _ = follow_records(&mut store, bytes);
    let again = Store::from_bytes(&store.to_bytes().unwrap()).unwrap();
    assert_eq!(again.digest(), store.digest());
});

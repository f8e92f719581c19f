//! A fixed pseudo-random sequence, where the model needs "an arbitrary one" and determinism needs
//! "always the same one".

/// `SplitMix64` (Steele, Lea & Flood 2014): a bijection of the counter that looks random.
pub(crate) fn splitmix64(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

//! The data of the benchmarks: clustered, and the same for a seed.

/// The length of a row.
pub const DIM: usize = 384;

/// Gaussian-like noise around one of 256 centres, from a counter.
pub fn rows(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    let centres: Vec<f32> = (0..256 * DIM).map(|_| next()).collect();
    (0..n)
        .flat_map(|i| {
            let centre = (i * 31) % 256 * DIM;
            (0..DIM)
                .map(|j| centres[centre + j] + 0.7 * next())
                .collect::<Vec<_>>()
        })
        .collect()
}

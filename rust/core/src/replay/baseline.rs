//! The ordinary memory, over which others have an advantage.

use crate::memory::Memories;
use crate::replay::backup::Values;

/// `b_q`: the median of `v_q` over the memories that are not terminals, 0 if there are none.
pub(crate) fn median_values(values: &Values, memories: &Memories, channels: usize) -> Vec<f32> {
    (0..channels)
        .map(|q| {
            let mut column: Vec<f32> = memories.ordinary().map(|slot| values.of(slot)[q]).collect();
            if column.is_empty() {
                return 0.0;
            }
            let middle = column.len() / 2;
            let odd = column.len() % 2 == 1;
            let (below, &mut upper, _) = column.select_nth_unstable_by(middle, f32::total_cmp);
            if odd {
                return upper;
            }
            let lower = below.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            f64::midpoint(f64::from(lower), f64::from(upper)) as f32
        })
        .collect()
}

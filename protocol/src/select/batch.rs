//! Who trains which samples: global batch size and assignment (ABI section 4).

use crate::layout::Config;
use crate::num::{product_at_most, wide_mul};

/// Samples of the global batch that begins at `data_index`: `global_batch_size_start` growing in a straight line to
/// `global_batch_size_end` over the warm-up tokens, rounded half away from zero, in exact arithmetic.
#[must_use]
pub const fn global_batch_size(config: &Config, data_index: u64, max_seq_len: u32) -> u16 {
    let (start, end) = (config.global_batch_size_start, config.global_batch_size_end);
    let warmup = config.global_batch_size_warmup_tokens;
    let (beyond, tokens) = wide_mul(data_index, max_seq_len as u64);
    if beyond != 0 || tokens >= warmup || end <= start {
        return end;
    }
    // The rounded increment is the largest q with (2q - 1) * warmup <= 2 * (end - start) * tokens.
    let growth = (end - start) as u64;
    let (mut low, mut high) = (0u64, growth);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if product_at_most(2 * middle - 1, warmup, 2 * growth, tokens) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    start + low as u16
}

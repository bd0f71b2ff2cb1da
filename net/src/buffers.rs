//! Buffers for groups of blobs, used again: fresh ones of that size come from the system each time, which has to clear them page
//! by page as they are first written.

use std::sync::{Mutex, PoisonError};

use crate::blobs::GROUP_BYTES;

/// Most buffers that wait for use: 8 MiB.
const KEPT_MAX: usize = 32;

static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer of `len` bytes to be overwritten; what is in it means nothing.
pub(crate) fn take(len: usize) -> Vec<u8> {
    if len > GROUP_BYTES as usize || len < GROUP_BYTES as usize / 2 {
        return vec![0; len];
    }
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut buffer = kept.unwrap_or_default();
    buffer.resize(len, 0);
    buffer
}

/// Takes a buffer back.
pub(crate) fn give(buffer: Vec<u8>) {
    // Only whole groups: their buffers serve for all others.
    if buffer.len() == GROUP_BYTES as usize {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_have_the_length_that_is_asked_for_whatever_they_held() {
        let group = GROUP_BYTES as usize;
        for len in [0, 1, group / 2, group - 1, group, group + 1] {
            give(vec![7; group]);
            assert_eq!(take(len).len(), len);
        }
    }

    #[test]
    fn no_more_buffers_are_kept_than_a_few() {
        (0..2 * KEPT_MAX).for_each(|_| give(vec![0; GROUP_BYTES as usize]));
        give(vec![0; 1 << 20]);
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(kept.len() <= KEPT_MAX && kept.iter().all(|buffer| buffer.len() == GROUP_BYTES as usize));
    }
}

//! Which code an input reached, where our crates were compiled with coverage counters (`fuzz/rustc.sh`).

use std::sync::{Mutex, PoisonError};

/// Start and length of each crate's counters.
static REGIONS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by every instrumented object when the program starts.
///
/// # Safety
/// The counters lie between `start` and `stop` for as long as the program runs.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let region = (start as usize, stop as usize - start as usize);
    let mut regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if !regions.contains(&region) {
        regions.push(region);
    }
}

/// Whether there are counters.
#[must_use]
pub fn is_instrumented() -> bool {
    !REGIONS.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
}

/// What was reached so far: for each counter the orders of magnitude that it had.
#[derive(Default)]
pub(crate) struct Reached {
    seen: Vec<u8>,
}

impl Reached {
    /// Takes the counters, and says whether one has a value of a new order of magnitude.
    pub(crate) fn take(&mut self) -> bool {
        let regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
        self.seen.resize(regions.iter().map(|(_, len)| len).sum(), 0);
        let (mut at, mut grew) = (0, false);
        for (start, len) in regions.iter() {
            // SAFETY: the region was registered by the program's own start-up code and lives as long as the program. Other
            // threads may count at the same time, but no campaign runs beside another one, and counts are hints.
            let counters = unsafe { std::slice::from_raw_parts_mut(*start as *mut u8, *len) };
            for counter in counters {
                if *counter != 0 {
                    let order = 1_u8 << counter.ilog2().min(7);
                    if let Some(seen) = self.seen.get_mut(at) {
                        grew |= *seen & order == 0;
                        *seen |= order;
                    }
                    *counter = 0;
                }
                at += 1;
            }
        }
        grew
    }

    /// How many counters were reached at all.
    pub(crate) fn count(&self) -> usize {
        self.seen.iter().filter(|orders| **orders != 0).count()
    }
}

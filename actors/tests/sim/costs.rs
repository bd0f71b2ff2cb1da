//! What a run costs its nodes: messages, bytes, transactions, and the processor time of the engines that decide.

use psyche_messages::SignedRoundMessage;
use psyche_net::Wire;

use super::checks::RUN_TAG;

/// What was counted, of all nodes and the whole run together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Costs {
    /// Messages that nodes published, and their bytes on the wire.
    pub published: (u64, u64),
    /// Messages that engines were told of, and their bytes; each counts once, however many peers pass it on.
    pub heard: (u64, u64),
    /// Blobs that were fetched, and their bytes: payloads and manifests.
    pub fetched: (u64, u64),
    /// Transactions that were sent.
    pub sent: u64,
    /// Readings of the account that engines were told of.
    pub states: u64,
    /// Processor time in engines, in nanoseconds.
    pub engine_ns: u64,
}

impl Costs {
    pub(crate) fn publish(&mut self, message: &SignedRoundMessage, heard_by: u64) {
        let bytes = Wire::new(RUN_TAG).encode_message(message).unwrap().len() as u64;
        self.published = (self.published.0 + 1, self.published.1 + bytes);
        self.heard = (self.heard.0 + heard_by, self.heard.1 + bytes * heard_by);
    }

    pub(crate) fn fetch(&mut self, bytes: u64) {
        self.fetched = (self.fetched.0 + 1, self.fetched.1 + bytes);
    }

    /// A line of the table, for each of `nodes` and `rounds`: messages said and heard, kB of them heard, blobs and kB fetched,
    /// transactions, readings of the account, microseconds in the engine.
    pub(crate) fn row(&self, nodes: usize, rounds: usize) -> [f64; 8] {
        let each = |total: u64| total as f64 / (nodes * rounds) as f64;
        [
            each(self.published.0),
            each(self.heard.0),
            each(self.heard.1) / 1e3,
            each(self.fetched.0),
            each(self.fetched.1) / 1e3,
            each(self.sent),
            each(self.states),
            each(self.engine_ns) / 1e3,
        ]
    }
}

/// Processor time of this thread, in nanoseconds.
pub(crate) fn thread_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime fills the structure that it is given, which lives across the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

//! Hostile input for every decoder that peers or RPC endpoints reach.
//!
//! A [`Target`] is a decoder with what must hold for every input: it does not panic, it holds memory in proportion to the
//! input, and what it accepts is the one encoding of a value. [`campaign`] replays a target's corpus and then mutates it,
//! from a seed that it reports. Mutations know the formats: lengths and signatures are put right again for most inputs, so
//! that they get past the outer checks. Where our crates are compiled with coverage counters (`make fuzz`), inputs that reach
//! new code are kept and mutated further; elsewhere a new reason of refusal counts as new.

mod allocation;
mod campaign;
mod corpus;
mod coverage;
mod ed25519;
mod mutate;
mod targets;

pub use campaign::{Budget, Finding, Report, campaign};
pub use corpus::{folder, read, save};
pub use coverage::is_instrumented;
pub use targets::{TARGETS, Target, Verdict};

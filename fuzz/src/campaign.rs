//! One target's inputs, first those that are known and then mutations of them.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::coverage::{Reached, is_instrumented};
use crate::mutate::{Random, mutate};
use crate::targets::{Target, Verdict};

/// Most inputs that are mutated further.
const POOL_MAX: usize = 4096;

/// Most reasons of refusal that are told apart.
const REASONS_MAX: usize = 256;

/// How long a campaign goes on.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Mutated inputs.
    pub runs: u64,
    /// Time, where it is bounded.
    pub time: Option<Duration>,
    /// What all randomness follows from.
    pub seed: u64,
}

/// An input that does what none may do.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The input.
    pub input: Vec<u8>,
    /// What was wrong.
    pub what: String,
}

/// What came of a campaign.
#[derive(Debug, Default)]
pub struct Report {
    /// Inputs that were tried.
    pub runs: u64,
    /// How many of them the decoder accepted.
    pub accepted: u64,
    /// Inputs that reached something new, and were not in the corpus.
    pub fresh: Vec<Vec<u8>>,
    /// Counters of coverage that were reached, of those there are.
    pub reached: usize,
    /// The first input that broke a rule; the campaign ends with it.
    pub finding: Option<Finding>,
}

#[derive(Default)]
struct Novelty {
    reached: Reached,
    reasons: HashSet<String>,
}

impl Novelty {
    fn is_new(&mut self, verdict: &Verdict) -> bool {
        if is_instrumented() {
            return self.reached.take();
        }
        let reason = match verdict {
            Verdict::Accepted => String::new(),
            // Without what came from the input.
            Verdict::Refused(reason) => {
                let kind = reason.split(['{', '`']).next().unwrap_or_default();
                kind.chars().filter(char::is_ascii_alphabetic).take(60).collect()
            }
        };
        self.reasons.len() < REASONS_MAX && self.reasons.insert(reason)
    }
}

/// Checks `corpus` and the target's own examples, then mutations of them.
#[must_use]
pub fn campaign(target: &Target, corpus: &[Vec<u8>], budget: Budget) -> Report {
    let (mut report, mut novelty, mut random) = (Report::default(), Novelty::default(), Random::new(budget.seed));
    let mut pool: Vec<Vec<u8>> = (target.examples)();
    let examples = pool.len();
    pool.extend(corpus.iter().cloned());
    for input in &pool {
        match tried(target, input, &mut report) {
            Some(verdict) => drop(novelty.is_new(&verdict)),
            None => return report,
        }
    }
    let start = Instant::now();
    for _ in 0..budget.runs {
        if budget.time.is_some_and(|time| start.elapsed() >= time) {
            break;
        }
        // What is refused early fills the pool: whole values have their turn, too.
        let bound = if random.below(3) == 0 { examples } else { pool.len() };
        let mut input = pool[random.below(bound)].clone();
        for _ in 0..=random.below(4) {
            let other = random.below(pool.len());
            mutate(&mut random, &mut input, &pool[other], target.tokens);
        }
        input.truncate(target.length_max + 1);
        if random.below(8) != 0 {
            (target.repair)(&mut input);
        }
        let Some(verdict) = tried(target, &input, &mut report) else { break };
        if novelty.is_new(&verdict) && pool.len() < POOL_MAX {
            report.fresh.push(input.clone());
            pool.push(input);
        }
    }
    report.reached = novelty.reached.count();
    report
}

/// What the target says to `input`; none if it broke a rule.
fn tried(target: &Target, input: &[u8], report: &mut Report) -> Option<Verdict> {
    report.runs += 1;
    match catch_unwind(AssertUnwindSafe(|| (target.check)(input))) {
        Ok(verdict) => {
            report.accepted += u64::from(verdict == Verdict::Accepted);
            Some(verdict)
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            report.finding = Some(Finding { input: input.to_vec(), what: text.unwrap_or_default() });
            None
        }
    }
}

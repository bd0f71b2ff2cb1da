//! Whether a node is ready, as `/readyz` says it. Pure.

use std::time::Duration;

use psyche_messages::Phase;
use serde::{Deserialize, Serialize};

use super::tally::Membership;

/// Slots without a new one after which the chain counts as unseen.
pub const CHAIN_SILENCE_SLOTS_MAX: u32 = 75;
/// How long a slot takes where nothing is wrong.
const SLOT: Duration = Duration::from_millis(400);

/// What readiness follows from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts<'a> {
    /// How long no new slot was seen, if one ever was.
    pub(super) chain_silence: Option<Duration>,
    pub(super) phase: Option<Phase>,
    pub(super) membership: Membership,
    pub(super) has_model: bool,
    /// Actors that do not run.
    pub(super) down: &'a [&'static str],
}

/// Something that keeps a node from being ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What was looked at: `chain`, `run`, `membership`, `model` or `actors`.
    pub check: String,
    /// What is wrong.
    pub problem: String,
}

/// Whether a node is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether it is.
    pub ready: bool,
    /// What it does: `starting`, `waiting`, `loading`, `training`, `paused` or `finished`.
    pub state: String,
    /// Why it is not ready.
    pub problems: Vec<Problem>,
}

pub(super) fn readiness(facts: &Facts<'_>) -> Readiness {
    let mut problems = Vec::new();
    let mut refuse = |check: &str, problem: String| problems.push(Problem { check: check.to_owned(), problem });
    match facts.chain_silence {
        None => refuse("chain", "no slot was seen yet".to_owned()),
        Some(silence) if silence > SLOT * CHAIN_SILENCE_SLOTS_MAX => {
            refuse("chain", format!("no new slot was seen for {} s", silence.as_secs()));
        }
        Some(_) => {}
    }
    if !facts.down.is_empty() {
        refuse("actors", format!("{} does not run and is about to be restarted", facts.down.join(", ")));
    }
    let Membership { member, pending } = facts.membership;
    let state = match facts.phase {
        None => {
            refuse("run", "the run's state was not seen yet".to_owned());
            "starting"
        }
        Some(Phase::Finished) => "finished",
        Some(Phase::Paused | Phase::Uninitialized) => "paused",
        Some(Phase::WaitingForMembers) if pending || member => "waiting",
        Some(_) if member && facts.has_model => "training",
        Some(_) if member => {
            refuse("model", "its parameters are not loaded yet".to_owned());
            "loading"
        }
        // It joins the epoch after this one.
        Some(_) if pending => "waiting",
        Some(_) => {
            refuse("membership", "it has not joined the run yet".to_owned());
            "starting"
        }
    };
    Readiness { ready: problems.is_empty(), state: state.to_owned(), problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: Membership = Membership { member: true, pending: false };
    const PENDING: Membership = Membership { member: false, pending: true };

    fn checks(facts: &Facts<'_>) -> (bool, String, Vec<String>) {
        let Readiness { ready, state, problems } = readiness(facts);
        (ready, state, problems.into_iter().map(|problem| problem.check).collect())
    }

    #[test]
    fn a_node_is_ready_once_it_trains_or_waits_as_it_should() {
        let fresh = Facts { chain_silence: Some(Duration::ZERO), ..Facts::default() };
        let cases = [
            (Facts::default(), false, "starting", vec!["chain", "run"]),
            (Facts { phase: Some(Phase::Paused), ..fresh }, true, "paused", vec![]),
            (Facts { phase: Some(Phase::WaitingForMembers), ..fresh }, false, "starting", vec!["membership"]),
            (Facts { phase: Some(Phase::WaitingForMembers), membership: PENDING, ..fresh }, true, "waiting", vec![]),
            (Facts { phase: Some(Phase::Warmup), membership: MEMBER, ..fresh }, false, "loading", vec!["model"]),
            (Facts { phase: Some(Phase::Warmup), membership: MEMBER, has_model: true, ..fresh }, true, "training", vec![]),
            (Facts { phase: Some(Phase::RoundTrain), membership: PENDING, ..fresh }, true, "waiting", vec![]),
            (Facts { phase: Some(Phase::RoundTrain), ..fresh }, false, "starting", vec!["membership"]),
            (Facts { phase: Some(Phase::Finished), ..fresh }, true, "finished", vec![]),
        ];
        for (facts, ready, state, wrong) in cases {
            assert_eq!(checks(&facts), (ready, state.to_owned(), wrong.into_iter().map(str::to_owned).collect()), "{facts:?}");
        }
    }

    #[test]
    fn a_node_that_sees_no_chain_or_lost_an_actor_is_not_ready() {
        let training = Facts {
            chain_silence: Some(Duration::from_secs(29)),
            phase: Some(Phase::RoundTrain),
            membership: MEMBER,
            has_model: true,
            down: &[],
        };
        assert!(readiness(&training).ready);
        let blind = Facts { chain_silence: Some(Duration::from_secs(31)), down: &["run"], ..training };
        assert_eq!(checks(&blind), (false, "training".to_owned(), vec!["chain".to_owned(), "actors".to_owned()]));
    }
}

//! Whether this machine's clock is right.

use std::time::{Duration, SystemTime};

use psyche_actors::NodeConfig;
use psyche_chain::rpc::server_time;
use tokio::task::JoinSet;

use super::{ANSWER_WITHIN, Line, impatient};

/// A clock that is off by more is told: headers have whole seconds, and answers travel for one or two.
const SKEW_MAX: Duration = Duration::from_secs(10);
/// The same where only the chain's own time is known, which strays from the world's by up to a minute.
const CHAIN_SKEW_MAX: Duration = Duration::from_secs(90);

/// Compares the local clock with those of the servers, or with the chain's where none of them tells its own.
pub(super) async fn check(config: &NodeConfig) -> Vec<Line> {
    let mut tasks = JoinSet::new();
    for url in config.endpoints.iter().filter_map(|endpoint| endpoint.rpc.clone()) {
        drop(tasks.spawn(async move { server_time(&url, ANSWER_WITHIN).await.map(|theirs| apart(SystemTime::now(), theirs)) }));
    }
    // A server whose clock is wrong must not make ours look so.
    let nearest = tasks.join_all().await.into_iter().flatten().min_by_key(|(_, apart)| *apart);
    if let Some((word, apart)) = nearest {
        return vec![judged(word, apart, SKEW_MAX, "the endpoints' clocks")];
    }
    let Ok(rpc) = impatient(config, config.endpoints.clone()) else { return Vec::new() };
    let Ok((_slot, time)) = rpc.clock().await else {
        return vec![Line::not_checked("clock", "not checked: no endpoint says what time it is")];
    };
    let theirs = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.0).unwrap_or(0));
    let (word, apart) = apart(SystemTime::now(), theirs);
    vec![judged(word, apart, CHAIN_SKEW_MAX, "the chain's time, which may stray itself")]
}

/// How far apart two clocks are, and which way.
fn apart(ours: SystemTime, theirs: SystemTime) -> (&'static str, Duration) {
    match ours.duration_since(theirs) {
        Ok(ahead) => ("ahead of", ahead),
        Err(behind) => ("behind", behind.duration()),
    }
}

/// A node takes its deadlines from the chain, so that a wrong clock is no obstacle; certificates and logs mind it.
fn judged(word: &str, apart: Duration, apart_max: Duration, whose: &str) -> Line {
    let found = format!("this clock is {} s {word} {whose}", apart.as_secs());
    if apart > apart_max {
        return Line::warning(
            "clock",
            found,
            "set it by NTP: certificates are refused by a clock that is wrong, and logs mislead",
        );
    }
    Line::fine("clock", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_clock_that_is_off_is_told_with_its_direction() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(43_200);
        for (theirs, verdict, words) in
            [(9, Verdict::Yes, "9 s behind"), (11, Verdict::Warning, "11 s behind"), (3_600, Verdict::Warning, "3600 s behind")]
        {
            let (word, apart) = apart(noon, noon + Duration::from_secs(theirs));
            let line = judged(word, apart, SKEW_MAX, "theirs");
            assert!(line.verdict == verdict && line.result.contains(words), "{line:?}");
        }
        assert_eq!(apart(noon, noon - Duration::from_secs(5)), ("ahead of", Duration::from_secs(5)));
    }
}

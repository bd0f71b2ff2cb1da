//! Waiting for the chain: progress where it takes long, and what Ctrl-C means.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, interval_at};

use crate::exit::{Exit, Failure};
use crate::output;
use crate::signals::Stop;

/// What takes longer is talked about.
const QUIET: Duration = Duration::from_secs(2);
/// How often it is talked about from then on.
const TALK_EVERY: Duration = Duration::from_secs(5);

/// What Ctrl-C does to a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnStop {
    /// Ends it: it only reads, or the same command goes on where it was stopped.
    End,
    /// Lets it end by itself: a transaction may be on its way, and who leaves does not learn what became of it.
    Finish,
}

/// Awaits `work`, which may be stopped at any time without harm. `doing` completes "still …".
pub(crate) async fn resumable<T>(doing: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    await_work(doing, work, OnStop::End).await
}

/// Awaits `work`, which sends something that must not be sent again: the first Ctrl-C waits for what was sent, the second
/// leaves.
pub(crate) async fn once<T>(doing: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    await_work(doing, work, OnStop::Finish).await
}

async fn await_work<T>(doing: &str, work: impl Future<Output = Result<T>>, on_stop: OnStop) -> Result<T> {
    let started = Instant::now();
    let mut talk = interval_at(started + QUIET, TALK_EVERY);
    let mut work = std::pin::pin!(work);
    let mut asked_to_stop = false;
    let mut stop = Stop::listen()?;
    loop {
        tokio::select! {
            done = &mut work => return done,
            _at = talk.tick() => {
                output::note(format_args!("still {doing} ({} s)", started.elapsed().as_secs()));
            }
            signal = stop.requested() => {
                if on_stop == OnStop::End {
                    let message = format!("stopped by {signal}; what was confirmed stays, and the same command goes on from there");
                    return Err(Failure::new(Exit::Interrupted, message).into());
                }
                if asked_to_stop {
                    let message = format!("left by {signal}; what was sent may still be confirmed: look before you send it again");
                    return Err(Failure::new(Exit::Interrupted, message).into());
                }
                asked_to_stop = true;
                output::note(format_args!(
                    "{signal}: waiting for what was sent, so that nothing is lost or done twice; {signal} again leaves at once"
                ));
            }
        }
    }
}

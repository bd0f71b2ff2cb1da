//! Whole providers fail.

use anyhow::{Result, ensure};

use crate::play::{Gait, Play, no_duplicates};
use crate::proxy::{Faults, Link};
use crate::record::Record;
use crate::stage::{FAST, MANY_SLOTS, Pace, STEADY, Stage};

/// A stage on which a run goes through its phases, and a node that watches it.
async fn begin(pace: Pace, gait: Gait, through_faults: bool) -> Result<(Stage, Record, Play)> {
    let stage = Stage::start(pace, 1).await?;
    let record = Record::start(&stage);
    record.connected(2).await?;
    stage.resume().await?;
    let mut play = Play::start(&stage, &record, gait, through_faults);
    play.phases(3).await?;
    Ok((stage, record, play))
}

/// The fault is over: the node is up to date within five seconds, misses nothing afterwards, and nothing was done twice.
async fn end(stage: Stage, record: Record, mut play: Play, dark: Option<(u64, u64)>) -> Result<()> {
    record.is_soon_fresh(&stage, &play).await?;
    play.phases(3).await?;
    play.go(Gait::Halt);
    let truth = play.settled().await?;
    record.sees(truth.nonce).await?;
    record.must_match(&truth, dark)?;
    no_duplicates(&stage).await?;
    drop((record, play));
    stage.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_the_primary_is_killed() -> Result<()> {
    let (stage, record, mut play) = begin(STEADY, Gait::Free, true).await?;
    stage.endpoints[0].be(Faults::link(Link::Down)).await;
    play.phases(5).await?;
    stage.endpoints[0].be(Faults::default()).await;
    end(stage, record, play, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_the_primary_hangs() -> Result<()> {
    let (stage, record, mut play) = begin(STEADY, Gait::Free, true).await?;
    stage.endpoints[0].be(Faults::link(Link::Stalled)).await;
    play.phases(5).await?;
    stage.endpoints[0].be(Faults::default()).await;
    end(stage, record, play, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_the_primary_lags_a_hundred_slots() -> Result<()> {
    let (stage, record, mut play) = begin(MANY_SLOTS, Gait::Free, true).await?;
    let recording = stage.record();
    while stage.history.depth() <= 110 {
        play.phases(1).await?;
    }
    stage.endpoints[0].be(Faults::lag(100)).await;
    play.phases(8).await?;
    ensure!(record.trouble().is_empty(), "{:?}", record.trouble());
    stage.endpoints[0].be(Faults::default()).await;
    drop(recording);
    end(stage, record, play, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_all_endpoints_are_down_for_a_minute() -> Result<()> {
    let (stage, record, mut play) = begin(FAST, Gait::Free, false).await?;
    // The run stands still while it gets dark: what was told before has arrived.
    play.go(Gait::Halt);
    record.sees(play.settled().await?.nonce).await?;
    let from = stage.slot().await?;
    stage.all(Faults::link(Link::Down)).await;
    record.connected(0).await?;
    stage.reach(from + 2).await?;
    play.go(Gait::Free);
    let before = play.truth().changes.len();
    stage.pass(60).await?;
    ensure!(play.truth().changes.len() > before + 10, "the run goes on in the dark: {:?}", play.truth());
    // And until the node is back: phases of which nobody could have known end here.
    play.go(Gait::Halt);
    play.settled().await?;
    let to = stage.slot().await?;
    stage.all(Faults::default()).await;
    record.is_soon_fresh(&stage, &play).await?;
    record.connected(2).await?;
    play.go(Gait::Free);
    play.phases(3).await?;
    end(stage, record, play, Some((from, to))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_storm_of_too_many_requests() -> Result<()> {
    let (stage, record, mut play) = begin(STEADY, Gait::Free, true).await?;
    let [first, second] = &stage.endpoints;
    for _ in 0..3 {
        first.http.be(Faults::too_many_requests(1)).await;
        play.phases(2).await?;
        second.http.be(Faults::too_many_requests(1)).await;
        stage.pass(2).await?;
        first.http.be(Faults::default()).await;
        play.phases(1).await?;
        second.http.be(Faults::default()).await;
    }
    end(stage, record, play, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_answers_and_frames_are_cut_in_the_middle() -> Result<()> {
    let (stage, record, mut play) = begin(STEADY, Gait::Free, true).await?;
    let cut = Faults { truncated: true, ..Faults::default() };
    stage.endpoints[0].be(cut).await;
    play.phases(5).await?;
    stage.endpoints[0].be(Faults::default()).await;
    end(stage, record, play, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_the_primary_is_slow() -> Result<()> {
    let (stage, record, mut play) = begin(STEADY, Gait::Free, true).await?;
    let slow = Faults { delay: std::time::Duration::from_millis(400), ..Faults::default() };
    stage.endpoints[0].be(slow).await;
    play.phases(5).await?;
    stage.endpoints[0].be(Faults::default()).await;
    end(stage, record, play, None).await
}

//! Websockets fail, while requests are answered.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::play::{Gait, Play};
use crate::proxy::{Faults, Link};
use crate::record::Record;
use crate::stage::{STEADY, Stage};

/// While no websocket tells, phases must last until a read has seen them.
async fn begin() -> Result<(Stage, Record, Play)> {
    let stage = Stage::start(STEADY, 1).await?;
    let record = Record::start(&stage);
    record.connected(2).await?;
    stage.resume().await?;
    let mut play = Play::start(&stage, &record, Gait::Seen, false);
    play.phases(3).await?;
    Ok((stage, record, play))
}

async fn end(stage: Stage, record: Record, mut play: Play) -> Result<()> {
    record.is_soon_fresh(&stage, &play).await?;
    // They tell again.
    record.connected(2).await?;
    play.go(Gait::Free);
    play.phases(3).await?;
    play.go(Gait::Halt);
    let truth = play.settled().await?;
    record.sees(truth.nonce).await?;
    record.must_match(&truth, None)?;
    drop((record, play));
    stage.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_the_sockets_are_silent_but_open() -> Result<()> {
    let (stage, record, mut play) = begin().await?;
    stage.sockets(Link::Stalled).await;
    play.phases(2).await?;
    // Only the watchdog can tell that they are dead.
    record.connected(0).await?;
    play.phases(3).await?;
    stage.sockets(Link::Up).await;
    end(stage, record, play).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_half_open_connections_are_replaced() -> Result<()> {
    let (stage, record, mut play) = begin().await?;
    let before = stage.endpoints.each_ref().map(|endpoint| endpoint.ws.connections());
    stage.sockets(Link::HalfOpen).await;
    play.phases(4).await?;
    for (endpoint, before) in stage.endpoints.iter().zip(before) {
        while endpoint.ws.connections() <= before {
            stage.pass(1).await?;
        }
    }
    stage.sockets(Link::Up).await;
    end(stage, record, play).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_the_sockets_flap_every_second() -> Result<()> {
    let (stage, record, play) = begin().await?;
    let (count, seen) = (play.truth().changes.len(), stage.endpoints[0].ws.connections());
    for _ in 0..8 {
        stage.sockets(Link::Down).await;
        stage.pass(1).await?;
        stage.sockets(Link::Up).await;
        stage.pass(1).await?;
    }
    ensure!(play.truth().changes.len() > count + 2, "the run went on: {:?}", play.truth());
    ensure!(stage.endpoints[0].ws.connections() <= seen + 16, "a socket that flaps is not asked in a tight loop");
    end(stage, record, play).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_all_sockets_are_down() -> Result<()> {
    let (stage, record, mut play) = begin().await?;
    stage.sockets(Link::Down).await;
    record.connected(0).await?;
    play.phases(6).await?;
    stage.sockets(Link::Up).await;
    end(stage, record, play).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_notifications_are_repeated_and_out_of_order() -> Result<()> {
    let (stage, record, mut play) = begin().await?;
    play.go(Gait::Free);
    stage.endpoints[0].ws.be(Faults { shuffled: true, ..Faults::default() }).await;
    stage.endpoints[1].ws.be(Faults { delay: Duration::from_millis(30), ..Faults::default() }).await;
    play.phases(8).await?;
    stage.all(Faults::default()).await;
    end(stage, record, play).await
}

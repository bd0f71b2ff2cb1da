//! The demonstrations. Each sets a network up, does to it what it is about, and waits for what must follow; whatever must hold and
//! does not is an error.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use psyche_actors::node::Drill;
use psyche_actors::trainer::ApplyResults;
use psyche_gpu::worker::ApplyPlan;
use psyche_messages::events::ModelSource;
use psyche_messages::{Address, BlobHash, Epoch, NodeEvent, ResultAnnounced, RoundMessage, Step};
use psyche_net::{NetHandle, Wire};

use super::journal::{Journal, held};
use super::play::{Play, Setting};

/// A node that is altered, or differs, is back within so many rounds.
const BACK_WITHIN: u32 = 2;

/// Nodes are processes. One starts when the others are in their second epoch; then another one is killed and started again.
///
/// # Errors
/// If anything else happens than must.
pub(crate) fn late_and_killed(program: &Path, folder: &Path, out: &mut dyn Write) -> Result<()> {
    let mut play = Play::new(program, folder, Setting { nodes: 4, first: 3, epoch_s: 64 }, out)?;
    for node in 1..=3 {
        play.start_process(node)?;
    }
    late(&mut play, 4)?;
    killed(&mut play, 3)?;
    let differ = play.journal.contradictions(&[1, 2, 3, 4]);
    ensure!(differ.is_empty(), "parameters differ after steps {differ:?}");
    play.journal.say("after every step all nodes that had it had the same parameters")?;
    play.end();
    Ok(())
}

fn applied(event: &NodeEvent) -> Option<(Epoch, Step)> {
    if let NodeEvent::StepApplied { epoch, step, .. } = event { Some((*epoch, *step)) } else { None }
}

fn late(play: &mut Play, node: usize) -> Result<()> {
    play.until("three steps of a later epoch are applied", |journal| {
        let applied: Vec<_> = journal.of(1).iter().filter_map(applied).collect();
        let later = |last: &(Epoch, Step)| applied[0].0 < last.0 && applied.iter().filter(|(at, _)| *at == last.0).count() >= 3;
        applied.last().is_some_and(later)
    })?;
    play.journal.say(&format!("node {node} starts for the first time, in the middle of an epoch"))?;
    play.start_process(node)?;
    play.until(&format!("node {node} is current"), |journal| replays(journal.of(node)) > 0 && journal.agree(1, node))?;
    let (step, digest) = play.journal.holds(node).context("it holds no parameters")?;
    let said = play.journal.of(node);
    let loaded = said
        .iter()
        .filter_map(|event| if let NodeEvent::ModelReady { step, source, .. } = event { Some((*step, *source)) } else { None });
    let loaded: Vec<_> = loaded.collect();
    ensure!(matches!(loaded[..], [(_, ModelSource::Peers)]), "it loaded {loaded:?} instead of one snapshot");
    let count = replays(said);
    play.journal.say(&format!(
        "node {node} loaded the snapshot after step {}, took {count} steps from update logs, and has the parameters {} after step {step}, as node 1",
        loaded[0].0,
        digest.short()
    ))?;
    play.until(&format!("node {node} trains"), |journal| trained_after(journal.of(node), step))
}

/// The epoch in which node 1 is.
fn epoch_at(journal: &Journal) -> Option<Epoch> {
    let epoch = |event: &NodeEvent| if let NodeEvent::PhaseChanged { epoch, .. } = event { Some(*epoch) } else { None };
    journal.of(1).iter().rev().find_map(epoch)
}

/// How many steps a node took from update logs.
fn replays(events: &[NodeEvent]) -> u32 {
    let steps =
        |event: &NodeEvent| if let NodeEvent::UpdatesReplayed { from, to, .. } = event { to.since(*from) + 1 } else { 0 };
    events.iter().map(steps).sum()
}

fn trained_after(events: &[NodeEvent], step: Step) -> bool {
    events.iter().any(|event| matches!(event, NodeEvent::StepTrained { step: trained, .. } if *trained > step))
}

fn killed(play: &mut Play, node: usize) -> Result<()> {
    let (before, _) = play.journal.holds(node).context("it holds no parameters")?;
    play.until(&format!("node {node} trains"), |journal| trained_after(journal.of(node), before))?;
    play.kill(node)?;
    let said = play.journal.of(node).len();
    let (last, _) = play.journal.holds(node).context("it holds no parameters")?;
    play.journal.say(&format!("node {node} is killed (SIGKILL); its parameters contained step {last}"))?;
    let epoch = epoch_at(&play.journal);
    play.until("the others go on", |journal| journal.holds(1).is_some_and(|(step, _)| step > last))?;
    play.journal.say(&format!("node {node} starts again"))?;
    play.start_process(node)?;
    let back =
        move |journal: &Journal| journal.agree(1, node) && journal.of(node)[said..].iter().filter_map(applied).count() > 0;
    play.until(&format!("node {node} is current again"), back)?;
    let (step, digest) = play.journal.holds(node).context("it holds no parameters")?;
    let again = &play.journal.of(node)[said..];
    let source = |event: &NodeEvent| if let NodeEvent::ModelReady { source, .. } = event { Some(*source) } else { None };
    let source = again.iter().find_map(source).context("it loaded no parameters")?;
    // Only an epoch's end that it missed leaves something newer.
    let newest = source == ModelSource::Disk || epoch_at(&play.journal) > epoch;
    ensure!(newest, "it went on from {source:?} instead of its own disk");
    let count = replays(again);
    play.journal.say(&format!(
        "node {node} went on from {}, took {count} steps from update logs, and has the parameters {} after step {step}, as node 1",
        if source == ModelSource::Disk { "its own disk" } else { "a newer snapshot of its peers" },
        digest.short()
    ))?;
    play.until(&format!("node {node} trains again"), |journal| trained_after(&journal.of(node)[said..], last))
}

/// Nodes are inside of this process. The parameters of one of them are altered while it runs.
///
/// # Errors
/// If anything else happens than must.
pub(crate) fn altered(program: &Path, folder: &Path, out: &mut dyn Write) -> Result<()> {
    let mut play = Play::new(program, folder, Setting { nodes: 3, first: 3, epoch_s: 480 }, out)?;
    for node in 1..=3 {
        play.start_inside(node, None)?;
    }
    let begun = |journal: &Journal| (1..=3).all(|node| journal.of(node).iter().filter_map(applied).count() >= 3);
    play.until("every node has applied three steps", begun)?;
    let said = play.journal.of(3).len();
    alter(&play, 3)?;
    play.journal.say("every parameter of node 3 loses a millionth of itself")?;
    let wrong = move |journal: &Journal| wrong_at(journal, 3, said);
    play.until("node 3 has other parameters than node 1", move |journal| wrong(journal).is_some())?;
    let (at, step) = wrong(&play.journal).context("it has the same parameters")?;
    let right = move |journal: &Journal| {
        let later = journal.of(3).iter().enumerate().skip(at + 1);
        let mut held = later.filter_map(|(at, event)| Some((at, held(event)?)));
        held.find(|(_, (after, digest))| *after >= step && journal.digest(1, *after) == Some(*digest))
    };
    play.until("node 3 has the same parameters again", move |journal| right(journal).is_some())?;
    let (back, (after, digest)) = right(&play.journal).context("it has other parameters")?;
    let said = &play.journal.of(3)[at..back];
    let noticed = said.iter().any(|event| matches!(event, NodeEvent::DigestCompared { equal: false, .. }));
    ensure!(noticed, "it did not notice by the members' digests");
    let rounds = round(&play.journal, back).since(round(&play.journal, at));
    ensure!(rounds <= BACK_WITHIN, "it took {rounds} rounds");
    play.journal.say(&format!(
        "node 3 differed after step {step} and noticed it by the members' digests; {} it has the parameters {} after step {after}, as node 1",
        ["within the same round", "one round later", "two rounds later"][rounds.min(BACK_WITHIN) as usize],
        digest.short()
    ))?;
    let trains_on = move |journal: &Journal| journal.of(3)[back..].iter().filter_map(applied).any(|(_, on)| on > after);
    play.until("node 3 goes on", move |journal| trains_on(journal) && trained_after(&journal.of(3)[back..], after))?;
    play.until("node 3 is where node 1 is", |journal| journal.agree(1, 3))?;
    let (after, digest) = play.journal.holds(3).context("it holds no parameters")?;
    play.journal.say(&format!("node 3 trains on, and has the parameters {} after step {after}, as node 1", digest.short()))?;
    let differ = play.journal.contradictions(&[1, 2]);
    ensure!(differ.is_empty(), "the other nodes' parameters differ after steps {differ:?}");
    play.end();
    Ok(())
}

/// Applies a step without results and a weight decay of a millionth, as no other node does.
fn alter(play: &Play, node: usize) -> Result<()> {
    let (inside, runtime) = play.inside(node)?;
    let plan = Arc::new(ApplyPlan { step: 0, lr: 1.0, weight_decay: 1e-6, payloads: Arc::default() });
    for trainer in inside.actors().trainers.iter() {
        let altered = runtime.block_on(trainer.ask(ApplyResults(Arc::clone(&plan))));
        altered.context("failed to reach the trainer")?.context("failed to alter the parameters")?;
    }
    Ok(())
}

/// The first event of a node, from the one at `from` on, that tells of other parameters than node 1 has, and after which step.
fn wrong_at(journal: &Journal, node: usize, from: usize) -> Option<(usize, Step)> {
    let events = journal.of(node).iter().enumerate().skip(from);
    let mut held = events.filter_map(|(at, event)| Some((at, held(event)?)));
    let (at, (step, _)) = held.find(|(_, (step, digest))| journal.digest(1, *step).is_some_and(|right| right != *digest))?;
    Some((at, step))
}

/// The round in work when node 3 told of the event at `at`.
fn round(journal: &Journal, at: usize) -> Step {
    let step = |event: &NodeEvent| if let NodeEvent::PhaseChanged { step, .. } = event { Some(*step) } else { None };
    journal.of(3)[..=at].iter().rev().find_map(step).unwrap_or_default()
}

/// Nodes are inside of this process. The fourth one trains as all others do, but signs something else: in every other round the
/// name of random bytes, and in the rounds between a length that no payload has.
///
/// # Errors
/// If anything else happens than must.
pub(crate) fn liar(program: &Path, folder: &Path, out: &mut dyn Write) -> Result<()> {
    let mut play = Play::new(program, folder, Setting { nodes: 4, first: 4, epoch_s: 480 }, out)?;
    for node in 1..=3 {
        play.start_inside(node, None)?;
    }
    let lies = Drill::new(|net, message| Box::pin(lie(net, message)));
    play.start_inside(4, Some(lies))?;
    play.journal.say("node 4 will sign results that are not what it trains")?;
    let clients = |event: &NodeEvent| if let NodeEvent::PhaseChanged { clients, .. } = event { Some(*clients) } else { None };
    let clients = move |journal: &Journal| journal.of(1).iter().rev().find_map(clients);
    play.until("all four are clients", move |journal| clients(journal) == Some(4))?;
    play.until("the liar is no client any more", move |journal| clients(journal) == Some(3))?;
    play.journal.say("node 4 is no client of the epoch any more: the others have reported that no result of its is sound")?;
    let (dropped, _) = play.journal.holds(1).context("node 1 holds no parameters")?;
    play.until("the others go on", |journal| journal.holds(1).is_some_and(|(step, _)| step.since(dropped) >= 4))?;
    let lied: Vec<Step> = play.journal.of(4).iter().filter_map(trained).collect();
    ensure!(!lied.is_empty(), "the liar has told no lie");
    let liar = play.inside(4)?.0.address();
    for node in 1..=3 {
        let malformed =
            |event: &NodeEvent| matches!(event, NodeEvent::Warning { message } if message.ends_with("is malformed"));
        ensure!(play.journal.of(node).iter().any(malformed), "node {node} has not found the lie out");
        let results = results_of(&play, node)?;
        let of_liar = results.values().flatten().filter(|trainer| **trainer == liar).count();
        ensure!(of_liar == 0, "node {node} applied {of_liar} results of the liar");
        let beside = lied.iter().filter_map(|step| results.get(step)).map(Vec::len).sum::<usize>();
        ensure!(beside > 0, "node {node} applied nothing in the rounds in which the liar lied: {lied:?}");
        play.journal.say(&format!(
            "the update log of node {node}: {} results in {} steps, of node 4 none; {beside} results in the {} rounds in which it lied",
            results.values().map(Vec::len).sum::<usize>(),
            results.len(),
            lied.len()
        ))?;
    }
    let differ = play.journal.contradictions(&[1, 2, 3]);
    ensure!(differ.is_empty(), "parameters differ after steps {differ:?}");
    play.end();
    Ok(())
}

fn trained(event: &NodeEvent) -> Option<Step> {
    if let NodeEvent::StepTrained { step, .. } = event { Some(*step) } else { None }
}

/// What the liar says instead of `message`.
async fn lie(net: NetHandle, message: RoundMessage) -> RoundMessage {
    let RoundMessage::Result(honest) = message else { return message };
    if honest.round.step.0.is_multiple_of(2) {
        return RoundMessage::Result(ResultAnnounced { payload_len: honest.payload_len + 1, ..honest });
    }
    let noise: Vec<u8> =
        (0..honest.payload_len).map(|at| (at ^ honest.round.step.0).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    match net.put(noise).await {
        Ok(payload) => {
            net.blobs().tag(&payload, honest.round);
            RoundMessage::Result(ResultAnnounced { payload, ..honest })
        }
        // Its store is full or gone: it announces what nobody can have.
        Err(_) => RoundMessage::Result(ResultAnnounced { payload: BlobHash([7; 32]), ..honest }),
    }
}

/// Whose results a node applied in each step, from its update log on disk.
fn results_of(play: &Play, node: usize) -> Result<BTreeMap<Step, Vec<Address>>> {
    let folder = play.stage.data(node).join("updates");
    let mut results = BTreeMap::new();
    for run in std::fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))? {
        let run = run.context("failed to read a folder")?.path();
        let account =
            run.file_name().and_then(|name| name.to_str()?.parse().ok()).context("a folder is named after no account")?;
        for page in std::fs::read_dir(&run).with_context(|| format!("failed to read {}", run.display()))? {
            let path = page.context("failed to read a folder")?.path();
            // A page that is being written has another name.
            if path.extension().is_none_or(|extension| extension != "page") {
                continue;
            }
            let bytes = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
            let page = Wire::new(account).decode_updates(&bytes).context("failed to read a page of an update log")?;
            for step in page.steps {
                results.insert(step.round.step, step.results.iter().map(|result| result.trainer).collect());
            }
        }
    }
    Ok(results)
}

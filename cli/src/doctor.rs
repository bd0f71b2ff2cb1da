//! `doctor`: everything that would keep a node from training, or get in its way, checked before it joins.
//!
//! One module for each topic. What a node refuses at its start is said in that refusal's words, since both ask the same
//! functions. Checks run at once where none needs another's result, and the whole has an end.

pub(crate) mod choose;
mod clock;
mod devices;
mod disk;
mod endpoints;
mod join;
pub(crate) mod port;
mod report;
mod settings;

use std::time::Duration;

use psyche_actors::config::ConfigError;
use psyche_actors::node::plan_of;
use psyche_actors::{NodeConfig, NodeError};
use psyche_chain::{CoordinatorView, EndpointPair, Rpc, RpcConfig, RunInfo};
use psyche_gpu::memory::RankMemory;
use tokio::time::{Instant, timeout_at};

pub(crate) use report::{Line, Report, Verdict};
pub(crate) use settings::{Settings, node_exit, variables};

use crate::exit::Exit;

/// How long everything may take.
const ALL_WITHIN: Duration = Duration::from_secs(20);
/// How long one question to an endpoint may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// What is not looked at where the configuration can't be read.
const NEED_CONFIGURATION: [&str; 9] = ["rpc", "websocket", "clock", "run", "devices", "memory", "disk", "port", "nat"];

/// A run as it was found.
struct Found {
    run: RunInfo,
    view: CoordinatorView,
}

/// Looks at everything.
pub(crate) async fn examine(settings: Result<Settings, ConfigError>) -> Report {
    let mut report = Report::default();
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            report.lines.extend(settings::violations(&error));
            let missing = "not checked: the configuration cannot be used";
            report.lines.extend(NEED_CONFIGURATION.map(|check| Line::not_checked(check, missing)));
            return report;
        }
    };
    let mut config = settings.config;
    report.wallet = Some(config.wallet.address());
    report.lines.extend(settings::usable(&config));
    let deadline = Instant::now() + ALL_WITHIN;
    let machine = tokio::task::spawn_blocking({
        let config = config.clone();
        move || devices::look(&config)
    });
    let (rpc, websockets, clock, run, machine) = tokio::join!(
        bounded("rpc", deadline, endpoints::rpc(&config)),
        bounded("websocket", deadline, endpoints::websockets(&config)),
        bounded("clock", deadline, async { (clock::check(&config).await, ()) }),
        bounded("run", deadline, join::check(&config, settings.run_named)),
        bounded("devices", deadline, async {
            match machine.await {
                Ok((lines, seen)) => (lines, Some(seen)),
                Err(_panicked) => (vec![Line::not_checked("devices", "not checked: looking at them failed")], None),
            }
        }),
    );
    report.lines.extend(rpc.0.into_iter().chain(websockets.0).chain(clock.0).chain(run.0).chain(machine.0));
    let (chosen, found) = run.1.unwrap_or_default();
    if let Some(run_id) = chosen {
        report.run_id = Some(run_id.clone());
        config.run_id = run_id;
    }
    let seen = machine.1.flatten().flatten();
    let plan = found.as_ref().map(|found| plan_of(&config, &found.view.account, found.run.account));
    let (lines, needs) = devices::model(&config, plan.as_ref(), seen.as_ref());
    report.lines.extend(lines);
    let plan = plan.and_then(Result::ok);
    let (lines, folder_is_ours) = disk::check(&config, found.as_ref(), plan.as_ref(), &needs);
    report.lines.extend(lines);
    let port = port::check(&config);
    let may_listen = folder_is_ours && port.verdict == Verdict::Yes;
    report.lines.push(port);
    let run = found.as_ref().map(|found| found.run.account).filter(|_| may_listen);
    report.lines.extend(bounded("nat", deadline, async { (port::nat(&config, run).await, ()) }).await.0);
    report
}

/// What `work` found, or that it took too long.
async fn bounded<T>(check: &'static str, until: Instant, work: impl Future<Output = (Vec<Line>, T)>) -> (Vec<Line>, Option<T>) {
    match timeout_at(until, work).await {
        Ok((lines, found)) => (lines, Some(found)),
        Err(_elapsed) => {
            let words = format!("not checked: no result within {} s", ALL_WITHIN.as_secs());
            let line = match check {
                "run" | "rpc" => Line::unknown(check, Exit::Unreachable, words),
                _ => Line::not_checked(check, words),
            };
            (vec![line], None)
        }
    }
}

/// Talks to `endpoints` alone, and gives up soon.
fn impatient(config: &NodeConfig, endpoints: Vec<EndpointPair>) -> Result<Rpc, psyche_chain::ChainError> {
    let mut impatient = RpcConfig::new(endpoints);
    impatient.programs = config.programs;
    impatient.connect_timeout = ANSWER_WITHIN;
    impatient.request_timeout = ANSWER_WITHIN;
    impatient.call_timeout = 2 * ANSWER_WITHIN;
    Rpc::new(impatient)
}

/// A refusal of a node's as a line, in the same words.
fn refused(check: &'static str, error: &NodeError) -> Line {
    let (exit, sentence) = (node_exit(error).unwrap_or(Exit::Failure), psyche_actors::chain_of(error));
    Line::refused(check, exit, &format!("failed to {sentence}"))
}

/// What all ranks copy for one snapshot, in bytes.
fn snapshot_bytes(needs: &[RankMemory]) -> u64 {
    needs.iter().map(RankMemory::snapshot_copy).sum()
}

/// Bytes as people read them.
fn gib(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10 + (1 << 29)) >> 30;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

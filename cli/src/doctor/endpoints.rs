//! The RPC endpoints and websockets, each by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use psyche_actors::NodeConfig;
use psyche_actors::node::checks;
use psyche_chain::watch::{WebsocketFault, WebsocketProbe, probe_websocket};
use psyche_chain::{ChainError, EndpointPair, Rpc};
use psyche_messages::Slot;
use tokio::task::JoinSet;

use super::{ANSWER_WITHIN, Line, impatient, refused};
use crate::exit::Exit;

/// Slots behind the best endpoint that are worth telling: about ten seconds.
const LAG_MAX: u64 = 25;
/// Answers that take longer cost a node its steps.
const SLOW: Duration = Duration::from_secs(1);

/// What an endpoint that works said.
struct Answer {
    genesis: String,
    /// Its slot, and how long it took to tell.
    slot: Result<(Slot, Duration), ChainError>,
}

/// The variables of the pairs, with their hosts; nothing else of a URL is shown.
fn name(config: &NodeConfig, pair: usize, prefix: &str, host: &impl std::fmt::Display) -> String {
    let variable = config.endpoint_names.get(pair).map_or("RPC", String::as_str);
    let variable = variable.strip_prefix("WS_").unwrap_or(variable);
    format!("{prefix}{variable} ({host})")
}

/// A line for each JSON-RPC server: reach, cluster, latency, slot lag, rate limit.
pub(super) async fn rpc(config: &NodeConfig) -> (Vec<Line>, ()) {
    let mut tasks = JoinSet::new();
    for (pair, endpoint) in config.endpoints.iter().enumerate() {
        let Some(url) = &endpoint.rpc else { continue };
        let rpc = impatient(config, vec![EndpointPair::of_rpc(url.clone())]);
        drop(tasks.spawn(async move { (pair, ask(rpc).await) }));
    }
    let answers: BTreeMap<usize, Result<Answer, ChainError>> = tasks.join_all().await.into_iter().collect();
    let good = || answers.values().filter_map(|answer| answer.as_ref().ok());
    let slots = good().filter_map(|answer| answer.slot.as_ref().ok());
    let best = slots.map(|(slot, _)| *slot).max();
    let lines = answers.iter().map(|(pair, answer)| {
        let host = config.endpoints.get(*pair).map(ToString::to_string).unwrap_or_default();
        let name = name(config, *pair, "", &host);
        match answer.as_ref().and_then(|answer| answer.slot.as_ref()) {
            Ok((slot, latency)) => works(&name, *slot, *latency, best.unwrap_or(*slot)),
            Err(error) => fails(&name, error, best.is_some()),
        }
    });
    let mut lines: Vec<Line> = lines.collect();
    let first = good().next().map(|answer| answer.genesis.clone());
    if good().any(|answer| Some(&answer.genesis) != first.as_ref()) {
        let mixed = match impatient(config, config.endpoints.clone()) {
            Ok(rpc) => checks::one_cluster(&rpc, config).await,
            Err(error) => Err(error.into()),
        };
        lines.extend(mixed.err().map(|error| refused("cluster", &error)));
    } else if let Some(genesis) = first {
        lines.push(Line::fine("cluster", format!("all endpoints that answer are on {}", network(&genesis))));
    }
    (lines, ())
}

async fn ask(rpc: Result<Rpc, ChainError>) -> Result<Answer, ChainError> {
    let rpc = rpc?;
    let genesis = rpc.genesis_hash().await?;
    let started = Instant::now();
    let slot = rpc.clock().await.map(|(slot, _time)| (slot, started.elapsed()));
    Ok(Answer { genesis, slot })
}

fn works(name: &str, slot: Slot, latency: Duration, best: Slot) -> Line {
    let lag = best.0.saturating_sub(slot.0);
    let millis = latency.as_millis();
    let found = format!("{name} answers in {millis} ms at slot {slot}, {lag} behind the best; no rate limit met");
    if lag > LAG_MAX {
        return Line::warning("rpc", found, "it lags: name another provider first");
    }
    if latency > SLOW {
        return Line::warning("rpc", found, "it is slow: name one that is nearer first");
    }
    Line::fine("rpc", found)
}

fn fails(name: &str, error: &ChainError, others_work: bool) -> Line {
    let limited = matches!(error, ChainError::Http { status: 429, .. });
    let (result, remedy) = if limited {
        (format!("{name} takes no more requests for now"), "wait, or name another provider as RPC_2")
    } else {
        let cause = psyche_actors::chain_of(error);
        (format!("{name} is of no use: failed to {cause}"), "check the URL, or name another provider as RPC_2")
    };
    if others_work { Line::warning("rpc", result, remedy) } else { Line::failed("rpc", Exit::Unreachable, result, remedy) }
}

/// Networks by their genesis hashes.
fn network(genesis: &str) -> String {
    match genesis {
        "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d" => "mainnet-beta".to_owned(),
        "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG" => "devnet".to_owned(),
        other => format!("the network with the genesis hash {other}"),
    }
}

/// A line for each websocket: subscribing, and the first notification.
pub(super) async fn websockets(config: &NodeConfig) -> (Vec<Line>, ()) {
    let mut tasks = JoinSet::new();
    for (pair, endpoint) in config.endpoints.iter().enumerate() {
        let Some(url) = endpoint.ws.clone() else { continue };
        let name = name(config, pair, "WS_", &url);
        drop(tasks.spawn(async move { (pair, name, probe_websocket(&url, ANSWER_WITHIN).await) }));
    }
    if tasks.is_empty() {
        let result = "no websocket is set: the run is followed by polling, which is slower and costs requests";
        return (vec![Line::warning("websocket", result, "set WS_RPC")], ());
    }
    let mut found = tasks.join_all().await;
    found.sort_by_key(|(pair, _, _)| *pair);
    (found.iter().map(|(_, name, probe)| websocket(name, *probe)).collect(), ())
}

/// A node without a websocket polls, so that none of this is in its way.
fn websocket(name: &str, probe: Result<WebsocketProbe, WebsocketFault>) -> Line {
    match probe {
        Ok(WebsocketProbe { subscribed_after, notified_after, slot }) => Line::fine(
            "websocket",
            format!(
                "{name} subscribed in {} ms, told slot {slot} {} ms later",
                subscribed_after.as_millis(),
                notified_after.as_millis()
            ),
        ),
        Err(fault) => {
            let result = format!("{name} is of no use: failed to {fault} within {} s", ANSWER_WITHIN.as_secs());
            Line::warning(
                "websocket",
                result,
                "check the URL, or name another provider's as WS_RPC_2; until then the run is polled",
            )
        }
    }
}

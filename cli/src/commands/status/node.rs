//! Asks a running node.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use psyche_actors::telemetry::{ADDRESS_FILE, METRICS_BIND_DEFAULT, NodeReport, OFF};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::printable;
use crate::exit::{Exit, Failure};

/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// What an address file may hold.
const ADDRESS_BYTES_MAX: usize = 64;
/// Where a node keeps its data unless it is told otherwise.
const DATA_DIR_DEFAULT: &str = "psyche-data";

/// Where the node is asked.
pub(super) fn address(named: Option<&str>, data_dir: Option<&Path>) -> Result<String> {
    let noted = std::fs::read_to_string(data_dir.unwrap_or(Path::new(DATA_DIR_DEFAULT)).join(ADDRESS_FILE)).ok();
    let noted = noted.map(|text| text.trim().to_owned()).filter(|text| text.len() <= ADDRESS_BYTES_MAX);
    // A port that the system chose is known from the note alone.
    let named = named.map(str::trim).filter(|named| !named.ends_with(":0")).map(str::to_owned);
    let address = named.or(noted).unwrap_or_else(|| METRICS_BIND_DEFAULT.to_string());
    if address == OFF {
        let message = "the node serves no status: METRICS_BIND is off, or its address was taken; set it to a free address and \
                       start the node again, or look at the run with --run-id or at the event log with --replay";
        return Err(Failure::new(Exit::Unreachable, message).into());
    }
    Ok(reachable(&address))
}

/// The loopback address for one that only says "every interface".
fn reachable(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(mut parsed) if parsed.ip().is_unspecified() => {
            parsed.set_ip(match parsed.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
            parsed.to_string()
        }
        _ => address.to_owned(),
    }
}

/// The node's report.
pub(super) async fn ask(address: &str) -> Result<NodeReport> {
    let failed = |problem: String| {
        let message = format!(
            "failed to ask the node at {address}: {problem}; start it with train, or name its address with --node or its data \
             folder with --data-dir (--run-id looks at a run on chain instead)"
        );
        anyhow::Error::from(Failure::new(Exit::Unreachable, message))
    };
    let answer = match tokio::time::timeout(TIMEOUT, get(address)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no answer within {} s", TIMEOUT.as_secs()))),
    };
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| failed("it speaks no HTTP".to_owned()))?;
    if !head.lines().next().is_some_and(|line| line.starts_with("HTTP/1.1 200 ")) {
        return Err(failed("something else than a node answers there".to_owned()));
    }
    serde_json::from_str(body).map_err(|_| failed("something else than a node of this version answers there".to_owned()))
}

async fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let _read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Succeeds if the node is ready, and says why it is not otherwise.
pub(super) async fn check_ready(address: &str) -> Result<()> {
    let readiness = ask(address).await?.readiness;
    if readiness.ready {
        crate::output::line(format_args!("ready: {}", printable(&readiness.state)))?;
        return Ok(());
    }
    let problems: Vec<_> = readiness.problems.iter().map(|problem| format!("{}: {}", problem.check, problem.problem)).collect();
    let message = format!("the node at {address} is not ready: {}", printable(&problems.join("; ")));
    Err(Failure::new(Exit::Failure, message).into())
}

/// The report for people.
pub(super) fn page(report: &NodeReport) -> String {
    let mut page = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a string can't fail.
        let _written = writeln!(page, "{name:<9}{}", printable(&value));
    };
    let readiness = &report.readiness;
    row("node", format!("{} for {} s, version {}", report.address, report.uptime_seconds, report.version));
    row("state", format!("{}{}", readiness.state, if readiness.ready { "" } else { ", not ready" }));
    readiness.problems.iter().for_each(|problem| row("", format!("{}: {}", problem.check, problem.problem)));
    row("run", report.run_id.clone());
    if let (Some(phase), Some(epoch), Some(step), Some(of)) = (report.phase, report.epoch, report.step, report.total_steps) {
        row("phase", format!("{phase}, epoch {epoch}, step {step} of {of}"));
    }
    if let (Some(loss), Some(speed)) = (report.loss, report.tokens_per_second) {
        row("training", format!("loss {loss:.4}, {speed:.0} tokens/s, {} batches", report.steps_trained));
    }
    if let (Some(step), Some(digest)) = (report.model_step, report.digest) {
        row("model", format!("step {step}, digest {}, {} peers differed", digest.short(), report.desyncs));
    }
    let (sent, received) = (report.blob_bytes_sent, report.blob_bytes_received);
    row("peers", format!("{} connected, {sent} bytes sent, {received} received", report.peers));
    row("points", format!("{} earned, {} claimed, {} claimable", report.earned, report.claimed, report.claimable));
    if let Some(lamports) = report.lamports {
        row("wallet", format!("{lamports} lamports"));
    }
    for endpoint in &report.endpoints {
        let up = if endpoint.up { "answers" } else { "rests" };
        let (lag, latency) = (endpoint.slot_lag.unwrap_or(0), endpoint.latency_ms.unwrap_or(0));
        let (name, requests, errors) = (&endpoint.endpoint, endpoint.requests, endpoint.errors);
        row("rpc", format!("{name} {up}, {latency} ms, {lag} slots behind, {errors} of {requests} requests failed"));
    }
    for actor in report.actors.iter().filter(|actor| actor.restarts > 0 || actor.up < actor.of) {
        row("actor", format!("{}: {} of {} run, {} restarts", actor.actor, actor.up, actor.of, actor.restarts));
    }
    for logged in report.events.iter().rev().take(8).rev() {
        row("event", super::replay::told(logged));
    }
    page
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn the_node_is_asked_where_it_is_named_or_where_it_noted_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let at = |named| address(named, Some(folder.path())).ok();
        assert_eq!(at(None).unwrap(), "127.0.0.1:9464");
        assert_eq!(at(Some("0.0.0.0:7000")).unwrap(), "127.0.0.1:7000");
        assert_eq!(at(Some("[::]:7000")).unwrap(), "[::1]:7000");
        std::fs::write(folder.path().join(ADDRESS_FILE), "127.0.0.1:41234\n").unwrap();
        assert_eq!((at(None).unwrap(), at(Some("127.0.0.1:0")).unwrap()), ("127.0.0.1:41234".into(), "127.0.0.1:41234".into()));
        assert!(at(Some("off")).is_none());
        std::fs::write(folder.path().join(ADDRESS_FILE), "off\n").unwrap();
        assert!(at(None).is_none() && at(Some("127.0.0.1:7000")).is_some());
    }
}

//! `status`: how a node on this machine fares, how a run on chain does, or what an event log tells.

mod node;
mod replay;
mod watch;

use anyhow::Result;
use psyche_actors::telemetry::NodeReport;
use psyche_chain::Rpc;
use psyche_messages::RunId;
use serde::Serialize;

use super::{chain_failed, connect};
use crate::args::StatusArgs;
use crate::output;
use crate::run_report::{RunReport, printable};

/// Who is asked.
enum Source {
    Node(String),
    Chain(Box<Rpc>, RunId),
}

/// What was answered.
enum Answer {
    Node(Box<NodeReport>),
    Run(Box<RunReport>),
}

impl Source {
    async fn look(&self) -> Result<Answer> {
        Ok(match self {
            Self::Node(address) => Answer::Node(Box::new(node::ask(address).await?)),
            Self::Chain(rpc, run_id) => Answer::Run(Box::new(RunReport::read(rpc, run_id).await.map_err(chain_failed)?)),
        })
    }
}

/// Shows it; a watch as a live view of the terminal if `live` says so.
pub(crate) async fn run(args: StatusArgs, live: bool) -> Result<()> {
    let as_json = args.json.json;
    if let Some(path) = &args.replay {
        return replay::run(path, as_json);
    }
    let source = match args.run_id {
        Some(run_id) => Source::Chain(Box::new(connect(&args.chain).await?), run_id),
        None => Source::Node(node::address(args.node.as_deref(), args.data_dir.as_deref())?),
    };
    if let (Source::Node(address), true) = (&source, args.ready) {
        return node::check_ready(address).await;
    }
    if args.watch {
        return watch::run(&source, as_json, live).await;
    }
    let answer = source.look().await?;
    let page = match &answer {
        answer if as_json => answer.json()?,
        Answer::Node(report) => node::page(report),
        Answer::Run(report) => report.page(),
    };
    output::text(&page)?;
    Ok(())
}

/// One object in one line.
fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

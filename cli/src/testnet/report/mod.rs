//! The report of a testnet: one HTML file with everything in it, readable without scripts and without a network.
//!
//! [`record`] reads what nodes wrote, [`lane`] makes time of it, [`losses`] and [`timeline`] draw, [`sections`] has the words
//! and tables, [`html`] the markup. The file is also well-formed XML, which tests check.

pub(crate) mod html;
pub(crate) mod lane;
pub(crate) mod losses;
pub(crate) mod record;
mod sections;
#[cfg(test)]
mod tests;
mod timeline;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use psyche_gpu::config::LlamaConfig;

use super::board::NodeBoard;
use super::network::Endpoint;
use super::plan::{Plan, SEQUENCE};
use super::reference::Reference;
use super::sample::Sample;
use super::verdict::{Account, Summary};
use crate::commands::failed_to;
use html::{escaped, section};
use record::NodeRecord;

const STYLE: &str = include_str!("style.css");

/// What was paid to the chain, in lamports: fees and rent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Costs {
    /// By the run's owner.
    pub(crate) owner: u64,
    /// By the operator whose authorization the nodes use.
    pub(crate) operator: u64,
    /// By each node.
    pub(crate) nodes: Vec<u64>,
}

/// Everything that a report tells of.
pub(crate) struct Facts<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) summary: &'a Summary,
    pub(crate) shortcomings: &'a [String],
    /// Of each node, in the order of the plan.
    pub(crate) records: &'a [NodeRecord],
    pub(crate) accounts: &'a [Account],
    pub(crate) costs: Option<&'a Costs>,
    /// `None` if the chain did not start.
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// Numbers of the model.
    pub(crate) parameters: u64,
    /// AdamW's curve, or why there is none.
    pub(crate) reference: Result<&'a Reference, &'a str>,
    /// What the model writes, or why it does not.
    pub(crate) sample: Result<&'a Sample, &'a str>,
}

impl Facts<'_> {
    pub(crate) fn boards(&self) -> Vec<NodeBoard> {
        self.records.iter().map(|record| record.board.clone()).collect()
    }
}

/// Numbers of the testnet's model.
///
/// # Errors
/// If its configuration is none.
pub(crate) fn parameters(plan: &Plan) -> Result<u64> {
    let config = LlamaConfig::from_json(plan.model_config().as_bytes()).map_err(failed_to)?;
    Ok(config.parameter_count())
}

/// Every node's log, read again from its start.
pub(crate) fn read(plan: &Plan) -> Vec<NodeRecord> {
    plan.nodes.iter().map(|node| NodeRecord::read(&node.events(), SEQUENCE)).collect()
}

/// Writes the report to `path`.
///
/// # Errors
/// If the file can't be written.
pub(crate) fn write(path: &Path, facts: &Facts<'_>) -> Result<()> {
    std::fs::write(path, page(facts)).with_context(|| format!("failed to write {}", path.display()))
}

/// The whole page.
pub(crate) fn page(facts: &Facts<'_>) -> String {
    let mut body = sections::head(facts);
    let parts = [
        ("loss", "Loss against step", sections::loss(facts)),
        ("timeline", "What each node did when", sections::timeline(facts)),
        ("bytes", "Bytes of a round, against dense gradients", sections::bytes(facts)),
        ("sample", "What the model writes", sections::sample(facts)),
        ("digests", "Digests", sections::digests(facts)),
        ("peers", "Peers", sections::peers(facts)),
        ("chain", "Chain: endpoints, transactions, cost", sections::chain(facts)),
        ("rewards", "Rewards", sections::rewards(facts)),
        ("troubles", "Restarts and warnings", sections::troubles(facts)),
        ("settings", "Settings and versions", sections::settings(facts)),
    ];
    for (id, title, text) in &parts {
        body.push_str(&section(id, title, text));
    }
    let mut page = "<!DOCTYPE html>\n".to_owned();
    let _written = write!(
        page,
        "<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\" />\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escaped(sections::TITLE)
    );
    page
}

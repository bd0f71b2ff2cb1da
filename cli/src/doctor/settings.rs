//! Configuration and key.

use psyche_actors::config::ConfigError;
use psyche_actors::{NodeConfig, NodeError};

use super::Line;
use crate::args::TrainArgs;
use crate::exit::Exit;

/// A node's configuration, whose run may still have to be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) config: NodeConfig,
    /// Whether `RUN_ID` names a run; otherwise the configuration's name stands for none.
    pub(crate) run_named: bool,
}

impl Settings {
    /// What the environment and `args` say, options over variables. A run need not be named.
    pub(crate) fn read(args: TrainArgs) -> Result<Self, ConfigError> {
        let mut variables = variables(args);
        let named = variables.iter().rev().find(|(name, _)| name == "RUN_ID");
        let run_named = named.is_some_and(|(_, value)| !crate::env_file::unquoted(value).is_empty());
        if !run_named {
            variables.push(("RUN_ID".to_owned(), "?".to_owned()));
        }
        Ok(Self { config: NodeConfig::from_variables(variables)?, run_named })
    }
}

/// The variables of the environment, and after them `args`. Later pairs win. Variables that are no text are none of ours.
pub(crate) fn variables(args: TrainArgs) -> Vec<(String, String)> {
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let named = crate::commands::names_wallet_file();
    let environment = environment.filter(|(name, _)| name != "RAW_WALLET_PRIVATE_KEY" || !named);
    environment.chain(args.into_variables()).collect()
}

/// A line for each violation; those of the key are the key's.
pub(super) fn violations(error: &ConfigError) -> Vec<Line> {
    let line = |violation: &psyche_actors::config::Violation| {
        let check = if violation.variable.contains("PRIVATE_KEY") { "key" } else { "configuration" };
        Line::refused(check, Exit::Configuration, &violation.to_string())
    };
    error.violations.iter().map(line).collect()
}

/// What is said of a configuration that can be read.
pub(super) fn usable(config: &NodeConfig) -> Vec<Line> {
    let mesh = config.mesh;
    let layout = format!("every variable can be used; {} × {} ranks, micro-batches of {}", mesh.dp, mesh.tp, mesh.micro_batch);
    // A key that others can read is refused when it is read.
    let key = format!("wallet {}; nobody else may read its key file", config.wallet.address());
    let raw = std::env::var_os("RAW_WALLET_PRIVATE_KEY").is_some_and(|raw| !raw.is_empty());
    let key = if raw && !crate::commands::names_wallet_file() {
        Line::fine("key", format!("wallet {}, from RAW_WALLET_PRIVATE_KEY", config.wallet.address()))
    } else {
        Line::fine("key", key)
    };
    vec![Line::fine("configuration", layout), key]
}

/// The exit code of a node that does not start, where it has one of its own.
pub(crate) const fn node_exit(error: &NodeError) -> Option<Exit> {
    Some(match error {
        NodeError::NoRun { .. } => Exit::NoRun,
        NodeError::OtherVersion { .. } => Exit::OtherVersion,
        NodeError::NotAuthorized { .. } => Exit::NotAuthorized,
        NodeError::NoFunds { .. } => Exit::NoFunds,
        NodeError::Model(_) => Exit::TooLarge,
        NodeError::Folder { .. } | NodeError::FolderInUse { .. } => Exit::Disk,
        NodeError::Config(_)
        | NodeError::Plan(_)
        | NodeError::Data(_)
        | NodeError::Devices(_)
        | NodeError::Snapshots(_)
        | NodeError::Updates(_)
        | NodeError::Metrics(_) => Exit::Configuration,
        _ => return None,
    })
}

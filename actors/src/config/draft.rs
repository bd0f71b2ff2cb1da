//! A configuration in the making: what is set, and what of it cannot be used. Variables and code fill the same one, so that
//! both are checked alike and every violation is told at once.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use psyche_chain::{EndpointPair, EndpointVariables, ProgramIds, Wallet};
use psyche_gpu::devices::DeviceSpec;
use psyche_messages::{Address, RunId, Secret};
use psyche_protocol::model::HubRepo;

use super::environment::{self, Reader};
use super::{
    ClaimPolicy, ComputeConfig, ConfigError, FeeBounds, MICRO_BATCH_MAX, MeshShape, NodeConfig, P2pConfig, PARALLELISM_MAX,
    Violation,
};
use crate::telemetry::{MetricsBind, OtlpConfig};

/// See the module; the fields are those of [`NodeConfig`].
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(super) endpoints: EndpointVariables,
    pub(super) run_id: Option<RunId>,
    pub(super) wallet: Option<Wallet>,
    pub(super) violations: Vec<Violation>,
    pub(super) mesh: MeshShape,
    pub(super) p2p: P2pConfig,
    pub(super) fees: FeeBounds,
    pub(super) snapshots_kept: NonZeroUsize,
    pub(super) checkpoint_dir: Option<PathBuf>,
    pub(super) checkpoint_repo: Option<HubRepo>,
    pub(crate) authorizer: Option<Address>,
    pub(crate) device: DeviceSpec,
    pub(crate) compute: ComputeConfig,
    pub(crate) identity: Option<Secret<[u8; 32]>>,
    pub(crate) data_dir: PathBuf,
    pub(crate) data_path: Option<PathBuf>,
    pub(crate) models_dir: PathBuf,
    pub(crate) metrics: MetricsBind,
    pub(crate) otlp: Option<OtlpConfig>,
    pub(crate) claim: ClaimPolicy,
    pub(crate) programs: ProgramIds,
}

impl Draft {
    /// What `variables` say.
    pub(crate) fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        environment::read(variables)
    }

    /// A whole configuration again.
    pub(crate) fn of_config(config: NodeConfig) -> Self {
        let endpoints = EndpointVariables { pairs: config.endpoints, names: config.endpoint_names, ..Default::default() };
        Self {
            endpoints,
            run_id: Some(config.run_id),
            wallet: Some(config.wallet),
            violations: Vec::new(),
            mesh: config.mesh,
            p2p: config.p2p,
            fees: config.fees,
            snapshots_kept: config.snapshots_kept,
            checkpoint_dir: config.checkpoint_dir,
            checkpoint_repo: config.checkpoint_repo,
            authorizer: config.authorizer,
            device: config.device,
            compute: config.compute,
            identity: config.identity,
            data_dir: config.data_dir,
            data_path: config.data_path,
            models_dir: config.models_dir,
            metrics: config.metrics,
            otlp: config.otlp,
            claim: config.claim,
            programs: config.programs,
        }
    }

    /// The configuration, if nothing is wrong with it.
    pub(crate) fn finish(self) -> Result<NodeConfig, ConfigError> {
        let is_usable = self.violations.is_empty();
        let (Some(run_id), Some(wallet), true) = (self.run_id, self.wallet, is_usable) else {
            return Err(ConfigError { violations: self.violations });
        };
        tell(&self.endpoints);
        Ok(NodeConfig {
            endpoints: self.endpoints.pairs,
            endpoint_names: self.endpoints.names,
            run_id,
            authorizer: self.authorizer,
            wallet,
            mesh: self.mesh,
            device: self.device,
            compute: self.compute,
            p2p: self.p2p,
            identity: self.identity,
            data_dir: self.data_dir,
            snapshots_kept: self.snapshots_kept,
            checkpoint_dir: self.checkpoint_dir,
            checkpoint_repo: self.checkpoint_repo,
            data_path: self.data_path,
            models_dir: self.models_dir,
            metrics: self.metrics,
            otlp: self.otlp,
            claim: self.claim,
            fees: self.fees,
            programs: self.programs,
        })
    }

    /// Sets something anew: what was wrong with these variables is so no more, what `set` finds wrong is.
    fn anew<T>(&mut self, variables: &[&str], set: impl FnOnce(&mut Reader) -> T) -> T {
        self.settle(variables);
        let mut reader = Reader::default();
        let value = set(&mut reader);
        self.violations.append(&mut reader.violations);
        value
    }

    /// What was wrong with these variables does not matter any more.
    pub(crate) fn settle(&mut self, variables: &[&str]) {
        self.settle_all(|variable| variables.contains(&variable));
    }

    /// As [`Draft::settle`], for every variable that `means` means.
    pub(crate) fn settle_all(&mut self, means: impl Fn(&str) -> bool) {
        self.violations.retain(|violation| !means(&violation.variable));
    }

    pub(crate) fn set_run_id(&mut self, run_id: &str) {
        self.run_id = self.anew(&["RUN_ID"], |reader| {
            let parsed = run_id.parse().ok();
            if parsed.is_none() {
                reader.refuse("RUN_ID", format!("cannot be read; {}", environment::RUN_ID_ACCEPTED));
            }
            parsed
        });
    }

    pub(crate) fn set_wallet(&mut self, wallet: impl FnOnce(&mut Reader) -> Option<Wallet>) {
        self.wallet = self.anew(&["WALLET_PRIVATE_KEY_PATH", "RAW_WALLET_PRIVATE_KEY"], wallet);
    }

    pub(crate) fn set_mesh(&mut self, dp: u16, tp: u16) {
        let max = u32::from(PARALLELISM_MAX);
        self.anew(&["DATA_PARALLELISM", "TENSOR_PARALLELISM"], |reader| {
            reader.within("DATA_PARALLELISM", u32::from(dp), max);
            reader.within("TENSOR_PARALLELISM", u32::from(tp), max);
        });
        self.mesh = MeshShape { dp, tp, ..self.mesh };
    }

    pub(crate) fn set_micro_batch(&mut self, samples: u32) {
        self.anew(&["MICRO_BATCH_SIZE"], |reader| reader.within("MICRO_BATCH_SIZE", samples, MICRO_BATCH_MAX));
        self.mesh.micro_batch = samples;
    }

    pub(crate) fn set_p2p(&mut self, p2p: P2pConfig) {
        let variables = ["P2P_BIND", "P2P_PORT", "BOOTSTRAP_PEERS", "P2P_RELAY", "P2P_EXTERNAL"];
        self.anew(&variables, |reader| environment::check_p2p(reader, &p2p));
        self.p2p = p2p;
    }

    pub(crate) fn set_fees(&mut self, fees: FeeBounds) {
        self.anew(&[environment::FLOOR, environment::CAP], |reader| environment::check_fees(reader, fees));
        self.fees = fees;
    }

    pub(crate) fn set_snapshots_kept(&mut self, kept: u32) {
        let fits = |reader: &mut Reader| reader.within("SNAPSHOTS_KEPT", kept, environment::SNAPSHOTS_KEPT_MAX);
        let kept = self.anew(&["SNAPSHOTS_KEPT"], fits).and_then(|kept| usize::try_from(kept).ok());
        self.snapshots_kept = kept.and_then(NonZeroUsize::new).unwrap_or(self.snapshots_kept);
    }

    pub(crate) fn set_checkpoints(&mut self, folder: PathBuf, repo: Option<&str>) {
        let named = |reader: &mut Reader| environment::repo_named(reader, repo?);
        self.checkpoint_repo = self.anew(&["CHECKPOINT_REPO", "CHECKPOINT_DIR"], named);
        self.checkpoint_dir = Some(folder);
    }

    /// One more pair of endpoints, after those that there are. The first one takes the place of an `RPC` that was missing.
    pub(crate) fn add_endpoint(&mut self, rpc: &str, ws: &str) {
        if self.endpoints.pairs.is_empty() {
            self.settle(&["RPC"]);
        }
        let number = self.endpoints.pairs.len() + 1;
        let suffix = if number == 1 { String::new() } else { format!("_{number}") };
        let variables = [(format!("RPC{suffix}"), rpc.to_owned()), (format!("WS_RPC{suffix}"), ws.to_owned())];
        match super::endpoints_from(variables.clone()) {
            Ok(mut read) => {
                self.endpoints.pairs.append(&mut read.pairs);
                self.endpoints.names.append(&mut read.names);
                self.endpoints.missing.append(&mut read.missing);
            }
            // A pair that comes later may do with subscriptions alone.
            Err(_) if number > 1 && rpc.is_empty() && EndpointPair::parse(rpc, ws).is_ok() => {
                self.endpoints.pairs.extend(EndpointPair::parse(rpc, ws));
                self.endpoints.names.extend(variables.map(|(name, _)| name).into_iter().nth(1));
            }
            Err(mut error) => self.violations.append(&mut error.violations),
        }
    }
}

/// Tells the operator which endpoints serve only one purpose.
fn tell(endpoints: &EndpointVariables) {
    for missing in &endpoints.missing {
        tracing::warn!("{missing}");
    }
    if endpoints.pairs.iter().all(|pair| pair.ws.is_none()) {
        tracing::warn!("no websocket endpoint is set (WS_RPC): the run is followed by polling");
    }
}

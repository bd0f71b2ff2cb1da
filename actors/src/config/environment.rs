//! From variables to [`NodeConfig`].

mod variables;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use psyche_chain::{EndpointVariables, ProgramIds, Wallet};
use psyche_gpu::GpuError;
use psyche_gpu::devices::DeviceSpec;
use psyche_messages::{Address, Secret};
use psyche_net::identity::{parse_identity, read_identity};
use psyche_net::{NetConfig, NetError, RELAYS_MAX};
use psyche_protocol::layout::FixedString;
use psyche_protocol::model::HubRepo;
use serde::Deserialize;
pub use variables::{Unset, VARIABLES, Variable};

use super::{
    BOOTSTRAP_PEERS_MAX, ClaimPolicy, ComputeConfig, ConfigError, Draft, FeeBounds, MICRO_BATCH_MAX, MeshShape, P2pConfig,
    PARALLELISM_MAX, Violation,
};
use crate::telemetry::{MetricsBind, OFF, OtlpConfig};

/// Snapshots that stay on the disk unless the operator says otherwise: one to fall back on if the newest is damaged.
const SNAPSHOTS_KEPT: u32 = 2;
/// Most snapshots that may stay.
pub(super) const SNAPSHOTS_KEPT_MAX: u32 = 1000;

/// What names a run.
pub(super) const RUN_ID_ACCEPTED: &str = "1 to 32 bytes of text are accepted";
pub(super) const FLOOR: &str = "PRIORITY_FEE_FLOOR_MICRO_LAMPORTS";
pub(super) const CAP: &str = "PRIORITY_FEE_CAP_MICRO_LAMPORTS";

/// The variables as they come, before any check.
#[derive(Debug, Default, Deserialize)]
struct Environment {
    run_id: Option<String>,
    authorizer: Option<String>,
    raw_wallet_private_key: Option<RawKey>,
    wallet_private_key_path: Option<String>,
    data_parallelism: Option<String>,
    tensor_parallelism: Option<String>,
    micro_batch_size: Option<String>,
    device: Option<String>,
    precision: Option<String>,
    activation_checkpointing: Option<String>,
    skip_loss_spikes: Option<String>,
    p2p_bind: Option<String>,
    p2p_port: Option<String>,
    bootstrap_peers: Option<String>,
    p2p_relay: Option<String>,
    p2p_external: Option<String>,
    identity_secret_key_path: Option<String>,
    raw_identity_secret_key: Option<RawKey>,
    data_dir: Option<String>,
    snapshots_kept: Option<String>,
    checkpoint_dir: Option<String>,
    checkpoint_repo: Option<String>,
    data_path: Option<String>,
    models_dir: Option<String>,
    metrics_bind: Option<String>,
    claim_rewards: Option<String>,
    priority_fee_floor_micro_lamports: Option<String>,
    priority_fee_cap_micro_lamports: Option<String>,
    coordinator_program_id: Option<String>,
    authorizer_program_id: Option<String>,
    treasurer_program_id: Option<String>,
}

/// A private key in transit; never prints itself.
#[derive(Debug)]
struct RawKey(Secret<String>);

impl<'de> Deserialize<'de> for RawKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

/// Collects violations while values are read.
#[derive(Default)]
pub(crate) struct Reader {
    pub(super) violations: Vec<Violation>,
}

impl Reader {
    pub(super) fn refuse(&mut self, variable: &str, problem: impl Into<String>) {
        self.violations.push(Violation { variable: variable.to_owned(), problem: problem.into() });
    }

    /// The trimmed value, or `None` where it is unset or blank.
    fn text(value: Option<&String>) -> Option<&str> {
        value.map(|text| text.trim().trim_matches(['"', '\'']).trim()).filter(|text| !text.is_empty())
    }

    fn parse<T: FromStr>(&mut self, variable: &str, value: Option<&String>, accepted: &str) -> Option<T> {
        let text = Self::text(value)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.refuse(variable, format!("cannot be read; {accepted}"));
        }
        parsed
    }

    fn yes_or_no(&mut self, variable: &str, value: Option<&String>) -> Option<bool> {
        match Self::text(value)? {
            "false" | "0" | "no" | "off" => Some(false),
            "true" | "1" | "yes" | "on" => Some(true),
            _ => {
                self.refuse(variable, "cannot be read; true or false is accepted");
                None
            }
        }
    }

    fn number(&mut self, variable: &str, value: Option<&String>, default: u32, max: u32) -> u32 {
        let accepted = format!("a whole number from 1 to {max} is accepted");
        let Some(number) = self.parse::<u32>(variable, value, &accepted) else {
            return default;
        };
        self.within(variable, number, max).unwrap_or(default)
    }

    /// `number`, if it is from 1 to `max`.
    pub(super) fn within(&mut self, variable: &str, number: u32, max: u32) -> Option<u32> {
        let fits = (1..=max).contains(&number);
        if !fits {
            self.refuse(variable, format!("is out of range; a whole number from 1 to {max} is accepted"));
        }
        fits.then_some(number)
    }
}

/// Reads everything that `variables` say; see [`NodeConfig::from_variables`].
pub(super) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Draft {
    let variables: BTreeMap<String, String> = variables.into_iter().collect();
    let mut reader = Reader::default();
    let endpoints = endpoints(&mut reader, &variables);
    let otlp = OtlpConfig::read(&variables).unwrap_or_else(|violations| {
        reader.violations.extend(violations);
        None
    });
    // Every field is an optional text, so that nothing can fail here and every violation is found below.
    let environment: Environment = envy::from_iter(variables).unwrap_or_default();
    let run_id = reader.parse("RUN_ID", environment.run_id.as_ref(), RUN_ID_ACCEPTED);
    if Reader::text(environment.run_id.as_ref()).is_none() {
        reader.refuse("RUN_ID", "is missing; set it to the run that this node is to join");
    }
    let wallet = wallet(&mut reader, &environment);
    let mesh = mesh(&mut reader, &environment);
    let device = device(&mut reader, &environment);
    let compute = compute(&mut reader, &environment);
    let p2p = p2p(&mut reader, &environment);
    let identity = identity(&mut reader, &environment);
    let kept = reader.number("SNAPSHOTS_KEPT", environment.snapshots_kept.as_ref(), SNAPSHOTS_KEPT, SNAPSHOTS_KEPT_MAX);
    let metrics = metrics(&mut reader, &environment);
    let checkpoint_dir = folder(environment.checkpoint_dir.as_ref());
    let checkpoint_repo = checkpoint_repo(&mut reader, &environment);
    let claim = claim(&mut reader, &environment);
    let fees = fees(&mut reader, &environment);
    let programs = programs(&mut reader, &environment);
    let authorizer = address(&mut reader, "AUTHORIZER", environment.authorizer.as_ref());
    Draft {
        endpoints,
        run_id,
        authorizer,
        wallet,
        mesh,
        device,
        compute,
        p2p,
        identity,
        data_dir: folder(environment.data_dir.as_ref()).unwrap_or_else(|| "psyche-data".into()),
        snapshots_kept: usize::try_from(kept).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN),
        checkpoint_dir,
        checkpoint_repo,
        data_path: folder(environment.data_path.as_ref()),
        models_dir: folder(environment.models_dir.as_ref()).unwrap_or_else(|| ".".into()),
        metrics,
        otlp,
        claim,
        fees,
        programs,
        violations: reader.violations,
    }
}

fn folder(value: Option<&String>) -> Option<PathBuf> {
    Reader::text(value).map(PathBuf::from)
}

fn checkpoint_repo(reader: &mut Reader, environment: &Environment) -> Option<HubRepo> {
    let text = Reader::text(environment.checkpoint_repo.as_ref())?;
    if folder(environment.checkpoint_dir.as_ref()).is_none() {
        reader.refuse("CHECKPOINT_REPO", "is of no use without CHECKPOINT_DIR, from which it is filled");
    }
    repo_named(reader, text)
}

/// The repository `owner/name`.
pub(super) fn repo_named(reader: &mut Reader, text: &str) -> Option<HubRepo> {
    let is_name = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let named = text.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name));
    let repo_id = FixedString::new(text).filter(|_| named);
    if repo_id.is_none() {
        reader.refuse("CHECKPOINT_REPO", "cannot be read; owner/name of at most 64 bytes is accepted");
    }
    Some(HubRepo { repo_id: repo_id?, revision: None })
}

fn address(reader: &mut Reader, variable: &str, value: Option<&String>) -> Option<Address> {
    reader.parse(variable, value, "a Solana address in base58 is accepted")
}

fn endpoints(reader: &mut Reader, variables: &BTreeMap<String, String>) -> EndpointVariables {
    let read = EndpointVariables::read(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    for refused in &read.refused {
        reader.refuse(&refused.variable, refused.problem());
    }
    read
}

/// The endpoints that `variables` name; see [`super::endpoints_from`].
pub(super) fn read_endpoints(variables: impl IntoIterator<Item = (String, String)>) -> Result<EndpointVariables, ConfigError> {
    let mut reader = Reader::default();
    let read = endpoints(&mut reader, &variables.into_iter().collect());
    if reader.violations.is_empty() { Ok(read) } else { Err(ConfigError { violations: reader.violations }) }
}

fn wallet(reader: &mut Reader, environment: &Environment) -> Option<Wallet> {
    if let Some(RawKey(raw)) = &environment.raw_wallet_private_key
        && !raw.expose().trim().is_empty()
    {
        return wallet_of(reader, raw.expose());
    }
    let Some(path) = Reader::text(environment.wallet_private_key_path.as_ref()) else {
        reader.refuse("WALLET_PRIVATE_KEY_PATH", "is missing, and so is RAW_WALLET_PRIVATE_KEY; `wallet new` makes a key file");
        return None;
    };
    wallet_in(reader, Path::new(path))
}

/// The wallet in `text`.
pub(crate) fn wallet_of(reader: &mut Reader, text: &str) -> Option<Wallet> {
    let wallet = Wallet::from_text(text).ok();
    if wallet.is_none() {
        reader.refuse("RAW_WALLET_PRIVATE_KEY", "is no private key; a JSON array of 64 numbers, or base58, is accepted");
    }
    wallet
}

/// The wallet in the file at `path`.
pub(crate) fn wallet_in(reader: &mut Reader, path: &Path) -> Option<Wallet> {
    let read = Wallet::from_file(path);
    if let Err(error) = &read {
        let problem = format!("names a file that cannot be used: failed to {}", crate::chain_of(error));
        reader.refuse("WALLET_PRIVATE_KEY_PATH", problem);
    }
    read.ok()
}

fn mesh(reader: &mut Reader, environment: &Environment) -> MeshShape {
    let max = u32::from(PARALLELISM_MAX);
    let dp = reader.number("DATA_PARALLELISM", environment.data_parallelism.as_ref(), 1, max);
    let tp = reader.number("TENSOR_PARALLELISM", environment.tensor_parallelism.as_ref(), 1, max);
    let micro_batch = reader.number("MICRO_BATCH_SIZE", environment.micro_batch_size.as_ref(), 1, MICRO_BATCH_MAX);
    MeshShape { dp: u16::try_from(dp).unwrap_or(1), tp: u16::try_from(tp).unwrap_or(1), micro_batch }
}

fn device(reader: &mut Reader, environment: &Environment) -> DeviceSpec {
    match Reader::text(environment.device.as_ref()).map(str::parse) {
        None => DeviceSpec::Auto,
        Some(Ok(spec)) => spec,
        Some(Err(error)) => {
            let problem = if let GpuError::Device { problem, .. } = error { problem } else { error.to_string() };
            reader.refuse("DEVICE", format!("cannot be read: {problem}; auto, cpu, cpu:N, cuda and cuda:0,2 are accepted"));
            DeviceSpec::Auto
        }
    }
}

fn compute(reader: &mut Reader, environment: &Environment) -> ComputeConfig {
    let precision = match Reader::text(environment.precision.as_ref()) {
        None | Some("auto") => None,
        _ => reader.parse("PRECISION", environment.precision.as_ref(), "auto, f32 or bf16 is accepted"),
    };
    let checkpointing = reader.yes_or_no("ACTIVATION_CHECKPOINTING", environment.activation_checkpointing.as_ref());
    let skips_spikes = reader.yes_or_no("SKIP_LOSS_SPIKES", environment.skip_loss_spikes.as_ref());
    let default = ComputeConfig::default();
    ComputeConfig {
        precision,
        checkpointing: checkpointing.unwrap_or(default.checkpointing),
        skips_spikes: skips_spikes.unwrap_or(default.skips_spikes),
    }
}

fn p2p(reader: &mut Reader, environment: &Environment) -> P2pConfig {
    let bind = reader.parse("P2P_BIND", environment.p2p_bind.as_ref(), "an IP address is accepted");
    let port = reader.parse("P2P_PORT", environment.p2p_port.as_ref(), "a port from 0 to 65535 is accepted");
    let bootstrap = list(environment.bootstrap_peers.as_ref());
    let mut relays = list(environment.p2p_relay.as_ref());
    let entries = relays.len();
    relays.retain(|relay| relay != "serve");
    let serves_relay = relays.len() < entries;
    let external = list(environment.p2p_external.as_ref());
    let default = P2pConfig::default();
    let (bind, port) = (bind.unwrap_or(default.bind), port.unwrap_or(default.port));
    let p2p = P2pConfig { bind, port, bootstrap, relays, serves_relay, external };
    check_p2p(reader, &p2p);
    p2p
}

/// That every address is one.
pub(super) fn check_p2p(reader: &mut Reader, p2p: &P2pConfig) {
    let addressed = "holds an entry that is no multiaddress ending in /p2p/<peer id>";
    check_list(reader, "BOOTSTRAP_PEERS", &p2p.bootstrap, BOOTSTRAP_PEERS_MAX, addressed, NetConfig::check_bootstrap);
    let direct = "holds an entry that is neither serve nor a relay's multiaddress ending in /p2p/<peer id>";
    check_list(reader, "P2P_RELAY", &p2p.relays, RELAYS_MAX, direct, NetConfig::check_relay);
    let plain = "holds an entry that is no multiaddress";
    check_list(reader, "P2P_EXTERNAL", &p2p.external, BOOTSTRAP_PEERS_MAX, plain, NetConfig::check_external);
}

/// The entries of a list that is separated by commas.
fn list(value: Option<&String>) -> Vec<String> {
    let entries = Reader::text(value).unwrap_or_default().split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

fn check_list(
    reader: &mut Reader,
    variable: &str,
    entries: &[String],
    entries_max: usize,
    problem: &str,
    check: impl Fn(&str) -> Result<(), NetError>,
) {
    if entries.len() > entries_max {
        reader.refuse(variable, format!("lists too many addresses; at most {entries_max} are accepted"));
    }
    for _wrong in entries.iter().filter(|entry| check(entry).is_err()) {
        reader.refuse(variable, problem);
    }
}

fn identity(reader: &mut Reader, environment: &Environment) -> Option<Secret<[u8; 32]>> {
    if let Some(RawKey(raw)) = &environment.raw_identity_secret_key
        && !raw.expose().trim().is_empty()
    {
        let parsed = parse_identity(raw.expose());
        if parsed.is_err() {
            reader.refuse("RAW_IDENTITY_SECRET_KEY", "is no identity; 64 hexadecimal digits are accepted");
        }
        return parsed.ok();
    }
    let path = Reader::text(environment.identity_secret_key_path.as_ref())?;
    let read = read_identity(Path::new(path));
    if let Err(error) = &read {
        let problem = format!("names a file that cannot be used: failed to {}", crate::chain_of(error));
        reader.refuse("IDENTITY_SECRET_KEY_PATH", problem);
    }
    read.ok()
}

fn metrics(reader: &mut Reader, environment: &Environment) -> MetricsBind {
    const ACCEPTED: &str = "an address and port such as 127.0.0.1:9464 is accepted (port 0: any free one), or off";
    match Reader::text(environment.metrics_bind.as_ref()) {
        None => MetricsBind::Default,
        Some(OFF) => MetricsBind::Off,
        Some(_) => reader
            .parse("METRICS_BIND", environment.metrics_bind.as_ref(), ACCEPTED)
            .map_or(MetricsBind::Default, MetricsBind::At),
    }
}

fn claim(reader: &mut Reader, environment: &Environment) -> ClaimPolicy {
    match Reader::text(environment.claim_rewards.as_ref()) {
        None | Some("manual") => ClaimPolicy::Manual,
        Some("auto") => ClaimPolicy::Automatic,
        Some(_) => {
            reader.refuse("CLAIM_REWARDS", "cannot be read; manual or auto is accepted");
            ClaimPolicy::Manual
        }
    }
}

fn fees(reader: &mut Reader, environment: &Environment) -> FeeBounds {
    let accepted = "a whole number of millionths of a lamport is accepted";
    let (floor, cap) = (&environment.priority_fee_floor_micro_lamports, &environment.priority_fee_cap_micro_lamports);
    let defaults = FeeBounds::default();
    let bounds = FeeBounds {
        floor_micro_lamports: reader.parse(FLOOR, floor.as_ref(), accepted).unwrap_or(defaults.floor_micro_lamports),
        cap_micro_lamports: reader.parse(CAP, cap.as_ref(), accepted).unwrap_or(defaults.cap_micro_lamports),
    };
    check_fees(reader, bounds);
    bounds
}

/// That the bounds leave anything between them.
pub(super) fn check_fees(reader: &mut Reader, bounds: FeeBounds) {
    if bounds.cap_micro_lamports < bounds.floor_micro_lamports {
        reader.refuse(CAP, format!("is less than {FLOOR}"));
    }
}

/// The bounds of fees that `variables` name; see [`super::fees_from`].
pub(super) fn read_fees(variables: impl IntoIterator<Item = (String, String)>) -> Result<FeeBounds, ConfigError> {
    let mut reader = Reader::default();
    let bounds = fees(&mut reader, &envy::from_iter(variables).unwrap_or_default());
    if reader.violations.is_empty() { Ok(bounds) } else { Err(ConfigError { violations: reader.violations }) }
}

fn programs(reader: &mut Reader, environment: &Environment) -> ProgramIds {
    let mut ids = ProgramIds::default();
    let given = [
        ("COORDINATOR_PROGRAM_ID", environment.coordinator_program_id.as_ref(), &mut ids.coordinator),
        ("AUTHORIZER_PROGRAM_ID", environment.authorizer_program_id.as_ref(), &mut ids.authorizer),
        ("TREASURER_PROGRAM_ID", environment.treasurer_program_id.as_ref(), &mut ids.treasurer),
    ];
    for (variable, value, id) in given {
        if let Some(address) = address(reader, variable, value) {
            *id = address;
        }
    }
    ids
}

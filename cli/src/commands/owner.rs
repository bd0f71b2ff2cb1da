//! What a run's owner does: `create-run`, `update-config`, `set-paused`, `set-future-epoch-rates`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use psyche_chain::Rpc;
use psyche_chain::ops::{self, NewRun, NewTreasury, RunUpdate};
use psyche_messages::RunId;
use psyche_protocol::layout::{FixedString, Metadata, Progress};

use super::{act, chain_failed, until_interrupted};
use crate::args::{CreateRunArgs, RatesArgs, SetPausedArgs, UpdateConfigArgs};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::run_config::RunConfig;

/// Largest configuration file that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

pub(crate) async fn create(args: CreateRunArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on)?;
    let new = NewRun {
        run_id: args.on.run_id.clone(),
        client_version: args.client_version,
        join_authority: args.join_authority,
        treasury: args.treasurer_collateral_mint.map(|mint| NewTreasury { mint, index: args.treasurer_index }),
    };
    let run = until_interrupted(async { ops::create_run(&rpc, &wallet, &new).await.map_err(chain_failed) }).await?;
    output::line(format_args!("{}", run.account))?;
    output::note(format_args!("run {} is created and paused; update-config and set-paused --resume come next", args.on.run_id));
    Ok(())
}

pub(crate) async fn update(args: UpdateConfigArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on)?;
    let file = args.config_path.as_deref().map(read_config).transpose()?;
    let described =
        args.name.is_some() || args.description.is_some() || args.num_parameters.is_some() || args.vocab_size.is_some();
    let mut update = RunUpdate {
        config: file.as_ref().map(|file| (&file.config).into()),
        model: file.as_ref().map(|file| (&file.model).into()),
        client_version: args.client_version.clone(),
        ..RunUpdate::default()
    };
    if described || args.restart_from_step.is_some() {
        let (_run, view) = rpc.fetch_run(&args.on.run_id).await.map_err(chain_failed)?;
        let state = &view.account.state;
        if described {
            update.metadata = Some(metadata(&args, state.metadata)?);
        }
        if let Some(step) = args.restart_from_step {
            let progress = &state.coordinator.progress;
            update.progress = Some(Progress::new(progress.epoch, step, progress.epoch_start_data_index));
        }
    }
    let confirmed =
        until_interrupted(async { ops::update_run(&rpc, &wallet, &args.on.run_id, &update).await.map_err(chain_failed) });
    for confirmed in confirmed.await? {
        output::line(format_args!("{}", confirmed.signature))?;
    }
    Ok(())
}

/// Reads a run's TOML; errors name line and column.
pub(crate) fn read_config(path: &Path) -> Result<RunConfig> {
    let length = std::fs::metadata(path).with_context(|| format!("failed to read {}", path.display()))?.len();
    if length > CONFIG_BYTES_MAX {
        bail!("{} has {length} bytes; at most {CONFIG_BYTES_MAX} are accepted", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let config: RunConfig = toml::from_str(&text)
        .map_err(|error| Failure::new(Exit::Configuration, format!("{} can't be used:\n{error}", path.display())))?;
    check(&config).map_err(|problem| Failure::new(Exit::Configuration, format!("{}: {problem}", path.display())))?;
    Ok(config)
}

/// What the program would refuse, in words.
fn check(run: &RunConfig) -> Result<(), String> {
    let config = &run.config;
    let rules = [
        (config.warmup_time < config.epoch_time, "warmup_time must be shorter than epoch_time"),
        (config.max_round_train_time > 0, "max_round_train_time must not be 0"),
        (config.max_round_train_time < config.epoch_time, "max_round_train_time must be shorter than epoch_time"),
        (config.round_witness_time > 0, "round_witness_time must not be 0"),
        (config.cooldown_time > 0, "cooldown_time must not be 0"),
        (config.waiting_for_members_extra_time > 0, "waiting_for_members_extra_time must not be 0"),
        (config.total_steps > 0, "total_steps must not be 0"),
        (config.min_clients >= 1, "min_clients must not be 0"),
        (config.min_clients <= config.init_min_clients, "init_min_clients must not be smaller than min_clients"),
        (config.init_min_clients <= 256, "init_min_clients must not exceed 256"),
        (config.witness_nodes <= config.min_clients.min(32), "witness_nodes must not exceed min_clients, nor 32"),
        (config.global_batch_size_start > 0, "global_batch_size_start must not be 0"),
        (
            config.global_batch_size_start <= config.global_batch_size_end,
            "global_batch_size_end must not be smaller than global_batch_size_start",
        ),
    ];
    let broken: Vec<_> = rules.iter().filter(|(holds, _)| !holds).map(|(_, rule)| *rule).collect();
    if !broken.is_empty() {
        return Err(broken.join("; "));
    }
    if !psyche_protocol::layout::Config::from(config).check() {
        return Err("the coordinator program would refuse [config]".into());
    }
    if !psyche_protocol::model::Model::from(&run.model).check() {
        return Err("the coordinator program would refuse [model]: name a checkpoint, data and an optimizer".into());
    }
    Ok(())
}

fn metadata(args: &UpdateConfigArgs, mut metadata: Metadata) -> Result<Metadata> {
    if let Some(name) = &args.name {
        metadata.name = FixedString::new(name).context("--name: at most 64 bytes are accepted")?;
    }
    if let Some(description) = &args.description {
        metadata.description = FixedString::new(description).context("--description: at most 280 bytes are accepted")?;
    }
    metadata.num_parameters = args.num_parameters.unwrap_or(metadata.num_parameters);
    metadata.vocab_size = args.vocab_size.unwrap_or(metadata.vocab_size);
    Ok(metadata)
}

pub(crate) async fn set_paused(args: SetPausedArgs) -> Result<()> {
    let (rpc, wallet) = act(&args.on)?;
    let paused = !args.resume;
    let confirmed =
        until_interrupted(async { ops::set_paused(&rpc, &wallet, &args.on.run_id, paused).await.map_err(chain_failed) });
    output::line(format_args!("{}", confirmed.await?.signature))?;
    say_state(&rpc, &args.on.run_id).await;
    Ok(())
}

pub(crate) async fn set_rates(args: RatesArgs) -> Result<()> {
    if args.earning_rate.is_none() && args.slashing_rate.is_none() {
        bail!("give --earning-rate, --slashing-rate or both");
    }
    let (rpc, wallet) = act(&args.on)?;
    let confirmed = until_interrupted(async {
        let set = ops::set_future_epoch_rates(&rpc, &wallet, &args.on.run_id, args.earning_rate, args.slashing_rate);
        set.await.map_err(chain_failed)
    });
    output::line(format_args!("{}", confirmed.await?.signature))?;
    Ok(())
}

/// A courtesy after the change is confirmed: if it can't be read now, nothing is lost.
async fn say_state(rpc: &Rpc, run_id: &RunId) {
    if let Ok((_, view)) = rpc.fetch_run(run_id).await {
        let pending = view.account.state.coordinator.pending_pause == 1;
        let note = if pending { "; it pauses when the epoch ends" } else { "" };
        output::note(format_args!("run {run_id} is in {}{note}", view.phase()));
    }
}

//! `update-config`: a run's configuration, model, progress and description.

use anyhow::Result;
use psyche_chain::ops::{self, RunUpdate};
use psyche_protocol::layout::{FixedString, InstanceState, Metadata, Progress};
use psyche_protocol::model::{Checkpoint, Model};

use super::{act, chain_failed, check_treasury};
use crate::args::UpdateConfigArgs;
use crate::exit::{Exit, Failure};
use crate::{output, run_config, work};

pub(crate) async fn run(args: UpdateConfigArgs) -> Result<()> {
    let file = args.config_path.as_deref().map(run_config::load).transpose()?;
    let mut update = RunUpdate {
        config: file.as_ref().map(|file| (&file.config).into()),
        model: file.as_ref().map(|file| (&file.model).into()),
        client_version: args.client_version.clone(),
        ..RunUpdate::default()
    };
    let (rpc, wallet) = act(&args.on).await?;
    let run_id = &args.on.run_id;
    let confirmed = work::resumable("updating the run", async {
        check_treasury(&rpc, run_id, &args.treasury).await?;
        if needs_state(&args) {
            let (_run, view) = rpc.fetch_run(run_id).await.map_err(chain_failed)?;
            complete(&mut update, &args, &view.account.state)?;
        }
        ops::update_run(&rpc, &wallet, run_id, &update).await.map_err(chain_failed)
    });
    for confirmed in confirmed.await? {
        output::line(format_args!("{}", confirmed.signature))?;
    }
    output::note(format_args!("run {run_id} is updated"));
    Ok(())
}

fn described(args: &UpdateConfigArgs) -> bool {
    args.name.is_some() || args.description.is_some() || args.num_parameters.is_some() || args.vocab_size.is_some()
}

/// Whether a part of what the account holds stays as it is.
fn needs_state(args: &UpdateConfigArgs) -> bool {
    described(args) || args.restart_from_step.is_some() || args.switch_to_hub
}

/// Adds to `update` what changes only a part of what the account holds.
fn complete(update: &mut RunUpdate, args: &UpdateConfigArgs, state: &InstanceState) -> Result<()> {
    if described(args) {
        update.metadata = Some(metadata(args, state.metadata)?);
    }
    if let Some(step) = args.restart_from_step {
        let progress = &state.coordinator.progress;
        update.progress = Some(Progress::new(progress.epoch, step, progress.epoch_start_data_index));
    }
    if args.switch_to_hub {
        let present = update.model.or_else(|| state.coordinator.model.get().ok());
        update.model = Some(from_hub(present)?);
    }
    Ok(())
}

/// The same model, from the repository or bucket that the members would fall back to.
fn from_hub(model: Option<Model>) -> Result<Model> {
    let refused = |why: &str| Failure::new(Exit::Refused, format!("--switch-to-hub: {why}"));
    let Some(Model::Llm(mut llm)) = model else {
        return Err(refused("the run has no model yet; give one with --config-path").into());
    };
    llm.checkpoint = match llm.checkpoint {
        Checkpoint::P2P(repo) | Checkpoint::Hub(repo) => Checkpoint::Hub(repo),
        Checkpoint::P2PGcs(repo) | Checkpoint::Gcs(repo) => Checkpoint::Gcs(repo),
        Checkpoint::Ephemeral | Checkpoint::Dummy(_) => {
            return Err(refused("the run's model names no repository; give one with --config-path").into());
        }
    };
    Ok(Model::Llm(llm))
}

fn metadata(args: &UpdateConfigArgs, mut metadata: Metadata) -> Result<Metadata> {
    if let Some(name) = &args.name {
        metadata.name = text(name, "--name: at most 64 bytes are accepted")?;
    }
    if let Some(description) = &args.description {
        metadata.description = text(description, "--description: at most 280 bytes are accepted")?;
    }
    metadata.num_parameters = args.num_parameters.unwrap_or(metadata.num_parameters);
    metadata.vocab_size = args.vocab_size.unwrap_or(metadata.vocab_size);
    Ok(metadata)
}

fn text<const N: usize>(text: &str, otherwise: &str) -> Result<FixedString<N>> {
    FixedString::new(text).ok_or_else(|| Failure::new(Exit::Configuration, otherwise).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use psyche_protocol::model::HubRepo;

    use super::*;

    fn model(checkpoint: Checkpoint) -> Option<Model> {
        let run: run_config::RunConfig = toml::from_str(run_config::EXAMPLE).unwrap();
        let Model::Llm(mut llm) = (&run.model).into();
        llm.checkpoint = checkpoint;
        Some(Model::Llm(llm))
    }

    #[test]
    fn switching_to_the_hub_keeps_the_repository() {
        let repo = HubRepo { repo_id: FixedString::new("a/b").unwrap(), revision: FixedString::new("main") };
        for before in [Checkpoint::P2P(repo), Checkpoint::Hub(repo)] {
            assert_eq!(from_hub(model(before)).unwrap().llm().checkpoint, Checkpoint::Hub(repo));
        }
        assert!(from_hub(model(Checkpoint::Ephemeral)).is_err());
        assert!(from_hub(None).is_err());
    }
}

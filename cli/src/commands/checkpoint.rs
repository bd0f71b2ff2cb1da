//! `checkpoint`: the place of a run's newest weights.

use anyhow::{Context as _, Result};
use psyche_chain::ops::{self, CheckpointOutcome};
use psyche_protocol::instruction::CheckpointArgs as Instruction;
use psyche_protocol::layout::FixedString;
use psyche_protocol::model::{Checkpoint, GcsRepo, HubRepo};

use super::{act, chain_failed};
use crate::args::CheckpointArgs;
use crate::exit::{Exit, Failure};
use crate::{output, work};

pub(crate) async fn run(args: CheckpointArgs) -> Result<()> {
    let instruction = Instruction { checkpoint: place(&args)? };
    let (rpc, wallet) = act(&args.on).await?;
    let run_id = &args.on.run_id;
    let named = work::resumable("naming the checkpoint", async {
        let run = rpc.run_info(run_id).await.map_err(chain_failed)?;
        ops::checkpoint(&rpc, &wallet, &run, &instruction).await.map_err(chain_failed)
    });
    match named.await? {
        CheckpointOutcome::Named { signature: Some(signature) } => {
            output::line(format_args!("{signature}"))?;
            output::note(format_args!("run {run_id} names this checkpoint now"));
        }
        CheckpointOutcome::Named { signature: None } | CheckpointOutcome::AlreadyNamed => {
            output::note(format_args!("nothing to do: the run names this checkpoint already"));
        }
        CheckpointOutcome::Ignored { .. } => {
            let message =
                "the program kept the checkpoint that the run names: it is of another kind (a repository or a bucket)";
            return Err(Failure::new(Exit::Refused, message).into());
        }
    }
    Ok(())
}

fn place(args: &CheckpointArgs) -> Result<Checkpoint> {
    match (&args.repo, &args.bucket) {
        (Some(repo), _) => Ok(Checkpoint::Hub(HubRepo {
            repo_id: text(repo, "--repo")?,
            revision: args.revision.as_deref().map(|revision| text(revision, "--revision")).transpose()?,
        })),
        (None, bucket) => Ok(Checkpoint::Gcs(GcsRepo {
            bucket: text(bucket.as_deref().context("no --repo and no --bucket")?, "--bucket")?,
            prefix: args.prefix.as_deref().map(|prefix| text(prefix, "--prefix")).transpose()?,
        })),
    }
}

fn text(text: &str, option: &str) -> Result<FixedString<64>> {
    let refused = || Failure::new(Exit::Configuration, format!("{option}: 1 to 64 bytes without NUL are accepted"));
    Ok(FixedString::new(text).filter(|_| !text.is_empty()).ok_or_else(refused)?)
}

//! What a run's owner changes, directly or through the treasury that owns the run.

use psyche_messages::RunId;
use psyche_protocol::instruction::{RunUpdateArgs, SetFutureEpochRatesArgs, UpdateArgs};
use psyche_protocol::layout::{Config, Metadata, Progress};
use psyche_protocol::model::Model;

use super::effect::{Described, Effect};
use super::rewards::treasury_of;
use crate::Instruction;
use crate::error::ChainError;
use crate::instructions::{coordinator, treasurer};
use crate::rpc::Rpc;
use crate::run::RunInfo;
use crate::transaction::{Compute, Confirmed, Plan};
use crate::wallet::Wallet;

/// Changes of a run; `None` leaves a part as it is. Configuration, model, progress and client version change only while the
/// run is paused.
#[derive(Clone, Debug, Default)]
pub struct RunUpdate {
    /// Its description.
    pub metadata: Option<Metadata>,
    /// Its rules.
    pub config: Option<Config>,
    /// What is trained.
    pub model: Option<Model>,
    /// Where it stands.
    pub progress: Option<Progress>,
    /// The version that its clients must have.
    pub client_version: Option<String>,
}

impl RunUpdate {
    const fn is_empty(&self) -> bool {
        self.metadata.is_none()
            && self.config.is_none()
            && self.model.is_none()
            && self.progress.is_none()
            && self.client_version.is_none()
    }

    fn args(&self) -> RunUpdateArgs<'_> {
        let Self { metadata, config, model, progress, client_version } = self;
        let update = UpdateArgs { metadata: *metadata, config: *config, model: *model, progress: *progress };
        RunUpdateArgs { update, client_version: client_version.as_deref(), ..Default::default() }
    }

    /// One change each, in an order in which each is acceptable by itself.
    fn parts(&self) -> Vec<Self> {
        let parts = [
            Self { metadata: self.metadata, ..Self::default() },
            Self { config: self.config, ..Self::default() },
            Self { model: self.model, ..Self::default() },
            Self { progress: self.progress, ..Self::default() },
            Self { client_version: self.client_version.clone(), ..Self::default() },
        ];
        parts.into_iter().filter(|part| !part.is_empty()).collect()
    }
}

/// Changes a run. What does not fit into one transaction goes into several, so a failure may leave a part of it done.
///
/// # Errors
/// [`ChainError::NotPossible`] for somebody else's run or nothing to change; [`ChainError`] of the transactions.
pub async fn update_run(rpc: &Rpc, wallet: &Wallet, run_id: &RunId, update: &RunUpdate) -> Result<Vec<Confirmed>, ChainError> {
    if update.is_empty() {
        return Err(ChainError::NotPossible { action: "update the run", reason: "nothing is to be changed".into() });
    }
    let run = rpc.run_info(run_id).await?;
    match change(rpc, wallet, &run, "the update of the run", &update.args()).await {
        Ok(confirmed) => Ok(vec![confirmed]),
        Err(ChainError::TooLarge { .. } | ChainError::Encode { .. }) => {
            let mut confirmed = Vec::new();
            for part in update.parts() {
                confirmed.push(change(rpc, wallet, &run, "the update of the run", &part.args()).await?);
            }
            Ok(confirmed)
        }
        Err(error) => Err(error),
    }
}

/// Pauses a run, or resumes it; after a resumption every client must join anew.
///
/// # Errors
/// [`ChainError::NotPossible`] for somebody else's run; [`ChainError`] of the transaction.
pub async fn set_paused(rpc: &Rpc, wallet: &Wallet, run_id: &RunId, paused: bool) -> Result<Confirmed, ChainError> {
    let run = rpc.run_info(run_id).await?;
    let args = RunUpdateArgs { paused: Some(paused), ..Default::default() };
    let purpose = if paused { "the pause of the run" } else { "the resumption of the run" };
    change(rpc, wallet, &run, purpose, &args).await
}

/// Sets what an epoch pays to all of its finishers together, and what it takes from a client, both in points, from the next
/// epoch on.
///
/// # Errors
/// [`ChainError::NotPossible`] for somebody else's run; [`ChainError`] of the transaction.
pub async fn set_future_epoch_rates(
    rpc: &Rpc,
    wallet: &Wallet,
    run_id: &RunId,
    earning_rate_total_shared: Option<u64>,
    slashing_rate_per_client: Option<u64>,
) -> Result<Confirmed, ChainError> {
    let run = rpc.run_info(run_id).await?;
    let args = RunUpdateArgs { earning_rate_total_shared, slashing_rate_per_client, ..Default::default() };
    change(rpc, wallet, &run, "the change of the epoch rates", &args).await
}

/// Sends `args` to the run, by way of the treasury where one owns it.
async fn change(
    rpc: &Rpc,
    wallet: &Wallet,
    run: &RunInfo,
    purpose: &'static str,
    args: &RunUpdateArgs<'_>,
) -> Result<Confirmed, ChainError> {
    let (treasury, programs) = (treasury_of(rpc, run).await?, rpc.programs());
    let owner = treasury.as_ref().map_or(run.main_authority, |treasury| treasury.main_authority);
    if owner != wallet.address() {
        let reason = format!("it belongs to {owner}, not to {}", wallet.address());
        return Err(ChainError::NotPossible { action: "change the run", reason });
    }
    let instructions = match treasury {
        Some(_) => vec![treasurer::run_update(programs, owner, run, args)?],
        None => direct(rpc, run, args)?,
    };
    let plan = Plan { purpose, payer: wallet, signers: &[], instructions: &instructions, compute: Compute::Simulated };
    let wanted = Effect::Described(Box::new(wanted(args)));
    rpc.submit_to(&plan, || async { Ok(wanted.is_there(&rpc.coordinator(run.account).await?.account)) }).await
}

/// What the run's account shows once `args` are carried out.
fn wanted(args: &RunUpdateArgs<'_>) -> Described {
    Described {
        metadata: args.update.metadata,
        config: args.update.config,
        model: args.update.model,
        progress: args.update.progress,
        client_version: args.client_version.map(str::to_owned),
        earning: args.earning_rate_total_shared,
        slashing: args.slashing_rate_per_client,
        paused: args.paused,
    }
}

/// What the treasurer would do with `args`, in its order: a pause first, a resumption last.
fn direct(rpc: &Rpc, run: &RunInfo, args: &RunUpdateArgs<'_>) -> Result<Vec<Instruction>, ChainError> {
    let programs = rpc.programs();
    let mut instructions = Vec::new();
    if args.paused == Some(true) {
        instructions.push(coordinator::set_paused(programs, run, true)?);
    }
    let UpdateArgs { metadata, config, model, progress } = &args.update;
    if metadata.is_some() || config.is_some() || model.is_some() || progress.is_some() {
        instructions.push(coordinator::update(programs, run, &args.update)?);
    }
    let RunUpdateArgs { earning_rate_total_shared, slashing_rate_per_client, .. } = *args;
    if earning_rate_total_shared.is_some() || slashing_rate_per_client.is_some() {
        let rates = SetFutureEpochRatesArgs { earning_rate_total_shared, slashing_rate_per_client };
        instructions.push(coordinator::set_future_epoch_rates(programs, run, &rates)?);
    }
    if let Some(version) = args.client_version {
        instructions.push(coordinator::update_client_version(programs, run, version)?);
    }
    if args.paused == Some(false) {
        instructions.push(coordinator::set_paused(programs, run, false)?);
    }
    Ok(instructions)
}

//! Everything that is to be known of a run, or of one wallet in it, in a form that people and scripts read.

mod model;

use psyche_messages::{Address, ChainTime, Epoch, Lamports, Nonce, PeerKey, Phase, Points, RunId, Slot, Step};
use psyche_protocol::layout::{CoordinatorAccount, EpochClient, RosterClient};
use serde::Serialize;
use serde_json::Value;

use super::grants::{Grant, candidates};
use super::rewards::{RunPoints, Treasury, decode_participant, points, token_decimals, treasury_of};
use crate::addresses;
use crate::error::ChainError;
use crate::rpc::Rpc;
use crate::run::{CoordinatorView, RunInfo};

/// A run, whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunDump {
    /// Its name on chain.
    pub run_id: RunId,
    /// Its instance.
    pub instance: Address,
    /// Its coordinator account.
    pub account: Address,
    /// Who owns it; a treasury's address where a treasurer pays.
    pub main_authority: Address,
    /// Whose grants let clients join.
    pub join_authority: Address,
    /// The slot at which it was read.
    pub slot: Slot,
    /// The counter of its changes.
    pub nonce: Nonce,
    /// What it is doing.
    pub phase: Phase,
    /// Since when, by the chain's clock.
    pub phase_since: ChainTime,
    /// Whether it pauses when the epoch ends.
    pub pending_pause: bool,
    /// The version that clients must have.
    pub client_version: String,
    /// What its owner says about it.
    pub metadata: MetadataDump,
    /// Its rules, with the names of the run's TOML.
    pub config: Value,
    /// What is trained, with the names of the run's TOML; `null` where it makes no sense.
    pub model: Value,
    /// How far it has come.
    pub progress: ProgressDump,
    /// The epoch in work.
    pub epoch: EpochDump,
    /// Every wallet that has a place in the run.
    pub roster: Vec<MemberDump>,
    /// What epochs pay and take.
    pub rates: RatesDump,
    /// Who pays, if anybody.
    pub treasury: Option<TreasuryDump>,
}

/// What a run's owner says about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetadataDump {
    /// What it is called.
    pub name: String,
    /// A few sentences.
    pub description: String,
    /// Parameters of the model.
    pub num_parameters: u64,
    /// Vocabulary of the model.
    pub vocab_size: u64,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProgressDump {
    /// Epochs that have ended.
    pub epoch: Epoch,
    /// The step in work.
    pub step: Step,
    /// First sample of the epoch.
    pub epoch_start_data_index: u64,
}

/// The epoch in work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EpochDump {
    /// Its first step.
    pub start_step: Step,
    /// Its last step, once that is known.
    pub last_step: Option<Step>,
    /// When its Warmup began.
    pub started: ChainTime,
    /// Whether its first round has not ended.
    pub first_round: bool,
    /// Whether it is the first one after a pause.
    pub cold_start: bool,
    /// Number of the round within the epoch.
    pub round: u32,
    /// First sample of the round.
    pub round_data_index: u64,
    /// Statements that witnesses have made in the round.
    pub round_witnesses: usize,
    /// Who takes part.
    pub clients: Vec<ClientDump>,
    /// Who took part and left.
    pub exited: Vec<ClientDump>,
}

/// A client of the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientDump {
    /// Its wallet.
    pub wallet: Address,
    /// Its peer key.
    pub peer: PeerKey,
    /// Healthy, Dropped, Withdrawn or Ejected.
    pub state: String,
    /// The round in which it left, if it did.
    pub exited_height: Option<u32>,
}

/// A wallet in the roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberDump {
    /// The wallet.
    pub wallet: Address,
    /// The peer key of its latest join.
    pub peer: PeerKey,
    /// Whether it has joined for the next epoch.
    pub joined: bool,
    /// Points earned.
    pub earned: Points,
    /// Points lost again.
    pub slashed: Points,
    /// Points claimed; 0 without a treasury.
    pub claimed: Points,
    /// Points that are left to be claimed.
    pub claimable: Points,
}

/// What epochs pay to all of their finishers together, and take from each client that is proven absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RatesDump {
    /// Paid by the epoch in work.
    pub current_earning: Points,
    /// Taken by the epoch in work.
    pub current_slashing: Points,
    /// Paid by the next epochs.
    pub future_earning: Points,
    /// Taken by the next epochs.
    pub future_slashing: Points,
}

/// Who pays for a run's points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TreasuryDump {
    /// Its address.
    pub run: Address,
    /// Who owns it.
    pub main_authority: Address,
    /// The token that it pays.
    pub mint: Address,
    /// Decimals with which the token is shown.
    pub decimals: Option<u8>,
    /// Where it keeps its tokens.
    pub collateral: Address,
    /// What it holds, in base units of the token.
    pub funded: Points,
    /// What was claimed from it.
    pub claimed: Points,
    /// What members can still claim.
    pub owed: Points,
    /// What it lacks for that.
    pub missing: Points,
    /// What it holds beyond that.
    pub surplus: Points,
    /// How many more epochs the surplus pays at the next epochs' rate; `None` where that is 0.
    pub epochs_funded: Option<u64>,
}

/// Everything about the run `run_id`.
///
/// # Errors
/// [`ChainError`] where the run is missing or can't be read, or no endpoint answers.
pub async fn dump_run(rpc: &Rpc, run_id: &RunId) -> Result<RunDump, ChainError> {
    let (run, view) = rpc.fetch_run(run_id).await?;
    let treasury = treasury_of(rpc, &run).await?;
    let roster = roster(rpc, treasury.as_ref(), &view.account).await?;
    let treasury = match treasury {
        Some(treasury) => Some(funds(rpc, &treasury, &roster, &view.account).await?),
        None => None,
    };
    Ok(RunDump { roster, treasury, ..described(&run, &view) })
}

/// What the account alone tells.
fn described(run: &RunInfo, view: &CoordinatorView) -> RunDump {
    let state = &view.account.state;
    let (coordinator, clients) = (&state.coordinator, &state.clients_state);
    RunDump {
        run_id: run.run_id.clone(),
        instance: run.instance,
        account: run.account,
        main_authority: run.main_authority,
        join_authority: run.join_authority,
        slot: view.slot,
        nonce: view.nonce(),
        phase: view.phase(),
        phase_since: view.since(),
        pending_pause: coordinator.pending_pause != 0,
        client_version: state.client_version.as_str().to_owned(),
        metadata: MetadataDump {
            name: state.metadata.name.as_str().to_owned(),
            description: state.metadata.description.as_str().to_owned(),
            num_parameters: state.metadata.num_parameters,
            vocab_size: state.metadata.vocab_size,
        },
        config: model::config(&coordinator.config),
        model: coordinator.model.get().map_or(Value::Null, |found| model::model(&found)),
        progress: ProgressDump {
            epoch: view.epoch(),
            step: view.step(),
            epoch_start_data_index: coordinator.progress.epoch_start_data_index,
        },
        epoch: epoch(&view.account),
        roster: Vec::new(),
        rates: RatesDump {
            current_earning: Points(clients.current_earning_rate),
            current_slashing: Points(clients.current_slashing_rate),
            future_earning: Points(clients.future_earning_rate),
            future_slashing: Points(clients.future_slashing_rate),
        },
        treasury: None,
    }
}

fn epoch(account: &CoordinatorAccount) -> EpochDump {
    let epoch = &account.state.coordinator.epoch_state;
    let round = account.current_round();
    let all = |clients: &[EpochClient]| clients.iter().map(client).collect();
    EpochDump {
        start_step: Step(epoch.start_step),
        last_step: (epoch.last_step > 0).then_some(Step(epoch.last_step)),
        started: ChainTime(i64::try_from(epoch.start_timestamp).unwrap_or(i64::MAX)),
        first_round: epoch.first_round != 0,
        cold_start: epoch.cold_start_epoch != 0,
        round: round.height,
        round_data_index: round.data_index,
        round_witnesses: round.witnesses.len(),
        clients: all(epoch.clients.as_slice()),
        exited: all(epoch.exited_clients.as_slice()),
    }
}

fn client(client: &EpochClient) -> ClientDump {
    ClientDump {
        wallet: Address(client.id.signer),
        peer: PeerKey(client.id.p2p_identity),
        state: format!("{:?}", client.client_state()),
        exited_height: (client.exited_height > 0).then_some(client.exited_height),
    }
}

/// The roster, with what each wallet has claimed from `treasury`.
async fn roster(rpc: &Rpc, treasury: Option<&Treasury>, account: &CoordinatorAccount) -> Result<Vec<MemberDump>, ChainError> {
    let clients = &account.state.clients_state;
    let members = clients.clients.as_slice();
    let mut claimed = vec![0; members.len()];
    if let Some(treasury) = treasury {
        let place = |member: &RosterClient| addresses::participant(rpc.programs(), treasury.run, Address(member.id.signer));
        let places: Vec<Address> = members.iter().map(place).collect();
        let reads = rpc.accounts(&places).await?;
        for ((claimed, place), read) in claimed.iter_mut().zip(&places).zip(&reads) {
            if let Some(read) = read {
                *claimed = decode_participant(*place, read)?.claimed_earned_points;
            }
        }
    }
    let member = |(member, claimed): (&RosterClient, u64)| {
        let points = RunPoints::new(Some(member), claimed, Points(0));
        MemberDump {
            wallet: Address(member.id.signer),
            peer: PeerKey(member.id.p2p_identity),
            joined: clients.is_pending(member),
            earned: points.earned,
            slashed: points.slashed,
            claimed: points.claimed,
            claimable: points.claimable,
        }
    };
    Ok(members.iter().zip(claimed).map(member).collect())
}

async fn funds(
    rpc: &Rpc,
    treasury: &Treasury,
    roster: &[MemberDump],
    account: &CoordinatorAccount,
) -> Result<TreasuryDump, ChainError> {
    let Points(funded) = rpc.token_balance(treasury.collateral()).await?.unwrap_or_default();
    let owed = roster.iter().fold(0_u64, |sum, member| sum.saturating_add(member.claimable.0));
    let decimals = match token_decimals(rpc, treasury.mint).await {
        Ok(decimals) => Some(decimals),
        Err(ChainError::AccountMissing { .. }) => None,
        Err(error) => return Err(error),
    };
    let surplus = funded.saturating_sub(owed);
    Ok(TreasuryDump {
        run: treasury.run,
        main_authority: treasury.main_authority,
        mint: treasury.mint,
        decimals,
        collateral: treasury.collateral(),
        funded: Points(funded),
        claimed: treasury.claimed,
        owed: Points(owed),
        missing: Points(owed.saturating_sub(funded)),
        surplus: Points(surplus),
        epochs_funded: surplus.checked_div(account.state.clients_state.future_earning_rate),
    })
}

/// One wallet in a run, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserDump {
    /// The run.
    pub run_id: RunId,
    /// The wallet.
    pub wallet: Address,
    /// What it holds, for fees.
    pub balance: Lamports,
    /// What the run is doing.
    pub phase: Phase,
    /// Whether it has a place in the roster.
    pub in_roster: bool,
    /// The peer key of its latest join.
    pub peer: Option<PeerKey>,
    /// Whether it has joined for the next epoch.
    pub joined: bool,
    /// How it stands in the epoch in work, if it takes or took part.
    pub in_epoch: Option<ClientDump>,
    /// Its points, and what the treasury holds.
    pub points: RunPoints,
    /// The treasury's account of it, where there is a treasury; it exists once something was claimed.
    pub participant: Option<Address>,
    /// Its account of the treasury's token, where there is a treasury.
    pub token_account: Option<Address>,
    /// The grant by which it may join now, if any.
    pub grant: Option<Grant>,
    /// Grants that concern it and do not let it in at present.
    pub other_grants: Vec<Grant>,
}

/// Everything about `user` in the run `run_id`. Grants are looked for to everyone, to the user, and to `authorizer` if given.
///
/// # Errors
/// [`ChainError`] where the run is missing or can't be read, or no endpoint answers.
pub async fn dump_user(rpc: &Rpc, run_id: &RunId, user: Address, authorizer: Option<Address>) -> Result<UserDump, ChainError> {
    let (run, view) = rpc.fetch_run(run_id).await?;
    let treasury = treasury_of(rpc, &run).await?;
    let (valid, other): (Vec<_>, Vec<_>) =
        candidates(rpc, &run, user, authorizer).await?.into_iter().partition(|grant| grant.lets_in(user));
    let member = view.account.roster_client(&user.0);
    let epoch = &view.account.state.coordinator.epoch_state;
    let mut taking_part = epoch.clients.iter().chain(epoch.exited_clients.iter());
    Ok(UserDump {
        run_id: run_id.clone(),
        wallet: user,
        balance: rpc.balance(user).await?,
        phase: view.phase(),
        in_roster: member.is_some(),
        peer: member.map(|member| PeerKey(member.id.p2p_identity)),
        joined: view.account.is_pending(&user.0),
        in_epoch: taking_part.find(|client| client.id.signer == user.0).map(client),
        points: points(rpc, &run, user).await?,
        participant: treasury.map(|treasury| addresses::participant(rpc.programs(), treasury.run, user)),
        token_account: treasury.map(|treasury| addresses::associated_token(user, treasury.mint)),
        grant: valid.into_iter().next(),
        other_grants: other,
    })
}

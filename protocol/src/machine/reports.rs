//! What clients do: join, report, check on each other, store weights.

use super::{Clock, CoordinatorError, Outcome, enter, finish_with_tick, start_round};
use crate::Pubkey;
use crate::instruction::HealthCheckArgs;
use crate::keys::is_public_key;
use crate::layout::{
    ClientState, CoordinatorAccount, MAX_CLIENTS, NodeIdentity, RosterClient, RunState, Witness, WitnessProof,
};
use crate::model::Checkpoint;
use crate::select::{Health, Selection, check_checkpointer, check_health};

/// Where in the roster a client goes.
enum Place {
    /// It is there.
    Its(usize),
    /// Behind the last.
    New,
    /// The place of somebody who has been gone for long.
    Vacant(usize),
}

fn find_place(account: &CoordinatorAccount, client: &NodeIdentity) -> Result<Place, CoordinatorError> {
    if !is_public_key(&client.p2p_identity) {
        return Err(CoordinatorError::InvalidNodeIdentity);
    }
    let roster = &account.state.clients_state;
    let known = roster.clients.iter().position(|known| known.id.signer == client.signer);
    let is_pending = known.and_then(|at| roster.clients.get(at)).is_some_and(|member| roster.is_pending(member));
    let batch_end = usize::from(account.state.coordinator.config.global_batch_size_end);
    if !is_pending && roster.pending().count() >= batch_end {
        return Err(CoordinatorError::MoreClientsThanBatches);
    }
    match known {
        Some(at) => Ok(Place::Its(at)),
        None if roster.clients.len() < MAX_CLIENTS => Ok(Place::New),
        None => {
            let vacant = roster.clients.iter().position(|member| roster.is_vacant(member));
            vacant.map(Place::Vacant).ok_or(CoordinatorError::ClientsFull)
        }
    }
}

/// Whether `client` would get a place, its authorization aside.
///
/// # Errors
/// As [`join_run`].
pub fn check_join(account: &CoordinatorAccount, client: &NodeIdentity) -> Outcome {
    find_place(account, client).map(|_| ())
}

/// Joins the next epoch. The shell has checked the authorization, and that the user who signed is `client.signer`.
///
/// # Errors
/// `InvalidNodeIdentity` for a peer-to-peer key that is none; `MoreClientsThanBatches` where as many have joined for this
/// epoch as a round has samples at most; `ClientsFull` where the roster has no place, and none that may be given away.
pub fn join_run(account: &mut CoordinatorAccount, client: &NodeIdentity, clock: &Clock) -> Outcome {
    let place = find_place(account, client)?;
    let roster = &mut account.state.clients_state;
    let newcomer = RosterClient::new(*client, roster.next_active);
    let changed = match place {
        Place::Its(at) => roster.clients.as_mut_slice().get_mut(at).is_some_and(|known| {
            let changed = known.id != *client || known.active != newcomer.active;
            known.id = *client;
            known.active = newcomer.active;
            changed
        }),
        Place::New => roster.clients.push(&newcomer),
        Place::Vacant(at) => roster.clients.as_mut_slice().get_mut(at).is_some_and(|member| {
            *member = newcomer;
            true
        }),
    };
    finish_with_tick(account, clock, changed);
    Ok(())
}

fn check_member(account: &CoordinatorAccount, from: &Pubkey) -> Outcome {
    match account.roster_client(from) {
        Some(_) => Ok(()),
        None => Err(CoordinatorError::SignerNotAClient),
    }
}

/// Whether the epoch's client at the proof's index is `from`.
fn is_sender(account: &CoordinatorAccount, proof: &WitnessProof, from: &Pubkey) -> bool {
    usize::try_from(proof.index)
        .ok()
        .and_then(|index| account.clients().get(index))
        .is_some_and(|client| client.id.signer == *from)
}

/// Stores a report with the current round and says whether it was the last one to wait for.
fn store(account: &mut CoordinatorAccount, witness: &Witness) -> Result<bool, CoordinatorError> {
    let coordinator = &mut account.state.coordinator;
    let target = coordinator.config.witness_target(coordinator.epoch_state.clients.len());
    let witnesses = &mut coordinator.epoch_state.current_round_mut().witnesses;
    // Within an epoch's state an index is one sender, because clients move only where rounds begin.
    if witnesses.iter().any(|other| other.proof.index == witness.proof.index) {
        return Err(CoordinatorError::DuplicateWitness);
    }
    if !witnesses.push(witness) {
        return Err(CoordinatorError::WitnessesFull);
    }
    Ok(witnesses.len() >= target)
}

/// A witness reports on the round. The last one that the round waits for ends the training.
///
/// # Errors
/// `SignerNotAClient`, `Halted`, `InvalidRunState`, `InvalidCommitteeSelection`, `InvalidWitness`, `DuplicateWitness`,
/// `WitnessesFull`.
pub fn witness(account: &mut CoordinatorAccount, from: &Pubkey, witness: &Witness, clock: &Clock) -> Outcome {
    check_member(account, from)?;
    let state = account.run_state();
    if state.halted() {
        return Err(CoordinatorError::Halted);
    }
    if !matches!(state, RunState::RoundTrain | RunState::RoundWitness) {
        return Err(CoordinatorError::InvalidRunState);
    }
    let selection = Selection::of_round(account.current_round(), &account.state.coordinator.config)
        .map_err(|_| CoordinatorError::InvalidCommitteeSelection)?;
    if !is_sender(account, &witness.proof, from) || !selection.verify_witness(&witness.proof) {
        return Err(CoordinatorError::InvalidWitness);
    }
    if store(account, witness)? && state == RunState::RoundTrain {
        enter(&mut account.state.coordinator, RunState::RoundWitness, clock.now());
    }
    finish_with_tick(account, clock, true);
    Ok(())
}

/// A client reports that it is ready. The last one that the epoch waits for begins the training. Late ones are ignored
/// while a round is trained.
///
/// There is no seed yet that a position could follow from: the index must be the sender's own, and the position one that
/// the epoch has.
///
/// # Errors
/// `SignerNotAClient`, `Halted`, `InvalidRunState`, `InvalidWitness`, `DuplicateWitness`, `WitnessesFull`.
pub fn warmup_witness(account: &mut CoordinatorAccount, from: &Pubkey, witness: &Witness, clock: &Clock) -> Outcome {
    check_member(account, from)?;
    let changed = match account.run_state() {
        RunState::Warmup => {
            let clients = account.clients().len() as u64;
            if !is_sender(account, &witness.proof, from) || witness.proof.position >= clients {
                return Err(CoordinatorError::InvalidWitness);
            }
            if store(account, witness)? {
                start_round(&mut account.state.coordinator, clock);
            }
            true
        }
        RunState::RoundTrain => false,
        state if state.halted() => return Err(CoordinatorError::Halted),
        _ => return Err(CoordinatorError::InvalidRunState),
    };
    finish_with_tick(account, clock, changed);
    Ok(())
}

/// Drops a client that the previous round's witnesses did not hear; or ejects it, where they prove its absence and the
/// epoch has a slashing rate. What was done before is not done again: several witnesses may notice at once, which is no
/// error.
///
/// # Errors
/// `SignerNotAClient`, `Halted`, `InvalidRunState`, `NoActiveRound`, `InvalidCommitteeSelection`,
/// `InvalidCommitteeProof`; `InvalidHealthCheck` where it is too early, or the client is healthy, or gone.
pub fn health_check(account: &mut CoordinatorAccount, from: &Pubkey, args: &HealthCheckArgs, clock: &Clock) -> Outcome {
    check_member(account, from)?;
    let coordinator = &mut account.state.coordinator;
    let state = coordinator.state();
    if state.halted() {
        return Err(CoordinatorError::Halted);
    }
    if !state.training() {
        return Err(CoordinatorError::InvalidRunState);
    }
    let slashes = account.state.clients_state.current_slashing_rate > 0;
    let verdict = match check_health(coordinator, &args.client, &args.proof)? {
        Health::Heard => return Err(CoordinatorError::InvalidHealthCheck),
        Health::ProvenAbsent if slashes => ClientState::Ejected,
        Health::ProvenAbsent | Health::Unheard => ClientState::Dropped,
    };
    let clients = coordinator.epoch_state.clients.as_mut_slice();
    let target = usize::try_from(args.proof.index).ok().and_then(|index| clients.get_mut(index));
    let Some(target) = target else { return Err(CoordinatorError::InvalidHealthCheck) };
    let changed = target.is_healthy();
    if changed {
        target.state = verdict.number();
    }
    finish_with_tick(account, clock, changed);
    Ok(())
}

/// An elected client of the epoch names newly stored weights ([`check_checkpointer`]). What peers hold now stays with the
/// peers; only the place to fall back to changes. A kind that does not fit the run's is ignored, as in the deployed
/// program.
///
/// # Errors
/// `SignerNotAClient`, `NoActiveRound`, `NotElected`, `InvalidCheckpoint`.
pub fn checkpoint(account: &mut CoordinatorAccount, from: &Pubkey, new: &Checkpoint, clock: &Clock) -> Outcome {
    check_checkpointer(account, from)?;
    if !new.is_well_formed() {
        return Err(CoordinatorError::InvalidCheckpoint);
    }
    let raw = &mut account.state.coordinator.model.checkpoint;
    let old = raw.get().ok_or(CoordinatorError::CorruptAccount)?;
    match (&old, new) {
        (Checkpoint::Hub(_), Checkpoint::Hub(_)) | (Checkpoint::Gcs(_), Checkpoint::Gcs(_)) => raw.set(new),
        (Checkpoint::P2P(_) | Checkpoint::P2PGcs(_), Checkpoint::Hub(_) | Checkpoint::Gcs(_)) => {
            raw.set(new);
            raw.hand_to_peers();
        }
        _ => {}
    }
    let changed = raw.get() != Some(old);
    finish_with_tick(account, clock, changed);
    Ok(())
}

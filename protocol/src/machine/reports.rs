//! What clients do: join, report, check on each other, store weights.

use super::{Clock, CoordinatorError, Outcome, enter, finish_with_tick, start_round};
use crate::Pubkey;
use crate::instruction::HealthCheckArgs;
use crate::layout::{ClientState, CoordinatorAccount, NodeIdentity, RosterClient, RunState, Witness, WitnessProof};
use crate::model::Checkpoint;
use crate::select::{Selection, check_health};

/// Joins the next epoch. The shell has checked the authorization, and that the user who signed is `client.signer`.
///
/// # Errors
/// `InvalidNodeIdentity`, `MoreClientsThanBatches`, `ClientsFull`.
pub fn join_run(account: &mut CoordinatorAccount, client: &NodeIdentity, clock: &Clock) -> Outcome {
    if client.p2p_identity == [0; 32] {
        return Err(CoordinatorError::InvalidNodeIdentity);
    }
    let batch_end = usize::from(account.state.coordinator.config.global_batch_size_end);
    let clients = &mut account.state.clients_state;
    let active = clients.next_active;
    let known = clients.clients.as_mut_slice().iter_mut().find(|known| known.id.signer == client.signer);
    if let Some(known) = known {
        known.id = *client;
        known.active = active;
    } else {
        if clients.clients.len() == batch_end {
            return Err(CoordinatorError::MoreClientsThanBatches);
        }
        if !clients.clients.push(&RosterClient::new(*client, active)) {
            return Err(CoordinatorError::ClientsFull);
        }
    }
    finish_with_tick(account, clock);
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
    finish_with_tick(account, clock);
    Ok(())
}

/// A client reports that it is ready. The last one that the epoch waits for begins the training. Late ones are ignored
/// while the first training goes on.
///
/// # Errors
/// `SignerNotAClient`, `Halted`, `InvalidRunState`, `InvalidWitness`, `DuplicateWitness`, `WitnessesFull`.
pub fn warmup_witness(account: &mut CoordinatorAccount, from: &Pubkey, witness: &Witness, clock: &Clock) -> Outcome {
    check_member(account, from)?;
    match account.run_state() {
        RunState::Warmup => {
            if !is_sender(account, &witness.proof, from) {
                return Err(CoordinatorError::InvalidWitness);
            }
            if store(account, witness)? {
                start_round(&mut account.state.coordinator, clock);
            }
        }
        RunState::RoundTrain => {}
        state if state.halted() => return Err(CoordinatorError::Halted),
        _ => return Err(CoordinatorError::InvalidRunState),
    }
    finish_with_tick(account, clock);
    Ok(())
}

/// Drops a client that the previous round's witnesses did not hear. One that is dropped already stays so, without an
/// error: several witnesses may notice at once.
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
    if check_health(coordinator, &args.client, &args.proof)? {
        return Err(CoordinatorError::InvalidHealthCheck);
    }
    let clients = coordinator.epoch_state.clients.as_mut_slice();
    let target = usize::try_from(args.proof.index).ok().and_then(|index| clients.get_mut(index));
    let Some(target) = target else { return Err(CoordinatorError::InvalidHealthCheck) };
    if target.is_healthy() {
        target.state = ClientState::Dropped.number();
    }
    finish_with_tick(account, clock);
    Ok(())
}

/// A client of the epoch names newly stored weights. What peers hold now stays with the peers; only the place to fall
/// back to changes. A kind that does not fit the run's is ignored, as in the deployed program.
///
/// # Errors
/// `SignerNotAClient`, `InvalidCheckpoint`.
pub fn checkpoint(account: &mut CoordinatorAccount, from: &Pubkey, new: &Checkpoint, clock: &Clock) -> Outcome {
    if account.client_index(from).is_none() {
        return Err(CoordinatorError::SignerNotAClient);
    }
    if !new.check() {
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
    finish_with_tick(account, clock);
    Ok(())
}

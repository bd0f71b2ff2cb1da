//! Scenes of the coordinator's instructions.

use psyche_protocol::instruction::HealthCheckArgs;
use psyche_protocol::layout::CoordinatorAccount;
use psyche_protocol::machine::CoordinatorError;
use psyche_protocol::select::unhealthy_clients;
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::super::chain::{Chain, Refusal, key};
use super::super::codes::*;
use super::super::run::{Owned, RunKeys, allocate, config, configuration, hub, init_args, node, report, witnesses};
use super::Row;
use super::role::{Kind, Role};
use super::scene::Scene;

pub(super) const ROWS: &[Row] = &[
    ("InitCoordinatorArgs", init),
    ("FreeCoordinatorArgs", free),
    ("UpdateArgs", update),
    ("UpdateClientVersionArgs", version),
    ("SetFutureEpochRatesArgs", rates),
    ("SetPausedArgs", resume),
    ("JoinRunArgs", join),
    ("TickArgs", tick),
    ("WitnessArgs", witness),
    ("WarmupWitnessArgs", ready),
    ("HealthCheckArgs", health_check),
    ("CheckpointArgs", checkpoint),
];

const INSTANCE: Role = Role::Ours(Kind::Instance, CONSTRAINT_RAW);
const ACCOUNT: Role = Role::Ours(Kind::Account, CONSTRAINT_RAW);
const OWNERS: [Role; 3] = [Role::Party(CONSTRAINT_RAW), INSTANCE, ACCOUNT];
const MEMBERS: [Role; 3] = [Role::Party(CoordinatorError::SignerNotAClient as u32), INSTANCE, ACCOUNT];

fn init() -> Scene {
    let mut chain = Chain::new();
    let [payer, account] = [chain.user(), chain.new_key()];
    let allocation = allocate(&chain, &payer, &account, CoordinatorAccount::SIZE);
    chain.accept(&[&payer, &account], &[allocation]);
    let run = RunKeys::new("a run", key(&account));
    let good = run.init(&key(&payer), &init_args(&key(&payer), "a run"));
    let roles = [Role::Anyone, Role::Fresh, Role::Blank(false), Role::Program];
    Scene::new(chain, &payer, good, &[&payer], &roles).again(CoordinatorError::AccountAlreadyInitialized.code())
}

fn free() -> Scene {
    let mut t = Owned::created(Chain::new(), "a run");
    let spill = t.chain.user();
    let good = t.run.free(&key(&t.owner), &key(&spill));
    let closed = Err(Refusal::Custom(CONSTRAINT_RAW));
    let (instance, account) = (t.run.instance, t.run.account);
    let roles = [Role::Party(CONSTRAINT_RAW), Role::Spill, INSTANCE, ACCOUNT];
    Scene::new(t.chain, &t.owner, good, &[&t.owner], &roles)
        .special(1, instance, closed.clone())
        .special(1, account, closed)
        .again(ACCOUNT_NOT_INITIALIZED)
}

/// An instruction of the owner on a run that nobody configured yet.
fn owners(good: impl FnOnce(&Owned) -> Instruction) -> Scene {
    let mut t = Owned::created(Chain::new(), "a run");
    let configure = t.run.update(&key(&t.owner), configuration(config()));
    t.chain.accept(&[&t.owner], &[configure]);
    let good = good(&t);
    Scene::new(t.chain, &t.owner, good, &[&t.owner], &OWNERS)
}

fn update() -> Scene {
    owners(|t| t.run.update(&key(&t.owner), configuration(config())))
}

fn version() -> Scene {
    owners(|t| t.run.set_version(&key(&t.owner), "1.0.1"))
}

fn rates() -> Scene {
    owners(|t| t.run.set_rates(&key(&t.owner), Some(5), Some(6)))
}

fn resume() -> Scene {
    owners(|t| t.run.set_paused(&key(&t.owner), false)).again(CoordinatorError::CannotResume.code())
}

fn join() -> Scene {
    let t = Owned::waiting(config());
    let user = &t.clients[0];
    let good = t.run.join(&key(user), &t.authorization, node(&key(user)));
    let roles = [
        Role::Party(CoordinatorError::SignerMismatch.code()),
        Role::Ours(Kind::Authorization, CONSTRAINT_RAW),
        INSTANCE,
        ACCOUNT,
    ];
    Scene::new(t.chain, &t.owner, good, &[user], &roles)
}

/// An instruction of a client, sent by whoever it is accepted from.
fn clients(t: Owned, roles: &[Role], good: impl Fn(&Owned, &Keypair) -> Option<Instruction>) -> Scene {
    let accepted = t.clients.iter().find_map(|wallet| {
        let instruction = good(&t, wallet)?;
        t.chain.copy().send(&[wallet], std::slice::from_ref(&instruction)).is_ok().then_some((wallet, instruction))
    });
    let (wallet, instruction) = accepted.expect("somebody may send it");
    Scene::new(t.chain.copy(), &t.owner, instruction, &[wallet], roles)
}

fn tick() -> Scene {
    clients(Owned::training(config()), &[Role::Anyone, INSTANCE, ACCOUNT], |t, user| Some(t.run.tick(&key(user))))
}

fn witness() -> Scene {
    let t = Owned::training(config());
    let good = |t: &Owned, user: &Keypair| {
        let state = t.state();
        let proof = witnesses(&state).into_iter().find(|(index, _)| state.clients()[*index].id.signer == key(user))?.1;
        Some(t.run.witness(&key(user), report(proof, &[])))
    };
    clients(t, &MEMBERS, good).again(CoordinatorError::DuplicateWitness.code())
}

fn ready() -> Scene {
    let good = |t: &Owned, user: &Keypair| {
        let index = t.state().client_index(&key(user))?;
        Some(t.run.warmup_witness(&key(user), index as u64))
    };
    clients(Owned::warming_up(config()), &MEMBERS, good).again(CoordinatorError::DuplicateWitness.code())
}

fn health_check() -> Scene {
    let mut t = Owned::training(config());
    t.accept_witnesses(&[0, 1]);
    for _ in 0..2 {
        t.chain.advance(5);
        t.accept_tick();
        t.accept_witnesses(&[0, 1]);
    }
    let good = |t: &Owned, user: &Keypair| {
        let state = t.state();
        let (client, proof) = unhealthy_clients(&state.state.coordinator).next()?;
        Some(t.run.health_check(&key(user), HealthCheckArgs { client, proof }))
    };
    clients(t, &MEMBERS, good)
}

fn checkpoint() -> Scene {
    let good = |t: &Owned, user: &Keypair| Some(t.run.checkpoint(&key(user), hub("elsewhere/weights")));
    clients(Owned::training(config()), &MEMBERS, good)
}

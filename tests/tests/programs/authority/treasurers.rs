//! Scenes of the treasurer's instructions.

use psyche_protocol::Pubkey;
use psyche_protocol::instruction::RunUpdateArgs;
use psyche_protocol::layout::CoordinatorAccount;
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::super::chain::{Chain, Refusal, key};
use super::super::codes::*;
use super::super::run::{RunKeys, allocate, config, configuration};
use super::super::tokens::{associated, create_associated, create_mint, mint_to};
use super::super::treasury::{Treasury, run_of};
use super::Row;
use super::role::{Kind, Role};
use super::scene::Scene;

pub(super) const ROWS: &[Row] = &[
    ("RunCreateArgs", creation),
    ("RunUpdateArgs", update),
    ("ParticipantCreateArgs", opening),
    ("ParticipantClaimArgs", claim),
];

const RUN: Role = Role::Ours(Kind::Run, CONSTRAINT_RAW);

fn scene(t: Treasury, good: Instruction, signers: &[&Keypair], roles: &[Role]) -> Scene {
    let owner = t.owner.insecure_clone();
    Scene::new(t.chain, &owner, good, signers, roles)
}

fn creation() -> Scene {
    let t = Treasury::prepared(Chain::new(), "paid");
    let owner = t.owner.insecure_clone();
    let good = t.create("paid");
    let (run, collateral) = (t.address, t.collateral);
    let roles = [
        Role::Anyone,
        Role::Fresh,
        Role::FreshTokens,
        Role::Mint,
        Role::Fresh,
        Role::Blank(true),
        Role::Program,
        Role::Program,
        Role::Program,
        Role::Program,
    ];
    // When the coordinator looks at its account, the run and its collateral exist already.
    let taken = Err(Refusal::Custom(ACCOUNT_OWNED_BY_WRONG_PROGRAM));
    scene(t, good, &[&owner], &roles).special(5, run, taken.clone()).special(5, collateral, taken).again(ALREADY_IN_USE)
}

fn update() -> Scene {
    let t = Treasury::created(Chain::new(), "paid");
    let owner = t.owner.insecure_clone();
    let everything = RunUpdateArgs {
        update: configuration(config()),
        earning_rate_total_shared: Some(300),
        slashing_rate_per_client: Some(7),
        paused: None,
        client_version: Some("2.0.0"),
    };
    let good = t.update(&everything);
    let roles = [
        Role::Party(CONSTRAINT_RAW),
        RUN,
        Role::Linked(Kind::Instance, CONSTRAINT_RAW),
        Role::Linked(Kind::Account, CONSTRAINT_RAW),
        Role::Program,
    ];
    scene(t, good, &[&owner], &roles)
}

fn opening() -> Scene {
    let mut t = Treasury::created(Chain::new(), "paid");
    let [payer, user] = [t.chain.user(), t.chain.user()];
    let good = t.open_book(&key(&payer), &key(&user));
    let roles =
        [Role::Anyone, Role::Party(CONSTRAINT_SEEDS), Role::Ours(Kind::Run, CONSTRAINT_SEEDS), Role::Fresh, Role::Program];
    scene(t, good, &[&payer, &user], &roles).again(ALREADY_IN_USE)
}

fn claim() -> Scene {
    let mut t = Treasury::created(Chain::new(), "paid");
    let [user, other] = [t.chain.user(), t.chain.user()];
    for user in [&user, &other] {
        let open = t.open_book(&key(user), &key(user));
        t.chain.accept(&[user], &[open]);
        create_associated(&mut t.chain, user, &key(user), &t.mint);
        t.grant(&key(user), 300);
    }
    mint_to(&mut t.chain, &t.owner, &t.mint, &t.collateral, 1_000);
    // The user's tokens of another mint, the run's tokens of another mint, the other user's book.
    let mint = create_mint(&mut t.chain, &user);
    let wrong_mint = create_associated(&mut t.chain, &user, &key(&user), &mint);
    let runs_wrong_mint = create_associated(&mut t.chain, &user, &t.address, &mint);
    let others_book = t.participant(&key(&other));
    // A sibling run that pays the same token to the same user.
    let good = t.claim(&key(&user), 1);
    let sibling = sibling(&mut t);
    let roles = [
        Role::Party(CONSTRAINT_RAW),
        Role::Tokens(CONSTRAINT_RAW),
        RUN,
        Role::Tokens(CONSTRAINT_TOKEN_OWNER),
        Role::Ours(Kind::Participant, CONSTRAINT_SEEDS),
        Role::Linked(Kind::Account, CONSTRAINT_RAW),
        Role::Program,
    ];
    let mut scene = scene(t, good, &[&user], &roles)
        .special(3, runs_wrong_mint, Err(Refusal::Custom(CONSTRAINT_ASSOCIATED)))
        .special(1, runs_wrong_mint, Err(Refusal::Custom(CONSTRAINT_RAW)));
    scene.around.extend([
        ("the user's tokens of another mint", wrong_mint),
        ("the run's tokens of another mint", runs_wrong_mint),
        ("the other user's book", others_book),
        ("the sibling run", sibling.address),
        ("the sibling's collateral", sibling.collateral),
        ("the sibling's coordinator account", sibling.account),
    ]);
    // The other user signs for a claim from this user's book.
    scene.signers.push(other);
    scene
}

struct Sibling {
    address: Pubkey,
    collateral: Pubkey,
    account: Pubkey,
}

/// Another treasury run of the same owner, mint and client.
fn sibling(t: &mut Treasury) -> Sibling {
    let index = t.index + 1;
    let account = t.chain.new_key();
    let allocation = allocate(&t.chain, &t.owner, &account, CoordinatorAccount::SIZE);
    t.chain.accept(&[&t.owner, &account], &[allocation]);
    let address = run_of(index).0;
    let second = Treasury {
        chain: std::mem::replace(&mut t.chain, Chain::bare()),
        owner: t.owner.insecure_clone(),
        index,
        mint: t.mint,
        address,
        collateral: associated(&address, &t.mint),
        run: RunKeys::new("sibling", key(&account)),
    };
    let create = second.create("sibling");
    t.chain = second.chain;
    t.chain.accept(&[&t.owner], &[create]);
    mint_to(&mut t.chain, &t.owner, &t.mint, &second.collateral, 1_000);
    Sibling { address, collateral: second.collateral, account: second.run.account }
}

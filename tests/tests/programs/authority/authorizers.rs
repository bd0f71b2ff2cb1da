//! Scenes of the authorizer's instructions.

use solana_keypair::Keypair;

use super::super::authorizer::{close, create, delegate, set_active};
use super::super::chain::{Chain, Refusal, key};
use super::super::codes::*;
use super::Row;
use super::role::{Kind, Role};
use super::scene::Scene;

pub(super) const ROWS: &[Row] = &[
    ("AuthorizationCreateArgs", creation),
    ("AuthorizationGrantorUpdateArgs", grantors_update),
    ("AuthorizationGranteeUpdateArgs", grantees_update),
    ("AuthorizationCloseArgs", closing),
];

const AUTHORIZATION: Role = Role::Ours(Kind::Authorization, CONSTRAINT_RAW);

/// Payer, grantor and grantee.
fn parties() -> (Chain, [Keypair; 3]) {
    let mut chain = Chain::new();
    let parties = [chain.user(), chain.user(), chain.user()];
    (chain, parties)
}

fn granted() -> (Chain, [Keypair; 3]) {
    let (mut chain, [payer, grantor, grantee]) = parties();
    chain.accept(&[&payer, &grantor], &[create(&payer, &key(&grantor), &key(&grantee))]);
    (chain, [payer, grantor, grantee])
}

fn creation() -> Scene {
    let (chain, [payer, grantor, grantee]) = parties();
    let good = create(&payer, &key(&grantor), &key(&grantee));
    let roles = [Role::Anyone, Role::Party(CONSTRAINT_SEEDS), Role::Fresh, Role::Program];
    Scene::new(chain, &grantor, good, &[&payer, &grantor], &roles).again(ALREADY_IN_USE)
}

fn grantors_update() -> Scene {
    let (chain, [_, grantor, grantee]) = granted();
    let good = set_active(&key(&grantor), &key(&grantee), true);
    let roles = [Role::Party(CONSTRAINT_RAW), AUTHORIZATION];
    let scene = Scene::new(chain, &grantor, good, &[&grantor], &roles);
    // The others can grant to themselves, not from themselves.
    let signers = [&grantor, &grantee].map(Keypair::insecure_clone);
    Scene { signers: signers.into(), ..scene }
}

fn grantees_update() -> Scene {
    let (chain, [payer, grantor, grantee]) = granted();
    let good = delegate(&payer, &key(&grantor), &key(&grantee), false, &[[1; 32], [2; 32]]);
    let roles = [Role::Anyone, Role::Party(CONSTRAINT_RAW), AUTHORIZATION, Role::Program];
    let scene = Scene::new(chain, &grantor, good, &[&payer, &grantee], &roles);
    let signers = [&payer, &grantee, &grantor].map(Keypair::insecure_clone);
    Scene { signers: signers.into(), ..scene }
}

fn closing() -> Scene {
    let (chain, [payer, grantor, grantee]) = granted();
    let good = close(&key(&grantor), &key(&grantee), &key(&payer));
    let authorization = good.accounts[2].pubkey.to_bytes();
    let roles = [Role::Party(CONSTRAINT_RAW), Role::Spill, AUTHORIZATION, Role::Program];
    let scene = Scene::new(chain, &grantor, good, &[&grantor], &roles)
        .special(1, authorization, Err(Refusal::Custom(CONSTRAINT_RAW)))
        .again(ACCOUNT_NOT_INITIALIZED);
    let signers = [&grantor, &grantee].map(Keypair::insecure_clone);
    Scene { signers: signers.into(), ..scene }
}

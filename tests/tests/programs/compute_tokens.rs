//! What the instructions of the authorizer and the treasurer cost, and what a join costs with many delegates: measured on
//! the bytecode, at most the default compute budget, and what the document says.
//!
//! `PSYCHE_PROGRAMS_TABLE=1` prints the document's table anew.

use psyche_protocol::Pubkey;
use psyche_protocol::accounts::Authorization;
use psyche_protocol::books::authorizer::DELEGATES_MAX;
use psyche_protocol::instruction::RunUpdateArgs;
use psyche_protocol::layout::MAX_CLIENTS;
use solana_keypair::Keypair;

use super::authorizer::{authorization_of, close, create, delegate, set_active};
use super::chain::{Chain, key};
use super::run::{Owned, config, configuration, node};
use super::tokens::{create_associated, mint_to};
use super::treasury::Treasury;

/// The budget of one instruction unless its transaction asks for more.
const DEFAULT_COMPUTE_UNITS: u64 = 200_000;
/// How far the document may be off, in percent and in units: other compilers' releases move a few.
const TOLERANCE_PERCENT: u64 = 3;
const TOLERANCE_UNITS: u64 = 50;
/// Delegates that fit into one transaction.
const DELEGATES_AT_ONCE: usize = 25;

/// Where the table is.
const DOCUMENT: &str = "PROGRAMS.md";

type Costs = Vec<(String, u64)>;

/// Keys that differ from `user` in the last byte or two only, so that comparing takes longest, and `user` as the last.
fn delegates(user: &Pubkey, count: usize) -> Vec<Pubkey> {
    let mut keys: Vec<Pubkey> = (1..count)
        .map(|i| {
            let mut key = *user;
            key[30] ^= (i >> 8) as u8;
            key[31] ^= i as u8 | u8::from(i & 0xff == 0);
            key
        })
        .collect();
    keys.push(*user);
    keys
}

/// Gives the grant these delegates, as if they had been named one after the other.
fn fill(chain: &mut Chain, address: &Pubkey, delegates: &[Pubkey]) {
    let old = chain.data(address);
    let found = Authorization::decode(&old).unwrap();
    let mut data = vec![0; Authorization::size(found.scope.len(), delegates.len())];
    Authorization { delegates, ..found }.encode(&mut data).unwrap();
    let rent = chain.svm.minimum_balance_for_rent_exemption(data.len());
    chain.patch(address, |account| (account.lamports, account.data) = (rent, data));
}

fn grants(costs: &mut Costs) {
    let mut chain = Chain::new();
    let [payer, grantor, grantee, user] = [chain.user(), chain.user(), chain.user(), chain.user()];
    let (from, to) = (key(&grantor), key(&grantee));
    let (address, _) = authorization_of(&from, &to);
    let mut cost = |name: &str, chain: &mut Chain, signers: &[&Keypair], instruction| {
        costs.push((name.to_owned(), chain.accept(signers, &[instruction])));
    };
    cost("authorization_create", &mut chain, &[&payer, &grantor], create(&payer, &from, &to));
    let named = delegates(&key(&user), DELEGATES_MAX);
    for count in [0, DELEGATES_MAX - DELEGATES_AT_ONCE] {
        fill(&mut chain, &address, &named[..count]);
        let name = format!("authorization_grantor_update, {count} delegates");
        cost(&name, &mut chain, &[&grantor], set_active(&from, &to, count > 0));
        let more = delegate(&payer, &from, &to, false, &named[..DELEGATES_AT_ONCE]);
        let name = format!("authorization_grantee_update, {DELEGATES_AT_ONCE} delegates more than {count}");
        cost(&name, &mut chain, &[&payer, &grantee], more);
    }
    let replace = delegate(&payer, &from, &to, true, &named[..DELEGATES_AT_ONCE]);
    let name = format!("authorization_grantee_update, {DELEGATES_AT_ONCE} delegates in place of {DELEGATES_MAX}");
    cost(&name, &mut chain, &[&payer, &grantee], replace);
    fill(&mut chain, &address, &named);
    chain.accept(&[&grantor], &[set_active(&from, &to, false)]);
    chain.advance(30 * 24 * 60 * 60);
    let name = format!("authorization_close, {DELEGATES_MAX} delegates");
    cost(&name, &mut chain, &[&grantor], close(&from, &to, &key(&payer)));
}

fn joins(costs: &mut Costs) {
    for count in [1, 32, 256, DELEGATES_MAX] {
        let mut t = Owned::waiting(config());
        let (owner, grantee, user) = (key(&t.owner), [3; 32], t.clients[0].insecure_clone());
        let (address, _) = authorization_of(&owner, &grantee);
        t.chain.accept(&[&t.owner], &[create(&t.owner, &owner, &grantee), set_active(&owner, &grantee, true)]);
        fill(&mut t.chain, &address, &delegates(&key(&user), count));
        let join = t.run.join(&key(&user), &address, node(&key(&user)));
        let units = t.chain.accept(&[&user], &[join]);
        costs.push((format!("join_run of an empty roster, by the last of {count} delegates"), units));
    }
}

fn payments(costs: &mut Costs) {
    let name = "costs of a run with a long name!";
    let mut t = Treasury::prepared(Chain::new(), name);
    let owner = t.owner.insecure_clone();
    let create = t.create(name);
    costs.push(("run_create, init_coordinator inside".to_owned(), t.chain.accept(&[&owner], &[create])));
    let nothing = t.update(&RunUpdateArgs::default());
    costs.push(("run_update of nothing".to_owned(), t.chain.accept(&[&owner], &[nothing])));
    let everything = t.update(&RunUpdateArgs {
        update: configuration(config()),
        earning_rate_total_shared: Some(300),
        slashing_rate_per_client: Some(7),
        paused: Some(false),
        client_version: Some("2.0.0"),
    });
    costs.push(("run_update of everything, four calls inside".to_owned(), t.chain.accept(&[&owner], &[everything])));
    mint_to(&mut t.chain, &owner, &t.mint, &t.collateral, 10_000);
    for (at, count) in [1, 32, MAX_CLIENTS].into_iter().enumerate() {
        let user = t.chain.user();
        let open = t.open_book(&key(&user), &key(&user));
        let units = t.chain.accept(&[&user], &[open]);
        if at == 0 {
            costs.push(("participant_create".to_owned(), units));
        }
        create_associated(&mut t.chain, &user, &key(&user), &t.mint);
        while t.state().state.clients_state.clients.len() < count - 1 {
            t.chain.new_key();
            let other = t.chain.new_key();
            t.grant(&key(&other), 1);
        }
        t.grant(&key(&user), 300);
        for (what, points) in [("participant_claim", 100), ("participant_claim of nothing", 0)] {
            let claim = t.claim(&key(&user), points);
            costs.push((format!("{what}, last of a roster of {count}"), t.chain.accept(&[&user], &[claim])));
        }
    }
}

/// The numbers that the document gives, by name.
fn documented() -> Vec<(String, u64)> {
    let path: std::path::PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "docs", DOCUMENT].iter().collect();
    let text = std::fs::read_to_string(path).unwrap();
    let (_, table) = text.split_once("### Costs of the authorizer and the treasurer").expect("the section is there");
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].to_owned(), cells[1].replace(',', "").parse().unwrap())
    };
    rows.map(row).collect()
}

fn with_commas(units: u64) -> String {
    if units < 1_000 { units.to_string() } else { format!("{},{:03}", with_commas(units / 1_000), units % 1_000) }
}

#[test]
fn grants_and_payments_fit_the_default_compute_budget_and_cost_what_the_document_says() {
    let mut costs = Costs::new();
    grants(&mut costs);
    joins(&mut costs);
    payments(&mut costs);
    for (name, units) in &costs {
        println!("| {name} | {} |", with_commas(*units));
        assert!(*units <= DEFAULT_COMPUTE_UNITS, "{name} takes {units} compute units");
    }
    if std::env::var_os("PSYCHE_PROGRAMS_TABLE").is_some() {
        return;
    }
    let documented = documented();
    let names = |costs: &[(String, u64)]| costs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&documented), names(&costs), "PSYCHE_PROGRAMS_TABLE=1 prints the table anew");
    for ((name, said), (_, units)) in documented.iter().zip(&costs) {
        let allowed = units * TOLERANCE_PERCENT / 100 + TOLERANCE_UNITS;
        assert!(
            said.abs_diff(*units) <= allowed,
            "{name} takes {units}, not {said}: PSYCHE_PROGRAMS_TABLE=1 prints the table anew"
        );
    }
}

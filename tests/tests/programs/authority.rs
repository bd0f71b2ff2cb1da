//! Every account of every instruction of the three programs, replaced by everything that it must not be.
//!
//! Each instruction has a [`Scene`] in which it succeeds, and a [`Role`] for each of its accounts. From these follow the
//! attacks, what each is refused with, and that a refusal changes nothing. An instruction that a program dispatches and
//! that has no scene fails [`every_instruction_that_a_program_dispatches_has_a_scene`].

mod attack;
mod authorizers;
mod coordinators;
mod garble;
mod node;
mod role;
mod scene;
mod treasurers;

use sha2::{Digest, Sha256};

use role::Role;
use scene::Scene;

/// An instruction's arguments and the scene that it is played in.
type Row = (&'static str, fn() -> Scene);

fn rows() -> Vec<(&'static str, Row)> {
    let programs = [("authorizer", authorizers::ROWS), ("coordinator", coordinators::ROWS), ("treasurer", treasurers::ROWS)];
    programs.into_iter().flat_map(|(program, rows)| rows.iter().map(move |row| (program, *row))).collect()
}

/// The names that a program's `process` dispatches on.
fn dispatched(program: &str) -> Vec<String> {
    let path = [env!("CARGO_MANIFEST_DIR"), "..", "programs", program, "src", "lib.rs"];
    let source = std::fs::read_to_string(path.iter().collect::<std::path::PathBuf>()).unwrap();
    let arms = source.lines().filter_map(|line| line.split_once("::DISCRIMINATOR =>"));
    arms.map(|(name, _)| name.trim().to_owned()).collect()
}

/// `global:` and the instruction's name, hashed, as the framework does it.
fn discriminator(args: &str) -> [u8; 8] {
    let mut name = String::from("global:");
    for (at, letter) in args.strip_suffix("Args").unwrap().char_indices() {
        if letter.is_uppercase() && at > 0 {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    Sha256::digest(name)[..8].try_into().unwrap()
}

#[test]
fn every_instruction_that_a_program_dispatches_has_a_scene() {
    for program in ["authorizer", "coordinator", "treasurer"] {
        let mut found = dispatched(program);
        assert!(found.len() >= 4, "{program} dispatches {found:?}");
        let mut tried: Vec<_> = rows().iter().filter(|row| row.0 == program).map(|(_, (name, _))| (*name).to_owned()).collect();
        found.sort();
        tried.sort();
        assert_eq!(found, tried, "{program}");
    }
}

#[test]
fn scenes_play_the_instructions_that_they_are_named_after() {
    for (_, (name, scene)) in rows() {
        let scene = scene();
        assert_eq!(scene.good.data[..8], discriminator(name), "{name}");
        assert_eq!(scene.good.accounts.len(), scene.roles.len(), "{name}");
        for (at, (meta, role)) in scene.good.accounts.iter().zip(&scene.roles).enumerate() {
            assert_eq!(meta.is_signer, matches!(role, Role::Anyone | Role::Party(_)), "account {at} of {name}");
        }
        let mut keys: Vec<_> = scene.good.accounts.iter().map(|meta| meta.pubkey).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), scene.roles.len(), "the accounts of {name} are not all different");
    }
}

#[test]
fn the_node_builds_the_instructions_that_are_attacked_here() {
    for (_, (name, scene)) in rows() {
        let scene = scene();
        let built = node::rebuilt(name, &scene);
        assert_eq!((built.program_id, &built.data), (scene.good.program_id, &scene.good.data), "{name}");
        assert_eq!(built.accounts.len(), scene.good.accounts.len(), "{name}");
        for (at, (theirs, ours)) in built.accounts.iter().zip(&scene.good.accounts).enumerate() {
            // In the node, whoever signs pays as well.
            let payer = matches!(scene.roles[at], Role::Anyone) && ours.is_writable;
            assert!(theirs.pubkey == ours.pubkey || payer, "account {at} of {name}");
            assert_eq!(theirs.is_signer, ours.is_signer, "account {at} of {name}");
            assert!(theirs.is_writable || !ours.is_writable, "account {at} of {name} is written");
        }
    }
}

#[test]
fn no_shuffled_account_and_no_garbled_argument_makes_a_program_fall_over() {
    for (_, (name, scene)) in rows() {
        garble::all(name, &scene());
    }
}

fn attack_all(program: &str) {
    for (_, (name, scene)) in rows().into_iter().filter(|row| row.0 == program) {
        let mut scene = scene();
        let tried = attack::all(name, &mut scene);
        println!("{tried:>5} attacks on {name}");
        assert!(tried > 20 * scene.roles.len(), "only {tried} attacks on {name}");
    }
}

#[test]
fn the_authorizer_refuses_every_wrong_signer_account_and_datum() {
    attack_all("authorizer");
}

#[test]
fn the_coordinator_refuses_every_wrong_signer_account_and_datum() {
    attack_all("coordinator");
}

#[test]
fn the_treasurer_refuses_every_wrong_signer_account_and_datum() {
    attack_all("treasurer");
}

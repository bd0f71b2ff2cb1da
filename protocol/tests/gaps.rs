//! The gaps of the deployed programs that this state machine closes: each one tried.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use common::{Run, config, identity, model, peer_key, report};
use psyche_protocol::Pubkey;
use psyche_protocol::instruction::{HealthCheckArgs, UpdateArgs};
use psyche_protocol::layout::*;
use psyche_protocol::machine::{self, CoordinatorError};
use psyche_protocol::model::*;
use psyche_protocol::select::{CHECKPOINTERS, Selection, check_checkpointer, checkpointers, unhealthy_clients};

fn hub(name: &str, revision: Option<&str>) -> Checkpoint {
    let revision = revision.map(|text| FixedString::new(text).unwrap());
    Checkpoint::Hub(HubRepo { repo_id: FixedString::new(name).unwrap(), revision })
}

fn gcs(name: &str, prefix: Option<&str>) -> Checkpoint {
    let prefix = prefix.map(|text| FixedString::new(text).unwrap());
    Checkpoint::Gcs(GcsRepo { bucket: FixedString::new(name).unwrap(), prefix })
}

#[test]
fn a_warmup_witness_names_its_own_index_and_a_position_of_the_epoch() {
    let mut run = Run::new(config());
    run.warmup(&[1, 2]);
    run.wait(1);
    let mut send = |from: u8, position, index| {
        let claim = report(WitnessProof::new(position, index, true), &[]);
        machine::warmup_witness(&mut run.account, &[from; 32], &claim, &run.clock)
    };
    for (position, index) in [(0, 1), (0, 2), (0, 31), (0, u64::MAX), (2, 0), (u64::MAX, 0)] {
        assert_eq!(send(1, position, index), Err(CoordinatorError::InvalidWitness), "{position} {index}");
    }
    assert_eq!(send(3, 0, 0), Err(CoordinatorError::SignerNotAClient), "never joined");
    assert_eq!(send(1, 1, 0), Ok(()));
    assert_eq!(send(1, 0, 0), Err(CoordinatorError::DuplicateWitness));
    // Who joined, but is not of this epoch, says nothing either.
    run.join(3).unwrap();
    let claim = report(WitnessProof::new(0, 1, true), &[]);
    let refused = machine::warmup_witness(&mut run.account, &[3; 32], &claim, &run.clock);
    assert_eq!(refused, Err(CoordinatorError::InvalidWitness));
}

#[test]
fn joining_takes_a_peer_key_that_is_one() {
    let mut run = Run::new(config());
    let with = |p2p_identity: Pubkey| NodeIdentity { p2p_identity, ..identity(1) };
    let mut no_point = identity(1).p2p_identity;
    while no_point == peer_key(no_point) {
        no_point[0] = no_point[0].wrapping_add(1);
    }
    let mut small_order = [0; 32];
    small_order[0] = 1;
    for refused in [[0; 32], small_order, no_point] {
        assert_eq!(machine::join_run(&mut run.account, &with(refused), &run.clock), Err(CoordinatorError::InvalidNodeIdentity));
    }
    run.join(1).unwrap();
    // A known wallet may come back with another key.
    let moved = with(peer_key([77; 32]));
    machine::join_run(&mut run.account, &moved, &run.clock).unwrap();
    assert_eq!(run.account.roster_client(&[1; 32]).unwrap().id, moved);
    // Joining again changes nothing.
    let nonce = run.account.nonce;
    machine::join_run(&mut run.account, &moved, &run.clock).unwrap();
    assert_eq!(run.account.nonce, nonce);
}

#[test]
fn as_many_join_an_epoch_as_a_round_has_samples() {
    let rules = Config { global_batch_size_start: 3, global_batch_size_end: 3, ..config() };
    let mut run = Run::new(rules);
    for client in 1..=3 {
        run.join(client).unwrap();
    }
    assert_eq!(run.join(4), Err(CoordinatorError::MoreClientsThanBatches));
    assert_eq!(run.join(2), Ok(()), "who has a place keeps it");
    // The next epoch is open to other wallets, although three are in the roster.
    run.train(&[1, 2, 3]);
    for client in [4, 5, 1] {
        run.join(client).unwrap();
    }
    assert_eq!(machine::check_join(&run.account, &identity(2)), Err(CoordinatorError::MoreClientsThanBatches));
    assert_eq!(run.account.state.clients_state.clients.len(), 5);
}

fn stranger(number: u16) -> NodeIdentity {
    let signer = std::array::from_fn(|at| if at < 2 { number.to_le_bytes()[at] } else { 0xaa });
    NodeIdentity { signer, p2p_identity: peer_key(signer) }
}

#[test]
fn a_place_without_points_is_given_away_once_its_holder_is_gone_for_long() {
    let mut run = Run::new(Config { global_batch_size_end: 1000, ..config() });
    machine::set_future_epoch_rates(&mut run.account, Some(100), Some(7)).unwrap();
    let join = |run: &mut Run, number| machine::join_run(&mut run.account, &stranger(number), &run.clock);
    for number in 0..254 {
        join(&mut run, number).unwrap();
    }
    run.join(1).unwrap();
    run.join(2).unwrap();
    assert_eq!(join(&mut run, 254), Err(CoordinatorError::ClientsFull));
    // Two of the roster hold points, of either kind.
    let roster = &mut run.account.state.clients_state;
    roster.clients.as_mut_slice()[0].earned = 1;
    roster.clients.as_mut_slice()[1].slashed = 1;
    run.tick_after(3);
    assert_eq!(run.tick_after(30), RunState::RoundTrain);
    for epoch in 0..ROSTER_IDLE_EPOCHS {
        assert_eq!(join(&mut run, 254), Err(CoordinatorError::ClientsFull), "after {epoch} epochs");
        run.round(&[]);
        assert_eq!(run.tick_after(5), RunState::WaitingForMembers);
        run.train(&[1, 2]);
    }
    let before: Vec<Pubkey> = run.account.state.clients_state.clients.iter().map(|member| member.id.signer).collect();
    assert_eq!(before.len(), 256);
    // In the middle of an epoch a newcomer takes the first vacant place; the points next to it stay.
    join(&mut run, 300).unwrap();
    join(&mut run, 301).unwrap();
    let members = run.account.state.clients_state.clients.as_slice();
    assert_eq!(members.len(), 256);
    assert_eq!([members[2].id, members[3].id], [stranger(300), stranger(301)]);
    assert_eq!((members[0].id.signer, members[0].earned, members[1].slashed), (before[0], 1, 1));
    assert_eq!((members[2].earned, members[2].slashed), (0, 0));
    assert!(members.iter().zip(&before).skip(4).all(|(now, before)| now.id.signer == *before));
    // Who lost its place comes back in another one, and the epoch pays its own members whatever else changed.
    join(&mut run, 2).unwrap();
    assert_eq!(run.account.state.clients_state.clients.as_slice()[4].id, stranger(2));
    while run.round(&[1, 2]) == RunState::RoundTrain {}
    run.tick_after(5);
    assert_eq!([run.earned(1), run.earned(2)], [50, 50]);
}

/// Finishers are found although the roster's order is not theirs, and although the hints in the epoch's clients are the
/// garbage that other programs leave there.
#[test]
fn payment_and_slashing_find_members_in_any_order_of_leaving() {
    for garbage in [false, true] {
        let mut run = Run::new(config());
        machine::set_future_epoch_rates(&mut run.account, Some(90), Some(7)).unwrap();
        run.train(&[1, 2, 3, 4, 5]);
        let epoch = &mut run.account.state.coordinator.epoch_state;
        for client in epoch.clients.as_mut_slice() {
            if [2, 4].contains(&client.id.signer[0]) {
                client.state = ClientState::Ejected.number();
            }
        }
        run.round(&[1, 3, 5]);
        let epoch = &mut run.account.state.coordinator.epoch_state;
        epoch.exited_clients.as_mut_slice().reverse();
        epoch.clients.as_mut_slice().reverse();
        if garbage {
            let bytes = bytemuck::bytes_of_mut(&mut *run.account);
            for (list, count) in [(57_496, 3), (75_936, 2)] {
                for client in 0..count {
                    bytes[list + 72 * client + 65..list + 72 * client + 68].copy_from_slice(&[0xcd, 0xef, 0x01]);
                }
            }
        }
        run.account.state.coordinator.run_state = RunState::Cooldown.number();
        assert_eq!(run.tick_after(100), RunState::WaitingForMembers);
        assert_eq!([1, 2, 3, 4, 5].map(|client| run.earned(client)), [30, 0, 30, 0, 30], "garbage: {garbage}");
        assert_eq!([1, 2, 3, 4, 5].map(|client| run.slashed(client)), [0, 7, 0, 7, 0], "garbage: {garbage}");
    }
}

/// A run of `clients` whose third round is in work; all but `absent` were there all the time.
fn with_absent(rules: Config, slashing: u64, clients: &[u8], absent: u8) -> Run {
    let mut run = Run::new(rules);
    machine::set_future_epoch_rates(&mut run.account, Some(90), Some(slashing)).unwrap();
    run.train(clients);
    let present: Vec<u8> = clients.iter().copied().filter(|client| *client != absent).collect();
    run.round(&present);
    assert_eq!(run.round(&present), RunState::RoundTrain);
    run
}

#[test]
fn proven_absence_ejects_and_costs_the_epochs_rate() {
    let mut run = with_absent(config(), 7, &[1, 2, 3, 4], 4);
    assert_eq!(run.health_checks(1), 1);
    assert_eq!(run.account.clients()[3].client_state(), ClientState::Ejected);
    assert_eq!(run.slashed(4), 0, "the epoch's end takes the points");
    while run.round(&[1, 2, 3]) == RunState::RoundTrain {}
    assert_eq!(run.tick_after(5), RunState::WaitingForMembers);
    assert_eq!([1, 2, 3, 4].map(|client| run.earned(client)), [30, 30, 30, 0]);
    assert_eq!([1, 2, 3, 4].map(|client| run.slashed(client)), [0, 0, 0, 7]);
    // It may come back, and what it earns then pays its debt first.
    run.train(&[1, 2, 3, 4]);
    while run.round(&[1, 2, 3, 4]) == RunState::RoundTrain {}
    run.tick_after(5);
    assert_eq!((run.earned(4), run.slashed(4)), (22, 7));
}

#[test]
fn without_a_rate_absence_drops_and_costs_nothing() {
    let mut run = with_absent(config(), 0, &[1, 2, 3, 4], 4);
    run.health_checks(1);
    assert_eq!(run.account.clients()[3].client_state(), ClientState::Dropped);
    // A rate set meanwhile is the next epoch's.
    machine::set_future_epoch_rates(&mut run.account, None, Some(9)).unwrap();
    while run.round(&[1, 2, 3]) == RunState::RoundTrain {}
    run.tick_after(5);
    assert_eq!((run.earned(4), run.slashed(4)), (0, 0));
}

#[test]
fn a_liar_among_the_witnesses_ejects_nobody() {
    // Client 1 claims to have heard nobody, the others heard everyone.
    let everyone = [1, 2, 3, 4];
    let mut run = Run::new(config());
    machine::set_future_epoch_rates(&mut run.account, None, Some(7)).unwrap();
    run.train(&everyone);
    run.round(&everyone);
    for client in everyone {
        run.witness(client, if client == 1 { &[] } else { &everyone }).unwrap();
    }
    assert_eq!(run.tick_after(2), RunState::RoundTrain);
    assert_eq!(unhealthy_clients(&run.account.state.coordinator).count(), 0);

    // Alone in reporting, the liar has its victims dropped, as the deployed programs would, but never ejected: its round
    // should have had four witnesses. And where a run has a single witness, that one proves nothing.
    for witness_nodes in [0, 1] {
        let mut run = Run::new(Config { witness_nodes, ..config() });
        machine::set_future_epoch_rates(&mut run.account, None, Some(7)).unwrap();
        run.train(&everyone);
        let liar = everyone.into_iter().find(|client| run.report_of(*client, &[]).proof.witness == 1).unwrap();
        run.witness(liar, &everyone).unwrap();
        run.tick_after(20);
        assert_eq!(run.tick_after(2), RunState::RoundTrain);
        let liar = everyone.into_iter().find(|client| run.report_of(*client, &[]).proof.witness == 1).unwrap();
        run.witness(liar, &[]).unwrap();
        run.tick_after(20);
        assert_eq!(run.tick_after(2), RunState::RoundTrain);
        let victims = run.health_checks(liar);
        assert_eq!(victims, 4);
        assert!(run.account.clients().iter().all(|client| client.client_state() == ClientState::Dropped), "{witness_nodes}");
    }
}

#[test]
fn a_round_without_witnesses_pays_those_who_were_not_found_absent() {
    for witnessed_rounds in 0..4 {
        let mut run = Run::new(config());
        machine::set_future_epoch_rates(&mut run.account, Some(90), Some(7)).unwrap();
        run.train(&[1, 2, 3, 4]);
        for _ in 0..witnessed_rounds {
            run.round(&[1, 2, 3]);
        }
        let found = run.health_checks(1);
        assert_eq!(run.round(&[]), RunState::Cooldown);
        assert_eq!(run.tick_after(5), RunState::WaitingForMembers);
        let share = if witnessed_rounds < 2 { 0 } else { 30 };
        assert_eq!([1, 2, 3, 4].map(|client| run.earned(client)), [share, share, share, 0], "{witnessed_rounds} rounds");
        assert_eq!((run.slashed(4), found), if witnessed_rounds < 2 { (0, 0) } else { (7, 1) });
        // Everyone was sent home, so that the next epoch takes its weights from outside.
        assert!(run.account.clients().is_empty());
    }
}

#[test]
fn a_tick_too_many_changes_nothing() {
    let mut run = Run::new(config());
    let idle = |run: &mut Run| {
        let before = run.account.clone();
        machine::tick(&mut run.account, &run.clock).unwrap();
        assert!(run.account.as_bytes() == before.as_bytes(), "in {:?}", run.state());
    };
    idle(&mut run);
    run.join(1).unwrap();
    idle(&mut run);
    run.warmup(&[2]);
    idle(&mut run);
    for client in [1, 2] {
        run.ready(client).unwrap();
    }
    for _ in 0..3 {
        idle(&mut run);
        run.witness(1, &[1, 2]).unwrap();
        idle(&mut run);
        run.witness(2, &[1, 2]).unwrap();
        idle(&mut run);
        run.tick_after(2);
    }
    // One that comes late for its witness's training is ignored, too.
    let before = run.account.clone();
    run.ready(1).unwrap();
    assert!(run.account.as_bytes() == before.as_bytes());
    run.round(&[]);
    idle(&mut run);
    assert_eq!(run.tick_after(5), RunState::WaitingForMembers);
    run.wait(1);
    machine::tick(&mut run.account, &run.clock).unwrap();
    idle(&mut run);
}

#[test]
fn a_checkpoint_is_named_by_an_elected_member_only() {
    let clients = [1, 2, 3, 4, 5, 6];
    let mut run = Run::new(config());
    assert_eq!(run.send_checkpoint(1, &hub("a/b", None)), Err(CoordinatorError::SignerNotAClient));
    run.warmup(&clients);
    assert_eq!(run.send_checkpoint(1, &hub("a/b", None)), Err(CoordinatorError::NoActiveRound));
    assert_eq!(checkpointers(&run.account), [None; CHECKPOINTERS]);
    run.train(&clients);
    let mut elected_in = std::collections::BTreeMap::<u8, u32>::new();
    for _ in 0..12 {
        let elected: Vec<u8> = checkpointers(&run.account).into_iter().flatten().map(|signer| signer[0]).collect();
        assert_eq!(elected.len(), CHECKPOINTERS);
        for client in clients {
            let name = hub(&format!("member/{client}"), None);
            let outcome = run.send_checkpoint(client, &name);
            assert_eq!(outcome, check_checkpointer(&run.account, &[client; 32]));
            assert_eq!(outcome, if elected.contains(&client) { Ok(()) } else { Err(CoordinatorError::NotElected) });
            assert_eq!(run.checkpoint() == name, elected.contains(&client));
        }
        for client in elected {
            *elected_in.entry(client).or_default() += 1;
        }
        run.round(&clients);
    }
    assert!(elected_in.len() > CHECKPOINTERS && elected_in.values().all(|times| *times < 12), "every round draws anew");
    // The last round's draw holds on, and nobody's leaving unseats who was elected.
    while run.state() == RunState::RoundTrain {
        run.round(&clients);
    }
    let elected = checkpointers(&run.account);
    let other = clients.into_iter().find(|client| !elected.contains(&Some([*client; 32]))).unwrap();
    let leaver = elected[0].unwrap()[0];
    for gone in [other, leaver] {
        let at = run.index(gone).unwrap() as usize;
        run.account.state.coordinator.epoch_state.clients.as_mut_slice()[at].state = ClientState::Dropped.number();
    }
    assert_eq!(run.send_checkpoint(leaver, &hub("a/b", None)), Err(CoordinatorError::SignerNotAClient));
    assert_eq!(run.tick_after(5), RunState::WaitingForMembers);
    let now = checkpointers(&run.account);
    assert_eq!([now[0], now[1]], [elected[1], elected[2]]);
    let saver = elected[1].unwrap()[0];
    assert_eq!((run.send_checkpoint(saver, &hub("a/b", Some("main"))), run.account.clients().len()), (Ok(()), 4));
    assert_eq!(run.send_checkpoint(other, &hub("a/c", None)), Err(CoordinatorError::SignerNotAClient));
    let Checkpoint::P2P(repo) = run.checkpoint() else { unreachable!("the members hold the weights") };
    assert_eq!((repo.repo_id.as_str(), repo.revision.unwrap().as_str()), ("a/b", "main"));
}

#[test]
fn a_paused_run_takes_the_weights_of_its_last_epoch() {
    let mut run = Run::new(config());
    run.train(&[1, 2]);
    run.round(&[1, 2]);
    run.set_paused(true).unwrap();
    run.round(&[1, 2]);
    assert_eq!(run.tick_after(5), RunState::Paused);
    let nonce = run.account.nonce;
    assert_eq!(run.send_checkpoint(2, &hub("a/b", None)), Ok(()));
    assert_eq!(run.send_checkpoint(2, &hub("a/b", None)), Ok(()), "once more changes nothing");
    assert_eq!(
        (run.checkpoint(), run.account.nonce),
        (Checkpoint::P2P(HubRepo { repo_id: FixedString::new("a/b").unwrap(), revision: None }), nonce + 1)
    );
}

#[test]
fn a_checkpoint_names_a_place_that_could_exist() {
    let mut run = Run::new(config());
    run.train(&[1, 2]);
    let good = [
        hub("gpt", None),
        hub("some-org/some_model.v2", Some("main")),
        hub("o/m", Some("refs/pr/1")),
        hub("o/m", Some("3f786850e387550fdab836ed7e6dc881de23001b")),
        gcs("a-bucket", None),
        gcs("a.bucket_1", Some("runs/step=100/")),
    ];
    for checkpoint in good {
        assert_eq!(run.send_checkpoint(1, &checkpoint), Ok(()), "{checkpoint:?}");
    }
    let raw = |bytes: &[u8]| {
        let mut all = [0; 64];
        all[..bytes.len()].copy_from_slice(bytes);
        Checkpoint::Hub(HubRepo { repo_id: FixedString::from_bytes(all), revision: None })
    };
    let bad = [
        Checkpoint::Ephemeral,
        hub("", None),
        hub("/data/weights", None),
        hub("a/b/c", None),
        hub("a//b", None),
        hub("a/", None),
        hub("../b", None),
        hub("a/b..c", None),
        hub("a--b/c", None),
        hub("-a/b", None),
        hub("a/b.git", None),
        hub("a b/c", None),
        hub("https://a/b", None),
        hub("a/b", Some("")),
        hub("a/b", Some("a b")),
        hub("a/b", Some("-x")),
        hub("a/b", Some("x..y")),
        hub("a/b", Some("x/")),
        hub("a/b", Some("x.lock")),
        hub("a/b", Some("x~1")),
        gcs("", None),
        gcs("ab", None),
        gcs("A-Bucket", None),
        gcs("bucket-", None),
        gcs("bu/cket", None),
        gcs("bucket", Some("")),
        gcs("bucket", Some("/")),
        gcs("bucket", Some("/a")),
        gcs("bucket", Some("a/../b")),
        gcs("bucket", Some("a//b")),
        raw(b"a/b\0c"),
        raw(&[b'a'; 64]),
        raw("ä/b".as_bytes()),
        raw(&[0xff, b'/', b'b']),
    ];
    for checkpoint in bad {
        // A name that fills its field is still one.
        let full = matches!(checkpoint, Checkpoint::Hub(repo) if repo.repo_id.as_bytes() == &[b'a'; 64]);
        let expected = if full { Ok(()) } else { Err(CoordinatorError::InvalidCheckpoint) };
        assert_eq!(run.send_checkpoint(1, &checkpoint), expected, "{checkpoint:?}");
    }
}

#[test]
fn a_checkpoint_of_another_kind_changes_nothing_and_what_peers_hold_stays_with_them() {
    let mut run = Run::new(config());
    run.train(&[1, 2]);
    let before = run.account.clone();
    assert_eq!(run.send_checkpoint(1, &gcs("bucket", None)), Ok(()));
    assert!(run.account.as_bytes() == before.as_bytes(), "a bucket does not replace a repository");
    assert_eq!((run.send_checkpoint(1, &hub("new", None)), run.checkpoint()), (Ok(()), hub("new", None)));
    // Among peers it does.
    run.account.state.coordinator.model.checkpoint.hand_to_peers();
    run.send_checkpoint(2, &gcs("bucket", None)).unwrap();
    assert!(matches!(run.checkpoint(), Checkpoint::P2PGcs(_)));
    run.send_checkpoint(2, &hub("new", None)).unwrap();
    assert!(matches!(run.checkpoint(), Checkpoint::P2P(_)));
}

#[test]
fn texts_of_the_owner_are_text() {
    let mut run = Run::unconfigured();
    let Model::Llm(llm) = model();
    let holed = FixedString::from_bytes(std::array::from_fn(|at| if at == 1 { 0 } else { b'a' }));
    let broken = FixedString::from_bytes([0xff; 192]);
    for model in [
        Llm { checkpoint: Checkpoint::Hub(HubRepo { repo_id: holed, revision: None }), ..llm },
        Llm { checkpoint: Checkpoint::P2P(HubRepo { repo_id: FixedString::new("a").unwrap(), revision: Some(holed) }), ..llm },
        Llm { checkpoint: Checkpoint::Gcs(GcsRepo { bucket: holed, prefix: None }), ..llm },
        Llm { data_location: DataLocation::Local(broken), ..llm },
        Llm { data_location: DataLocation::Server(holed), ..llm },
        Llm { data_location: DataLocation::WeightedHttp(broken), ..llm },
        Llm { data_location: DataLocation::Preprocessed(FixedString::EMPTY), ..llm },
    ] {
        let args = UpdateArgs { model: Some(Model::Llm(model)), ..UpdateArgs::default() };
        assert_eq!(machine::update(&mut run.account, &args), Err(CoordinatorError::ModelSanityCheckFailed), "{model:?}");
    }
    for version in ["v\0", "\0"] {
        let refused = machine::update_client_version(&mut run.account, version);
        assert_eq!(refused, Err(CoordinatorError::InvalidClientVersion));
    }
}

#[test]
fn a_health_check_names_a_trainer_that_is_still_here() {
    let mut run = with_absent(config(), 0, &[1, 2, 3, 4], 4);
    let selection = Selection::of_round(run.account.previous_round().unwrap(), &run.account.state.coordinator.config).unwrap();
    let args = HealthCheckArgs { client: identity(4), proof: selection.committee(3).unwrap() };
    run.health_checks(1);
    run.round(&[1, 2, 3]);
    assert_eq!(run.account.clients().len(), 3);
    // Its place of the round before is remembered, its state is not touched again.
    let before = run.account.clone();
    let outcome = machine::health_check(&mut run.account, &[1; 32], &args, &run.clock);
    assert!(outcome.is_err() && run.account.as_bytes() == before.as_bytes());
}

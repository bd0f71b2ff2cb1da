//! A run that goes on without this node.

use psyche_protocol::layout::RunState;
use psyche_protocol::machine;

use super::desk::{DIGEST, Desk, digest};
use crate::engine::{Effect, Event, Leaving, version_fits};

const OTHER: &str = "another";

fn left(effects: &[Effect]) -> Option<&Leaving> {
    effects.iter().find_map(|effect| match effect {
        Effect::Leave(why) => Some(why),
        _ => None,
    })
}

fn wanting_another() -> Leaving {
    Leaving::OtherVersion { wanted: OTHER.to_owned() }
}

impl Desk {
    /// The account names another client version, which the program allows only while the run is halted.
    fn want_another(&mut self) {
        assert!(self.account.state.client_version.set(OTHER));
    }
}

#[test]
fn every_client_fits_a_run_that_names_none_or_test() {
    assert!(version_fits("") && version_fits("test") && version_fits(crate::CLIENT_VERSION));
    assert!(!version_fits(OTHER));
}

#[test]
fn a_paused_run_that_wants_another_version_is_left_at_once() {
    let mut desk = Desk::new(2);
    desk.join(0);
    assert_eq!(left(&desk.show()), None);
    let clock = desk.clock();
    machine::set_paused(&mut desk.account, true, &clock).unwrap();
    assert_eq!(left(&desk.show()), None);
    machine::update_client_version(&mut desk.account, OTHER).unwrap();
    assert_eq!(left(&desk.show()), Some(&wanting_another()), "the nonce is the same, the version is not");
    assert_eq!(left(&desk.wait_ms(1_000)), None, "it is said once");
}

#[test]
fn a_member_stays_until_its_epoch_is_over() {
    let mut desk = Desk::in_training(2);
    desk.show();
    desk.want_another();
    assert_eq!(left(&desk.show()), None);
    for _ in 0..3 {
        let results = desk.exchange();
        desk.next_round(&results);
        assert_eq!(left(&desk.show()), None, "{:?}", desk.account.run_state());
    }
    // Nobody testifies any more, so the round's end is the epoch's.
    desk.pass_s(700);
    while desk.account.run_state() != RunState::Cooldown {
        desk.tick();
        desk.pass_s(700);
    }
    assert_eq!(left(&desk.show()), None, "what was witnessed is applied first");
    desk.tick();
    assert_eq!(desk.account.run_state(), RunState::WaitingForMembers);
    let mut effects = desk.show();
    effects.extend(desk.wait_ms(200));
    if let Some(round) = effects.iter().find_map(|effect| match effect {
        Effect::Apply { round, .. } => Some(*round),
        _ => None,
    }) {
        assert_eq!(left(&effects), None, "a result is being applied");
        effects = desk.tell(Event::Applied { round, digest: DIGEST });
        effects.extend(desk.hear(1, digest(round, DIGEST)));
    }
    effects.extend(desk.wait_ms(120_000));
    assert_eq!(left(&effects), Some(&wanting_another()));
}

#[test]
fn a_node_that_is_no_member_does_not_wait_for_the_epoch() {
    let mut desk = Desk::in_training(2);
    desk.engine = super::desk::engine_of(9);
    desk.want_another();
    assert_eq!(left(&desk.show()), Some(&wanting_another()));
}

#[test]
fn a_run_that_was_created_anew_is_left_from_any_state() {
    let mut desk = Desk::in_training(2);
    assert_eq!(left(&desk.tell(Event::RunReplaced)), Some(&Leaving::Replaced));
    assert_eq!(desk.show(), [], "no effect follows");
}

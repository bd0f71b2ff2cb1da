//! A run of a crowd from the first join to its closing, every instruction measured at its dearest.

use psyche_protocol::instruction::{HealthCheckArgs, SetFutureEpochRatesArgs, UpdateClientVersionArgs};
use psyche_protocol::layout::{ClientState, RosterClient, RunState, WitnessProof};
use psyche_protocol::machine;
use psyche_protocol::select::{checkpointers, unhealthy_clients};

use super::super::chain::key;
use super::super::run::{config, configuration, hub, node, report};
use super::Costs;
use super::crowd::Crowd;

/// What every instruction of the coordinator costs in a run of `clients`.
pub(super) fn measure(clients: usize) -> Costs {
    let mut c = Crowd::new(clients);
    join(&mut c);
    warm_up(&mut c);
    train(&mut c);
    end_a_round(&mut c);
    end_the_epoch(&mut c);
    own(&mut c);
    c.costs
}

fn join(c: &mut Crowd) {
    c.native(|state, clock, members| {
        let (_, before) = members.split_last().unwrap();
        for member in before {
            machine::join_run(state, &node(member), clock).unwrap();
        }
    });
    c.advance(1);
    let last = c.last_member();
    let join = c.t.run.join(&last, &c.t.authorization, node(&last));
    if c.is_full() {
        c.aside(|c| {
            c.native(|state, _, _| {
                let roster = &mut state.state.clients_state;
                let gone = RosterClient::new(node(&[9; 32]), 0);
                assert!(roster.clients.push(&gone));
                roster.next_active = 9;
                for member in roster.clients.as_mut_slice() {
                    member.earned = 1;
                }
                roster.clients.as_mut_slice()[255].earned = 0;
            });
            c.measure("join_run, into the last vacant place", &last, join.clone(), |native| {
                machine::join_run(native.run, &node(&native.user), &native.clock).unwrap();
            });
        });
    }
    for name in ["join_run, new", "join_run, again"] {
        c.measure(name, &last, join.clone(), |native| {
            machine::join_run(native.run, &node(&native.user), &native.clock).unwrap();
        });
    }
    c.measure_idle("tick, idle in WaitingForMembers");
    c.advance(2);
    c.measure_tick("tick, WaitingForMembers to Warmup", RunState::Warmup);
}

fn warm_up(c: &mut Crowd) {
    c.advance(1);
    c.measure_idle("tick, idle in Warmup");
    c.aside(|c| {
        c.advance(20);
        c.measure_tick("tick, Warmup to RoundTrain", RunState::RoundTrain);
    });
    let wanted = c.witnesses();
    c.native(|state, clock, members| {
        for (index, member) in members[..wanted - 1].iter().enumerate() {
            let proof = WitnessProof::new(0, index as u64, true);
            machine::warmup_witness(state, member, &report(proof, &[]), clock).unwrap();
        }
    });
    let last = c.last_member();
    let index = c.members.len() as u64 - 1;
    let ready = c.t.run.warmup_witness(&last, index);
    c.measure("warmup_witness, the last", &last, ready, |native| {
        let witness = report(WitnessProof::new(0, index, true), &[]);
        machine::warmup_witness(native.run, &native.user, &witness, &native.clock).unwrap();
    });
    assert_eq!(c.t.state().run_state(), RunState::RoundTrain);
}

fn train(c: &mut Crowd) {
    for _ in 0..3 {
        c.measure_idle("tick, idle in RoundTrain");
        c.measure_last_witness("witness, the last");
        c.measure_idle("tick, idle in RoundWitness");
        c.advance(5);
        c.measure_tick("tick, RoundWitness to RoundTrain", RunState::RoundTrain);
    }
    c.aside(|c| {
        let state = c.t.state();
        let (client, proof) = unhealthy_clients(&state.state.coordinator).last().unwrap();
        let args = HealthCheckArgs { client, proof };
        let user = key(&c.members[0]);
        for name in ["health_check", "health_check, again"] {
            let check = c.t.run.health_check(&user, args);
            c.measure(name, &user, check, |native| {
                machine::health_check(native.run, &native.user, &args, &native.clock).unwrap();
            });
        }
    });
    c.aside(|c| {
        let elected = checkpointers(&c.t.state()).into_iter().flatten().last().unwrap();
        let moved = c.t.run.checkpoint(&elected, hub("elsewhere/weights"));
        c.measure("checkpoint", &elected, moved, |native| {
            machine::checkpoint(native.run, &native.user, &hub("elsewhere/weights"), &native.clock).unwrap();
        });
    });
}

fn end_a_round(c: &mut Crowd) {
    c.advance(30);
    c.measure_tick("tick, RoundTrain to RoundWitness", RunState::RoundWitness);
    c.measure_last_witness("witness, the last, in RoundWitness");
    if c.members.len() > 1 {
        // Every other client leaves at once, the costliest way to end a round.
        c.aside(|c| {
            c.native(|state, _, _| {
                for client in state.state.coordinator.epoch_state.clients.as_mut_slice().iter_mut().step_by(2) {
                    client.state = ClientState::Dropped.number();
                }
            });
            c.advance(5);
            c.measure_tick("tick, RoundWitness to RoundTrain, half leave", RunState::RoundTrain);
        });
    }
    c.native(|state, _, _| state.state.coordinator.config.total_steps = 5);
    c.advance(5);
    c.measure_tick("tick, RoundWitness to Cooldown", RunState::Cooldown);
    c.native(|state, _, _| state.state.coordinator.config.total_steps = 500);
}

fn end_the_epoch(c: &mut Crowd) {
    c.measure_idle("tick, idle in Cooldown");
    c.native(|state, _, _| {
        let roster = &mut state.state.clients_state;
        (roster.current_earning_rate, roster.current_slashing_rate) = (1_000_000, 7);
    });
    c.advance(5);
    c.aside(|c| {
        c.native(|state, _, _| {
            for client in state.state.coordinator.epoch_state.clients.as_mut_slice().iter_mut().step_by(2) {
                client.state = ClientState::Ejected.number();
            }
        });
        c.measure_tick("tick, end of the epoch, half slashed", RunState::WaitingForMembers);
        let lost = c.t.state().roster_client(&key(&c.members[0])).unwrap().slashed;
        assert_eq!(lost, 7);
    });
    c.aside(|c| {
        c.native(|state, _, _| state.state.coordinator.pending_pause = 1);
        c.measure_tick("tick, end of the epoch, paused", RunState::Paused);
    });
    c.measure_tick("tick, end of the epoch, all paid", RunState::WaitingForMembers);
    let share = 1_000_000 / c.members.len() as u64;
    assert_eq!(c.t.state().roster_client(&c.last_member()).unwrap().earned, share);
    c.native(|account, clock, members| {
        for member in members {
            machine::join_run(account, &node(member), clock).unwrap();
        }
    });
    c.aside(|c| {
        c.advance(10);
        c.measure_tick("tick, WaitingForMembers to Warmup, all stay", RunState::Warmup);
    });
}

/// What the owner does, down to closing the run.
fn own(c: &mut Crowd) {
    let owner = key(&c.t.owner);
    let rates = SetFutureEpochRatesArgs { earning_rate_total_shared: Some(1), slashing_rate_per_client: Some(1) };
    let set_rates = c.t.run.by(&owner, &rates);
    c.measure("set_future_epoch_rates", &owner, set_rates, |native| {
        machine::set_future_epoch_rates(native.run, Some(1), Some(1)).unwrap();
    });
    let pause = c.t.run.set_paused(&owner, true);
    c.measure("set_paused, pause", &owner, pause, |native| machine::set_paused(native.run, true, &native.clock).unwrap());
    let everything = configuration(config());
    let update = c.t.run.update(&owner, everything);
    c.measure("update, everything", &owner, update, |native| machine::update(native.run, &everything).unwrap());
    let version = "v".repeat(96);
    let update_version = c.t.run.by(&owner, &UpdateClientVersionArgs { client_version: &version });
    c.measure("update_client_version", &owner, update_version, |native| {
        machine::update_client_version(native.run, &version).unwrap();
    });
    c.aside(|c| {
        let resume = c.t.run.set_paused(&owner, false);
        c.measure("set_paused, resume", &owner, resume, |native| {
            machine::set_paused(native.run, false, &native.clock).unwrap();
        });
    });
    let free = c.t.run.free(&owner, &key(&c.members[0]));
    let units = c.t.chain.accept(&[&c.t.owner], &[free]);
    c.costs.note("free_coordinator", units);
}

//! A run with a crowd: as many members as wanted, whose wallets exist, under rules without a fixed number of witnesses.

use psyche_protocol::Pubkey;
use psyche_protocol::layout::{Config, CoordinatorAccount, MAX_CLIENTS, MAX_WITNESSES, RunState};
use psyche_protocol::machine::{self, Clock};
use psyche_protocol::select::Selection;
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::super::chain::{GENESIS_UNIX_TIME_S, key};
use super::super::run::{Owned, report};
use super::Costs;

/// The native side of an instruction.
pub(super) struct Native<'a> {
    pub(super) run: &'a mut CoordinatorAccount,
    pub(super) user: Pubkey,
    pub(super) clock: Clock,
}

pub(super) struct Crowd {
    pub(super) t: Owned,
    pub(super) members: Vec<Keypair>,
    now: i64,
    pub(super) costs: Costs,
}

fn crowd_config(clients: usize) -> Config {
    Config {
        init_min_clients: clients as u16,
        min_clients: 1,
        witness_nodes: 0,
        global_batch_size_start: 512,
        global_batch_size_end: 1024,
        global_batch_size_warmup_tokens: 1 << 20,
        ..super::super::run::config()
    }
}

impl Crowd {
    pub(super) fn new(clients: usize) -> Self {
        let mut t = Owned::waiting(crowd_config(clients));
        let members: Vec<Keypair> = (0..clients).map(|_| t.chain.user()).collect();
        Self { t, members, now: GENESIS_UNIX_TIME_S, costs: Costs::default() }
    }

    pub(super) fn clock(&self) -> Clock {
        Clock { unix_timestamp: self.now, slot: 1_000 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.members.len() == MAX_CLIENTS
    }

    /// Witnesses that a round waits for.
    pub(super) fn witnesses(&self) -> usize {
        self.members.len().min(MAX_WITNESSES)
    }

    pub(super) fn last_member(&self) -> Pubkey {
        key(self.members.last().unwrap())
    }

    /// Changes the account natively, because 256 transactions of the same kind tell nothing.
    pub(super) fn native(&mut self, change: impl FnOnce(&mut CoordinatorAccount, &Clock, &[Pubkey])) {
        let mut state = self.t.state();
        let members: Vec<Pubkey> = self.members.iter().map(key).collect();
        change(&mut state, &self.clock(), &members);
        self.t.chain.patch(&self.t.run.account.clone(), |account| account.data = state.as_bytes().to_vec());
    }

    pub(super) fn advance(&mut self, seconds: u64) {
        self.now += i64::try_from(seconds).unwrap();
        self.t.chain.set_time(self.now, 1_000);
    }

    /// Does something, and goes back to where the run was before.
    pub(super) fn aside(&mut self, act: impl FnOnce(&mut Self)) {
        let (before, now) = (self.t.state(), self.now);
        act(self);
        self.native(|state, _, _| *state = *before);
        self.now = now;
        self.advance(0);
    }

    /// Sends the instruction, notes what it cost, and compares with what `native` makes of the same account.
    pub(super) fn measure(
        &mut self,
        name: &'static str,
        sender: &Pubkey,
        instruction: Instruction,
        native: impl FnOnce(&mut Native<'_>),
    ) {
        let mut expected = self.t.state();
        native(&mut Native { run: &mut expected, user: *sender, clock: self.clock() });
        let wallet = self.members.iter().chain([&self.t.owner]).find(|wallet| key(wallet) == *sender).unwrap();
        let units = self.t.chain.accept(&[wallet], &[instruction]);
        assert!(self.t.state().as_bytes() == expected.as_bytes(), "{name}: bytecode and native rules differ");
        self.costs.note(name, units);
    }

    pub(super) fn measure_tick(&mut self, name: &'static str, expected: RunState) {
        let user = key(&self.members[0]);
        let tick = self.t.run.tick(&user);
        self.measure(name, &user, tick, |native| machine::tick(native.run, &native.clock).unwrap());
        assert_eq!(self.t.state().run_state(), expected, "{name}");
    }

    /// A tick that changes nothing.
    pub(super) fn measure_idle(&mut self, name: &'static str) {
        let before = self.t.state();
        self.measure_tick(name, before.run_state());
        assert!(self.t.state().as_bytes() == before.as_bytes(), "{name}");
    }

    /// The last of the round's witnesses reports; the others are stored natively. All but the last 12 claim to have heard
    /// everyone, which is just short of a quorum, so that health checks have to look everything up.
    pub(super) fn measure_last_witness(&mut self, name: &'static str) {
        let (mut last, wanted) = (None, self.witnesses());
        self.native(|state, clock, _| {
            let selection = Selection::of_round(state.current_round(), &state.state.coordinator.config).unwrap();
            let mut chosen: Vec<_> = (0..selection.clients())
                .filter_map(|index| selection.witness_proof(index))
                .filter(|proof| proof.witness == 1)
                .collect();
            assert_eq!(chosen.len(), wanted);
            last = chosen.pop();
            for (at, proof) in chosen.into_iter().enumerate() {
                let sender = state.clients()[proof.index as usize].id.signer;
                let mut witness = report(proof, &[]);
                witness.participant_bloom.bits = if at < 20 { [u64::MAX; 16] } else { [0; 16] };
                machine::witness(state, &sender, &witness, clock).unwrap();
            }
        });
        let proof = last.unwrap();
        let sender = self.t.state().clients()[proof.index as usize].id.signer;
        let witness = report(proof, &[]);
        self.advance(1);
        let instruction = self.t.run.witness(&sender, witness);
        self.measure(name, &sender, instruction, |native| {
            machine::witness(native.run, &native.user, &witness, &native.clock).unwrap();
        });
        assert_eq!(self.t.state().run_state(), RunState::RoundWitness);
    }
}

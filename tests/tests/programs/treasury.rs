//! Treasury runs for the tests.

use psyche_protocol::accounts::{Participant, Run};
use psyche_protocol::instruction::{ParticipantClaimArgs, ParticipantCreateArgs, RunCreateArgs, RunUpdateArgs};
use psyche_protocol::layout::{CoordinatorAccount, RosterClient};
use psyche_protocol::{Pubkey, ids, pda};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::chain::{Chain, derive, instruction, key};
use super::run::{RunKeys, VERSION, allocate};
use super::tokens::{associated, create_mint};

/// Address and bump of the treasury run with this index.
pub(crate) fn run_of(index: u64) -> (Pubkey, u8) {
    derive(&pda::run(&index.to_le_bytes()), &ids::TREASURER)
}

/// A treasury run and its accounts.
pub(crate) struct Treasury {
    pub(crate) chain: Chain,
    /// Payer of everything, mint authority, main and join authority of the run.
    pub(crate) owner: Keypair,
    pub(crate) index: u64,
    pub(crate) mint: Pubkey,
    pub(crate) address: Pubkey,
    pub(crate) collateral: Pubkey,
    pub(crate) run: RunKeys,
}

impl Treasury {
    /// A coordinator account is allocated, a mint is made, the run is not.
    pub(crate) fn prepared(mut chain: Chain, run_id: &str) -> Self {
        let [owner, account] = [chain.user(), chain.new_key()];
        let mint = create_mint(&mut chain, &owner);
        let allocate = allocate(&chain, &owner, &account, CoordinatorAccount::SIZE);
        chain.accept(&[&owner, &account], &[allocate]);
        let index = pda::treasurer_index(run_id);
        let address = run_of(index).0;
        let collateral = associated(&address, &mint);
        Self { chain, owner, index, mint, address, collateral, run: RunKeys::new(run_id, key(&account)) }
    }

    /// Created, not configured.
    pub(crate) fn created(chain: Chain, run_id: &str) -> Self {
        let mut this = Self::prepared(chain, run_id);
        let create = this.create(run_id);
        this.chain.accept(&[&this.owner], &[create]);
        this
    }

    pub(crate) fn create(&self, run_id: &str) -> Instruction {
        self.create_with(run_id, VERSION)
    }

    pub(crate) fn create_with(&self, run_id: &str, client_version: &str) -> Instruction {
        let owner = key(&self.owner);
        let args = RunCreateArgs { index: self.index, run_id, client_version, main_authority: owner, join_authority: owner };
        let accounts = [
            ("ws", owner),
            ("w", self.address),
            ("w", self.collateral),
            ("", self.mint),
            ("w", self.run.instance),
            ("w", self.run.account),
            ("", ids::COORDINATOR),
            ("", ids::ASSOCIATED_TOKEN_PROGRAM),
            ("", ids::TOKEN_PROGRAM),
            ("", ids::SYSTEM_PROGRAM),
        ];
        instruction(&ids::TREASURER, &args, &accounts)
    }

    pub(crate) fn update(&self, args: &RunUpdateArgs<'_>) -> Instruction {
        let accounts = [
            ("s", key(&self.owner)),
            ("", self.address),
            ("", self.run.instance),
            ("w", self.run.account),
            ("", ids::COORDINATOR),
        ];
        instruction(&ids::TREASURER, args, &accounts)
    }

    pub(crate) fn participant(&self, user: &Pubkey) -> Pubkey {
        derive(&pda::participant(&self.address, user), &ids::TREASURER).0
    }

    pub(crate) fn open_book(&self, payer: &Pubkey, user: &Pubkey) -> Instruction {
        let accounts =
            [("ws", *payer), ("s", *user), ("", self.address), ("w", self.participant(user)), ("", ids::SYSTEM_PROGRAM)];
        instruction(&ids::TREASURER, &ParticipantCreateArgs, &accounts)
    }

    pub(crate) fn claim(&self, user: &Pubkey, points: u64) -> Instruction {
        let accounts = [
            ("s", *user),
            ("w", associated(user, &self.mint)),
            ("w", self.address),
            ("w", self.collateral),
            ("w", self.participant(user)),
            ("", self.run.account),
            ("", ids::TOKEN_PROGRAM),
        ];
        instruction(&ids::TREASURER, &ParticipantClaimArgs { claim_earned_points: points }, &accounts)
    }

    pub(crate) fn book(&self) -> Run {
        let data = self.chain.data(&self.address);
        assert_eq!(data.len(), Run::SIZE);
        Run::decode(&data).unwrap()
    }

    pub(crate) fn entry(&self, user: &Pubkey) -> Participant {
        let data = self.chain.data(&self.participant(user));
        assert_eq!(data.len(), Participant::SIZE);
        Participant::decode(&data).unwrap()
    }

    pub(crate) fn state(&self) -> Box<CoordinatorAccount> {
        CoordinatorAccount::load_boxed(&self.chain.data(&self.run.account)).unwrap()
    }

    /// Gives a user points, as an epoch would.
    pub(crate) fn grant(&mut self, user: &Pubkey, points: u64) {
        let mut state = self.state();
        let roster = &mut state.state.clients_state.clients;
        let mut member = RosterClient::new(super::run::node(user), 0);
        member.earned = points;
        assert!(roster.push(&member));
        self.chain.patch(&self.run.account, |account| account.data = state.as_bytes().to_vec());
    }

    /// Takes points from a user, as an epoch's end would.
    pub(crate) fn slash(&mut self, user: &Pubkey, points: u64) {
        let mut state = self.state();
        let roster = state.state.clients_state.clients.as_mut_slice();
        let member = roster.iter_mut().find(|member| member.id.signer == *user).unwrap();
        member.slashed = member.slashed.saturating_add(points);
        self.chain.patch(&self.run.account, |account| account.data = state.as_bytes().to_vec());
    }
}

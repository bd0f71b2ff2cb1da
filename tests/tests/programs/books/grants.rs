//! Random grants.

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use psyche_protocol::accounts::Authorization;
use psyche_protocol::books::authorizer::{self as rules, DELEGATES_MAX};
use psyche_protocol::instruction::{
    Args, AuthorizationCloseArgs, AuthorizationCreateArgs, AuthorizationGranteeUpdateArgs, AuthorizationGrantorUpdateArgs,
};
use psyche_protocol::{Pubkey, ids, pda};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::super::chain::{Chain, GENESIS_UNIX_TIME_S, Refusal, address, derive, instruction, key};
use super::super::codes::*;
use super::check;

const WALLETS: usize = 4;
const EVERYONE: usize = WALLETS;
const LONG_SCOPE: &[u8] = &[b'x'; 32];
const DAY_S: i64 = 24 * 60 * 60;

/// The grants that there may be: grantor, grantee, scope.
const PLACES: [(usize, usize, &[u8]); 6] = [
    (0, 1, ids::JOIN_SCOPE),
    (0, EVERYONE, ids::JOIN_SCOPE),
    (1, 0, ids::JOIN_SCOPE),
    (0, 1, b""),
    (2, 2, LONG_SCOPE),
    (0, 1, b"other"),
];

/// What somebody does. `by` is the right one or a wallet.
#[derive(Clone, Debug)]
enum Deed {
    Wait(i64),
    /// Sends lamports to a grant's address, whether there is a grant or not.
    Donate(usize, u64),
    Create {
        payer: usize,
        by: Option<usize>,
        at: usize,
    },
    Switch {
        by: Option<usize>,
        at: usize,
        active: bool,
    },
    Delegate {
        payer: usize,
        by: Option<usize>,
        at: usize,
        clear: bool,
        added: Vec<u8>,
    },
    /// `spill` past the wallets is the grant itself.
    Close {
        by: Option<usize>,
        at: usize,
        spill: usize,
    },
    /// As if so many delegates had been named one after the other.
    Fill(usize, usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let at = || prop_oneof![3 => Just(0usize), 2 => 0..PLACES.len()];
    let by = || prop_oneof![4 => Just(None), 1 => (0..WALLETS).prop_map(Some)];
    let waits = prop_oneof![Just(0), Just(1), Just(DAY_S), Just(30 * DAY_S - 1), Just(30 * DAY_S)];
    prop_oneof![
        2 => waits.prop_map(Deed::Wait),
        1 => (at(), 1..3_000_000u64).prop_map(|(at, lamports)| Deed::Donate(at, lamports)),
        4 => (0..WALLETS, by(), at()).prop_map(|(payer, by, at)| Deed::Create { payer, by, at }),
        4 => (by(), at(), any::<bool>()).prop_map(|(by, at, active)| Deed::Switch { by, at, active }),
        5 => (0..WALLETS, by(), at(), prop::bool::weighted(0.3), prop::collection::vec(0..8u8, 0..9))
            .prop_map(|(payer, by, at, clear, added)| Deed::Delegate { payer, by, at, clear, added }),
        3 => (by(), at(), 0..=WALLETS).prop_map(|(by, at, spill)| Deed::Close { by, at, spill }),
        1 => (at(), DELEGATES_MAX - 8..=DELEGATES_MAX).prop_map(|(at, delegates)| Deed::Fill(at, delegates)),
    ]
}

/// A grant's account as the rules make it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Native {
    data: Vec<u8>,
    lamports: u64,
}

/// A grant in plain words, to check the rules by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plain {
    active: bool,
    delegates: Vec<Pubkey>,
    updated: i64,
}

/// What the sequences reached.
#[derive(Default)]
struct Reached {
    codes: BTreeSet<u32>,
    accepted: usize,
}

struct Pair {
    chain: Chain,
    wallets: Vec<Keypair>,
    balances: Vec<u64>,
    natives: Vec<Native>,
    plains: Vec<Option<Plain>>,
    now: i64,
}

impl Pair {
    fn new(base: &Chain, wallets: &[Keypair]) -> Self {
        let chain = base.copy();
        let balances = wallets.iter().map(|wallet| chain.svm.get_balance(&address(&key(wallet))).unwrap()).collect();
        Self {
            chain,
            wallets: wallets.iter().map(Keypair::insecure_clone).collect(),
            balances,
            natives: vec![Native::default(); PLACES.len()],
            plains: vec![None; PLACES.len()],
            now: GENESIS_UNIX_TIME_S,
        }
    }

    fn key(&self, who: usize) -> Pubkey {
        if who == EVERYONE { ids::SYSTEM_PROGRAM } else { key(&self.wallets[who]) }
    }

    fn place(&self, at: usize) -> (Pubkey, u8) {
        let (grantor, grantee, scope) = PLACES[at];
        derive(&pda::authorization(&self.key(grantor), &self.key(grantee), scope), &ids::AUTHORIZER)
    }

    fn rent(&self, len: usize) -> u64 {
        self.chain.svm.minimum_balance_for_rent_exemption(len)
    }

    /// A delegate by its number: a wallet, or a key that nobody has.
    fn delegate(&self, number: u8) -> Pubkey {
        if usize::from(number) < WALLETS { self.key(usize::from(number)) } else { [number; 32] }
    }

    fn act(&mut self, deed: &Deed, reached: &mut Reached) {
        match *deed {
            Deed::Wait(seconds) => {
                self.now += seconds;
                self.chain.set_time(self.now, 1_000);
            }
            Deed::Donate(at, lamports) => {
                self.natives[at].lamports += lamports;
                self.chain.patch(&self.place(at).0, |account| account.lamports += lamports);
            }
            Deed::Fill(at, delegates) => self.fill(at, delegates),
            _ => {
                let (instruction, signers) = self.instruction(deed);
                let expected = self.expect(deed);
                let signers: Vec<Keypair> = signers.iter().map(|who| self.wallets[*who].insecure_clone()).collect();
                let signers: Vec<&Keypair> = signers.iter().collect();
                let outcome = self.chain.send(&signers, &[instruction]).map(|_| ());
                assert_eq!(outcome, expected.map_err(Refusal::Custom), "{deed:?}: {:#?}", self.chain.logs);
                match expected {
                    Ok(()) => reached.accepted += 1,
                    Err(code) => drop(reached.codes.insert(code)),
                }
            }
        }
        self.check(deed);
    }

    fn fill(&mut self, at: usize, delegates: usize) {
        let Some(plain) = &mut self.plains[at] else { return };
        plain.delegates = vec![[9; 32]; delegates];
        let native = &mut self.natives[at];
        let found = Authorization::decode(&native.data).unwrap();
        let mut data = vec![0; Authorization::size(found.scope.len(), delegates)];
        Authorization { delegates: &plain.delegates, ..found }.encode(&mut data).unwrap();
        let rent = self.chain.svm.minimum_balance_for_rent_exemption(data.len());
        *native = Native { lamports: native.lamports.max(rent), data };
        let filled = native.clone();
        let place = self.place(at).0;
        self.chain.patch(&place, |account| (account.lamports, account.data) = (filled.lamports, filled.data));
    }

    /// The instruction, and the wallets that sign it.
    fn instruction(&self, deed: &Deed) -> (Instruction, Vec<usize>) {
        let built = |args: &dyn Fn(&mut [u8]) -> usize, accounts: &[(&str, Pubkey)]| {
            let mut data = vec![0; psyche_protocol::instruction::MAX_LEN];
            let len = args(&mut data);
            data.truncate(len);
            Instruction { data, ..instruction(&ids::AUTHORIZER, &AuthorizationCloseArgs, accounts) }
        };
        let system = ("", ids::SYSTEM_PROGRAM);
        match deed {
            Deed::Create { payer, by, at } => {
                let (grantor, grantee, scope) = PLACES[*at];
                let by = by.unwrap_or(grantor);
                let args = AuthorizationCreateArgs { grantee: self.key(grantee), scope };
                let accounts = [("ws", self.key(*payer)), ("s", self.key(by)), ("w", self.place(*at).0), system];
                (built(&|data| args.encode(data).unwrap(), &accounts), vec![*payer, by])
            }
            Deed::Switch { by, at, active } => {
                let by = by.unwrap_or(PLACES[*at].0);
                let args = AuthorizationGrantorUpdateArgs { active: *active };
                let accounts = [("s", self.key(by)), ("w", self.place(*at).0)];
                (built(&|data| args.encode(data).unwrap(), &accounts), vec![by])
            }
            Deed::Delegate { payer, at, clear, added, .. } => {
                let by = self.grantees(deed);
                let added: Vec<Pubkey> = added.iter().map(|number| self.delegate(*number)).collect();
                let args = AuthorizationGranteeUpdateArgs { delegates_clear: *clear, delegates_added: &added };
                let accounts = [("ws", self.key(*payer)), ("s", self.key(by)), ("w", self.place(*at).0), system];
                (built(&|data| args.encode(data).unwrap(), &accounts), vec![*payer, by])
            }
            Deed::Close { by, at, spill } => {
                let by = by.unwrap_or(PLACES[*at].0);
                let place = self.place(*at).0;
                let spill = if *spill < WALLETS { self.key(*spill) } else { place };
                let accounts = [("s", self.key(by)), ("w", spill), ("w", place), system];
                (built(&|data| AuthorizationCloseArgs.encode(data).unwrap(), &accounts), vec![by])
            }
            Deed::Wait(_) | Deed::Donate(..) | Deed::Fill(..) => unreachable!("no instruction"),
        }
    }

    /// Who signs as the grantee; nobody can for everyone, so somebody tries.
    fn grantees(&self, deed: &Deed) -> usize {
        let Deed::Delegate { by, at, .. } = deed else { unreachable!("only the grantee delegates") };
        by.unwrap_or(if PLACES[*at].1 == EVERYONE { 3 } else { PLACES[*at].1 })
    }

    /// What the rules say, and the state that they leave.
    fn expect(&mut self, deed: &Deed) -> Result<(), u32> {
        let now = self.now;
        match deed {
            Deed::Create { payer, by, at } => {
                let (grantor, grantee, scope) = PLACES[*at];
                if by.is_some_and(|by| by != grantor) {
                    return Err(CONSTRAINT_SEEDS);
                }
                if !self.natives[*at].data.is_empty() {
                    return Err(ALREADY_IN_USE);
                }
                let args = AuthorizationCreateArgs { grantee: self.key(grantee), scope };
                let mut data = vec![0; Authorization::size(scope.len(), 0)];
                rules::created(&self.key(grantor), &args, self.place(*at).1, now).encode(&mut data).unwrap();
                self.pay_rent(*at, *payer, data.len());
                self.natives[*at].data = data;
                self.plains[*at] = Some(Plain { updated: now, ..Plain::default() });
            }
            Deed::Switch { by, at, active } => {
                let signer = self.key(by.unwrap_or(PLACES[*at].0));
                rules::grantor_update(&mut self.existing(*at)?.data, &signer, *active, now).map_err(|e| e.code())?;
                let plain = self.plains[*at].as_mut().unwrap();
                (plain.active, plain.updated) = (*active, now);
            }
            Deed::Delegate { payer, at, clear, added, .. } => {
                let signer = self.key(self.grantees(deed));
                let added: Vec<Pubkey> = added.iter().map(|number| self.delegate(*number)).collect();
                self.name(*at, *payer, &signer, (*clear, &added))?;
            }
            Deed::Close { by, at, spill } => {
                let signer = self.key(by.unwrap_or(PLACES[*at].0));
                let native = self.existing(*at)?;
                rules::check_close(&native.data, &signer, now).map_err(|e| e.code())?;
                if *spill == WALLETS {
                    return Err(CONSTRAINT_RAW);
                }
                self.balances[*spill] += std::mem::take(&mut self.natives[*at]).lamports;
                let plain = self.plains[*at].take().unwrap();
                assert!(!plain.active && (plain.delegates.is_empty() || now - plain.updated >= 30 * DAY_S), "{plain:?}");
            }
            Deed::Wait(_) | Deed::Donate(..) | Deed::Fill(..) => unreachable!("no instruction"),
        }
        Ok(())
    }

    fn name(&mut self, at: usize, payer: usize, signer: &Pubkey, (clear, added): (bool, &[Pubkey])) -> Result<(), u32> {
        let args = AuthorizationGranteeUpdateArgs { delegates_clear: clear, delegates_added: added };
        let native = self.existing(at)?;
        let space = rules::space_after(&native.data, signer, &args).map_err(|e| e.code())?;
        let len = native.data.len();
        let longest = space.max(len);
        native.data.resize(longest, 0);
        rules::grantee_update(&mut native.data, signer, &args).map_err(|e| e.code())?;
        native.data.truncate(space);
        if space > len {
            self.pay_rent(at, payer, space);
        } else if space < len {
            let surplus = self.natives[at].lamports.saturating_sub(self.rent(space));
            self.natives[at].lamports -= surplus;
            self.balances[payer] += surplus;
        }
        let plain = self.plains[at].as_mut().unwrap();
        if clear {
            plain.delegates.clear();
        }
        plain.delegates.extend(added);
        Ok(())
    }

    fn existing(&mut self, at: usize) -> Result<&mut Native, u32> {
        let native = &mut self.natives[at];
        match (native.data.is_empty(), native.lamports) {
            (false, _) => Ok(native),
            (true, 0) => Err(ACCOUNT_NOT_INITIALIZED),
            (true, _) => Err(ACCOUNT_OWNED_BY_WRONG_PROGRAM),
        }
    }

    fn pay_rent(&mut self, at: usize, payer: usize, len: usize) {
        let missing = self.rent(len).saturating_sub(self.natives[at].lamports);
        self.natives[at].lamports += missing;
        self.balances[payer] -= missing;
    }

    /// Everything that must hold after every instruction.
    fn check(&self, deed: &Deed) {
        for (who, balance) in self.balances.iter().enumerate() {
            assert_eq!(self.chain.svm.get_balance(&address(&self.key(who))), Some(*balance), "wallet {who} after {deed:?}");
        }
        for (at, native) in self.natives.iter().enumerate() {
            let account = self.chain.svm.get_account(&address(&self.place(at).0)).unwrap_or_default();
            assert!(account.data == native.data, "the bytes of grant {at} differ after {deed:?}");
            assert_eq!(account.lamports, native.lamports, "the lamports of grant {at} after {deed:?}");
            match &self.plains[at] {
                Some(plain) => self.check_grant(at, plain, native),
                None => assert!(native.data.is_empty()),
            }
        }
    }

    fn check_grant(&self, at: usize, plain: &Plain, native: &Native) {
        let (grantor, grantee, scope) = PLACES[at];
        let found = Authorization::decode(&native.data).unwrap();
        assert_eq!((found.grantor, found.grantee, found.scope), (self.key(grantor), self.key(grantee), scope));
        assert_eq!(found.bump, self.place(at).1);
        assert_eq!((found.active, found.grantor_update_unix_timestamp), (plain.active, plain.updated));
        assert_eq!(found.delegates, plain.delegates);
        assert!(found.delegates.len() <= DELEGATES_MAX);
        assert_eq!(native.data.len(), Authorization::size(scope.len(), plain.delegates.len()));
        assert!(native.lamports >= self.rent(native.data.len()), "grant {at} is not exempt from rent");
        for user in 0..WALLETS {
            let named = grantee == EVERYONE || grantee == user || plain.delegates.contains(&self.key(user));
            for from in 0..WALLETS {
                for asked in [ids::JOIN_SCOPE, b"", LONG_SCOPE, b"other"] {
                    let expected = plain.active && from == grantor && asked == scope && named;
                    assert_eq!(found.is_valid_for(&self.key(from), &self.key(user), asked), expected);
                }
            }
        }
    }
}

#[test]
fn prop_bytecode_and_rules_of_the_authorizer_agree_on_random_instructions() {
    let mut base = Chain::fast();
    let wallets: Vec<Keypair> = (0..WALLETS).map(|_| base.user()).collect();
    let reached = RefCell::new(Reached::default());
    check(&prop::collection::vec(deed(), 20..80), |deeds| {
        let mut pair = Pair::new(&base, &wallets);
        for deed in &deeds {
            pair.act(deed, &mut reached.borrow_mut());
        }
    });
    let Reached { codes, accepted } = reached.into_inner();
    println!("{accepted} instructions accepted, codes {codes:?}");
    assert!(accepted > 1_000, "only {accepted} instructions were accepted");
    let expected = [
        ALREADY_IN_USE,
        CONSTRAINT_RAW,
        CONSTRAINT_SEEDS,
        ACCOUNT_OWNED_BY_WRONG_PROGRAM,
        ACCOUNT_NOT_INITIALIZED,
        6000,
        6001,
        6002,
    ];
    assert_eq!(codes, BTreeSet::from(expected));
}

//! The attacks on one scene.

use std::collections::BTreeMap;

use psyche_protocol::Pubkey;
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::super::chain::{Chain, Refusal, address, key, metas, read_only, unsigned, with_account, with_data};
use super::super::codes::*;
use super::role::{Given, Role};
use super::scene::Scene;

/// Tries everything on the scene, then that its instruction succeeds; returns how many attacks there were.
pub(super) fn all(name: &str, scene: &mut Scene) -> usize {
    let mut attacker = Attacker { name, tried: 0, watched: watched(scene) };
    attacker.signatures(scene);
    attacker.strangers(scene);
    attacker.accounts(scene);
    attacker.permissions(scene);
    attacker.lists(scene);
    attacker.data(scene);
    let signers = needed(&scene.good, &scene.signers, &[]);
    scene.chain.accept(&signers, std::slice::from_ref(&scene.good));
    if let Some(code) = scene.again {
        let again = scene.chain.send(&signers, std::slice::from_ref(&scene.good)).map(|_| ());
        assert_eq!(again, Err(Refusal::Custom(code)), "{name}, once more: {:#?}", scene.chain.logs);
    }
    attacker.tried
}

/// Everything that an attack could change.
fn watched(scene: &Scene) -> Vec<Pubkey> {
    let own = scene.good.accounts.iter().map(|meta| meta.pubkey.to_bytes());
    own.chain(scene.around.iter().map(|(_, key)| *key)).collect()
}

/// Who of them has to sign the instruction; an unneeded signature would be refused by itself.
fn needed<'a>(instruction: &Instruction, signers: &'a [Keypair], extra: &[&'a Keypair]) -> Vec<&'a Keypair> {
    let signs =
        |signer: &&Keypair| instruction.accounts.iter().any(|meta| meta.is_signer && meta.pubkey.to_bytes() == key(signer));
    let mut needed: Vec<&Keypair> = signers.iter().chain(extra.iter().copied()).filter(signs).collect();
    needed.dedup_by_key(|signer| key(signer));
    needed
}

struct Attacker<'a> {
    name: &'a str,
    tried: usize,
    watched: Vec<Pubkey>,
}

/// Lamports, owner and data by address; nothing where there is no account.
type Accounts = BTreeMap<Pubkey, Option<(u64, Pubkey, Vec<u8>)>>;

impl Attacker<'_> {
    fn snapshot(&self, chain: &Chain) -> Accounts {
        let look = |key: &Pubkey| {
            let account = chain.svm.get_account(&address(key))?;
            Some((account.lamports, account.owner.to_bytes(), account.data))
        };
        self.watched.iter().map(|key| (*key, look(key))).collect()
    }

    /// Sends the instruction and compares; a refusal must have left everything as it was. What is expected to succeed
    /// does so on a copy of the chain.
    fn expect(&mut self, scene: &mut Scene, what: &str, expected: &Result<(), Refusal>, bad: &Instruction, extra: &[&Keypair]) {
        self.tried += 1;
        let signers = needed(bad, &scene.signers, extra);
        let mut copy;
        let chain = if expected.is_ok() {
            copy = scene.chain.copy();
            &mut copy
        } else {
            &mut scene.chain
        };
        let before = self.snapshot(chain);
        let outcome = chain.send(&signers, std::slice::from_ref(bad)).map(|_| ());
        assert_eq!(&outcome, expected, "{}: {what}: {:#?}", self.name, chain.logs);
        if expected.is_err() {
            assert!(self.snapshot(chain) == before, "{}: {what} changed something", self.name);
        }
    }

    fn refuse(&mut self, scene: &mut Scene, what: &str, code: u32, bad: &Instruction) {
        self.expect(scene, what, &Err(Refusal::Custom(code)), bad, &[]);
    }

    /// Each signature left out.
    fn signatures(&mut self, scene: &mut Scene) {
        for at in 0..scene.roles.len() {
            if scene.good.accounts[at].is_signer {
                let bad = unsigned(&scene.good, at);
                self.refuse(scene, &format!("account {at} did not sign"), ACCOUNT_NOT_SIGNER, &bad);
                let bad = with_account(&bad, at, &scene.at("a wallet"));
                self.refuse(scene, &format!("account {at} is another wallet that did not sign"), ACCOUNT_NOT_SIGNER, &bad);
            }
        }
    }

    /// Somebody else signs in each signer's place: a stranger, and every other signer.
    fn strangers(&mut self, scene: &mut Scene) {
        let stranger = scene.chain.user();
        for at in 0..scene.roles.len() {
            let (Role::Anyone | Role::Party(_)) = scene.roles[at] else { continue };
            let own = scene.good.accounts[at].pubkey.to_bytes();
            let others: Vec<Keypair> = scene.signers.iter().map(Keypair::insecure_clone).collect();
            for other in others.iter().chain([&stranger]).filter(|other| key(other) != own) {
                let bad = with_account(&scene.good, at, &key(other));
                let expected = match scene.roles[at] {
                    Role::Party(code) => Err(Refusal::Custom(code)),
                    _ => Ok(()),
                };
                self.expect(scene, &format!("somebody else signs as account {at}"), &expected, &bad, &[other]);
            }
        }
    }

    /// Each account that does not sign replaced by everything around, by every other account of the instruction, and by
    /// forgeries of itself.
    fn accounts(&mut self, scene: &mut Scene) {
        for at in 0..scene.roles.len() {
            if scene.good.accounts[at].is_signer {
                continue;
            }
            let own = scene.good.accounts[at].pubkey.to_bytes();
            let mut candidates: Vec<(String, Pubkey)> =
                scene.around.iter().map(|(name, key)| ((*name).to_owned(), *key)).collect();
            for (other, meta) in scene.good.accounts.iter().enumerate() {
                candidates.push((format!("account {other}"), meta.pubkey.to_bytes()));
            }
            candidates.extend(forgeries(scene, at));
            candidates.retain(|(_, candidate)| *candidate != own);
            for (name, candidate) in candidates {
                self.replace(scene, at, &name, &candidate);
            }
        }
    }

    fn replace(&mut self, scene: &mut Scene, at: usize, name: &str, candidate: &Pubkey) {
        let role = scene.roles[at];
        let account = scene.chain.svm.get_account(&address(candidate)).unwrap_or_default();
        // Moving lamports into a program is the chain's business.
        if matches!(role, Role::Spill) && account.executable {
            return;
        }
        let bad = with_account(&scene.good, at, candidate);
        let given = Given {
            key: *candidate,
            owner: account.owner.to_bytes(),
            lamports: account.lamports,
            demoted: bad.accounts[at].is_writable && is_reserved(scene, candidate),
            data: account.data,
        };
        let special = scene.special.iter().find(|(place, key, _)| *place == at && key == candidate);
        let expected = special.map_or_else(|| role.answer(&given), |(_, _, answer)| answer.clone());
        self.expect(scene, &format!("account {at} is {name}"), &expected, &bad, &[]);
    }

    /// Each written account passed read-only.
    fn permissions(&mut self, scene: &mut Scene) {
        for at in 0..scene.roles.len() {
            if scene.good.accounts[at].is_writable {
                let bad = read_only(&scene.good, at);
                self.refuse(scene, &format!("account {at} is read-only"), CONSTRAINT_MUT, &bad);
            }
        }
    }

    /// Too few accounts are refused, further ones are ignored.
    fn lists(&mut self, scene: &mut Scene) {
        for len in 0..scene.roles.len() {
            let bad = Instruction { accounts: scene.good.accounts[..len].to_vec(), ..scene.good.clone() };
            self.refuse(scene, &format!("{len} accounts"), ACCOUNT_NOT_ENOUGH_KEYS, &bad);
        }
        let mut more = scene.good.clone();
        more.accounts.extend(metas(&[("", scene.at("nothing")), ("w", scene.at("a wallet"))]));
        self.expect(scene, "two accounts more", &Ok(()), &more, &[]);
    }

    /// Data cut short, with something behind it, of no instruction, and of another one.
    fn data(&mut self, scene: &mut Scene) {
        let data = scene.good.data.clone();
        for len in (0..data.len()).filter(|len| *len < 24 || len % 41 == 0 || len + 2 > data.len()) {
            let code = if len < 8 { INSTRUCTION_MISSING } else { INSTRUCTION_DID_NOT_DESERIALIZE };
            let bad = with_data(&scene.good, data[..len].to_vec());
            self.refuse(scene, &format!("{len} of {} bytes", data.len()), code, &bad);
        }
        for tail in [&[0u8][..], &[1], &[0xff; 40]] {
            let bad = with_data(&scene.good, [&data, tail].concat());
            self.refuse(scene, "bytes behind the arguments", INSTRUCTION_DID_NOT_DESERIALIZE, &bad);
        }
        for discriminator in [[0; 8], [0xff; 8], *b"anything"] {
            let bad = with_data(&scene.good, [&discriminator, &data[8..]].concat());
            self.refuse(scene, "no instruction", INSTRUCTION_FALLBACK_NOT_FOUND, &bad);
        }
        for bit in 0..64 {
            let mut bad = with_data(&scene.good, data.clone());
            bad.data[bit / 8] ^= 1 << (bit % 8);
            self.refuse(scene, "almost an instruction", INSTRUCTION_FALLBACK_NOT_FOUND, &bad);
        }
    }
}

/// What nobody can write to, however it is passed.
fn is_reserved(scene: &Scene, candidate: &Pubkey) -> bool {
    let reserved = ["the system program", "the clock", "the rent"];
    reserved.iter().any(|name| scene.at(name) == *candidate) || *candidate == scene.good.program_id.to_bytes()
}

/// Accounts made from the right one's contents: of other programs, empty, cut, of another type, and a true copy.
fn forgeries(scene: &mut Scene, at: usize) -> Vec<(String, Pubkey)> {
    let (Role::Ours(kind, _) | Role::Linked(kind, _)) = scene.roles[at] else { return Vec::new() };
    let data = scene.chain.data(&scene.good.accounts[at].pubkey.to_bytes());
    let owner = kind.owner();
    let token_program = scene.at("the token program");
    let system = scene.at("the system program");
    let contents = [
        ("a copy under the token program", token_program, data.clone()),
        ("a copy under the system program", system, data.clone()),
        ("empty", owner, Vec::new()),
        ("seven bytes", owner, data[..7].to_vec()),
        ("a discriminator alone", owner, data[..8].to_vec()),
        ("cut short", owner, data[..12].to_vec()),
        ("of another type", owner, [&[0xff; 8], &data[8..]].concat()),
        ("of no type", owner, [&[0; 8], &data[8..]].concat()),
        ("a true copy elsewhere", owner, data.clone()),
    ];
    let forged = contents.map(|(name, owner, data)| (name.to_owned(), scene.chain.forge(&owner, data)));
    forged.into_iter().collect()
}

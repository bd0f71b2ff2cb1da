//! What the numbers mean that programs refuse with. Codes are matched, never texts.

use core::fmt;

use psyche_messages::Address;
use psyche_protocol::ids;

/// Which program refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramName {
    /// The coordinator.
    Coordinator,
    /// The authorizer.
    Authorizer,
    /// The treasurer.
    Treasurer,
    /// Solana's system program.
    System,
    /// The SPL token program.
    Token,
    /// The upgradeable loader.
    Loader,
    /// Any other program.
    Other(Address),
}

impl fmt::Display for ProgramName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("coordinator"),
            Self::Authorizer => f.write_str("authorizer"),
            Self::Treasurer => f.write_str("treasurer"),
            Self::System => f.write_str("system program"),
            Self::Token => f.write_str("token program"),
            Self::Loader => f.write_str("upgradeable loader"),
            Self::Other(address) => write!(f, "program {address}"),
        }
    }
}

/// The programs that this node speaks to. The defaults are compiled in ([`ids`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramIds {
    /// The coordinator.
    pub coordinator: Address,
    /// The authorizer.
    pub authorizer: Address,
    /// The treasurer.
    pub treasurer: Address,
}

impl Default for ProgramIds {
    fn default() -> Self {
        Self {
            coordinator: Address(ids::COORDINATOR),
            authorizer: Address(ids::AUTHORIZER),
            treasurer: Address(ids::TREASURER),
        }
    }
}

impl ProgramIds {
    /// The name of the program at `address`.
    #[must_use]
    pub fn name(&self, address: Address) -> ProgramName {
        match address {
            a if a == self.coordinator => ProgramName::Coordinator,
            a if a == self.authorizer => ProgramName::Authorizer,
            a if a == self.treasurer => ProgramName::Treasurer,
            Address(ids::SYSTEM_PROGRAM) => ProgramName::System,
            Address(ids::TOKEN_PROGRAM) => ProgramName::Token,
            Address(LOADER_V3) => ProgramName::Loader,
            a => ProgramName::Other(a),
        }
    }
}

/// `BPFLoaderUpgradeab1e11111111111111111111111`.
pub(crate) const LOADER_V3: [u8; 32] = match ids::decode_base58("BPFLoaderUpgradeab1e11111111111111111111111") {
    Some(id) => id,
    None => [0; 32],
};

/// What `code` of `program` means, in a sentence of its own; `None` for a code that is not known.
pub(crate) const fn meaning(program: ProgramName, code: u32) -> Option<&'static str> {
    match (program, code) {
        (ProgramName::Coordinator, 6000..) => coordinator(code),
        (ProgramName::Authorizer, 6000) => Some("the authorization is still active; deactivate it first"),
        (ProgramName::Authorizer, 6001) => Some("the authorization has delegates and was changed less than 30 days ago"),
        (ProgramName::Treasurer, 6000) => {
            Some("an amount or parameter is out of range; a claim may not exceed what was earned")
        }
        (ProgramName::Treasurer, 6001) => Some("the run id is empty or longer than 32 bytes"),
        (ProgramName::Coordinator | ProgramName::Authorizer | ProgramName::Treasurer, _) => anchor(code),
        (ProgramName::System, 0) => Some("the account to be created exists already"),
        (ProgramName::System, 1) => Some("the paying account does not hold enough"),
        (ProgramName::Token, 0) => Some("the token account would not be rent-exempt"),
        (ProgramName::Token, 1) => Some("the token account does not hold enough"),
        (ProgramName::Token, 3) => Some("the token account belongs to another mint"),
        (ProgramName::Token, 4) => Some("the token account belongs to another owner"),
        _ => None,
    }
}

const fn coordinator(code: u32) -> Option<&'static str> {
    Some(match code {
        6000 => "the run is finished and can't be changed any more",
        6001 => "the run must be paused before this can be changed",
        6002 => "the coordinator account has another size or version than this program knows",
        6003 => "the run's roster is full: all 256 places hold points, or wallets that were there lately",
        6004 => "the run's configuration contradicts itself",
        6005 => "the run's model description is incomplete",
        6006 => "the run's progress contradicts itself",
        6007 => "this wallet is not in the run's roster",
        6008 => "the joining identity names another wallet than the one that signed",
        6009 => "the run must be paused before its accounts can be closed",
        6010 => "no round is in progress",
        6011 => "the witness statement does not fit the current round",
        6012 => "the run is in another phase",
        6013 => "this client's witness statement is there already",
        6014 => "the health check accuses a client that is healthy or not there",
        6015 => "the run is halted",
        6016 => "the checkpoint names no place where weights could be",
        6017 => "the round has all the witness statements that it takes",
        6018 => "the run can't be resumed from its present state",
        6019 => "the client can't be withdrawn in its present state",
        6020 => "the committee selection is not the one that the seed gives",
        6021 => "the committee proof does not hold for the current round",
        6022 => "as many clients have joined for this epoch as the global batch has samples",
        6023 => "the run id is empty or longer than 32 bytes",
        6024 => "the peer-to-peer key is missing or is no valid key",
        6025 => "the client version is longer than 96 bytes",
        6026 => "the account is in use already",
        6027 => "the coordinator account holds something that makes no sense",
        6028 => "all steps of the run are done: raise total_steps before resuming it",
        6029 => "the round elected other members to name the checkpoint; every round draws anew",
        _ => return None,
    })
}

const fn anchor(code: u32) -> Option<&'static str> {
    Some(match code {
        100..=102 => "the program does not know this instruction or its arguments: it may be of another version",
        2000 => "an account that is written was passed as read-only",
        2003 => "an account does not satisfy a condition: the authorization may be inactive or for somebody else",
        2006 => "an account is not the one that its seeds give",
        2009 | 2015 => "a token account is not the one that belongs to its owner and token",
        2013 => "an account that should be new is in use",
        3001..=3003 => "an account holds another kind of data",
        3005 => "too few accounts were passed",
        3007 => "an account belongs to another program",
        3010 => "a required signature is missing",
        3008 | 3009 => "another program was passed than the one that is needed",
        4100 => "the program runs under another id than it was built for",
        3012 => "a required account does not exist: without an authorization nobody joins",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use psyche_protocol::machine::CoordinatorError;

    use super::*;

    #[test]
    fn every_code_of_the_coordinator_has_a_sentence_of_its_own() {
        let codes = CoordinatorError::ALL.iter().map(|error| error.code());
        let sentences: std::collections::HashSet<_> =
            codes.map(|code| meaning(ProgramName::Coordinator, code).unwrap()).collect();
        assert_eq!(sentences.len(), CoordinatorError::ALL.len());
        assert_eq!(meaning(ProgramName::Coordinator, 6999), None);
    }

    #[test]
    fn codes_of_the_framework_are_known_for_our_programs_only() {
        for code in [2003, 2006, 3002, 3007, 3010, 3012] {
            assert!(meaning(ProgramName::Coordinator, code).is_some(), "{code}");
            assert_eq!(meaning(ProgramName::Token, code), None, "{code}");
        }
    }

    #[test]
    fn programs_are_named_by_their_address() {
        let ids = ProgramIds::default();
        assert_eq!(ids.name(ids.treasurer), ProgramName::Treasurer);
        assert_eq!(ids.name(Address([0; 32])), ProgramName::System);
        assert_eq!(ids.name(Address(LOADER_V3)), ProgramName::Loader);
        assert_ne!(LOADER_V3, [0; 32]);
        assert_eq!(ids.name(Address([9; 32])), ProgramName::Other(Address([9; 32])));
    }
}

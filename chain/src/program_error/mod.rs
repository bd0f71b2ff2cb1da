//! Programs by name, and what they and the chain refuse with ([`ProgramRefusal`]). Codes are matched, never texts.

mod refusal;
mod runtime;

use core::fmt;

use psyche_messages::Address;
use psyche_protocol::ids;

pub use refusal::{AssociatedTokenRefusal, FrameworkRefusal, ProgramRefusal, SystemRefusal, TokenRefusal};
pub(crate) use runtime::{passes, sentence};

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
    /// The associated token account program.
    AssociatedToken,
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
            Self::AssociatedToken => f.write_str("associated token account program"),
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
            Address(ids::ASSOCIATED_TOKEN_PROGRAM) => ProgramName::AssociatedToken,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_named_by_their_address() {
        let ids = ProgramIds::default();
        assert_eq!(ids.name(ids.treasurer), ProgramName::Treasurer);
        assert_eq!(ids.name(Address([0; 32])), ProgramName::System);
        assert_eq!(ids.name(Address(ids::ASSOCIATED_TOKEN_PROGRAM)), ProgramName::AssociatedToken);
        assert_eq!(ids.name(Address(LOADER_V3)), ProgramName::Loader);
        assert_ne!(LOADER_V3, [0; 32]);
        assert_eq!(ids.name(Address([9; 32])), ProgramName::Other(Address([9; 32])));
    }
}

//! Error codes of the authorizer and the treasurer.

use core::fmt;

/// Declares one program's codes and their texts.
macro_rules! codes {
    ($(#[$enum_doc:meta])* $enum:ident { $($(#[$doc:meta])* $name:ident = $code:literal: $text:literal,)+ }) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $enum {
            $($(#[$doc])* $name = $code,)+
        }

        impl $enum {
            /// Every error, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The error with this code, if there is one.
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The program's custom error code.
            #[must_use]
            pub const fn code(self) -> u32 {
                self as u32
            }

            const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }

        impl fmt::Display for $enum {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text())
            }
        }

        impl core::error::Error for $enum {}
    };
}

codes! {
    /// Why the authorizer refused; the number is the program's custom error code.
    AuthorizerError {
        /// The signer is not the one whom this authorization obeys (the framework's code).
        WrongParty = 2003: "act on somebody else's authorization",
        /// The account's content makes no sense (the framework's code).
        Undecodable = 3003: "read the authorization",
        /// An active authorization cannot be closed.
        AuthorizationActiveIsTrue = 6000: "close an authorization that is active",
        /// An authorization with delegates cannot be closed so soon after the grantor's last change.
        AuthorizationClosingConditionsNotReachedYet = 6001: "close an authorization whose delegates have time left",
        /// More delegates than an authorization holds (a check of ours).
        TooManyDelegates = 6002: "name more delegates than an authorization holds",
    }
}

codes! {
    /// Why the treasurer refused; the number is the program's custom error code.
    TreasurerError {
        /// The signer or an account is not the run's or the user's (the framework's code).
        WrongParty = 2003: "act with somebody else's accounts",
        /// A claim exceeds what was earned, not slashed and not claimed yet.
        InvalidParameter = 6000: "claim more than is claimable",
        /// A run id has 1 to 32 bytes.
        RunIdInvalidLength = 6001: "accept a run id of this length",
        /// The run's totals are full (a check of ours).
        TotalsOverflow = 6002: "count more than a run's totals hold",
    }
}

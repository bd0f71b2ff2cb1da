//! Where a Solana node is reached. Providers put API keys into paths, queries and user names, so an endpoint's text never
//! shows more than scheme, host and port.

mod variables;

use core::fmt;
use core::str::FromStr;

use solana_client::client_error::reqwest::Url;
use thiserror::Error;

pub use variables::{EndpointVariables, MissingHalf, RefusedVariable};

/// Longest URL that is looked at.
const URL_LEN_MAX: usize = 2_048;
/// Most endpoint pairs of one node: far more than anybody pays for, few enough to send everything to all of them.
pub const ENDPOINTS_MAX: usize = 32;

/// Why a text is no endpoint. The text itself may hold a key and is never repeated.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EndpointError {
    /// Nothing between the quotes.
    #[error("read an endpoint from empty text")]
    Empty,
    /// Not a URL with a host.
    #[error("read an endpoint: the text is no URL with a host")]
    Malformed,
    /// Another scheme than the two that fit.
    #[error("accept the scheme {scheme:?} where {wanted} is needed")]
    Scheme {
        /// The scheme that was given.
        scheme: String,
        /// The schemes that fit.
        wanted: &'static str,
    },
    /// No endpoints, or more than anybody needs.
    #[error("accept {given} endpoints: 1 to {ENDPOINTS_MAX} are allowed")]
    Count {
        /// How many were given.
        given: usize,
    },
    /// Only websockets: nothing can be read or sent.
    #[error("accept endpoints without any JSON-RPC server among them")]
    NoRpc,
    /// A number that names no pair.
    #[error("accept the number: pairs are RPC and WS_RPC, then RPC_2 and WS_RPC_2, and so on")]
    Number,
}

/// Parses `text` after trimming blanks and one pair of quotes, which `docker run --env-file` leaves in place.
fn parse(text: &str, schemes: [&str; 2], wanted: &'static str) -> Result<Url, EndpointError> {
    let text = text.trim();
    let text = ['"', '\''].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q)).unwrap_or(text).trim();
    if text.is_empty() {
        return Err(EndpointError::Empty);
    }
    if text.len() > URL_LEN_MAX {
        return Err(EndpointError::Malformed);
    }
    let url = Url::parse(text).map_err(|_no_url| EndpointError::Malformed)?;
    if !schemes.contains(&url.scheme()) {
        // Text without a scheme, such as "host:8899" or a bare key, parses with part of itself as the scheme.
        let known = ["http", "https", "ws", "wss", "ftp", "file", "tcp", "quic"];
        let scheme = known.iter().find(|known| **known == url.scheme());
        return Err(
            scheme.map_or(EndpointError::Malformed, |scheme| EndpointError::Scheme { scheme: (*scheme).into(), wanted })
        );
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(EndpointError::Malformed);
    }
    Ok(url)
}

macro_rules! endpoint_url {
    ($(#[$doc:meta])* $name:ident, $schemes:expr, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(Url);

        impl $name {
            /// The whole text, keys included: for connecting, never for showing.
            pub(crate) fn expose(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = EndpointError;

            fn from_str(text: &str) -> Result<Self, EndpointError> {
                parse(text, $schemes, $wanted).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
                self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

endpoint_url!(
    /// The URL of a JSON-RPC server: http or https.
    RpcUrl,
    ["http", "https"],
    "http or https"
);
endpoint_url!(
    /// The URL of a WebSocket server: ws or wss.
    WsUrl,
    ["ws", "wss"],
    "ws or wss"
);

/// One provider: a JSON-RPC server, its WebSocket server, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPair {
    /// The JSON-RPC server. Without one, the provider serves subscriptions only.
    pub rpc: Option<RpcUrl>,
    /// The WebSocket server. Without one, the provider serves reads and takes transactions only.
    pub ws: Option<WsUrl>,
}

impl EndpointPair {
    /// Reads both texts; an empty one means none.
    ///
    /// # Errors
    /// [`EndpointError`] for the first text that is no endpoint; [`EndpointError::Empty`] if both are empty.
    pub fn parse(rpc: &str, ws: &str) -> Result<Self, EndpointError> {
        let pair = Self { rpc: optional(rpc)?, ws: optional(ws)? };
        if pair.rpc.is_none() && pair.ws.is_none() {
            return Err(EndpointError::Empty);
        }
        Ok(pair)
    }

    /// A provider of reads alone.
    #[must_use]
    pub const fn of_rpc(rpc: RpcUrl) -> Self {
        Self { rpc: Some(rpc), ws: None }
    }
}

impl fmt::Display for EndpointPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.rpc, &self.ws) {
            (Some(rpc), _) => rpc.fmt(f),
            (None, Some(ws)) => ws.fmt(f),
            (None, None) => f.write_str("(none)"),
        }
    }
}

fn optional<T: FromStr<Err = EndpointError>>(text: &str) -> Result<Option<T>, EndpointError> {
    match text.parse() {
        Ok(url) => Ok(Some(url)),
        Err(EndpointError::Empty) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_endpoint_shows_neither_path_nor_query_nor_user() {
        let url: RpcUrl = "https://user:pass@rpc.example:8443/v2/KEY?api-key=KEY#KEY".parse().unwrap();
        assert_eq!(url.to_string(), "https://rpc.example:8443");
        assert_eq!(format!("{url:?}"), "https://rpc.example:8443");
        assert!(url.expose().contains("api-key=KEY"));
    }

    #[test]
    fn quotes_and_blanks_around_a_url_are_trimmed() {
        for text in [" http://a:1 ", "\"http://a:1\"", "' http://a:1 '\n"] {
            assert_eq!(text.parse::<RpcUrl>().unwrap().to_string(), "http://a:1");
        }
    }

    #[test]
    fn other_schemes_are_refused_by_name() {
        let wrong = |scheme: &str, wanted| EndpointError::Scheme { scheme: scheme.into(), wanted };
        assert_eq!("ws://a".parse::<RpcUrl>(), Err(wrong("ws", "http or https")));
        assert_eq!("https://a".parse::<WsUrl>(), Err(wrong("https", "ws or wss")));
    }

    #[test]
    fn a_text_without_scheme_is_refused_without_repeating_it() {
        for text in ["my-secret-key:x", "secret.example:8899", "secret", "http://", "//secret"] {
            assert_eq!(text.parse::<RpcUrl>(), Err(EndpointError::Malformed), "{text}");
        }
        assert_eq!(" \"\" ".parse::<RpcUrl>(), Err(EndpointError::Empty));
    }

    #[test]
    fn a_pair_may_lack_one_half_but_not_both_and_not_have_a_bad_one() {
        assert_eq!(EndpointPair::parse("http://a", " ").unwrap().ws, None);
        assert_eq!(EndpointPair::parse("", "ws://a").unwrap().rpc, None);
        assert_eq!(EndpointPair::parse(" ", "''"), Err(EndpointError::Empty));
        assert!(EndpointPair::parse("http://a", "http://a").is_err());
        assert!(EndpointPair::parse("ws://a", "ws://a").is_err());
    }

    #[test]
    fn a_pair_shows_the_host_of_what_it_has() {
        let shown = |rpc, ws| EndpointPair::parse(rpc, ws).unwrap().to_string();
        assert_eq!(shown("http://a/KEY", "ws://b/KEY"), "http://a");
        assert_eq!(shown("", "ws://b/KEY"), "ws://b");
    }

    proptest! {
        #[test]
        fn prop_no_text_makes_the_parser_panic(text: String) {
            let _rpc = text.parse::<RpcUrl>();
            let _ws = text.parse::<WsUrl>();
        }
    }
}

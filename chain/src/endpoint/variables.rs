//! Endpoint pairs from variables: `RPC`/`WS_RPC`, `RPC_2`/`WS_RPC_2`, and so on, with gaps wherever somebody left them.
//!
//! Pure. A pair of which one half is missing serves what it has; the missing variable is named. Values are never repeated.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{ENDPOINTS_MAX, EndpointError, EndpointPair, RpcUrl, WsUrl};

/// Longest number behind `RPC_` that is read as one; longer ones are refused by name.
const DIGITS_MAX: usize = 6;

/// What the variables say about endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointVariables {
    /// The usable pairs, in the order of their numbers.
    pub pairs: Vec<EndpointPair>,
    /// For each pair the variable by which an operator knows it: `RPC_2`, or `WS_RPC_2` where that is all there is.
    pub names: Vec<String>,
    /// Pairs that serve only one purpose.
    pub missing: Vec<MissingHalf>,
    /// Variables that cannot be used.
    pub refused: Vec<RefusedVariable>,
}

/// A variable that is not set though the other half of its pair is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingHalf {
    /// The variable that is missing.
    pub variable: String,
    /// The one that is there.
    pub given: String,
}

impl fmt::Display for MissingHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, given } = self;
        let purpose = if variable.starts_with("WS_") { "reads and transactions" } else { "subscriptions" };
        write!(f, "{variable} is not set: {given} is used for {purpose} only")
    }
}

/// A variable that cannot be used, and why. Never holds its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedVariable {
    /// Its name.
    pub variable: String,
    /// What is wrong with it.
    pub error: EndpointError,
}

impl RefusedVariable {
    /// What is wrong and what is accepted, in words that follow the variable's name.
    #[must_use]
    pub fn problem(&self) -> String {
        let accepted = if self.variable.starts_with("WS_") { "ws://host or wss://host" } else { "http://host or https://host" };
        match &self.error {
            EndpointError::Scheme { scheme, .. } => format!("has the scheme {scheme}; {accepted} is accepted"),
            EndpointError::Number => "is no variable of ours; RPC and WS_RPC come first, then RPC_2 and WS_RPC_2".into(),
            EndpointError::Count { given } => {
                format!("belongs to pair {given} of endpoints; at most {ENDPOINTS_MAX} pairs are accepted")
            }
            EndpointError::NoRpc => "is missing; set it to the URL of your Solana RPC provider".into(),
            EndpointError::Empty | EndpointError::Malformed => format!("is not a usable URL; {accepted} is accepted"),
        }
    }
}

#[derive(Default)]
struct Halves<'a> {
    rpc: Option<(&'a str, &'a str)>,
    ws: Option<(&'a str, &'a str)>,
}

/// Whether `name` is of a websocket, and the number of its pair; `None` for variables that are none of ours.
fn numbered(name: &str) -> Option<(bool, Result<u32, EndpointError>)> {
    let (websocket, rest) = match (name.strip_prefix("WS_RPC"), name.strip_prefix("RPC")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return None,
    };
    if rest.is_empty() {
        return Some((websocket, Ok(1)));
    }
    let digits = rest.strip_prefix('_').filter(|digits| !digits.is_empty())?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // RPC_1, RPC_02 and numbers beyond counting are mistakes that must not pass in silence.
    let plain = digits.len() <= DIGITS_MAX && !digits.starts_with('0');
    let number = digits.parse().ok().filter(|number| plain && *number > 1);
    Some((websocket, number.ok_or(EndpointError::Number)))
}

fn is_blank(text: &str) -> bool {
    text.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'').is_empty()
}

impl EndpointVariables {
    /// Reads pairs of name and value; other variables are ignored, the later one of two with one name counts, blank ones
    /// count as unset.
    #[must_use]
    pub fn read<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables: BTreeMap<&str, &str> = variables.into_iter().collect();
        let mut read = Self::default();
        let mut pairs: BTreeMap<u32, Halves<'a>> = BTreeMap::new();
        for (name, value) in variables.into_iter().filter(|(_, value)| !is_blank(value)) {
            match numbered(name) {
                None => {}
                Some((_, Err(error))) => read.refuse(name, error),
                Some((true, Ok(number))) => pairs.entry(number).or_default().ws = Some((name, value)),
                Some((false, Ok(number))) => pairs.entry(number).or_default().rpc = Some((name, value)),
            }
        }
        for (index, (number, halves)) in pairs.into_iter().enumerate() {
            read.pair(index + 1, number, &halves);
        }
        if read.refused.is_empty() && read.pairs.iter().all(|pair| pair.rpc.is_none()) {
            read.refuse("RPC", EndpointError::NoRpc);
        }
        read
    }

    fn refuse(&mut self, variable: &str, error: EndpointError) {
        self.refused.push(RefusedVariable { variable: variable.to_owned(), error });
    }

    fn pair(&mut self, count: usize, number: u32, halves: &Halves<'_>) {
        let before = self.refused.len();
        if count > ENDPOINTS_MAX {
            for (name, _) in [halves.rpc, halves.ws].into_iter().flatten() {
                self.refuse(name, EndpointError::Count { given: count });
            }
            return;
        }
        let rpc: Option<RpcUrl> = halves.rpc.and_then(|half| self.url(half));
        let ws: Option<WsUrl> = halves.ws.and_then(|half| self.url(half));
        if self.refused.len() > before {
            return;
        }
        let suffix = if number == 1 { String::new() } else { format!("_{number}") };
        let (rpc_name, ws_name) = (format!("RPC{suffix}"), format!("WS_RPC{suffix}"));
        match (&rpc, &ws) {
            (Some(_), None) => self.missing.push(MissingHalf { variable: ws_name.clone(), given: rpc_name.clone() }),
            (None, Some(_)) => self.missing.push(MissingHalf { variable: rpc_name.clone(), given: ws_name.clone() }),
            _ => {}
        }
        self.names.push(if rpc.is_some() { rpc_name } else { ws_name });
        self.pairs.push(EndpointPair { rpc, ws });
    }

    fn url<T: FromStr<Err = EndpointError>>(&mut self, (name, value): (&str, &str)) -> Option<T> {
        value.parse().map_err(|error| self.refuse(name, error)).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use proptest::prelude::*;

    use super::*;

    fn shown(read: &EndpointVariables) -> Vec<(Option<String>, Option<String>)> {
        let text = |url: &dyn ToString| url.to_string();
        read.pairs.iter().map(|pair| (pair.rpc.as_ref().map(|u| text(u)), pair.ws.as_ref().map(|u| text(u)))).collect()
    }

    #[test]
    fn pairs_come_in_the_order_of_their_numbers_whatever_the_gaps() {
        let read = EndpointVariables::read([
            ("RPC_10", "http://ten"),
            ("WS_RPC_10", "ws://ten"),
            ("RPC_2", "https://two"),
            ("WS_RPC_2", "wss://two"),
            ("RPC", "http://one"),
            ("WS_RPC", "ws://one"),
            ("RPC_URL", "not ours"),
            ("RPC_", "not ours"),
            ("RPCX_2", "not ours"),
        ]);
        let rpcs: Vec<_> = shown(&read).into_iter().map(|(rpc, _)| rpc.unwrap()).collect();
        assert_eq!(rpcs, ["http://one", "https://two", "http://ten"]);
        assert_eq!(read.names, ["RPC", "RPC_2", "RPC_10"]);
        assert_eq!((read.missing, read.refused), (vec![], vec![]));
    }

    #[test]
    fn a_pair_without_one_half_serves_what_it_has_and_the_missing_variable_is_named() {
        let read = EndpointVariables::read([("RPC", "http://a"), ("WS_RPC_3", "ws://c"), ("WS_RPC", " '' ")]);
        assert_eq!(shown(&read), [(Some("http://a".into()), None), (None, Some("ws://c".into()))]);
        assert_eq!(read.names, ["RPC", "WS_RPC_3"]);
        let missing: Vec<_> = read.missing.iter().map(ToString::to_string).collect();
        assert_eq!(
            missing,
            [
                "WS_RPC is not set: RPC is used for reads and transactions only",
                "RPC_3 is not set: WS_RPC_3 is used for subscriptions only",
            ]
        );
    }

    #[test]
    fn quotes_and_blanks_are_tolerated_on_every_pair() {
        let read =
            EndpointVariables::read([("RPC", " \"http://a\" "), ("RPC_2", "' http://b '"), ("WS_RPC_2", "\t\"ws://b\"\n")]);
        assert_eq!(shown(&read), [(Some("http://a".into()), None), (Some("http://b".into()), Some("ws://b".into()))]);
        assert!(read.refused.is_empty());
    }

    #[test]
    fn other_schemes_are_refused_by_the_variable_s_name_and_the_value_is_not_repeated() {
        let read = EndpointVariables::read([
            ("RPC", "ftp://user:SECRET@host/SECRET"),
            ("WS_RPC", "https://host/SECRET"),
            ("RPC_2", "ws://host/SECRET"),
            ("WS_RPC_2", "SECRET"),
        ]);
        let refused: Vec<_> = read.refused.iter().map(|refused| refused.variable.as_str()).collect();
        assert_eq!(refused, ["RPC", "WS_RPC", "RPC_2", "WS_RPC_2"]);
        assert_eq!(read.refused[0].problem(), "has the scheme ftp; http://host or https://host is accepted");
        assert_eq!(read.refused[1].problem(), "has the scheme https; ws://host or wss://host is accepted");
        let text: String = read.refused.iter().map(|refused| format!("{refused:?} {}", refused.problem())).collect();
        assert!(!text.contains("SECRET"), "{text}");
        assert!(read.pairs.is_empty());
    }

    #[test]
    fn numbers_that_name_no_pair_are_refused_by_name() {
        let names = ["RPC_0", "RPC_1", "WS_RPC_1", "RPC_02", "RPC_4294967298", "WS_RPC_99999999999999999999"];
        for name in names {
            let read = EndpointVariables::read([("RPC", "http://a"), (name, "http://b")]);
            assert_eq!(read.refused, [RefusedVariable { variable: name.into(), error: EndpointError::Number }]);
        }
    }

    #[test]
    fn thirty_two_pairs_are_accepted_and_the_next_one_is_refused_by_name() {
        let name = |number: usize| if number == 0 { "RPC".to_owned() } else { format!("RPC_{}", number * 7) };
        let names: Vec<String> = (0..=ENDPOINTS_MAX).map(name).collect();
        let some = |count: usize| EndpointVariables::read(names.iter().take(count).map(|name| (name.as_str(), "http://a")));
        assert_eq!((some(32).pairs.len(), some(32).refused.len()), (32, 0));
        let read = some(33);
        assert_eq!(read.refused, [RefusedVariable { variable: "RPC_224".into(), error: EndpointError::Count { given: 33 } }]);
        assert!(read.refused[0].problem().contains("at most 32 pairs"));
    }

    #[test]
    fn websockets_alone_are_not_enough() {
        for variables in [vec![], vec![("WS_RPC", "ws://a")]] {
            let read = EndpointVariables::read(variables);
            assert_eq!(read.refused, [RefusedVariable { variable: "RPC".into(), error: EndpointError::NoRpc }]);
        }
    }

    proptest! {
        #[test]
        fn prop_every_variable_of_ours_is_used_or_refused_and_every_pair_has_a_name(
            given in proptest::collection::btree_map("(WS_)?RPC(_[0-9]{1,3})?", "(http|ws|ftp)s?://[a-z]{1,5}|[a-z]{0,3}", 0..50)
        ) {
            let read = EndpointVariables::read(given.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            prop_assert!(read.pairs.len() <= ENDPOINTS_MAX && read.pairs.len() == read.names.len());
            prop_assert!(read.pairs.iter().all(|pair| pair.rpc.is_some() || pair.ws.is_some()));
            prop_assert!(read.refused.iter().all(|refused| refused.variable == "RPC" || given.contains_key(&refused.variable)));
        }
    }
}

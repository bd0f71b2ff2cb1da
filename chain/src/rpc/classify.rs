//! From the library's errors to ours: by code and status only, never by text.

use std::time::Duration;

use psyche_messages::Slot;
use solana_client::client_error::{ClientError, ClientErrorKind};
use solana_client::rpc_request::{RpcError, RpcRequest};

use super::breaker::Fault;
use super::transport::HttpRefusal;
use crate::error::ChainError;

/// The request is malformed, or its parameters are: every endpoint will say so.
const DETERMINISTIC: [i64; 4] = [-32_700, -32_600, -32_602, -32_003];
/// A refused simulation before sending; carries the transaction's own error.
const PREFLIGHT_FAILURE: i64 = -32_002;
/// The endpoint calls itself unhealthy: it is far behind.
const NODE_UNHEALTHY: i64 = -32_005;
/// The endpoint has not reached `minContextSlot`.
const MIN_CONTEXT_SLOT_NOT_REACHED: i64 = -32_016;
/// Some providers put the HTTP status into the JSON.
const TOO_MANY_REQUESTS: [i64; 2] = [429, -32_429];

/// What a failure says about the endpoint that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is at fault.
    Fault(Fault),
    /// It wants to be left alone, for so long if it says so.
    Limited(Option<Duration>),
    /// It answered as it should: the request is to blame.
    Answered,
    /// It can't serve this request, which says nothing about others.
    Unfit,
}

/// What `error` says about its endpoint.
pub(super) fn verdict(error: &ClientError) -> Verdict {
    if let Some(refusal) = HttpRefusal::of(error) {
        return match refusal.status {
            429 => Verdict::Limited(refusal.retry_after),
            503 if refusal.retry_after.is_some() => Verdict::Limited(refusal.retry_after),
            500..=599 | 408 => Verdict::Fault(Fault::Bad),
            // A key that is not accepted, or nobody who speaks our protocol.
            _ => Verdict::Fault(Fault::Dead),
        };
    }
    match error.kind.as_ref() {
        ClientErrorKind::Reqwest(_) => Verdict::Fault(Fault::Dead),
        ClientErrorKind::RpcError(RpcError::RpcResponseError { code, .. }) => match *code {
            MIN_CONTEXT_SLOT_NOT_REACHED => Verdict::Fault(Fault::Behind),
            NODE_UNHEALTHY => Verdict::Fault(Fault::Bad),
            code if TOO_MANY_REQUESTS.contains(&code) => Verdict::Limited(None),
            code if code == PREFLIGHT_FAILURE || DETERMINISTIC.contains(&code) => Verdict::Answered,
            _ => Verdict::Unfit,
        },
        _ => Verdict::Fault(Fault::Bad),
    }
}

/// What an endpoint's failure means to the caller.
pub(super) fn classify(error: ClientError, endpoint: &str, request: RpcRequest, context: &Context) -> ChainError {
    let (endpoint, method) = (endpoint.to_owned(), request.as_str());
    if let Some(HttpRefusal { status, retry_after }) = HttpRefusal::of(&error) {
        return ChainError::Http { endpoint, status, retry_after };
    }
    match *error.kind {
        ClientErrorKind::Reqwest(source) if source.is_timeout() => ChainError::Timeout { endpoint, after: context.timeout },
        ClientErrorKind::Reqwest(source) => ChainError::Unreachable { endpoint, source },
        ClientErrorKind::RpcError(RpcError::RpcResponseError { code, .. }) => match code {
            MIN_CONTEXT_SLOT_NOT_REACHED => ChainError::Behind { endpoint, slot: context.min_slot },
            PREFLIGHT_FAILURE => ChainError::Refused { method, code },
            code if DETERMINISTIC.contains(&code) => ChainError::Refused { method, code },
            code if TOO_MANY_REQUESTS.contains(&code) => ChainError::Http { endpoint, status: 429, retry_after: None },
            code => ChainError::Unfit { endpoint, method, code },
        },
        _ => ChainError::Malformed { endpoint, method },
    }
}

/// What the request was made with.
pub(super) struct Context {
    pub(super) timeout: Duration,
    pub(super) min_slot: Slot,
}

//! From the library's errors to ours: by code and status only, never by text.

use std::time::Duration;

use psyche_messages::Slot;
use solana_client::client_error::{ClientError, ClientErrorKind};
use solana_client::rpc_request::{RpcError, RpcRequest};

use crate::error::ChainError;

/// The request is malformed, or its parameters are: every endpoint will say so.
const DETERMINISTIC: [i64; 4] = [-32_700, -32_600, -32_602, -32_003];
/// A refused simulation before sending; carries the transaction's own error.
const PREFLIGHT_FAILURE: i64 = -32_002;
/// The endpoint has not reached `minContextSlot`.
const MIN_CONTEXT_SLOT_NOT_REACHED: i64 = -32_016;

/// What an endpoint's failure means.
pub(super) fn classify(error: ClientError, endpoint: &str, request: RpcRequest, context: &Context) -> ChainError {
    let (endpoint, method) = (endpoint.to_owned(), request.as_str());
    match *error.kind {
        ClientErrorKind::Reqwest(source) => match source.status() {
            Some(status) => ChainError::Http { endpoint, status: status.as_u16() },
            None if source.is_timeout() => ChainError::Timeout { endpoint, after: context.timeout },
            None => ChainError::Unreachable { endpoint, source },
        },
        ClientErrorKind::RpcError(RpcError::RpcResponseError { code, .. }) => match code {
            MIN_CONTEXT_SLOT_NOT_REACHED => ChainError::Behind { endpoint, slot: context.min_slot },
            PREFLIGHT_FAILURE => ChainError::Refused { method, code },
            code if DETERMINISTIC.contains(&code) => ChainError::Refused { method, code },
            // Some providers put the HTTP status into the JSON.
            429 | -32_429 => ChainError::Http { endpoint, status: 429 },
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

//! A chain of a few lines, behind the library's own seam for transports: endpoints in front of it can lag, lie, hang and lose
//! what they are sent.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use solana_client::client_error::ClientError;
use solana_client::rpc_request::{RpcError, RpcRequest, RpcResponseErrorData};
use solana_client::rpc_sender::{RpcSender, RpcTransportStats};

use crate::endpoint::EndpointPair;
use crate::rpc::{Rpc, RpcConfig};

/// How an endpoint behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// Transactions sent to it go nowhere, though it says that it took them.
    pub(crate) swallows: bool,
    /// It knows no transaction.
    pub(crate) forgets: bool,
    /// It says that the chain has this height.
    pub(crate) height: Option<u64>,
    /// It answers nothing.
    pub(crate) hangs: bool,
    /// It takes a transaction and fails to say so.
    pub(crate) breaks_off: bool,
    /// Slots of which it keeps the transactions; all where it is `None`.
    pub(crate) keeps: Option<Range<u8>>,
}

impl Manner {
    fn has(&self, past: &Past) -> bool {
        self.keeps.as_ref().is_none_or(|keeps| (u64::from(keeps.start)..u64::from(keeps.end)).contains(&past.slot))
    }
}

/// A transaction of old.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) signature: String,
    pub(crate) slot: u64,
    /// What it says; `null` where nobody knows it.
    pub(crate) message: Value,
}

/// What is on the chain, and what was asked.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(super) manners: Vec<Manner>,
    pub(super) height: u64,
    /// By how much each look at the height raises it.
    pub(super) pace: u64,
    /// Transactions in blocks, with their errors as JSON.
    pub(super) landed: HashMap<String, Value>,
    /// Every transaction that anybody was sent, in the order of their first sending.
    pub(super) sent: Vec<String>,
    /// How often each endpoint was sent each.
    pub(super) sendings: HashMap<(usize, String), u32>,
    /// How often each method was asked for.
    pub(super) asked: HashMap<String, u32>,
    /// Blockhashes that were given out.
    pub(super) hashes: HashSet<String>,
    /// With what transactions fail: when they are simulated, and when they are run.
    pub(super) refuses: Option<Value>,
    pub(super) fails: Option<Value>,
    /// The logs of what fails.
    pub(super) logs: Vec<String>,
    /// Recent priority fees.
    pub(super) fees: Vec<u64>,
    /// What is said of transactions' bytes.
    pub(super) packets: Vec<String>,
    /// Transactions that were there before, the oldest first.
    pub(crate) past: Vec<Past>,
}

impl Ledger {
    pub(crate) fn count(&self, method: &str) -> u32 {
        self.asked.get(method).copied().unwrap_or(0)
    }
}

#[derive(Clone)]
pub(crate) struct Chain(Arc<Mutex<Ledger>>);

impl Chain {
    /// A chain behind as many endpoints as there are manners.
    pub(crate) fn new(manners: Vec<Manner>) -> (Self, Rpc) {
        Self::with(manners, |_config| ())
    }

    pub(crate) fn with(manners: Vec<Manner>, adjust: impl FnOnce(&mut RpcConfig)) -> (Self, Rpc) {
        let pairs = (0..manners.len()).map(|n| EndpointPair::parse(&format!("http://fake-{n}"), "").unwrap()).collect();
        let chain =
            Self(Arc::new(Mutex::new(Ledger { manners: manners.clone(), height: 1_000, pace: 1, ..Ledger::default() })));
        let senders = (0..manners.len()).map(|index| Wire { chain: chain.clone(), index }).collect();
        let mut config = RpcConfig::new(pairs);
        config.request_timeout = Duration::from_millis(500);
        adjust(&mut config);
        let rpc = Rpc::with_senders(config, senders).unwrap();
        (chain, rpc)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap()
    }
}

struct Wire {
    chain: Chain,
    index: usize,
}

impl Wire {
    async fn answer(&self, request: RpcRequest, params: Value) -> Result<Value, ClientError> {
        let hangs = self.chain.ledger().manners[self.index].hangs;
        if hangs {
            tokio::time::sleep(Duration::from_millis(500)).await;
            return Err(RpcError::ForUser("no answer".into()).into());
        }
        let mut ledger = self.chain.ledger();
        *ledger.asked.entry(request.to_string()).or_default() += 1;
        let manner = ledger.manners[self.index].clone();
        match request {
            RpcRequest::GetGenesisHash => Ok(json!("11111111111111111111111111111111")),
            RpcRequest::GetLatestBlockhash => Ok(blockhash(&mut ledger)),
            RpcRequest::SimulateTransaction => Ok(simulated(&ledger)),
            RpcRequest::GetRecentPrioritizationFees => {
                Ok(ledger.fees.iter().map(|fee| json!({"slot": 1, "prioritizationFee": fee})).collect())
            }
            RpcRequest::SendTransaction => sent(&mut ledger, &manner, self.index, &params),
            RpcRequest::GetSignatureStatuses => Ok(statuses(&ledger, &manner, &params)),
            RpcRequest::GetEpochInfo => {
                ledger.height += ledger.pace;
                let height = manner.height.unwrap_or(ledger.height);
                Ok(json!({"absoluteSlot": height.min(ledger.height), "blockHeight": height, "epoch": 0}))
            }
            RpcRequest::GetTransaction => {
                let signature = params[0].as_str().unwrap();
                let past = ledger.past.iter().find(|past| past.signature == signature && manner.has(past));
                if let Some(past) = past.filter(|past| !past.message.is_null()) {
                    return Ok(json!({"meta": {"err": null}, "transaction": {"message": past.message}}));
                }
                let found = ledger.landed.get(signature).filter(|_| !manner.forgets);
                Ok(found.map_or(Value::Null, |error| json!({"meta": {"err": error, "logMessages": ledger.logs}})))
            }
            RpcRequest::GetSignaturesForAddress => Ok(signatures(&ledger, &manner, &params)),
            RpcRequest::GetBalance => Ok(json!({"context": {"slot": ledger.height}, "value": 5})),
            RpcRequest::GetSlot | RpcRequest::GetBlockHeight => Ok(json!(ledger.height)),
            other => panic!("nobody told this chain about {other}"),
        }
    }
}

fn blockhash(ledger: &mut Ledger) -> Value {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(ledger.hashes.len() as u64).to_le_bytes());
    let hash = bs58::encode(bytes).into_string();
    ledger.hashes.insert(hash.clone());
    let value = json!({"blockhash": hash, "lastValidBlockHeight": ledger.height + 150});
    json!({"context": {"slot": ledger.height}, "value": value})
}

fn simulated(ledger: &Ledger) -> Value {
    let value = json!({"err": ledger.refuses, "logs": ledger.logs, "unitsConsumed": 10_000, "accounts": null});
    json!({"context": {"slot": ledger.height}, "value": value})
}

fn signatures(ledger: &Ledger, manner: &Manner, params: &Value) -> Value {
    let limit = usize::try_from(params[1]["limit"].as_u64().unwrap()).unwrap();
    let kept = ledger.past.iter().rev().filter(|past| manner.has(past));
    let after = kept.skip_while(|past| params[1]["before"].as_str().is_some_and(|before| before != past.signature));
    let skipped = usize::from(params[1]["before"].is_string());
    after.skip(skipped).take(limit).map(|past| json!({"signature": past.signature, "slot": past.slot, "err": null})).collect()
}

fn signature_of(packet: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(packet).unwrap();
    bs58::encode(&bytes[1..65]).into_string()
}

fn sent(ledger: &mut Ledger, manner: &Manner, index: usize, params: &Value) -> Result<Value, ClientError> {
    let packet = params[0].as_str().unwrap().to_owned();
    let signature = signature_of(&packet);
    if !ledger.sent.contains(&signature) {
        ledger.sent.push(signature.clone());
        ledger.packets.push(packet);
    }
    *ledger.sendings.entry((index, signature.clone())).or_default() += 1;
    if !manner.swallows {
        let error = ledger.fails.clone().unwrap_or(Value::Null);
        ledger.landed.insert(signature.clone(), error);
    }
    if manner.breaks_off {
        let data = RpcResponseErrorData::Empty;
        return Err(RpcError::RpcResponseError { code: 0, message: String::new(), data }.into());
    }
    Ok(json!(signature))
}

fn statuses(ledger: &Ledger, manner: &Manner, params: &Value) -> Value {
    let signature = params[0][0].as_str().unwrap();
    let status = |error: &Value| {
        let status = if error.is_null() { json!({"Ok": null}) } else { json!({"Err": error}) };
        json!({"slot": ledger.height, "confirmations": 1, "err": error, "status": status, "confirmationStatus": "confirmed"})
    };
    let found = ledger.landed.get(signature).filter(|_| !manner.forgets).map(status);
    json!({"context": {"slot": ledger.height}, "value": [found]})
}

impl RpcSender for Wire {
    fn send<'a, 'b>(
        &'a self,
        request: RpcRequest,
        params: Value,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ClientError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.answer(request, params))
    }

    fn get_transport_stats(&self) -> RpcTransportStats {
        RpcTransportStats::default()
    }

    fn url(&self) -> String {
        format!("http://fake-{}", self.index)
    }
}

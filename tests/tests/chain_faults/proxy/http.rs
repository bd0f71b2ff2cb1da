//! The JSON-RPC side.

use std::convert::Infallible;

use anyhow::{Context as _, Result};
use hyper::body::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::Http;
use hyper::service::service_fn;
use hyper::{Body, Client, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Faults, Side};

/// What a node says that has not reached the slot it is asked for.
const MIN_CONTEXT_SLOT_NOT_REACHED: i64 = -32_016;

pub(super) async fn serve(stream: TcpStream, side: Side) {
    let client = Client::new();
    let service = service_fn(|request| {
        let (side, client) = (side.clone(), client.clone());
        async move { Ok::<_, Infallible>(answer(&side, &client, request).await) }
    });
    // A client that goes away in the middle is an error of the connection, and nobody's concern.
    let _gone = Http::new().serve_connection(stream, service).await;
}

async fn answer(side: &Side, client: &Client<hyper::client::HttpConnector>, request: Request<Body>) -> Response<Body> {
    let faults = side.faults();
    if !faults.delay.is_zero() {
        tokio::time::sleep(faults.delay).await;
    }
    let answered = match faults.too_many_requests {
        Some(seconds) => refusal(side, request, seconds).await,
        None => exchange(side, client, request, &faults).await,
    };
    answered.unwrap_or_else(|_broken| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
}

async fn refusal(side: &Side, request: Request<Body>, seconds: u64) -> Result<Response<Body>> {
    let question: Value = serde_json::from_slice(&hyper::body::to_bytes(request.into_body()).await?)?;
    note(side, &question);
    let response = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).header(RETRY_AFTER, seconds);
    Ok(response.body(Body::empty())?)
}

fn note(side: &Side, question: &Value) {
    let method = question["method"].as_str().unwrap_or_default().to_owned();
    side.count(|counts| {
        *counts.requests.entry(method.clone()).or_default() += 1;
        if method == "sendTransaction"
            && let Some(signature) = signature(question)
        {
            *counts.transactions.entry(signature).or_default() += 1;
        }
    });
}

async fn exchange(
    side: &Side,
    client: &Client<hyper::client::HttpConnector>,
    request: Request<Body>,
    faults: &Faults,
) -> Result<Response<Body>> {
    let question: Value = serde_json::from_slice(&hyper::body::to_bytes(request.into_body()).await?)?;
    note(side, &question);
    let answer = match invented(side, &question, faults) {
        Some(answer) => answer,
        None => {
            let onward = Request::post(format!("http://{}", side.target)).header(CONTENT_TYPE, "application/json");
            let response = client.request(onward.body(Body::from(question.to_string()))?).await?;
            let answer = serde_json::from_slice(&hyper::body::to_bytes(response.into_body()).await?)?;
            if faults.lag_slots > 0 { aged(side, &question, answer, faults.lag_slots) } else { answer }
        }
    };
    let text = answer.to_string();
    let response = Response::builder().header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, text.len());
    if !faults.truncated {
        return Ok(response.body(Body::from(text))?);
    }
    let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    let pieces = [Ok(half), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))];
    Ok(response.body(Body::wrap_stream(futures::stream::iter(pieces)))?)
}

fn result(question: &Value, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": question["id"], "result": result})
}

/// What is answered without asking the chain.
fn invented(side: &Side, question: &Value, faults: &Faults) -> Option<Value> {
    match question["method"].as_str()? {
        "getGenesisHash" => faults.genesis.as_ref().map(|genesis| result(question, &json!(genesis))),
        "sendTransaction" if faults.swallows_transactions => Some(result(question, &json!(signature(question)?))),
        "getSignatureStatuses" if faults.swallows_statuses => {
            let asked = question["params"][0].as_array().map_or(0, Vec::len);
            Some(result(question, &json!({"context": {"slot": side.history.slot()}, "value": vec![Value::Null; asked]})))
        }
        _ if faults.lag_slots > 0 => remembered(side, question, faults.lag_slots),
        _ => None,
    }
}

/// What a node that lags answers from the states that it has seen, or that it has not come that far.
fn remembered(side: &Side, question: &Value, lag_slots: u64) -> Option<Value> {
    let at = side.history.slot().saturating_sub(lag_slots);
    let config = question["params"].as_array()?.iter().find(|param| param.is_object());
    let wanted = config.and_then(|config| config["minContextSlot"].as_u64()).unwrap_or_default();
    if wanted > at {
        let error = json!({
            "code": MIN_CONTEXT_SLOT_NOT_REACHED, "message": "Minimum context slot has not been reached",
            "data": {"contextSlot": at},
        });
        return Some(json!({"jsonrpc": "2.0", "id": question["id"], "error": error}));
    }
    let moment = side.history.at(at)?;
    let value = match question["method"].as_str()? {
        "getAccountInfo" => moment.accounts.get(question["params"][0].as_str()?)?.clone(),
        "getLatestBlockhash" => moment.blockhash.clone(),
        _ => return None,
    };
    Some(result(question, &json!({"context": {"slot": at}, "value": value})))
}

/// Takes back from an answer what a node that lags can't know.
fn aged(side: &Side, question: &Value, mut answer: Value, lag_slots: u64) -> Value {
    let at = side.history.slot().saturating_sub(lag_slots);
    match question["method"].as_str() {
        Some("getSlot" | "getBlockHeight") => {
            if let Some(number) = answer["result"].as_u64() {
                answer["result"] = json!(number.saturating_sub(lag_slots));
            }
        }
        Some("getSignatureStatuses") => {
            for status in answer["result"]["value"].as_array_mut().into_iter().flatten() {
                if status["slot"].as_u64().is_some_and(|slot| slot > at) {
                    *status = Value::Null;
                }
            }
        }
        _ => {}
    }
    if answer["result"]["context"]["slot"].is_u64() {
        answer["result"]["context"]["slot"] = json!(at);
    }
    answer
}

/// The first signature of the transaction that `question` brings.
fn signature(question: &Value) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(question["params"][0].as_str()?).ok()?;
    // One byte counts the signatures, of which there are fewer than 128.
    bytes.get(1..65).map(|signature| bs58::encode(signature).into_string())
}

/// Asks the chain itself.
pub(crate) async fn ask(target: std::net::SocketAddr, method: &str, params: Value) -> Result<Value> {
    let question = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let request = Request::post(format!("http://{target}")).header(CONTENT_TYPE, "application/json");
    let response = Client::new().request(request.body(Body::from(question.to_string()))?).await?;
    let mut answer: Value = serde_json::from_slice(&hyper::body::to_bytes(response.into_body()).await?)?;
    answer.get_mut("result").map(Value::take).context("an answer without a result")
}

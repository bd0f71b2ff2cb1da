//! A JSON-RPC server with moods, on a real socket: answers, hangs, refuses, lies, goes away. It notes whatever it is asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use psyche_chain::EndpointPair;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Two clusters, by their genesis hashes.
pub(crate) const OURS: &str = "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY";
pub(crate) const OTHER: &str = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG";

/// What a server does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers.
    Well,
    /// Takes the request and says nothing, until it is in another mood.
    Hangs,
    /// An HTTP status with further headers (each ends with CR LF).
    Status(u16, String),
    /// Closes the connection without an answer.
    Slams,
    /// Answers with something that is no JSON-RPC.
    Babbles,
    /// A JSON-RPC error with this code and a text that is to mislead.
    Code(i64),
}

/// What a server was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) min_slot: Option<u64>,
}

struct State {
    genesis: &'static str,
    slot: u64,
    /// Whether it refuses requests for slots that it has not reached, as it should.
    minds_slots: bool,
    /// The moods for the next requests that are neither surveys nor probes; then the lasting one counts.
    next: VecDeque<Mood>,
    asked: Vec<Asked>,
    cancelled: usize,
}

/// See the module. Dropping it closes everything.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    mood: watch::Sender<Mood>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// A server that answers well, at slot 1,000 of our cluster.
    pub(crate) async fn start() -> Self {
        let state =
            State { genesis: OURS, slot: 1_000, minds_slots: true, next: VecDeque::new(), asked: Vec::new(), cancelled: 0 };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Self { address, state: Arc::new(Mutex::new(state)), mood: watch::Sender::new(Mood::Well), task: None };
        server.serve(listener);
        server
    }

    pub(crate) fn on(self, genesis: &'static str) -> Self {
        self.state().genesis = genesis;
        self
    }

    pub(crate) fn pair(&self) -> EndpointPair {
        EndpointPair::parse(&format!("http://{}/v2/SECRET?api-key=SECRET", self.address), "").unwrap()
    }

    pub(crate) fn name(&self) -> String {
        format!("http://{}", self.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn turn(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub(crate) fn next(&self, moods: impl IntoIterator<Item = Mood>) {
        self.state().next.extend(moods);
    }

    pub(crate) fn set_genesis(&self, genesis: &'static str) {
        self.state().genesis = genesis;
    }

    pub(crate) fn set_slot(&self, slot: u64) {
        self.state().slot = slot;
    }

    pub(crate) fn ignore_min_slots(&self) {
        self.state().minds_slots = false;
    }

    /// How often it was asked `method`.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.state().asked.iter().filter(|asked| asked.method == method).count()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// How many requests were given up by whoever asked, before there was an answer.
    pub(crate) fn cancelled(&self) -> usize {
        self.state().cancelled
    }

    /// Cuts every connection and refuses new ones.
    pub(crate) async fn down(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ended = task.await;
        }
    }

    pub(crate) async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let (state, moods) = (Arc::clone(&self.state), self.mood.subscribe());
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, Arc::clone(&state), moods.clone()));
            }
        }));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn connection(mut stream: TcpStream, state: Arc<Mutex<State>>, mut moods: watch::Receiver<Mood>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        let method = request["method"].as_str().unwrap().to_owned();
        let min_slot = request["params"].as_array().into_iter().flatten().find_map(|param| param["minContextSlot"].as_u64());
        let scripted = {
            let mut state = state.lock().unwrap();
            state.asked.push(Asked { method: method.clone(), min_slot });
            let background = matches!(method.as_str(), "getGenesisHash" | "getSlot");
            if background { None } else { state.next.pop_front() }
        };
        let mut mood = scripted.unwrap_or_else(|| moods.borrow_and_update().clone());
        while mood == Mood::Hangs {
            let mut byte = [0];
            tokio::select! {
                _changed = moods.changed() => mood = moods.borrow_and_update().clone(),
                // The client speaks only after an answer: whatever ends this read is its going away.
                _gone = stream.read(&mut byte) => {
                    state.lock().unwrap().cancelled += 1;
                    return;
                }
            }
        }
        let (status, headers, body) = match mood {
            Mood::Well | Mood::Hangs => (200, String::new(), answer(&state, &request, &method, min_slot).to_string()),
            Mood::Status(status, headers) => (status, headers, String::new()),
            Mood::Slams => return,
            Mood::Babbles => (200, String::new(), "<html>SECRET</html>".to_owned()),
            Mood::Code(code) => {
                let error = json!({"code": code, "message": "InvalidRunState: too many requests, account not found"});
                (200, String::new(), json!({"jsonrpc": "2.0", "id": request["id"], "error": error}).to_string())
            }
        };
        let head = format!("HTTP/1.1 {status} Mood\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One request's JSON; `None` once the client has gone.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Value> {
    loop {
        let end = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
            let length = head.split("content-length:").nth(1)?.lines().next()?.trim().parse::<usize>().ok()?;
            if buffer.len() >= end + 4 + length {
                let body = serde_json::from_slice(&buffer[end + 4..end + 4 + length]).unwrap();
                buffer.drain(..end + 4 + length);
                return Some(body);
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn answer(state: &Mutex<State>, request: &Value, method: &str, min_slot: Option<u64>) -> Value {
    let state = state.lock().unwrap();
    let with_context = |value: Value| json!({"context": {"slot": state.slot}, "value": value});
    let behind = state.minds_slots && min_slot.is_some_and(|wanted| wanted > state.slot);
    if behind {
        let error = json!({"code": -32016, "message": "", "data": {"contextSlot": state.slot}});
        return json!({"jsonrpc": "2.0", "id": request["id"], "error": error});
    }
    let result = match method {
        "getGenesisHash" => json!(state.genesis),
        "getSlot" | "getBlockHeight" => json!(state.slot),
        // The balance tells who answered.
        "getBalance" => with_context(json!(state.slot)),
        "getAccountInfo" => with_context(Value::Null),
        "getMultipleAccounts" => {
            let count = request["params"][0].as_array().map_or(0, Vec::len);
            with_context(json!(vec![Value::Null; count]))
        }
        "getSignaturesForAddress" => json!([]),
        "requestAirdrop" => json!("1111111111111111111111111111111111111111111111111111111111111111"),
        "getSignatureStatuses" => with_context(json!([
            {"slot": state.slot, "confirmations": null, "err": null, "status": {"Ok": null}, "confirmationStatus": "finalized"}
        ])),
        other => panic!("the server was asked {other}"),
    };
    json!({"jsonrpc": "2.0", "id": request["id"], "result": result})
}

//! A provider with bad days: one JSON-RPC and one WebSocket server in front of a chain, which do to requests, answers and
//! notifications whatever [`Faults`] say, switchable at any time.
//!
//! HTTP is hyper's business and WebSocket framing tungstenite's; the proxy reads nothing but JSON.

mod history;
mod http;
mod ws;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use psyche_chain::EndpointPair;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub(crate) use history::{History, Recording};
pub(crate) use http::ask;

/// How bytes travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Link {
    /// They flow.
    #[default]
    Up,
    /// Connections are refused, and those that are there are reset.
    Down,
    /// Connections are accepted and stay, but no byte flows on any of them.
    Stalled,
    /// No byte flows on the connections that are there, for ever; new ones are as they should be.
    HalfOpen,
}

/// What is wrong with a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// How bytes travel.
    pub(crate) link: Link,
    /// How long every answer and notification is held back.
    pub(crate) delay: Duration,
    /// How many slots the server is behind the chain.
    pub(crate) lag_slots: u64,
    /// Refuses everything with status 429 and this many seconds in Retry-After.
    pub(crate) too_many_requests: Option<u64>,
    /// Breaks off in the middle of every answer or notification.
    pub(crate) truncated: bool,
    /// Says that it serves the chain with this genesis hash.
    pub(crate) genesis: Option<String>,
    /// Says that it has sent transactions, and does not.
    pub(crate) swallows_transactions: bool,
    /// Knows of no transaction's status.
    pub(crate) swallows_statuses: bool,
    /// Swaps and repeats notifications.
    pub(crate) shuffled: bool,
}

impl Faults {
    pub(crate) fn link(link: Link) -> Self {
        Self { link, ..Self::default() }
    }

    pub(crate) fn lag(lag_slots: u64) -> Self {
        Self { lag_slots, ..Self::default() }
    }

    pub(crate) fn too_many_requests(retry_after_s: u64) -> Self {
        Self { too_many_requests: Some(retry_after_s), ..Self::default() }
    }
}

/// What came in.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Requests by method.
    pub(crate) requests: BTreeMap<String, u64>,
    /// Transactions by signature: how often each was brought.
    pub(crate) transactions: BTreeMap<String, u64>,
    /// Connections.
    pub(crate) connections: u64,
}

/// What the tasks of one server share.
#[derive(Clone)]
struct Side {
    target: SocketAddr,
    faults: watch::Receiver<Faults>,
    history: Arc<History>,
    counts: Arc<Mutex<Counts>>,
}

impl Side {
    fn faults(&self) -> Faults {
        self.faults.borrow().clone()
    }

    fn count(&self, note: impl FnOnce(&mut Counts)) {
        note(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[derive(Clone, Copy)]
enum Protocol {
    Http,
    Ws,
}

/// One server of a provider. Dropping it cuts everything.
pub(crate) struct Server {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    applied: watch::Receiver<Faults>,
    counts: Arc<Mutex<Counts>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(protocol: Protocol, target: SocketAddr, history: Arc<History>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (faults, watched) = watch::channel(Faults::default());
        let (apply, applied) = watch::channel(Faults::default());
        let counts = Arc::default();
        let side = Side { target, faults: watched, history, counts: Arc::clone(&counts) };
        let task = tokio::spawn(serve(protocol, listener, address, side, apply));
        Ok(Self { address, faults, applied, counts, task })
    }

    /// Behaves like this from now on; returns once it does.
    pub(crate) async fn be(&self, faults: Faults) {
        self.faults.send_replace(faults.clone());
        let mut applied = self.applied.clone();
        applied.wait_for(|applied| *applied == faults).await.unwrap();
    }

    /// How often `method` was asked for.
    pub(crate) fn asked(&self, method: &str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.requests.get(method).copied().unwrap_or_default()
    }

    /// The signatures of the transactions that were brought.
    pub(crate) fn transactions(&self) -> Vec<String> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).transactions.keys().cloned().collect()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).connections
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A provider: both of its servers.
pub(crate) struct Endpoint {
    pub(crate) http: Server,
    pub(crate) ws: Server,
}

impl Endpoint {
    pub(crate) async fn start(http: SocketAddr, ws: SocketAddr, history: &Arc<History>) -> Result<Self> {
        Ok(Self {
            http: Server::start(Protocol::Http, http, Arc::clone(history)).await?,
            ws: Server::start(Protocol::Ws, ws, Arc::clone(history)).await?,
        })
    }

    /// Both servers behave like this from now on.
    pub(crate) async fn be(&self, faults: Faults) {
        self.http.be(faults.clone()).await;
        self.ws.be(faults).await;
    }

    pub(crate) fn pair(&self) -> Result<EndpointPair> {
        Ok(EndpointPair::parse(&format!("http://{}", self.http.address), &format!("ws://{}", self.ws.address))?)
    }
}

async fn serve(protocol: Protocol, listener: TcpListener, address: SocketAddr, mut side: Side, apply: watch::Sender<Faults>) {
    let mut listener = Some(listener);
    let mut links = JoinSet::new();
    // Connections of an earlier generation are dead without knowing it.
    let (generation, living) = watch::channel(0_u64);
    loop {
        tokio::select! {
            changed = side.faults.changed() => {
                if changed.is_err() {
                    return;
                }
                let faults = side.faults.borrow_and_update().clone();
                match faults.link {
                    Link::Down => {
                        listener = None;
                        links.shutdown().await;
                    }
                    Link::HalfOpen | Link::Stalled => generation.send_modify(|generation| *generation += 1),
                    Link::Up => {}
                }
                if faults.link != Link::Down && listener.is_none() {
                    listener = Some(TcpListener::bind(address).await.unwrap());
                }
                apply.send_replace(faults);
            }
            Some(_ended) = links.join_next() => {}
            Ok((stream, _)) = accept(listener.as_ref()), if listener.is_some() => {
                side.count(|counts| counts.connections += 1);
                // Whoever is cut off learns it by a reset.
                stream.set_zero_linger().unwrap();
                links.spawn(link(protocol, stream, side.clone(), living.clone()));
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// One connection, until it ends, is cut, or dies without knowing it.
async fn link(protocol: Protocol, stream: TcpStream, side: Side, mut living: watch::Receiver<u64>) {
    let born = *living.borrow_and_update();
    if side.faults().link == Link::Stalled {
        std::future::pending::<()>().await;
    }
    let mut work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = match protocol {
        Protocol::Http => Box::pin(http::serve(stream, side)),
        Protocol::Ws => Box::pin(ws::serve(stream, side)),
    };
    tokio::select! {
        () = &mut work => return,
        _died = living.wait_for(|generation| *generation != born) => {}
    }
    // The sockets stay open, and nobody reads or writes them any more.
    std::future::pending::<()>().await;
    drop(work);
}

//! Two providers in front of one chain: TCP proxies on the chain's host that go down, stall and come back.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, anyhow};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::hosts::Host;

/// Where the chain listens on its host, seen from there.
pub(crate) const CHAIN_PORTS: [u16; 2] = [8899, 8900];
/// Most connections of a provider; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 256;

/// How a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answers.
    Up,
    /// Connections are cut, and new ones end at once.
    Down,
    /// Connections stay and are accepted, and no byte flows.
    Stalled,
}

/// The providers, in the order in which nodes know them.
#[derive(Debug)]
pub(crate) struct Providers {
    healths: Vec<watch::Sender<Health>>,
    ip: Ipv4Addr,
    /// Dropped to end the proxies.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Providers {
    /// Two of them on `host`.
    ///
    /// # Errors
    /// If they can't listen.
    pub(crate) fn start(host: &Host) -> Result<Self> {
        let (healths, watches): (Vec<_>, Vec<_>) = (0..2).map(|_| watch::channel(Health::Up)).unzip();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (told, tell) = std::sync::mpsc::sync_channel(1);
        let ip = host.ip;
        std::thread::scope(|scope| {
            // The runtime's threads are where the thread was that made them.
            scope.spawn(|| told.send(runtime(host)));
        });
        let runtime = tell.recv().context("the providers' thread has died")??;
        let mut listeners = Vec::new();
        for (number, health) in (0..).zip(&watches) {
            for port in CHAIN_PORTS {
                let address = SocketAddr::from((ip, Self::port(number, port)));
                let bound = runtime.block_on(runtime.spawn(TcpListener::bind(address)))?;
                listeners.push((bound.with_context(|| format!("failed to listen on {address}"))?, port, health.clone()));
            }
        }
        std::thread::Builder::new()
            .name("providers".to_owned())
            .spawn(move || {
                for (listener, port, health) in listeners {
                    runtime.spawn(serve(listener, port, health));
                }
                // Ends with whoever holds the other half; the tasks end with the runtime.
                drop(runtime.block_on(stopped));
            })
            .map_err(|error| anyhow!(error))?;
        Ok(Self { healths, ip, _stop: stop })
    }

    /// Where the provider answers what the chain answers at `port`; none of them is where the chain is.
    const fn port(number: u16, port: u16) -> u16 {
        port + 100 * (number + 1)
    }

    pub(crate) const fn count(&self) -> usize {
        self.healths.len()
    }

    pub(crate) fn set(&self, number: usize, health: Health) {
        self.healths[number].send_replace(health);
    }

    /// The variables by which a node knows them.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let url = |scheme, number, port| format!("{scheme}://{}:{}", self.ip, Self::port(number, port));
        let [rpc, ws] = CHAIN_PORTS;
        vec![
            ("RPC", url("http", 0, rpc)),
            ("WS_RPC", url("ws", 0, ws)),
            ("RPC_2", url("http", 1, rpc)),
            ("WS_RPC_2", url("ws", 1, ws)),
        ]
    }
}

fn runtime(host: &Host) -> Result<tokio::runtime::Runtime> {
    host.enter().context("failed to enter the chain's host")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.context("failed to make a runtime")
}

async fn serve(listener: TcpListener, port: u16, health: watch::Receiver<Health>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = links.join_next() => {}
            Ok((client, _)) = listener.accept(), if links.len() < CONNECTIONS_MAX => {
                links.spawn(link(client, port, health.clone()));
            }
        }
    }
}

/// One connection, until an end of it or the provider goes.
async fn link(mut client: TcpStream, port: u16, mut health: watch::Receiver<Health>) {
    let mut down = health.clone();
    let carried = async {
        // A provider that stalls says nothing more on this connection, also when it is well again.
        let stalled = async { drop(health.wait_for(|health| *health == Health::Stalled).await) };
        tokio::select! {
            _ended = carry(&mut client, port) => {}
            () = stalled => std::future::pending().await,
        }
    };
    let down = async { drop(down.wait_for(|health| *health == Health::Down).await) };
    tokio::select! {
        () = carried => {}
        () = down => {}
    }
}

async fn carry(client: &mut TcpStream, port: u16) -> std::io::Result<()> {
    let mut chain = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    copy_bidirectional(client, &mut chain).await.map(drop)
}

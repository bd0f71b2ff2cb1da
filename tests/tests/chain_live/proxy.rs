//! A TCP proxy that can go down, come back, and freeze: stands in for a provider with bad days.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Bytes flow.
    Up,
    /// Connections are refused, existing ones are cut.
    Down,
    /// Connections stay and are accepted, but no byte flows.
    Frozen,
}

/// See the module. Dropping it cuts everything.
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    applied: watch::Receiver<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of `target`.
    pub(crate) async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Up);
        let (apply, applied) = watch::channel(Mode::Up);
        let task = tokio::spawn(serve(listener, address, target, modes, apply));
        Ok(Self { address, mode, applied, task })
    }

    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn ws(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) async fn down(&mut self) {
        self.switch(Mode::Down).await;
    }

    pub(crate) async fn up(&mut self) {
        self.switch(Mode::Up).await;
    }

    pub(crate) async fn freeze(&mut self) {
        self.switch(Mode::Frozen).await;
    }

    async fn switch(&mut self, mode: Mode) {
        self.mode.send(mode).unwrap();
        self.applied.wait_for(|applied| *applied == mode).await.unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    target: SocketAddr,
    mut modes: watch::Receiver<Mode>,
    apply: watch::Sender<Mode>,
) {
    let mut listener = Some(listener);
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            changed = modes.changed() => {
                if changed.is_err() {
                    return;
                }
                let mode = *modes.borrow_and_update();
                if mode == Mode::Down {
                    listener = None;
                    links.shutdown().await;
                } else if listener.is_none() {
                    listener = Some(TcpListener::bind(address).await.unwrap());
                }
                apply.send(mode).unwrap();
            }
            Ok((stream, _)) = accept(listener.as_ref()), if listener.is_some() => {
                links.spawn(link(stream, target, modes.clone()));
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

/// One connection. Freezing it stops the copying without closing anything; thawing does not bring it back.
async fn link(mut client: TcpStream, target: SocketAddr, mut modes: watch::Receiver<Mode>) {
    if *modes.borrow() == Mode::Up
        && let Ok(mut server) = TcpStream::connect(target).await
    {
        tokio::select! {
            _ended = copy_bidirectional(&mut client, &mut server) => return,
            _frozen = modes.wait_for(|mode| *mode == Mode::Frozen) => {}
        }
        std::future::pending::<()>().await;
    }
    std::future::pending::<()>().await;
}

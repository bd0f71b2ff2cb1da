//! `localnet-endpoint`: one more endpoint of a local chain, as if another provider served it, so that fail-over can be seen.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::args::LocalnetEndpointArgs;
use crate::output;
use crate::signals::Stop;

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 512;
/// How long a chain may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long nothing is accepted after the system refused to, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: LocalnetEndpointArgs) -> Result<()> {
    let mut stop = Stop::listen()?;
    let bind = async |port| {
        let address = SocketAddr::new(args.bind, port);
        TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}; another port may be free"))
    };
    let (rpc, ws) = (bind(args.rpc_port).await?, bind(args.ws_port).await?);
    output::line(format_args!("RPC=http://{}", rpc.local_addr()?))?;
    output::line(format_args!("WS_RPC=ws://{}", ws.local_addr()?))?;
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let serve = |listener, port| forward(listener, (args.chain_host.clone(), port), Arc::clone(&connections));
    tokio::select! {
        () = serve(rpc, args.chain_rpc_port) => {}
        () = serve(ws, args.chain_ws_port) => {}
        signal = stop.requested() => output::note(format_args!("{signal}: stopping")),
    }
    Ok(())
}

/// Passes on whatever comes, for ever.
async fn forward(listener: TcpListener, chain: (String, u16), connections: Arc<Semaphore>) {
    loop {
        // Never closed, so there is always a permit to come.
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let chain = chain.clone();
                tokio::spawn(async move {
                    if let Err(error) = pass(client, &chain).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn pass(mut client: TcpStream, (host, port): &(String, u16)) -> io::Result<()> {
    let connecting = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((host.as_str(), *port)));
    let mut chain = connecting.await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    client.set_nodelay(true)?;
    chain.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut chain).await?;
    Ok(())
}

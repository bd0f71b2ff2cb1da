//! The websocket server that clients see. It passes frames on to the engine's own and mends what that answers otherwise than
//! a validator: the slot of account notifications, and `rootSubscribe` (see the crate's documentation).

mod frames;
mod slots;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, connect_async};

use frames::{Book, Passed};
pub(crate) use slots::{AccountSlots, keep_reading};

/// Connections at once; more wait to be accepted.
const SESSIONS_MAX: usize = 1_024;
/// Both hand-shakes together are a few small packets on one machine.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Before the next attempt to accept, where one failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `listener` until it is dropped, with `engine` behind it.
pub(crate) async fn serve(listener: TcpListener, engine: SocketAddr, slots: Arc<AccountSlots>) {
    let permits = Arc::new(Semaphore::new(SESSIONS_MAX));
    let mut sessions = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        while sessions.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _peer)) => {
                let slots = Arc::clone(&slots);
                sessions.spawn(async move {
                    if let Err(error) = session(stream, engine, slots).await {
                        tracing::debug!(%error, "websocket session ended");
                    }
                    drop(permit);
                });
            }
            // Out of file descriptors, or a connection that was reset at once; the listener itself does not break.
            Err(error) => {
                tracing::debug!(%error, "websocket not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn session(stream: TcpStream, engine: SocketAddr, slots: Arc<AccountSlots>) -> Result<(), Error> {
    let handshakes = async {
        stream.set_nodelay(true)?;
        let outside = accept_async(stream).await?;
        let (inside, _response) = connect_async(format!("ws://{engine}")).await?;
        Ok::<_, Error>((outside, inside))
    };
    let late = |_elapsed| Error::Io(std::io::ErrorKind::TimedOut.into());
    let (mut outside, mut inside) = tokio::time::timeout(HANDSHAKE_WITHIN, handshakes).await.map_err(late)??;
    let mut book = Book::new(slots);
    let result = pass(&mut outside, &mut inside, &mut book).await;
    // Whoever is still there learns that the other is gone.
    let (_outside, _inside) = (outside.close(None).await, inside.close(None).await);
    result
}

/// Passes frames on in both directions until one side is gone.
async fn pass<A, B>(outside: &mut WebSocketStream<A>, inside: &mut WebSocketStream<B>, book: &mut Book) -> Result<(), Error>
where
    A: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    B: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        tokio::select! {
            frame = outside.next() => match frame.transpose()? {
                None | Some(Message::Close(_)) => return Ok(()),
                Some(Message::Text(text)) => inside.send(passed(book.client_said(&text), Message::Text(text.clone()))).await?,
                Some(frame @ Message::Binary(_)) => inside.send(frame).await?,
                // Each side's pings are answered right here.
                Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            },
            frame = inside.next() => match frame.transpose()? {
                None | Some(Message::Close(_)) => return Ok(()),
                Some(Message::Text(text)) => match book.engine_said(&text) {
                    Passed::Dropped => {}
                    mended => outside.send(passed(mended, Message::Text(text.clone()))).await?,
                },
                Some(frame @ Message::Binary(_)) => outside.send(frame).await?,
                Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            },
        }
    }
}

fn passed(mended: Passed, original: Message) -> Message {
    match mended {
        Passed::Mended(text) => Message::text(text),
        Passed::AsIs | Passed::Dropped => original,
    }
}

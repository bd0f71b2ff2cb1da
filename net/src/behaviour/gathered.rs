//! Yamux whose frames leave together. It flushes after every frame of 16 KiB, and below it each flush is a message to encrypt and a
//! call of the system; where many frames wait, they are handed on as one.

use std::io;
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::yamux;

/// Most flushes in a row that wait for more to be written: as many bytes as the layers below hold back anyway.
const PUT_OFF_MAX: u32 = 16;

/// Upgrades a connection to yamux over [`Gather`].
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered(yamux::Config);

impl UpgradeInfo for Gathered {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C> InboundConnectionUpgrade<C> for Gathered
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = yamux::Muxer<Gather<C>>;
    type Error = io::Error;
    type Future = <yamux::Config as InboundConnectionUpgrade<Gather<C>>>::Future;

    fn upgrade_inbound(self, io: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(Gather::new(io), info)
    }
}

impl<C> OutboundConnectionUpgrade<C> for Gathered
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = yamux::Muxer<Gather<C>>;
    type Error = io::Error;
    type Future = <yamux::Config as OutboundConnectionUpgrade<Gather<C>>>::Future;

    fn upgrade_outbound(self, io: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(Gather::new(io), info)
    }
}

/// A connection whose flush, if something was written since the last one, happens when its task runs next, and by then for
/// whatever was written meanwhile.
#[derive(Debug)]
pub(super) struct Gather<C> {
    io: C,
    /// Whether something was written since the last flush that was asked for.
    fresh: bool,
    /// Flushes that were put off since the last one.
    put_off: u32,
}

impl<C> Gather<C> {
    const fn new(io: C) -> Self {
        Self { io, fresh: false, put_off: 0 }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Gather<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read(cx, bytes)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Gather<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.fresh = true;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.fresh) && self.put_off < PUT_OFF_MAX {
            self.put_off += 1;
            // The task runs once more, and yamux begins with a flush then.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.put_off = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        Pin::new(&mut self.io).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    /// Counts what reaches it.
    #[derive(Default)]
    struct Wire {
        bytes: usize,
        flushes: u32,
        closed: bool,
    }

    impl AsyncWrite for Wire {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.bytes += bytes.len();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.closed = true;
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes `frames`, each with a flush after it, as yamux does in one run of its task.
    fn write(gather: &mut Gather<Wire>, frames: usize, cx: &mut Context<'_>) {
        for _ in 0..frames {
            assert!(matches!(Pin::new(&mut *gather).poll_write(cx, &[7; 100]), Poll::Ready(Ok(100))));
            assert!(Pin::new(&mut *gather).poll_flush(cx).is_ready());
        }
    }

    #[test]
    fn frames_that_are_written_together_are_flushed_once_and_none_stays_behind() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let mut gather = Gather::new(Wire::default());
        for frames in [1, 5, 16] {
            let (flushes, woken) = (gather.io.flushes, wakes.0.load(Ordering::Relaxed));
            write(&mut gather, frames, &mut cx);
            assert_eq!(gather.io.flushes, flushes);
            assert!(wakes.0.load(Ordering::Relaxed) > woken, "the task runs again");
            assert!(Pin::new(&mut gather).poll_flush(&mut cx).is_ready());
            assert_eq!(gather.io.flushes, flushes + 1);
        }
        assert_eq!(gather.io.bytes, 2200);
    }

    #[test]
    fn what_never_ends_is_flushed_all_the_same_and_so_is_what_ends() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut gather = Gather::new(Wire::default());
        write(&mut gather, 170, &mut cx);
        assert_eq!(gather.io.flushes, 10);
        write(&mut gather, 1, &mut cx);
        assert!(Pin::new(&mut gather).poll_close(&mut cx).is_ready());
        assert_eq!((gather.io.flushes, gather.io.closed), (11, true));
    }
}

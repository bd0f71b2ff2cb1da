//! Noise that reads far ahead. It takes 8 KiB at a time from what it runs over, which would be a call of the system for each of
//! them; a message of noise may have 64 KiB.

use std::iter;

use futures::io::BufReader;
use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::identity::Keypair;
use libp2p::noise;

/// Bytes that are read at a time, and held for each connection.
const READ_BYTES: usize = 64 << 10;

/// Upgrades a connection to noise over a buffer.
#[derive(Clone)]
pub(super) struct ReadAhead(noise::Config);

impl ReadAhead {
    /// Noise that proves the identity `keypair`.
    ///
    /// # Errors
    /// [`noise::Error`] if the keypair can't sign.
    pub(super) fn new(keypair: &Keypair) -> Result<Self, noise::Error> {
        noise::Config::new(keypair).map(Self)
    }
}

impl UpgradeInfo for ReadAhead {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C> InboundConnectionUpgrade<C> for ReadAhead
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, noise::Output<BufReader<C>>);
    type Error = noise::Error;
    type Future = <noise::Config as InboundConnectionUpgrade<BufReader<C>>>::Future;

    fn upgrade_inbound(self, io: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(BufReader::with_capacity(READ_BYTES, io), info)
    }
}

impl<C> OutboundConnectionUpgrade<C> for ReadAhead
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, noise::Output<BufReader<C>>);
    type Error = noise::Error;
    type Future = <noise::Config as OutboundConnectionUpgrade<BufReader<C>>>::Future;

    fn upgrade_outbound(self, io: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(BufReader::with_capacity(READ_BYTES, io), info)
    }
}

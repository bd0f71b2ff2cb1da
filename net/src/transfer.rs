//! The protocol by which peers hand each other ranges of blobs: one request and one response a stream, both bounded before
//! they are read.

use std::io;

use bincode::{Decode, Encode};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use psyche_messages::BlobHash;

use crate::blobs::Range;
use crate::wire::{decode, encode};

/// Name of the protocol; changes with the form of its messages.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/psyche-solana-client/blob/1");

/// Longest range that may be asked for.
pub(crate) const RANGE_BYTES_MAX: u32 = 256 * 1024;

/// Length of a request: hash, total, offset, length.
const REQUEST_BYTES: usize = 32 + 8 + 8 + 4;

/// Longest response: a range, its length and the variant.
const RESPONSE_BYTES_MAX: usize = RANGE_BYTES_MAX as usize + 16;

/// "Send me this part of this blob, which I know to be `total` bytes long."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RangeRequest {
    hash: [u8; 32],
    total: u64,
    offset: u64,
    len: u32,
}

impl RangeRequest {
    pub(crate) const fn new(hash: BlobHash, total: u64, range: Range) -> Self {
        Self { hash: hash.0, total, offset: range.offset, len: range.len }
    }

    pub(crate) const fn hash(&self) -> BlobHash {
        BlobHash(self.hash)
    }

    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    pub(crate) const fn range(&self) -> Range {
        Range { offset: self.offset, len: self.len }
    }
}

/// The answer.
#[derive(PartialEq, Eq, Encode, Decode)]
pub(crate) enum RangeResponse {
    /// The bytes of the range.
    Bytes(Vec<u8>),
    /// No such blob, or not of that length.
    Missing,
    /// Too many requests at a time.
    Busy,
}

impl std::fmt::Debug for RangeResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} B)", bytes.len()),
            Self::Missing => f.write_str("Missing"),
            Self::Busy => f.write_str("Busy"),
        }
    }
}

/// Reads and writes the two messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RangeCodec;

impl request_response::Codec for RangeCodec {
    type Protocol = StreamProtocol;
    type Request = RangeRequest;
    type Response = RangeResponse;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<RangeRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        let request: RangeRequest = decode::<_, REQUEST_BYTES>(&read_bounded(io, REQUEST_BYTES).await?).map_err(invalid)?;
        if request.len > RANGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the range is too long"));
        }
        Ok(request)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<RangeResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        decode::<_, RESPONSE_BYTES_MAX>(&read_bounded(io, RESPONSE_BYTES_MAX).await?).map_err(invalid)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: RangeRequest) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&encode::<_, REQUEST_BYTES>(&request).map_err(invalid)?).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: RangeResponse) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&encode::<_, RESPONSE_BYTES_MAX>(&response).map_err(invalid)?).await
    }
}

/// Everything up to the end of the stream, one byte more than `bytes_max` at most so that longer input is noticed.
async fn read_bounded(io: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.take(bytes_max as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn invalid(error: crate::wire::WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use futures::executor::block_on;
    use futures::io::Cursor;
    use libp2p::request_response::Codec;
    use proptest::prelude::*;

    use super::*;

    fn request() -> RangeRequest {
        RangeRequest::new(BlobHash([7; 32]), 0x0102_0304_0506_0708, Range { offset: 5, len: 9 })
    }

    #[test]
    fn requests_and_responses_keep_their_wire_form() {
        let mut wire = Cursor::new(Vec::new());
        block_on(RangeCodec.write_request(&PROTOCOL, &mut wire, request())).unwrap();
        let sevens = "07".repeat(32);
        assert_eq!(hex::encode(wire.into_inner()), format!("{sevens}0807060504030201050000000000000009000000"));
        for (response, expected) in [
            (RangeResponse::Bytes(vec![0xaa, 0xbb]), "000000000200000000000000aabb"),
            (RangeResponse::Missing, "01000000"),
            (RangeResponse::Busy, "02000000"),
        ] {
            let mut wire = Cursor::new(Vec::new());
            block_on(RangeCodec.write_response(&PROTOCOL, &mut wire, response)).unwrap();
            assert_eq!(hex::encode(wire.into_inner()), expected);
        }
    }

    #[test]
    fn ranges_longer_than_allowed_are_refused_on_arrival() {
        let mut wire = Cursor::new(Vec::new());
        let long = RangeRequest { len: RANGE_BYTES_MAX + 1, ..request() };
        block_on(RangeCodec.write_request(&PROTOCOL, &mut wire, long)).unwrap();
        wire.set_position(0);
        assert!(block_on(RangeCodec.read_request(&PROTOCOL, &mut wire)).is_err());
    }

    #[test]
    fn the_longest_range_fits_a_response_and_no_longer_one_is_read() {
        let mut wire = Cursor::new(Vec::new());
        let full = RangeResponse::Bytes(vec![1; RANGE_BYTES_MAX as usize]);
        block_on(RangeCodec.write_response(&PROTOCOL, &mut wire, full)).unwrap();
        wire.set_position(0);
        assert!(block_on(RangeCodec.read_response(&PROTOCOL, &mut wire)).is_ok());
        let mut endless = futures::io::repeat(0);
        assert!(block_on(RangeCodec.read_response(&PROTOCOL, &mut endless)).is_err());
        assert!(block_on(RangeCodec.read_request(&PROTOCOL, &mut endless)).is_err());
    }

    proptest! {
        #[test]
        fn prop_no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _request = block_on(RangeCodec.read_request(&PROTOCOL, &mut Cursor::new(bytes.clone())));
            let _response = block_on(RangeCodec.read_response(&PROTOCOL, &mut Cursor::new(bytes)));
        }
    }
}

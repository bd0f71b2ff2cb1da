//! The protocol by which peers hand each other parts of blobs: one request and one response a stream, both bounded before
//! they are read.

use std::io;

use bincode::{Decode, Encode};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use psyche_messages::BlobHash;

use crate::blobs::{GROUP_BYTES, LEAF_BYTES};
use crate::buffers;
use crate::wire::{WireError, decode, encode};

/// Name of the protocol; changes with the form of its messages.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/psyche-solana-client/blob/2");

/// Most leaves of a tree in one response: as many bytes as a group.
pub(crate) const LEAVES_MAX: usize = GROUP_BYTES as usize / LEAF_BYTES;

/// Most peers that a response names.
pub(crate) const ELSEWHERE_MAX: usize = 4;

/// Length of a request: hash, total, variant, number.
const REQUEST_BYTES: usize = 32 + 8 + 4 + 4;

/// Longest response: a group, its length and the variant.
const RESPONSE_BYTES_MAX: usize = GROUP_BYTES as usize + 16;

/// What is asked for of a blob. Variants are numbered by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Part {
    /// Leaves of its tree, from this one on.
    Leaves(u32),
    /// A group, unless there are others who have it from you.
    Group(u32),
    /// A group, whoever else may have it.
    GroupFromYou(u32),
}

/// "Send me this part of this blob, which I know to be `total` bytes long."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartRequest {
    hash: [u8; 32],
    total: u64,
    part: Part,
}

impl PartRequest {
    /// A question for `part` of the blob `hash` of `total` bytes.
    #[must_use]
    pub const fn new(hash: BlobHash, total: u64, part: Part) -> Self {
        Self { hash: hash.0, total, part }
    }

    /// The blob.
    #[must_use]
    pub const fn hash(&self) -> BlobHash {
        BlobHash(self.hash)
    }

    /// The blob's length in bytes.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// What is asked for.
    #[must_use]
    pub const fn part(&self) -> Part {
        self.part
    }

    /// Writes the request.
    ///
    /// # Errors
    /// [`WireError`], never for a value of this type.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode::<_, REQUEST_BYTES>(self)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`WireError`] for everything but the canonical form of one.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode::<_, REQUEST_BYTES>(bytes)
    }
}

/// The answer. Variants are numbered by position.
#[derive(PartialEq, Eq, Encode, Decode)]
pub enum PartResponse {
    /// The group, or the leaves.
    Bytes(Vec<u8>),
    /// No such blob, or not of that length.
    Missing,
    /// Too many requests at a time.
    Busy,
    /// Not this group so far, but those of this set (see `Bits`): the blob is on its way.
    Others(Vec<u8>),
    /// These peers, by their keys, got the group from here not long ago.
    Elsewhere(Vec<[u8; 32]>),
}

impl PartResponse {
    /// Writes the response.
    ///
    /// # Errors
    /// [`WireError`] if it is longer than a response may be.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode::<_, RESPONSE_BYTES_MAX>(self)
    }

    /// Reads a response.
    ///
    /// # Errors
    /// [`WireError`] for everything but the canonical form of one that names at most four peers.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match decode::<_, RESPONSE_BYTES_MAX>(bytes)? {
            Self::Elsewhere(peers) if peers.len() > ELSEWHERE_MAX => Err(WireError::TooManyPeers { count: peers.len() }),
            response => Ok(response),
        }
    }
}

impl std::fmt::Debug for PartResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} B)", bytes.len()),
            Self::Missing => f.write_str("Missing"),
            Self::Busy => f.write_str("Busy"),
            Self::Others(bits) => write!(f, "Others({} B)", bits.len()),
            Self::Elsewhere(peers) => write!(f, "Elsewhere({})", peers.len()),
        }
    }
}

/// Reads and writes the two messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PartCodec;

impl request_response::Codec for PartCodec {
    type Protocol = StreamProtocol;
    type Request = PartRequest;
    type Response = PartResponse;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<PartRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        PartRequest::decode(&read_bounded(io, REQUEST_BYTES).await?).map_err(invalid)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<PartResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut head = Vec::with_capacity(BYTES_HEAD);
        (&mut *io).take(BYTES_HEAD as u64).read_to_end(&mut head).await?;
        let Some(len) = bytes_len(&head) else {
            // All other responses are short.
            head.append(&mut read_bounded(io, RESPONSE_BYTES_MAX).await?);
            return PartResponse::decode(&head).map_err(invalid);
        };
        let mut bytes = buffers::take(len);
        io.read_exact(&mut bytes).await?;
        // Nothing follows.
        match io.read(&mut [0]).await? {
            0 => Ok(PartResponse::Bytes(bytes)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: PartRequest) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&request.encode().map_err(invalid)?).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: PartResponse) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match response {
            // As `encode` writes it, without copying a quarter MiB for it.
            PartResponse::Bytes(bytes) if bytes.len() <= GROUP_BYTES as usize => {
                io.write_all(&bytes_head(bytes.len())).await?;
                io.write_all(&bytes).await?;
                buffers::give(bytes);
                Ok(())
            }
            _ => io.write_all(&response.encode().map_err(invalid)?).await,
        }
    }
}

/// Bytes before those of [`PartResponse::Bytes`]: the variant and how many they are.
const BYTES_HEAD: usize = 4 + 8;

fn bytes_head(len: usize) -> [u8; BYTES_HEAD] {
    let mut head = [0; BYTES_HEAD];
    head[4..].copy_from_slice(&(len as u64).to_le_bytes());
    head
}

/// How many bytes follow `head`, if that is what it is the head of; never more than a group has.
fn bytes_len(head: &[u8]) -> Option<usize> {
    let len = head.strip_prefix(&[0; 4])?;
    let len = usize::try_from(u64::from_le_bytes(len.try_into().ok()?)).ok()?;
    (len <= GROUP_BYTES as usize).then_some(len)
}

/// Everything up to the end of the stream, one byte more than `bytes_max` at most so that longer input is noticed.
async fn read_bounded(io: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.take(bytes_max as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn invalid(error: WireError) -> io::Error {
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

    fn request(part: Part) -> PartRequest {
        PartRequest::new(BlobHash([7; 32]), 0x0102_0304_0506_0708, part)
    }

    #[test]
    fn requests_and_responses_keep_their_wire_form() {
        let head = format!("{}0807060504030201", "07".repeat(32));
        for (part, expected) in [
            (Part::Leaves(5), "0000000005000000"),
            (Part::Group(0x0102), "0100000002010000"),
            (Part::GroupFromYou(9), "0200000009000000"),
        ] {
            let mut wire = Cursor::new(Vec::new());
            block_on(PartCodec.write_request(&PROTOCOL, &mut wire, request(part))).unwrap();
            assert_eq!(hex::encode(wire.get_ref()), format!("{head}{expected}"));
            wire.set_position(0);
            assert_eq!(block_on(PartCodec.read_request(&PROTOCOL, &mut wire)).unwrap(), request(part));
        }
        for (response, expected) in [
            (PartResponse::Bytes(vec![0xaa, 0xbb]), "000000000200000000000000aabb".to_owned()),
            (PartResponse::Missing, "01000000".to_owned()),
            (PartResponse::Busy, "02000000".to_owned()),
            (PartResponse::Others(vec![3]), "03000000010000000000000003".to_owned()),
            (PartResponse::Elsewhere(vec![[7; 32]]), format!("040000000100000000000000{}", "07".repeat(32))),
        ] {
            let mut wire = Cursor::new(Vec::new());
            block_on(PartCodec.write_response(&PROTOCOL, &mut wire, response)).unwrap();
            assert_eq!(hex::encode(wire.into_inner()), expected);
        }
    }

    #[test]
    fn a_response_that_names_a_crowd_is_refused_on_arrival() {
        let mut wire = Cursor::new(Vec::new());
        block_on(PartCodec.write_response(&PROTOCOL, &mut wire, PartResponse::Elsewhere(vec![[7; 32]; ELSEWHERE_MAX + 1])))
            .unwrap();
        wire.set_position(0);
        assert!(block_on(PartCodec.read_response(&PROTOCOL, &mut wire)).is_err());
    }

    #[test]
    fn bytes_are_written_and_read_without_the_general_form_and_are_the_same() {
        for len in [0, 1, 255, GROUP_BYTES as usize] {
            let response = PartResponse::Bytes(vec![7; len]);
            let general = response.encode().unwrap();
            let mut wire = Cursor::new(Vec::new());
            block_on(PartCodec.write_response(&PROTOCOL, &mut wire, response)).unwrap();
            assert!(*wire.get_ref() == general, "{len} bytes");
            wire.set_position(0);
            let read = block_on(PartCodec.read_response(&PROTOCOL, &mut wire)).unwrap();
            assert!(read == PartResponse::Bytes(vec![7; len]), "{len} bytes");
            for broken in [[&general[..], &[0]].concat(), general[..general.len() - 1].to_vec()] {
                assert!(block_on(PartCodec.read_response(&PROTOCOL, &mut Cursor::new(broken))).is_err(), "{len} bytes");
            }
        }
        let mut head = bytes_head(0).to_vec();
        head[4..].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(block_on(PartCodec.read_response(&PROTOCOL, &mut Cursor::new(head))).is_err());
    }

    #[test]
    fn a_whole_group_fits_a_response_and_nothing_longer_is_read() {
        let mut wire = Cursor::new(Vec::new());
        let full = PartResponse::Bytes(vec![1; GROUP_BYTES as usize]);
        block_on(PartCodec.write_response(&PROTOCOL, &mut wire, full)).unwrap();
        wire.set_position(0);
        assert!(block_on(PartCodec.read_response(&PROTOCOL, &mut wire)).is_ok());
        let mut endless = futures::io::repeat(0);
        assert!(block_on(PartCodec.read_response(&PROTOCOL, &mut endless)).is_err());
        assert!(block_on(PartCodec.read_request(&PROTOCOL, &mut endless)).is_err());
    }

    proptest! {
        #[test]
        fn prop_no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _request = block_on(PartCodec.read_request(&PROTOCOL, &mut Cursor::new(bytes.clone())));
            let _response = block_on(PartCodec.read_response(&PROTOCOL, &mut Cursor::new(bytes)));
        }
    }
}

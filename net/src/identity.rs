//! The ed25519 key behind a node: the roster on chain holds its public half as [`PeerKey`], libp2p names the same key by a
//! [`PeerId`] whose identity multihash wraps the public key, so both convert without a lookup.

mod file;

use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use psyche_messages::{PeerKey, Secret};

pub use file::{IdentityError, create_identity, parse_identity, read_identity};

/// Code of the multihash that holds its input unhashed.
const IDENTITY_MULTIHASH: u64 = 0;

/// The public key that belongs to an ed25519 seed.
#[must_use]
pub fn peer_key_of(seed: &Secret<[u8; 32]>) -> PeerKey {
    key_of_public(&ed25519_pair(seed).public())
}

/// The libp2p name of `key`; `None` if its bytes are no point of the curve.
#[must_use]
pub fn peer_id_of(key: &PeerKey) -> Option<PeerId> {
    let public = ed25519::PublicKey::try_from_bytes(&key.0).ok()?;
    Some(PublicKey::from(public).to_peer_id())
}

/// The libp2p name of `key` as multiaddresses hold it (`12D3Koo…`); `None` if its bytes are no point of the curve.
#[must_use]
pub fn peer_name(key: &PeerKey) -> Option<String> {
    peer_id_of(key).map(|id| id.to_string())
}

/// The key behind a libp2p name; `None` if the name is of another key type.
#[must_use]
pub fn peer_key_of_id(id: &PeerId) -> Option<PeerKey> {
    let hash = id.as_ref();
    if hash.code() != IDENTITY_MULTIHASH {
        return None;
    }
    let public = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(key_of_public(&public.try_into_ed25519().ok()?))
}

pub(crate) fn keypair_of(seed: &Secret<[u8; 32]>) -> Keypair {
    Keypair::from(ed25519_pair(seed))
}

/// Whether `signature` over `signed` is by `key`.
pub(crate) fn verifies(key: &PeerKey, signed: &[u8], signature: &[u8; 64]) -> bool {
    ed25519::PublicKey::try_from_bytes(&key.0).is_ok_and(|public| public.verify(signed, signature))
}

pub(crate) fn ed25519_pair(seed: &Secret<[u8; 32]>) -> ed25519::Keypair {
    // The conversion wipes the copy it is given.
    let mut copy = *seed.expose();
    #[expect(clippy::expect_used, reason = "every 32 bytes are an ed25519 seed; only the length can be refused")]
    let secret = ed25519::SecretKey::try_from_bytes(&mut copy).expect("32 bytes are a seed");
    ed25519::Keypair::from(secret)
}

fn key_of_public(public: &ed25519::PublicKey) -> PeerKey {
    PeerKey(public.to_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_key_of_a_seed_is_plain_ed25519() {
        // RFC 8032, section 7.1, test 1.
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = peer_key_of(&Secret::new(seed.try_into().unwrap()));
        assert_eq!(hex::encode(key.0), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }

    #[test]
    fn names_of_other_key_types_have_no_peer_key() {
        // Random peer ids are SHA-256 multihashes or identity hashes that wrap no ed25519 key.
        assert_eq!(peer_key_of_id(&PeerId::random()), None);
    }

    proptest! {
        #[test]
        fn prop_keys_and_names_convert_both_ways(seed: [u8; 32]) {
            let key = peer_key_of(&Secret::new(seed));
            let id = peer_id_of(&key).unwrap();
            prop_assert_eq!(id, keypair_of(&Secret::new(seed)).public().to_peer_id());
            prop_assert_eq!(peer_key_of_id(&id), Some(key));
        }

        #[test]
        fn prop_no_bytes_make_the_conversions_panic(bytes: [u8; 32], signature in prop::array::uniform32(any::<u8>())) {
            let key = PeerKey(bytes);
            let _id = peer_id_of(&key);
            let mut long = [0; 64];
            long[..32].copy_from_slice(&signature);
            prop_assert!(!verifies(&key, b"message", &long));
        }
    }
}

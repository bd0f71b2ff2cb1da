//! Requests for parts of blobs, the answers, and the index of a snapshot.

use psyche_messages::BlobHash;
use psyche_net::wire::INDEX_BYTES_MAX;
use psyche_net::{Part, PartRequest, PartResponse, SnapshotFile, SnapshotIndex};

use super::{Target, Verdict, canonical};
use crate::allocation::within;

/// A group, and what stands around it in an answer.
const RESPONSE_BYTES_MAX: usize = 256 * 1024 + 16;

/// What peers ask for.
pub(super) const REQUEST: Target = Target {
    name: "blob_request",
    length_max: 48,
    tokens: &[&[0; 4], &[1, 0, 0, 0], &[2, 0, 0, 0], &[3, 0, 0, 0]],
    examples: || {
        let requests = [Part::Leaves(0), Part::Group(7), Part::GroupFromYou(u32::MAX)];
        requests.into_iter().filter_map(|part| PartRequest::new(BlobHash([3; 32]), 1 << 33, part).encode().ok()).collect()
    },
    repair: |bytes| bytes.resize(48, 0),
    check: |bytes| canonical(bytes, within(4096, || PartRequest::decode(bytes)), PartRequest::encode),
};

/// What peers answer.
pub(super) const RESPONSE: Target = Target {
    name: "blob_response",
    length_max: RESPONSE_BYTES_MAX,
    tokens: &[&[0; 4], &[1, 0, 0, 0], &[2, 0, 0, 0], &[3, 0, 0, 0], &[4, 0, 0, 0], &[7; 32]],
    examples: || {
        let responses = [
            PartResponse::Bytes(vec![9; 40]),
            PartResponse::Bytes(Vec::new()),
            PartResponse::Missing,
            PartResponse::Busy,
            PartResponse::Others(vec![0xa5, 1]),
            PartResponse::Elsewhere(vec![[7; 32], [8; 32]]),
        ];
        responses.iter().filter_map(|response| response.encode().ok()).collect()
    },
    repair: repair_response,
    check: |bytes| canonical(bytes, within(3 * RESPONSE_BYTES_MAX, || PartResponse::decode(bytes)), PartResponse::encode),
};

/// The variant is one of five; a list is as long as what follows.
fn repair_response(bytes: &mut Vec<u8>) {
    let Some(variant) = bytes.first_mut() else { return };
    *variant %= 5;
    let (unit, empty) = (if *variant == 4 { 32 } else { 1 }, [1, 2].contains(variant));
    bytes.resize(if empty { 4 } else { bytes.len().max(12) }, 0);
    super::put(&mut bytes[1..], 0, &[0; 3]);
    if !empty {
        let items = (bytes.len() - 12) / unit;
        bytes.truncate(12 + items * unit);
        super::put(bytes, 4, &(items as u64).to_le_bytes());
    }
}

/// The list of a snapshot's files.
pub(super) const SNAPSHOT_INDEX: Target = Target {
    name: "snapshot_index",
    length_max: INDEX_BYTES_MAX,
    tokens: &[
        br#"{"version":1,"files":["#,
        br#"{"name":"a","blob":"#,
        br#""0707070707070707070707070707070707070707070707070707070707070707""#,
        br#","len":1}"#,
        b"]}",
        b",",
        b"\\u0041",
        b"1e3",
        b"-1",
        b"18446744073709551615",
        b"..",
        b"[[[[[[[[[[[[[[[[",
    ],
    examples: || {
        let file = |name: &str, len| SnapshotFile { name: name.to_owned(), blob: BlobHash([7; 32]), len };
        let indices = [
            SnapshotIndex::new(vec![file("config.json", 300)]),
            SnapshotIndex::new(vec![file("a", 0), file("b.safetensors", u64::MAX), file("z_1-2", 0)]),
        ];
        indices.into_iter().filter_map(|index| index.ok()?.encode().ok()).collect()
    },
    repair: |_| {},
    check: check_index,
};

fn check_index(bytes: &[u8]) -> Verdict {
    let decoded = within(16 * 1024 + 16 * bytes.len(), || SnapshotIndex::decode(bytes));
    if let Ok(index) = &decoded {
        let safe = |name: &str| !name.is_empty() && !name.contains(['/', '\\', '\0']) && !name.starts_with('.');
        assert!(index.files().iter().all(|file| safe(&file.name)), "a name leads out of its folder");
        assert!(index.total_len() >= index.files().iter().map(|file| file.len).max().unwrap_or(0), "lengths overflow");
    }
    canonical(bytes, decoded, SnapshotIndex::encode)
}

//! To whom each group of a blob was sent from here: who asks for one that has been sent often enough is told who got it, so that
//! a result spreads from peer to peer and its author uploads it only a few times. Pure.

use std::collections::{HashMap, VecDeque};

use libp2p::PeerId;
use psyche_messages::BlobHash;

/// How often a group is sent before its receivers are named instead.
pub(super) const COPIES: usize = 2;

/// Groups whose receivers are remembered: 16 GiB of blobs. The blob that was asked for first goes first.
const GROUPS_MAX: usize = 65_536;

/// The receivers of blobs' groups.
#[derive(Default)]
pub(super) struct Uploads {
    blobs: HashMap<BlobHash, HashMap<u32, Vec<PeerId>>>,
    order: VecDeque<BlobHash>,
    groups: usize,
}

impl Uploads {
    /// Those who got group `group` of `blob` from here, are still there, and can hand it on to `asker`. Empty if `asker` is to
    /// get it from here: too few have it, or it got the group itself and asks once more.
    pub(super) fn elsewhere(&self, blob: &BlobHash, group: u32, asker: &PeerId, here: impl Fn(&PeerId) -> bool) -> Vec<PeerId> {
        let receivers = self.blobs.get(blob).and_then(|groups| groups.get(&group));
        let receivers: Vec<_> = receivers.into_iter().flatten().filter(|peer| here(peer)).copied().collect();
        if receivers.len() < COPIES || receivers.contains(asker) { Vec::new() } else { receivers }
    }

    /// Notes that `group` of `blob` goes to `peer`.
    pub(super) fn sent(&mut self, blob: BlobHash, group: u32, peer: PeerId) {
        let groups = self.blobs.entry(blob).or_insert_with(|| {
            self.order.push_back(blob);
            HashMap::new()
        });
        let receivers = groups.entry(group).or_insert_with(|| {
            self.groups += 1;
            Vec::new()
        });
        if !receivers.contains(&peer) {
            // The newest are the likeliest to be there.
            if receivers.len() >= COPIES {
                receivers.remove(0);
            }
            receivers.push(peer);
        }
        while self.groups > GROUPS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.groups -= self.blobs.remove(&oldest).map_or(0, |groups| groups.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_third_is_sent_to_the_first_two() {
        let (mut uploads, blob) = (Uploads::default(), BlobHash([1; 32]));
        let [one, two, three] = [PeerId::random(), PeerId::random(), PeerId::random()];
        let here = |_: &PeerId| true;
        uploads.sent(blob, 7, one);
        assert!(uploads.elsewhere(&blob, 7, &three, here).is_empty(), "one copy is not enough");
        uploads.sent(blob, 7, two);
        assert_eq!(uploads.elsewhere(&blob, 7, &three, here), [one, two]);
        assert!(uploads.elsewhere(&blob, 8, &three, here).is_empty(), "another group");
        assert!(uploads.elsewhere(&blob, 7, &one, here).is_empty(), "it got it, and asks once more");
        assert!(uploads.elsewhere(&blob, 7, &three, |peer| *peer != two).is_empty(), "who has left hands nothing on");
        uploads.sent(blob, 7, three);
        assert_eq!(uploads.elsewhere(&blob, 7, &one, here), [two, three], "the newest two");
    }

    #[test]
    fn the_memory_of_uploads_is_bounded() {
        let (mut uploads, peer) = (Uploads::default(), PeerId::random());
        for blob in 0..40_u8 {
            (0..4096).for_each(|group| uploads.sent(BlobHash([blob; 32]), group, peer));
            assert!(uploads.groups <= GROUPS_MAX);
        }
        assert_eq!(uploads.groups, uploads.blobs.values().map(HashMap::len).sum::<usize>());
        assert_eq!(uploads.order.len(), uploads.blobs.len());
        assert!(uploads.blobs.contains_key(&BlobHash([39; 32])) && !uploads.blobs.contains_key(&BlobHash([0; 32])));
    }
}

//! A node of ours as training starts it: a member of a run, with the store on disk.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use psyche_messages::{
    Address, BatchInterval, BlobHash, PeerKey, ResultAnnounced, RoundKey, RoundMessage, Secret, SignedRoundMessage,
};
use psyche_net::{EventReceiver, Net, NetConfig, NetEvent, NetHandle, peer_key_of};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// The longest that a blob may take.
const TIMEOUT: Duration = Duration::from_secs(600);

pub(crate) fn secret(number: u8) -> Secret<[u8; 32]> {
    Secret::new([number + 1; 32])
}

pub(crate) fn key(number: u8) -> PeerKey {
    peer_key_of(&secret(number))
}

pub(crate) const RUN: Address = Address([0x52; 32]);

/// Node `number` of `nodes`, which has heard of the node at `author`; all of them are members of the run.
pub(crate) async fn start(
    number: u8,
    nodes: u8,
    listen: String,
    author: Option<&str>,
) -> Result<(NetHandle, EventReceiver, TempDir)> {
    let dir = TempDir::new()?;
    let bootstrap = author.map(str::to_owned).into_iter().collect();
    let config = NetConfig { listen: vec![listen], bootstrap, ..NetConfig::new(secret(number), RUN, dir.path().to_owned(), 0) };
    let (net, events) = Net::start(config).await?;
    let roster: Vec<_> = (0..nodes).map(key).collect();
    net.set_members(&roster).await?;
    Ok((net, events, dir))
}

/// Waits until `net` is connected to all of the `others`.
pub(crate) async fn meet(net: &NetHandle, others: usize) -> Result<()> {
    drop(net.watch_presence().wait_for(|presence| presence.members.len() >= others).await?);
    Ok(())
}

/// "I, node `number`, have this payload for `step`."
pub(crate) fn announcement(number: u8, step: u32, payload: BlobHash, payload_len: u32) -> Result<RoundMessage> {
    let batch = BatchInterval::new(u64::from(number), u64::from(number))?;
    let trainer = Address(key(number).0);
    Ok(RoundMessage::Result(ResultAnnounced { round: RoundKey::new(0, step), trainer, batch, payload, payload_len }))
}

/// Most announcements that wait to be looked at.
const ANNOUNCED_MAX: usize = 256;

pub(crate) struct OurNode {
    number: u8,
    net: NetHandle,
    others: usize,
    announced: mpsc::Receiver<SignedRoundMessage>,
    /// What this node contributes to the mean, and the last mean.
    vector: Vec<f32>,
    mean: Vec<f32>,
    _dir: TempDir,
}

impl OurNode {
    pub(crate) async fn start(number: u8, nodes: u8, listen: String, author: Option<&str>) -> Result<(Self, String)> {
        let (net, mut events, dir) = start(number, nodes, listen, author).await?;
        let (sender, announced) = mpsc::channel(ANNOUNCED_MAX);
        // Ends with the network. What finds no room is nobody's: where announcements are waited for there are few.
        drop(tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let NetEvent::Round(signed) = event {
                    drop(sender.try_send(signed));
                }
            }
        }));
        let address = net.presence().listening.first().cloned().context("no address")?;
        let others = usize::from(nodes) - 1;
        Ok((Self { number, net, others, announced, vector: Vec::new(), mean: Vec::new(), _dir: dir }, address))
    }

    pub(crate) async fn meet(&self) -> Result<()> {
        meet(&self.net, self.others).await
    }

    pub(crate) async fn put(&self, bytes: Vec<u8>) -> Result<String> {
        Ok(self.net.put(bytes).await?.to_string())
    }

    pub(crate) async fn get(&self, name: &str, len: u64) -> Result<()> {
        let hash: BlobHash = name.parse().ok().context("no hash")?;
        Ok(self.net.fetch(hash, len, &[key(0)], TIMEOUT).await?)
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.net.blob_traffic().sent_bytes
    }

    pub(crate) fn fill(&mut self, len: usize) {
        self.vector = vec![f32::from(self.number); len / 4];
    }

    /// The mean of everybody's vectors, as a round of training would get it: each stores its own, announces it, fetches what the
    /// others announce from whoever has it, and adds up in the order of the nodes.
    pub(crate) async fn average(&mut self, step: u32) -> Result<()> {
        // No two steps have the same blob.
        if let Some(last) = self.vector.last_mut() {
            *last = step as f32 * 16.0 + f32::from(self.number);
        }
        let mut own = vec![0; self.vector.len() * 4];
        own.as_chunks_mut().0.iter_mut().zip(&self.vector).for_each(|(bytes, value)| *bytes = value.to_le_bytes());
        let len = u32::try_from(own.len())?;
        let round = RoundKey::new(0, step);
        let hash = self.net.put(own).await?;
        self.net.blobs().tag(&hash, round);
        drop(self.net.publish(announcement(self.number, step, hash, len)?).await?);
        let mut results: Vec<PeerKey> = Vec::new();
        let mut transfers = Vec::new();
        while results.len() < self.others {
            let signed = self.announced.recv().await.context("the network has stopped")?;
            if let RoundMessage::Result(result) = signed.message
                && result.round.step.0 == step
            {
                let (net, payload, from) = (self.net.clone(), result.payload, signed.from);
                // Begins at once, whatever else is still to be announced.
                transfers.push(tokio::spawn(async move {
                    net.fetch(payload, u64::from(len), &[from], TIMEOUT).await?;
                    net.blobs().tag(&payload, round);
                    anyhow::Ok(net.get(payload).await?)
                }));
                results.push(signed.from);
            }
        }
        let payloads = try_join_all(transfers).await?;
        let mut results: Vec<_> = results.into_iter().zip(payloads).collect();
        results.sort_unstable_by_key(|(from, _)| from.0);
        let mut sum = self.vector.clone();
        for (_, payload) in results {
            let bytes = payload?.context("a blob has gone")?;
            let (values, _) = bytes.as_chunks::<4>();
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += f32::from_le_bytes(*value));
        }
        let count = (self.others + 1) as f32;
        sum.iter_mut().for_each(|value| *value /= count);
        self.mean = sum;
        // As training does: what is older than the last round is nobody's any more.
        let blobs = self.net.blobs().clone();
        tokio::task::spawn_blocking(move || blobs.retain_rounds_from(RoundKey::new(0, step.saturating_sub(1)))).await?;
        Ok(())
    }

    pub(crate) fn first(&self) -> Result<f32> {
        self.mean.first().copied().context("nothing was averaged")
    }
}

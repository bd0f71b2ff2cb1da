//! A node's devices over a restart: what lies on the disk is all that the second life knows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use actix::{Actor as _, Arbiter, System};
use psyche_gpu::config::LlamaConfig;
use psyche_gpu::devices::{DeviceSpec, Machine};
use psyche_gpu::exact::LrSchedule;
use psyche_gpu::init::init_model;
use psyche_gpu::mesh::Topology;
use psyche_gpu::snapshot::StoreSettings;
use psyche_messages::{Address, Backoff, Secret, SnapshotAnnounced};
use psyche_net::{Net, NetConfig, NetHandle};
use psyche_protocol::model::{Shuffle, TokenSize};

use super::*;
use crate::config::{ComputeConfig, MeshShape};
use crate::gossip::GossipLinks;
use crate::run::Distro;
use crate::supervisor::RestartPolicy;
use crate::trainer::{DeviceSettings, TrainerWorker};

const MODEL: &str = r#"{ "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 32, "tie_word_embeddings": false }"#;
const RUN: Address = Address([3; 32]);
const SCHEDULE: StepSchedule = StepSchedule { cold_start: None };

/// One life of a node: its devices, its blobs, its snapshots.
struct Node {
    worker: Worker,
    net: NetHandle,
    store: Arc<SnapshotStore>,
}

fn plan(folder: &Path) -> RunPlan {
    let distro =
        Distro { clip_grad_norm: None, weight_decay: None, compression_decay: 0.9, topk: 8, chunk: 16, quantize_1bit: true };
    let model = LlamaConfig::from_json(MODEL.as_bytes()).unwrap();
    let layout = psyche_gpu::codec::Layout::new(&model.parameters(), 16, 8, true).unwrap();
    let (checkpoint, data) = (folder.join("model"), folder.join("tokens.bin"));
    if !data.exists() {
        init_model(MODEL.as_bytes(), 7, &checkpoint).unwrap();
        let tokens = (0_u32..2_000).flat_map(|at| ((at * 29 + at / 7 * 11) % 128).to_le_bytes()[..2].to_vec());
        std::fs::write(&data, tokens.collect::<Vec<_>>()).unwrap();
    }
    RunPlan {
        checkpoint,
        model,
        layout,
        distro,
        seq_len: 12,
        data,
        token_size: Some(TokenSize::TwoBytes),
        shuffle: Shuffle::DontShuffle,
        schedule: LrSchedule::Constant { base: 0.003, warmup_init: 0.003, warmup_steps: 0 },
    }
}

async fn start(folder: &Path, dp: u16) -> Node {
    let plan = Arc::new(plan(folder));
    let mut net = NetConfig::new(Secret::new([9; 32]), RUN, folder.join("blobs"), 0);
    net.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()];
    let (net, events) = Net::start(net).await.unwrap();
    // Nobody listens: what the devices tell beside their answers is lost.
    let (_, run) = RunLink::unbound();
    let policy = RestartPolicy {
        restarts_max: 0,
        window: Duration::from_secs(60),
        backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(1), 100, 0).unwrap(),
    };
    let (fatal, _) = mpsc::channel(1);
    let links = GossipLinks { net: net.clone(), events: Arc::new(AsyncMutex::new(events)), run: run.clone(), drill: None };
    let arbiter = Arbiter::new();
    let gossip = move || {
        let links = links.clone();
        GradientGossip::start_in_arbiter(&arbiter.handle(), move |_| GradientGossip::new(links))
    };
    let gossip = Supervised::start("gossip", policy, gossip, fatal.clone());
    let worker = |_| {
        let arbiter = Arbiter::new();
        Supervised::start("trainer", policy, move || TrainerWorker::start(&arbiter.handle()), fatal.clone())
    };
    let shape = MeshShape { dp, tp: 1, micro_batch: 2 };
    let topology = Topology::new(usize::from(dp), 1).unwrap();
    let placement = DeviceSpec::Cpu(None).place(topology, &Machine::look(), || Ok(())).unwrap();
    let devices = DeviceSettings { shape, placement, compute: ComputeConfig::default() };
    let store = SnapshotStore::open(StoreSettings {
        root: folder.join("snapshots"),
        run: RUN,
        keep: NonZeroUsize::new(2).unwrap(),
        file_bytes_max: 1 << 20,
        source: None,
    });
    let store = Arc::new(store.unwrap());
    let parts = DeviceParts {
        mesh: DeviceMesh::new((0..dp).map(worker).collect(), devices),
        data: TokenSource::open(&plan.token_source()).unwrap(),
        plan,
        gossip,
        snapshots: Arc::clone(&store),
        run,
    };
    Node { worker: Worker::new(parts, Arc::default()), net, store }
}

impl Node {
    async fn load(&mut self, step: u32, from: LoadFrom) -> Result<(Digest, ModelSource), String> {
        match self.worker.load(Step(step), &from).await {
            Ok(Event::ModelLoaded { step: loaded, digest, source }) if loaded == Step(step) => Ok((digest, source)),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(chain_of(&error)),
        }
    }

    async fn train(&mut self, step: u32) -> ResultAnnounced {
        let round = RoundKey::new(0, step);
        let batch = BatchInterval::new(u64::from(step) * 4, u64::from(step) * 4 + 3).unwrap();
        let Ok(Event::Trained { payload, payload_len, .. }) = self.worker.train(round, batch, SCHEDULE).await else {
            panic!("it must train")
        };
        ResultAnnounced { round, trainer: Address([1; 32]), batch, payload, payload_len }
    }

    async fn apply(&mut self, result: &ResultAnnounced) -> Digest {
        let applied = self.worker.apply(result.round, std::slice::from_ref(result), SCHEDULE).await;
        let Ok(Event::Applied { digest, .. }) = applied else { panic!("it must apply") };
        digest
    }

    /// Takes a snapshot; it is written when this returns.
    async fn snapshot(&mut self, step: u32) -> SnapshotAnnounced {
        let written = self.worker.snapshot(RoundKey::new(0, step)).await.unwrap().await;
        let Event::SnapshotReady(announced) = written else { panic!("{written:?}") };
        announced
    }

    /// Nothing is said to anybody; only the blobs' folder must be free for the next life.
    async fn die(self) {
        self.net.shutdown().await;
    }
}

#[test]
fn a_node_that_died_goes_on_from_its_snapshot_with_step_digest_momentum_and_look_ahead() {
    System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let mut first = start(folder.path(), 1).await;
        let (initial, source) = first.load(0, LoadFrom::Checkpoint).await.unwrap();
        assert_eq!(source, ModelSource::Checkpoint);
        let results = [first.train(1).await, first.train(2).await];
        let mut applied = initial;
        for result in &results {
            applied = first.apply(result).await;
        }
        assert_ne!(applied, initial);
        // The snapshot is written while the next step is trained, and holds what was before.
        let writing = first.worker.snapshot(RoundKey::new(0, 2)).await.unwrap();
        let next = first.train(3).await;
        let Event::SnapshotReady(announced) = writing.await else { panic!("it must be written") };
        assert_eq!((announced.round, announced.digest), (RoundKey::new(0, 2), applied));
        first.die().await;

        let mut second = start(folder.path(), 1).await;
        let newest = crate::run::on_disk(&second.store.newest().unwrap().unwrap());
        assert_eq!((newest.step, newest.digest), (Step(2), applied));
        assert_eq!(second.load(2, LoadFrom::Disk).await.unwrap(), (applied, ModelSource::Disk));
        assert_eq!(second.train(3).await, next, "the same payload to the bit");
        second.die().await;

        // Where peers announce the same parameters, its own snapshot is nearer, and knows the momentum.
        let mut third = start(folder.path(), 1).await;
        let index = BlobHash([0; 32]);
        let from = LoadFrom::Peers { index, len: 1, digest: applied, providers: Vec::new() };
        assert_eq!(third.load(2, from).await.unwrap(), (applied, ModelSource::Disk));
        assert_eq!(third.train(3).await, next);
        third.die().await;
    });
}

#[test]
fn a_damaged_snapshot_is_put_aside_and_the_devices_keep_what_they_have() {
    System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let mut node = start(folder.path(), 2).await;
        node.load(0, LoadFrom::Checkpoint).await.unwrap();
        let first = node.train(1).await;
        let after_first = node.apply(&first).await;
        node.snapshot(1).await;
        let second = node.train(2).await;
        let after_second = node.apply(&second).await;
        node.snapshot(2).await;
        let newest = node.store.newest().unwrap().unwrap();
        let file = newest.folder.join("momentum.safetensors");
        let mut bytes = std::fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 0x10;
        std::fs::write(&file, bytes).unwrap();

        let refused = node.load(2, LoadFrom::Disk).await.unwrap_err();
        assert!(refused.contains("momentum.safetensors"), "{refused}");
        let digest: Digest = node.worker.mesh.all(GetDigest).await.unwrap();
        assert_eq!(digest, after_second, "a failed load changes nothing");
        node.train(3).await;
        // The next older one is what the disk has now.
        assert_eq!(node.store.newest().unwrap().unwrap().manifest.round.step, Step(1));
        assert_eq!(node.load(1, LoadFrom::Disk).await.unwrap(), (after_first, ModelSource::Disk));
        assert_eq!(node.train(2).await, second);
        assert_eq!(node.apply(&second).await, after_second);
        node.die().await;
    });
}

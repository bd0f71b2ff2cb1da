//! One training step and one apply of a small LLaMA (5.3 M parameters, 4 samples of 128 tokens), by layout of devices.
//!
//! The items per second are tokens per second. At the end the share of each phase in the last step: all that is not
//! the model's forward and backward pass is what DisTrO and the node's own parallelism cost.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use psyche_gpu::codec::Threads;
use psyche_gpu::config::LlamaConfig;
use psyche_gpu::devices::{DeviceSpec, init_threads};
use psyche_gpu::init::init_model;
use psyche_gpu::mesh::{Topology, mesh};
use psyche_gpu::optimizer::OptimizerConfig;
use psyche_gpu::precision::Precision;
use psyche_gpu::worker::{ApplyPlan, Rank, RankSetup, StepDurations, StepPlan, TrainOutcome};

const SEQUENCE: usize = 128;
const SAMPLES: usize = 4;
const VOCABULARY: u32 = 4096;
const LR: f32 = 4e-4;
const SENDERS: usize = 4;
const LAYOUTS: [(usize, usize); 3] = [(1, 1), (2, 1), (1, 2)];

static PHASES: Mutex<Vec<((usize, usize), StepDurations)>> = Mutex::new(Vec::new());

/// What a rank can be told to do.
#[derive(Clone)]
enum Work {
    Train(StepPlan),
    Apply(ApplyPlan),
}

/// What rank 0 has to say about it.
#[derive(Default)]
struct Done {
    payload: Option<Vec<u8>>,
    durations: StepDurations,
}

/// The ranks of one node, each on its thread.
struct Node {
    ranks: Vec<(SyncSender<Work>, Receiver<Done>)>,
}

impl Node {
    fn new((data_parallel, tensor_parallel): (usize, usize), folder: &Path) -> Self {
        init_threads(1);
        let topology = must(Topology::new(data_parallel, tensor_parallel));
        let devices = must(DeviceSpec::Auto.resolve(topology.ranks()));
        let places = mesh(topology, Duration::from_secs(60)).into_iter().zip(devices);
        let start = |(place, device)| {
            let (commands, inbox) = sync_channel::<Work>(1);
            let (outbox, results) = sync_channel(1);
            let setup = RankSetup {
                mesh: place,
                device,
                config: config(),
                optimizer: optimizer(),
                sequence_len: SEQUENCE,
                micro_batch_size: SAMPLES,
                precision: Precision::F32,
                checkpointing: false,
                threads: Threads::ONE,
                weights: folder.to_owned(),
            };
            std::thread::spawn(move || {
                let mut rank = must(Rank::new(setup));
                while let Ok(work) = inbox.recv() {
                    must(outbox.send(carry_out(&mut rank, work)));
                }
            });
            (commands, results)
        };
        Self { ranks: places.map(start).collect() }
    }

    fn tell(&self, work: &Work) -> Done {
        self.ranks.iter().for_each(|(commands, _)| must(commands.send(work.clone())));
        let mut done: Vec<Done> = self.ranks.iter().map(|(_, results)| must(results.recv())).collect();
        done.swap_remove(0)
    }
}

fn carry_out(rank: &mut Rank, work: Work) -> Done {
    match work {
        Work::Train(plan) => match must(rank.train(&plan)) {
            TrainOutcome::Trained(trained) => Done { payload: trained.payload, durations: rank.durations() },
            other => panic!("a step did not finish: {other:?}"),
        },
        Work::Apply(plan) => {
            must(rank.apply(&plan));
            Done::default()
        }
    }
}

fn config() -> LlamaConfig {
    let text = serde_json::json!({
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4,
        "num_attention_heads": 4, "vocab_size": VOCABULARY, "max_position_embeddings": SEQUENCE,
    });
    must(LlamaConfig::from_json(text.to_string().as_bytes()))
}

fn optimizer() -> OptimizerConfig {
    OptimizerConfig {
        compression_decay: 0.999,
        compression_chunk: 64,
        compression_topk: 8,
        quantize_1bit: true,
        clip_grad_norm: Some(1.0),
    }
}

fn plan(step: u64) -> StepPlan {
    let token = |sample: usize, position: usize| (sample * 7919 + position * 104_729 + step as usize * 31) as u32 % VOCABULARY;
    let samples = (0..SAMPLES).map(|sample| (0..=SEQUENCE).map(|position| token(sample, position)).collect());
    StepPlan { step, samples: Arc::new(samples.collect()), lr: LR, lr_previous: LR, cancel: Arc::new(AtomicBool::new(false)) }
}

fn weights() -> tempfile::TempDir {
    let folder = must(tempfile::tempdir());
    must(init_model(&must(serde_json::to_vec(&config())), 1, folder.path()));
    folder
}

#[divan::bench(args = LAYOUTS, sample_count = 5)]
fn train(bencher: Bencher<'_, '_>, layout: (usize, usize)) {
    let folder = weights();
    let node = Node::new(layout, folder.path());
    let mut step = 0;
    let mut last = node.tell(&Work::Train(plan(step)));
    bencher.counter(ItemsCount::new(SAMPLES * SEQUENCE)).bench_local(|| {
        step += 1;
        last = node.tell(&Work::Train(plan(step)));
    });
    PHASES.lock().unwrap_or_else(PoisonError::into_inner).push((layout, last.durations));
}

#[divan::bench(args = LAYOUTS, sample_count = 5)]
fn apply_four_results(bencher: Bencher<'_, '_>, layout: (usize, usize)) {
    let folder = weights();
    let node = Node::new(layout, folder.path());
    let payloads = (0..SENDERS as u64).filter_map(|step| node.tell(&Work::Train(plan(step))).payload);
    let plan = ApplyPlan { step: 0, lr: LR, weight_decay: 0.0, payloads: Arc::new(payloads.map(Arc::from).collect()) };
    bencher.bench_local(|| node.tell(&Work::Apply(plan.clone())).payload);
}

fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error:?}"),
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark's report")]
fn main() {
    println!("{} cores", std::thread::available_parallelism().map_or(1, NonZeroUsize::get));
    divan::main();
    for ((data_parallel, tensor_parallel), phases) in PHASES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let StepDurations { spread, model, collect, encode } = *phases;
        let total = spread + model + collect + encode;
        println!(
            "DP {data_parallel} × TP {tensor_parallel}: spread {spread:.1?}, model {model:.1?}, collect {collect:.1?}, \
             encode {encode:.1?}: the step takes {:.3} of forward and backward alone",
            total.as_secs_f64() / model.as_secs_f64()
        );
    }
}

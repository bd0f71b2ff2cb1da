//! Collectives of CPU devices: two ranks that share their memory, by operation, element type and size.
//!
//! Prints one line per case: the median and the fastest of many rounds, and the bytes of the tensor over the median.
//! `5263360` elements are the gradients of the model of the step's benchmark, 21 MB in f32. A first argument narrows the
//! cases down; `quick` in its place makes a few rounds of each.

use std::time::{Duration, Instant};

use psyche_gpu::devices::init_threads;
use psyche_gpu::mesh::{Collective, Group, MeshRank, Reduction, Topology, mesh};
use tch::{Device, Kind, Tensor};

const RANKS: usize = 2;
const LARGE: i64 = 5_263_360;

/// What is measured: a name, its tensors and one round.
struct Case {
    name: &'static str,
    elements: i64,
    kind: Kind,
    round: fn(&dyn Collective, &mut [Tensor; 2]),
}

fn cases() -> Vec<Case> {
    let all_reduce = |elements, kind| Case { name: "all-reduce", elements, kind, round: all_reduce };
    let mut cases: Vec<Case> = [Kind::Float, Kind::BFloat16]
        .into_iter()
        .flat_map(|kind| [1, 1 << 10, 1 << 14, 1 << 17, LARGE].map(|elements| all_reduce(elements, kind)))
        .collect();
    let kind = Kind::Float;
    cases.push(Case { name: "reduce-scatter", elements: LARGE, kind, round: reduce_scatter });
    cases.push(Case { name: "all-gather", elements: LARGE, kind, round: all_gather });
    cases.push(Case { name: "broadcast", elements: LARGE, kind, round: |group, [whole, _]| must(group.broadcast(whole, 0)) });
    cases
}

fn all_reduce(group: &dyn Collective, [whole, _]: &mut [Tensor; 2]) {
    must(group.all_reduce(whole, Reduction::Sum));
}

fn reduce_scatter(group: &dyn Collective, [whole, part]: &mut [Tensor; 2]) {
    must(group.reduce_scatter(whole, part));
}

fn all_gather(group: &dyn Collective, [whole, part]: &mut [Tensor; 2]) {
    must(group.all_gather(part, whole));
}

/// The times of `rounds` rounds, as rank 0 saw them, in order.
fn measure(case: &Case, rounds: usize) -> Vec<Duration> {
    let topology = must(Topology::new(1, RANKS));
    let run = |rank: MeshRank| {
        let group = rank.group(Group::Tensor);
        let zeros = |elements| Tensor::zeros([elements], (case.kind, Device::Cpu));
        let mut tensors = [zeros(case.elements), zeros((case.elements / RANKS as i64).max(1))];
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds + rounds / 10 {
            let start = Instant::now();
            (case.round)(&group, &mut tensors);
            times.push(start.elapsed());
        }
        // Whoever leaves first would end the other one's last round.
        must(rank.agree(()));
        times.split_off(rounds / 10)
    };
    let mut times = std::thread::scope(|scope| {
        let ranks = mesh(topology, Duration::from_secs(60));
        let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(|| run(rank))).collect();
        let mut all: Vec<_> = threads.into_iter().map(|thread| must(thread.join())).collect();
        all.swap_remove(0)
    });
    times.sort_unstable();
    times
}

fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error:?}"),
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark's report")]
fn main() {
    init_threads(1);
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let (quick, wanted) = if wanted == "quick" { (true, "") } else { (false, wanted.as_str()) };
    println!("| collective, {RANKS} ranks | elements | type | median | fastest | GB/s |\n|---|---|---|---|---|---|");
    for case in cases() {
        if !format!("collectives {}", case.name).contains(wanted) {
            continue;
        }
        let full = if case.elements == LARGE { 60 } else { 2000 };
        let times = measure(&case, if quick { 10 } else { full });
        let (median, fastest) = (times[times.len() / 2], times[0]);
        let width = if case.kind == Kind::Float { 4 } else { 2 };
        let rate = (case.elements * width) as f64 / median.as_secs_f64() / 1e9;
        let Case { name, elements, kind, .. } = case;
        println!("| {name} | {elements} | {kind:?} | {median:.1?} | {fastest:.1?} | {rate:.2} |");
    }
}

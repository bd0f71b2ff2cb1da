//! The devices, and whether the model fits into them.

use psyche_actors::node::checks::{ModelFit, model_fit};
use psyche_actors::run::{PlanError, RunPlan};
use psyche_actors::{NodeConfig, NodeError};
use psyche_data::TokenSource;
use psyche_gpu::devices::{Machine, Placement};
use psyche_gpu::memory::RankMemory;

use super::{Line, gib, refused};
use crate::exit::Exit;

/// What the machine has, and the place of every rank.
pub(super) fn look(config: &NodeConfig) -> (Vec<Line>, Option<(Machine, Placement)>) {
    let machine = Machine::look();
    let placement = match config.placement(&machine) {
        Ok(placement) => placement,
        Err(error) => return (vec![refused("devices", &NodeError::Devices(error))], None),
    };
    let cards = machine.cuda.devices();
    let cuda = if cards.is_empty() {
        machine.cuda.to_string()
    } else {
        let cards: Vec<String> = cards.iter().map(ToString::to_string).collect();
        format!("{}; {}", machine.cuda, cards.join("; "))
    };
    let found = format!("ranks on {placement}; CPU with {} free; {cuda}", gib(machine.cpu.memory_free_bytes));
    let mut lines = vec![Line::fine("devices", found)];
    let remedy = "set DEVICE, DATA_PARALLELISM and TENSOR_PARALLELISM to what is meant";
    lines.extend(placement.warnings.iter().map(|warning| Line::warning("devices", warning, remedy)));
    (lines, Some((machine, placement)))
}

/// The run's model and data on this machine, and the memory that the ranks need for it.
pub(super) fn model(
    config: &NodeConfig,
    plan: Option<&Result<RunPlan, PlanError>>,
    seen: Option<&(Machine, Placement)>,
) -> (Vec<Line>, Vec<RankMemory>) {
    let plan = match plan {
        Some(Ok(plan)) => plan,
        Some(Err(error)) => {
            let sentence = format!("failed to {}", psyche_actors::chain_of(error));
            let memory = Line::not_checked("memory", "not checked: the model could not be read");
            return (vec![Line::refused("model", Exit::Configuration, &sentence), memory], Vec::new());
        }
        None => {
            let why = "not checked: the run could not be read";
            return (["model", "data", "memory"].map(|check| Line::not_checked(check, why)).into(), Vec::new());
        }
    };
    let parameters = plan.model.parameters().len();
    let mut lines = vec![Line::fine("model", format!("{parameters} tensors, samples of {} tokens", plan.seq_len))];
    lines.push(match TokenSource::open(&plan.token_source()) {
        Ok(_tokens) => Line::fine("data", format!("{} can be read", plan.data.display())),
        Err(error) => refused("data", &NodeError::Data(error)),
    });
    let Some((machine, placement)) = seen else {
        lines.push(Line::not_checked("memory", "not checked: the devices can't be used"));
        return (lines, Vec::new());
    };
    match model_fit(config, plan, machine, placement) {
        Ok(fit) => {
            lines.extend(memory(config, &fit));
            (lines, fit.needs)
        }
        Err(error) => {
            lines.push(refused("memory", &error));
            (lines, Vec::new())
        }
    }
}

fn memory(config: &NodeConfig, fit: &ModelFit) -> Vec<Line> {
    let mesh = config.mesh;
    let largest = fit.largest_micro_batch.map_or_else(|| "none".to_owned(), |samples| samples.to_string());
    if fit.warnings.is_empty() {
        let samples = usize::try_from(mesh.micro_batch).unwrap_or(usize::MAX);
        let most = fit.needs.iter().map(|needs| needs.training(samples)).max().unwrap_or(0);
        let found = format!(
            "about {} a rank with {} × {} ranks and micro-batches of {}; the largest that fits is {largest}",
            gib(most),
            mesh.dp,
            mesh.tp,
            mesh.micro_batch
        );
        return vec![Line::fine("memory", found)];
    }
    let remedy = format!("the largest MICRO_BATCH_SIZE that fits is {largest}");
    fit.warnings.iter().map(|warning| Line::warning("memory", warning, &remedy)).collect()
}

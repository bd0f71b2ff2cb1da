//! `init-model`: a model's initial weights.

use anyhow::{Context as _, Result};
use psyche_gpu::init::init_model;

use crate::args::InitModelArgs;
use crate::output;

pub(crate) fn run(args: &InitModelArgs) -> Result<()> {
    let json = std::fs::read(&args.config).with_context(|| format!("failed to read {}", args.config.display()))?;
    output::note(format_args!("writing the weights of seed {} to {}", args.seed, args.out.display()));
    let report = init_model(&json, args.seed, &args.out).map_err(super::failed_to)?;
    output::note(format_args!("{} parameters from seed {}", report.parameters, args.seed));
    for file in &report.files {
        output::line(format_args!("{}", file.display()))?;
    }
    Ok(())
}

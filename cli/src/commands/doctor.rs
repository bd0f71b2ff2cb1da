//! `doctor`.

use anyhow::Result;

use crate::args::DoctorArgs;
use crate::doctor::{self, Report, Settings};
use crate::exit::{Exit, Failure};
use crate::{output, work};

pub(crate) async fn run(args: DoctorArgs) -> Result<()> {
    let settings = Settings::read(args.train);
    let report = work::resumable("looking at everything", async { Ok(doctor::examine(settings).await) }).await?;
    if args.json.json {
        output::json(&report.answer())?;
    } else {
        people(&report)?;
    }
    let mut obstacles = report.obstacles();
    let Some(first) = obstacles.next() else { return Ok(()) };
    let others = match obstacles.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let exit = first.exit.unwrap_or(Exit::Failure);
    Err(Failure::new(exit, format!("{}: {}{others}", first.check, first.sentence())).into())
}

fn people(report: &Report) -> Result<()> {
    for line in &report.lines {
        let remedy = line.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        output::line(format_args!("{} {:<14} {}{remedy}", line.verdict.mark(), line.check, line.result))?;
    }
    if report.obstacles().next().is_none() {
        output::line(format_args!("✓ nothing is in the way of training"))?;
    }
    Ok(())
}

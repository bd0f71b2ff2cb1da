//! The report's sections: markup from facts. What is missing is said.

use std::fmt::Write as _;

use psyche_messages::events::{EndpointState, ModelSource};
use psyche_messages::{Lamports, PeerKey, Step};

use super::super::board;
use super::super::plan::{POINTS_PER_EPOCH, SEQUENCE, VOCAB_SIZE};
use super::super::sample::Sample;
use super::html::{escaped, figure, grouped, paragraph, table};
use super::losses::{self, Series};
use super::record::NodeRecord;
use super::{Facts, timeline as lanes};

/// The page's title.
pub(super) const TITLE: &str = "Report of a local testnet";
/// Bytes of a gradient's element when gradients are sent as they are.
const DENSE_F32: u64 = 4;
const DENSE_BF16: u64 = 2;

/// The title, the verdict, and the figures that matter most.
pub(super) fn head(facts: &Facts<'_>) -> String {
    let summary = facts.summary;
    let mut text = format!("<header><h1>{TITLE}</h1>\n");
    let nodes = facts.records.len();
    text.push_str(&format!(
        "<p class=\"sub\">{}</p></header>\n",
        escaped(&format!(
            "{nodes} nodes trained a LLaMA of {} parameters together on a Solana chain of their own, version {}.",
            grouped(facts.parameters),
            psyche_actors::CLIENT_VERSION
        ))
    ));
    let loss = |loss: Option<f64>| loss.map_or_else(|| "none".to_owned(), |loss| format!("{loss:.3}"));
    let claimed: u64 = summary.nodes.iter().map(|node| node.claimed).sum();
    let equal = if summary.digests_equal { ("equal", "good") } else { ("DIFFERENT", "bad") };
    let tiles = [
        ("steps trained", summary.steps.to_string(), ""),
        ("epochs", summary.epochs.to_string(), ""),
        ("loss, first quarter", loss(summary.loss_first), ""),
        ("loss, last quarter", loss(summary.loss_last), ""),
        ("digests", equal.0.to_owned(), equal.1),
        ("points claimed", grouped(claimed), ""),
        ("seconds in all", format!("{:.1}", summary.wall_s), ""),
    ];
    text.push_str("<dl class=\"facts\">\n");
    for (name, value, class) in tiles {
        let _written = writeln!(text, "<div><dt>{name}</dt><dd class=\"{class}\">{}</dd></div>", escaped(&value));
    }
    text.push_str("</dl>\n");
    text + &verdict(facts)
}

/// Whether it did what it should, and if not, what happened.
fn verdict(facts: &Facts<'_>) -> String {
    let bad = |words: &str| format!("<p class=\"bad\">{}</p>\n", escaped(words));
    let missing = facts.shortcomings.join("; ");
    match &facts.summary.failure {
        None if missing.is_empty() => "<p class=\"good\">The run did all that it should.</p>\n".to_owned(),
        None => bad(&format!("FAILED: {missing}.")),
        Some(what) if missing.is_empty() => bad(&format!("FAILED: {what}.")),
        Some(what) => bad(&format!("FAILED: {what}.")) + &bad(&format!("What the run fell short of until then: {missing}.")),
    }
}

/// The curve of the run, of each node, and of AdamW.
pub(super) fn loss(facts: &Facts<'_>) -> String {
    let boards = facts.boards();
    let mean: Vec<(u32, f64)> = board::losses(&boards).into_iter().map(|(step, loss)| (step.0, loss)).collect();
    let mut series: Vec<Series> = boards
        .iter()
        .enumerate()
        .map(|(index, node)| Series {
            name: format!("node {}", index + 1),
            class: format!("n{}", index % 6),
            points: node.trained.iter().map(|(step, trained)| (step.0, f64::from(trained.loss))).collect(),
        })
        .collect();
    if let Ok(reference) = facts.reference {
        let points = reference.losses.clone();
        series.push(Series { name: "AdamW on one device (reference)".to_owned(), class: "ref".to_owned(), points });
    }
    let last = mean.last().map_or_else(String::new, |(step, loss)| format!("; at step {step} it is {loss:.3}"));
    series.push(Series { name: "the run (mean of its nodes)".to_owned(), class: "mean".to_owned(), points: mean });
    let description = format!("Mean cross entropy of each step's batch, for the run, each node, and AdamW{last}.");
    let Some(chart) = losses::chart(&series, &description) else {
        return paragraph("No step was trained, so there is no curve to draw.");
    };
    format!("{}{chart}{}", paragraph(&about_loss(facts)), comparison(facts))
}

fn about_loss(facts: &Facts<'_>) -> String {
    let tokens = u64::from(facts.plan.batch()) * u64::from(SEQUENCE);
    let shared = format!("Every step trains on {} tokens, of which each node takes its share. ", grouped(tokens));
    let reference = match facts.reference {
        Ok(reference) => {
            let cut = if reference.cut_short { "; its time ran out, so the curve ends early" } else { "" };
            format!(
                "The dashed curve is AdamW on one device, alone: the same initial weights, batches, clipping and learning rates; \
                 it took {:.1} s after the nodes had stopped{cut}.",
                reference.took.as_secs_f64()
            )
        }
        Err(reason) => format!("There is no AdamW curve: {reason}."),
    };
    shared + &reference
}

/// Run and reference at the same steps.
fn comparison(facts: &Facts<'_>) -> String {
    let Ok(reference) = facts.reference else { return String::new() };
    let run = board::losses(&facts.boards());
    let both: Vec<(u32, f64, f64)> =
        reference.losses.iter().filter_map(|(step, loss)| Some((*step, *run.get(&Step(*step))?, *loss))).collect();
    let quarters = both.chunks(both.len().div_ceil(4).max(1)).filter_map(|part| {
        let (first, last) = (part.first()?.0, part.last()?.0);
        let mean = |pick: fn(&(u32, f64, f64)) -> f64| part.iter().map(pick).sum::<f64>() / part.len() as f64;
        let (run, adamw) = (mean(|point| point.1), mean(|point| point.2));
        let difference = format!("{:+.1} %", (run / adamw - 1.0) * 100.0);
        Some(vec![format!("steps {first} to {last}"), format!("{run:.3}"), format!("{adamw:.3}"), difference])
    });
    let rows: Vec<_> = quarters.collect();
    if rows.is_empty() {
        return paragraph("The run and AdamW have no step in common.");
    }
    table("Mean loss by quarter", &["part", "the run", "AdamW", "difference"], &rows)
}

pub(super) fn timeline(facts: &Facts<'_>) -> String {
    match lanes::chart(facts.records) {
        Some(chart) => {
            paragraph("As the nodes saw it: the phases of the run, their own batches in them, and what befell them.") + &chart
        }
        None => paragraph("No node's event log tells when it did what."),
    }
}

/// Payloads, and what dense gradients would take.
pub(super) fn bytes(facts: &Facts<'_>) -> String {
    let updates: u64 = facts.records.iter().map(|record| record.board.payloads).sum();
    let bytes: u64 = facts.records.iter().map(|record| record.board.payload_bytes).sum();
    let Some(mean) = bytes.checked_div(updates).filter(|mean| *mean > 0) else {
        return paragraph("No payload was made, so there is nothing to compare.");
    };
    let (bf16, f32) = (facts.parameters * DENSE_BF16, facts.parameters * DENSE_F32);
    let text = paragraph(&format!(
        "A node sends its result of a round once: {} bytes on average. A dense gradient of this model takes {} bytes as f32, \
         {} times as many, or {} as bf16, {} times as many.",
        grouped(mean),
        grouped(f32),
        grouped(f32 / mean),
        grouped(bf16),
        grouped(bf16 / mean)
    ));
    let entries = [("payload", mean, "bar"), ("dense, bf16", bf16, "bar-dense"), ("dense, f32", f32, "bar-dense")];
    let mut svg = String::new();
    for (index, (name, length, class)) in entries.into_iter().enumerate() {
        let y = 8.0 + index as f64 * 30.0;
        let width = (length as f64 / f32 as f64 * 620.0).clamp(1.0, 620.0);
        let _written = writeln!(
            svg,
            "<text class=\"label\" x=\"96\" y=\"{:.0}\" text-anchor=\"end\">{name}</text><rect class=\"{class}\" x=\"104\" \
             y=\"{y:.0}\" width=\"{width:.1}\" height=\"20\" /><text class=\"label\" x=\"{:.1}\" y=\"{:.0}\">{} bytes</text>",
            y + 15.0,
            112.0 + width,
            y + 15.0,
            grouped(length)
        );
    }
    let description = format!("{} bytes of payload, {} of a dense bf16 gradient, {} of f32.", mean, bf16, f32);
    let chart = figure("bytes-chart", ("Bytes of a result", &description), (900.0, 100.0), &svg);
    let rows: Vec<Vec<String>> = facts.records.iter().enumerate().map(|(index, record)| sent(index, record, f32)).collect();
    let head = ["node", "results", "bytes in all", "bytes each", "dense f32 in all", "ratio"];
    text + &chart + &table("Results that each node sent", &head, &rows)
}

fn sent(index: usize, record: &NodeRecord, dense: u64) -> Vec<String> {
    let board = &record.board;
    let dense = dense.saturating_mul(board.payloads);
    let ratio =
        dense.checked_div(board.payload_bytes).map_or_else(|| "none".to_owned(), |ratio| format!("{}×", grouped(ratio)));
    vec![
        format!("node {}", index + 1),
        grouped(board.payloads),
        grouped(board.payload_bytes),
        grouped(board.payload_bytes_mean()),
        grouped(dense),
        ratio,
    ]
}

pub(super) fn sample(facts: &Facts<'_>) -> String {
    match facts.sample {
        Ok(sample) => {
            let about = format!(
                "The weights after step {} go on from text that the run did not train on ({}; {} tokens in {:.1} s). \
                 The prompt is bold; what follows is the model's. A few dozen steps teach a model words, not sense.",
                sample.step,
                Sample::settings(),
                sample.tokens,
                sample.took.as_secs_f64()
            );
            let quote = format!("<blockquote><b>{}</b>{}</blockquote>\n", escaped(&sample.prompt), escaped(&sample.text));
            let truth =
                format!("<p class=\"sub\">The text itself goes on:</p><blockquote>{}</blockquote>\n", escaped(&sample.truth));
            let again = "The same model is kept: psyche-solana-client generate --checkpoint DIR/trained --prompt TEXT, where DIR is \
                         the testnet's folder.";
            paragraph(&about) + &quote + &truth + &paragraph(again)
        }
        Err(reason) => paragraph(&format!("There is no sample: {reason}.")),
    }
}

pub(super) fn digests(facts: &Facts<'_>) -> String {
    let boards = facts.boards();
    let differing = board::disagreements(&boards);
    let applied: usize = boards.iter().map(|board| board.applied.len()).sum();
    let verdict = match differing.first() {
        _ if applied == 0 => "No node applied a step, so there are no digests to compare.".to_owned(),
        None => "After every step, all nodes that applied it had the same parameters, to the bit.".to_owned(),
        Some(step) => format!("Digests differ after {} steps, first after step {step}.", differing.len()),
    };
    let rows: Vec<Vec<String>> = boards
        .iter()
        .enumerate()
        .map(|(index, board)| {
            let newest = board.newest_digest();
            vec![
                format!("node {}", index + 1),
                grouped(board.applied.len() as u64),
                newest.map_or_else(|| "none".to_owned(), |(step, _)| step.to_string()),
                newest.map_or_else(|| "none".to_owned(), |(_, digest)| digest.short().to_string()),
            ]
        })
        .collect();
    paragraph(&verdict) + &table("The newest digest of each node", &["node", "steps applied", "last step", "digest"], &rows)
}

pub(super) fn peers(facts: &Facts<'_>) -> String {
    let number = |peer: &PeerKey| facts.records.iter().position(|record| record.peer.as_ref() == Some(peer));
    let rows: Vec<Vec<String>> = facts
        .records
        .iter()
        .enumerate()
        .map(|(index, record)| {
            let source = record.board.model.map_or("none", |(_, source)| match source {
                ModelSource::Checkpoint => "the checkpoint",
                ModelSource::Peers => "its peers",
                ModelSource::Disk => "its disk",
            });
            let of_others = record.results.saturating_sub(record.board.payloads);
            vec![
                format!("node {}", index + 1),
                record.peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string().chars().take(12).collect()),
                record.peers_most.to_string(),
                source.to_owned(),
                grouped(of_others),
                grouped(of_others.saturating_mul(record.board.payload_bytes_mean())),
                grouped(record.replayed),
                record.board.listen.first().cloned().unwrap_or_else(|| "unknown".to_owned()),
            ]
        })
        .collect();
    let head = [
        "node",
        "peer key",
        "peers at most",
        "model from",
        "others' results",
        "their bytes (estimated)",
        "steps replayed",
        "listens on",
    ];
    let mut text = table("Who was connected, and what came from others", &head, &rows);
    text.push_str(&paragraph(
        "Bytes are estimated: the others' results that a node applied, times the mean length of its own. What went over the \
         network to and from each peer is in a running node's status (bytes_sent, bytes_received).",
    ));
    let names: Vec<String> = (1..=facts.records.len()).map(|number| format!("node {number}")).collect();
    let head: Vec<&str> = std::iter::once("compared by").chain(names.iter().map(String::as_str)).collect();
    let mut rows = Vec::new();
    for (index, record) in facts.records.iter().enumerate() {
        let mut row = vec!["–".to_owned(); names.len()];
        for (peer, compared) in &record.compared {
            if let Some(cell) = number(peer).and_then(|at| row.get_mut(at)) {
                *cell = match compared.different {
                    0 => format!("{} equal", grouped(compared.equal)),
                    different => format!("{} equal, {different} DIFFERENT", grouped(compared.equal)),
                };
            }
        }
        rows.push(std::iter::once(format!("node {}", index + 1)).chain(row).collect());
    }
    text.push_str(&table("Digests that nodes compared with each other's", &head, &rows));
    text
}

pub(super) fn chain(facts: &Facts<'_>) -> String {
    let mut text = match facts.endpoint {
        Some(endpoint) => paragraph(&format!("The nodes were given the endpoint {} with {}.", endpoint.rpc, endpoint.ws)),
        None => paragraph("The local chain did not start."),
    };
    let changes: Vec<Vec<String>> = facts
        .records
        .iter()
        .enumerate()
        .flat_map(|(index, record)| record.endpoints.iter().map(move |change| (index, record, change)))
        .map(|(index, record, change)| {
            let since = record.lane.spans().first().map_or(0, |span| change.unix_ms.saturating_sub(span.from));
            let state = match change.state {
                EndpointState::InUse => "in use again",
                EndpointState::Resting => "given up for a while",
                EndpointState::WrongCluster => "on another cluster, not used",
            };
            let at = format!("{:.1} s", since as f64 / 1e3);
            vec![format!("node {}", index + 1), at, change.endpoint.clone(), state.to_owned()]
        })
        .collect();
    if changes.is_empty() {
        text.push_str(&paragraph("No endpoint failed, so no node changed to another one."));
    } else {
        let all: u64 = facts.records.iter().map(|record| record.endpoint_changes).sum();
        let caption = format!("Fail-overs, {} of {all}", changes.len());
        text.push_str(&table(&caption, &["node", "after", "endpoint", "state"], &changes));
    }
    text + &transactions(facts)
}

fn transactions(facts: &Facts<'_>) -> String {
    let mut kinds: Vec<&str> = facts.records.iter().flat_map(|record| record.transactions.keys().map(String::as_str)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let cost = |lamports: Option<u64>| lamports.map_or_else(|| "unknown".to_owned(), |cost| Lamports(cost).in_sol());
    let head: Vec<&str> = std::iter::once("paid by").chain(kinds.iter().copied()).chain(["in all", "SOL"]).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (index, record) in facts.records.iter().enumerate() {
        let counts: Vec<u64> = kinds.iter().map(|kind| record.transactions.get(*kind).copied().unwrap_or(0)).collect();
        let mut row = vec![format!("node {}", index + 1)];
        row.extend(counts.iter().map(|count| grouped(*count)));
        row.push(grouped(counts.iter().sum()));
        row.push(cost(facts.costs.and_then(|costs| costs.nodes.get(index).copied())));
        rows.push(row);
    }
    let mut text = if kinds.is_empty() { paragraph("No node told of a transaction that landed.") } else { String::new() };
    text.push_str(&table("Transactions that landed, and what each node paid in fees and rent", &head, &rows));
    text.push_str(&match facts.costs {
        Some(costs) => paragraph(&format!(
            "Making the run cost its owner {} SOL, most of it rent that comes back when the run is closed; the operator paid {} \
             SOL for the authorizations.",
            Lamports(costs.owner).in_sol(),
            Lamports(costs.operator).in_sol()
        )),
        None => paragraph("What owner and nodes paid is not known."),
    });
    text
}

pub(super) fn rewards(facts: &Facts<'_>) -> String {
    if facts.accounts.is_empty() {
        return paragraph("The chain was not asked what the nodes earned.");
    }
    let of_token = |points: u64| format!("{}.{:06}", points / 1_000_000, points % 1_000_000);
    let rows: Vec<Vec<String>> = facts
        .accounts
        .iter()
        .zip(facts.records)
        .enumerate()
        .map(|(index, (account, record))| {
            vec![
                format!("node {}", index + 1),
                grouped(account.earned.0),
                grouped(account.claimed.0),
                of_token(account.claimed.0),
                record.claims.len().to_string(),
                record.board.address.clone().unwrap_or_else(|| "unknown".to_owned()),
            ]
        })
        .collect();
    let about = format!(
        "An epoch pays {} points, shared by those who finish it; a point is a millionth of a token.",
        grouped(POINTS_PER_EPOCH)
    );
    let head = ["node", "points earned", "points claimed", "tokens", "claims", "wallet"];
    paragraph(&about) + &table("By the chain's accounts", &head, &rows)
}

pub(super) fn troubles(facts: &Facts<'_>) -> String {
    let row = |(index, record): (usize, &NodeRecord)| {
        let late = facts.plan.nodes.get(index).is_some_and(|node| node.late);
        vec![
            format!("node {}", index + 1),
            if late { "late, on purpose".to_owned() } else { "at the start".to_owned() },
            record.restarts().to_string(),
            record.board.skipped.to_string(),
            record.board.warnings.to_string(),
            record.unreadable.to_string(),
            record.problem.clone().or_else(|| record.board.stopped.clone()).unwrap_or_else(|| "did not say".to_owned()),
        ]
    };
    let rows: Vec<Vec<String>> = facts.records.iter().enumerate().map(row).collect();
    let head = ["node", "joined", "restarts", "steps skipped", "warnings", "lines unread", "ended because"];
    let mut text = table("What befell each node", &head, &rows);
    let warnings: Vec<Vec<String>> = facts
        .records
        .iter()
        .enumerate()
        .flat_map(|(index, record)| {
            record.warnings.iter().map(move |warning| vec![format!("node {}", index + 1), warning.clone()])
        })
        .collect();
    if warnings.is_empty() {
        text.push_str(&paragraph("No node warned of anything."));
    } else {
        text.push_str(&table("The first warnings", &["node", "warning"], &warnings));
    }
    text
}

pub(super) fn settings(facts: &Facts<'_>) -> String {
    let plan = facts.plan;
    let layouts: Vec<String> = plan.nodes.iter().map(|node| format!("{} × {}", node.dp, node.tp)).collect();
    let rows = [
        ("client", psyche_actors::CLIENT_VERSION.to_owned()),
        ("nodes", plan.nodes.len().to_string()),
        ("devices (data × tensor parallel)", layouts.join(", ")),
        ("steps", plan.steps.to_string()),
        ("batch", format!("{} samples of {SEQUENCE} tokens", plan.batch())),
        ("model", format!("{} parameters, vocabulary of {VOCAB_SIZE}", grouped(facts.parameters))),
        ("chain speed", format!("{} chain seconds a second", plan.chain_speed)),
        ("folder", plan.out.display().to_string()),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    format!(
        "{}<p>The run's configuration, as an owner would write it:</p>\n<pre>{}</pre>\n",
        table("The testnet", &["setting", "value"], &rows),
        escaped(&plan.run_config())
    )
}

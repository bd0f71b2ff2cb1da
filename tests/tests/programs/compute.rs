//! What the coordinator's instructions cost at worst, with 1, 32 and 256 clients and as many witnesses as a round can have. Every one must fit
//! into the compute budget that a client gets without asking, and docs/PROGRAMS.md has the table.
//!
//! `PSYCHE_WRITE_COMPUTE=1` writes the table anew.

mod crowd;
mod phases;

use std::path::PathBuf;

use psyche_protocol::layout::CoordinatorAccount;

use super::chain::{Chain, key};
use super::run::{Owned, RunKeys, allocate, init_args};

/// The budget of one instruction unless its transaction asks for more.
const DEFAULT_COMPUTE_UNITS: u64 = 200_000;
/// A tick that finds nothing to do is cheap, however many clients there are.
const IDLE_COMPUTE_UNITS: u64 = 10_000;
/// The table's columns.
const CLIENTS: [usize; 3] = [1, 32, 256];
/// What surrounds the table in the document.
const MARKS: [&str; 2] = ["<!-- compute units: begin -->\n", "<!-- compute units: end -->\n"];
/// A number in the document may differ by this share of it, and a little more, before the table counts as stale: a compiler's
/// mood is no news.
const TOLERANCE_PERCENT: u64 = 3;
const TOLERANCE_UNITS: u64 = 60;

/// Most compute units by name, in the order of the first measurement.
#[derive(Default)]
struct Costs(Vec<(&'static str, u64)>);

impl Costs {
    fn note(&mut self, name: &'static str, units: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, most)) => *most = units.max(*most),
            None => self.0.push((name, units)),
        }
    }

    fn of(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, units)| *units)
    }
}

/// The creation of a run, which has no clients yet.
fn measure_creation() -> Costs {
    let mut costs = Costs::default();
    let mut t = Owned::created(Chain::new(), "some run");
    let account = t.chain.new_key();
    let (name, owner) = ("a run with the longest name of a", key(&t.owner));
    let space = allocate(&t.chain, &t.owner, &account, CoordinatorAccount::SIZE);
    t.chain.accept(&[&t.owner, &account], &[space]);
    let init = RunKeys::new(name, key(&account)).init(&owner, &init_args(&owner, name));
    costs.note("init_coordinator", t.chain.accept(&[&t.owner], &[init]));
    costs
}

/// Every row: what it is, and the units for each column, where there is such a thing.
fn rows() -> Vec<(&'static str, Vec<Option<u64>>)> {
    let columns = CLIENTS.map(|clients| {
        let mut costs = measure_creation();
        costs.0.extend(phases::measure(clients).0);
        costs
    });
    let mut names: Vec<_> = columns.iter().flat_map(|column| &column.0).map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| (name, columns.iter().map(|column| column.of(name)).collect())).collect()
}

fn grouped(units: u64) -> String {
    if units < 1_000 { units.to_string() } else { format!("{},{:03}", units / 1_000, units % 1_000) }
}

fn table(rows: &[(&str, Vec<Option<u64>>)]) -> String {
    let mut text = String::from("| Instruction | 1 client | 32 clients | 256 clients |\n|---|---:|---:|---:|\n");
    for (name, units) in rows {
        text.push_str(&format!("| {name} |"));
        for units in units {
            text.push_str(&units.map_or(" – |".to_owned(), |units| format!(" {} |", grouped(units))));
        }
        text.push('\n');
    }
    text
}

/// The rows of the document's table.
fn written(text: &str) -> Vec<(String, Vec<Option<u64>>)> {
    let cells = |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    let rows = text.lines().skip(2).map(cells);
    rows.map(|cells| (cells[0].clone(), cells[1..].iter().map(|cell| cell.replace(',', "").parse().ok()).collect())).collect()
}

fn is_close(found: Option<u64>, written: Option<u64>) -> bool {
    match (found, written) {
        (Some(found), Some(written)) => found.abs_diff(written) <= TOLERANCE_UNITS + written * TOLERANCE_PERCENT / 100,
        (found, written) => found == written,
    }
}

#[test]
fn every_instruction_fits_the_default_compute_budget_and_the_document_says_how() {
    let rows = rows();
    let table = table(&rows);
    println!("{table}");
    for (name, units) in &rows {
        let most = units.iter().flatten().max().unwrap();
        assert!(*most <= DEFAULT_COMPUTE_UNITS, "{name} takes {most} compute units");
        assert!(!name.starts_with("tick, idle") || *most <= IDLE_COMPUTE_UNITS, "{name} takes {most} compute units");
    }
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "docs", "PROGRAMS.md"].iter().collect();
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(MARKS[0]).expect("the document marks where its table begins");
    let (old, after) = rest.split_once(MARKS[1]).expect("the document marks where its table ends");
    if std::env::var_os("PSYCHE_WRITE_COMPUTE").is_some() {
        std::fs::write(&path, format!("{before}{}{table}{}{after}", MARKS[0], MARKS[1])).unwrap();
        return;
    }
    let old = written(old);
    let names: Vec<&str> = old.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, rows.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "PSYCHE_WRITE_COMPUTE=1 writes the table anew");
    for ((name, found), (_, written)) in rows.iter().zip(&old) {
        let close = found.iter().zip(written).all(|(found, written)| is_close(*found, *written));
        assert!(close, "{name}: measured {found:?}, written {written:?}; PSYCHE_WRITE_COMPUTE=1 writes the table anew");
    }
}

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use psyche_messages::events::{EVENT_LOG_VERSION, EndpointState, LoggedEvent};
use psyche_messages::{Digest, Epoch, NodeEvent, PeerKey, Phase, Points, Step};
use xml::reader::{EventReader, XmlEvent};

use super::super::plan::NodePlan;
use super::super::verdict;
use super::lane::{Doing, Mark, Span, coarse};
use super::*;

/// The first rounds of a real run of three nodes, of which the third came late.
const RECORDED: [&str; 3] =
    [include_str!("recorded/node-1.jsonl"), include_str!("recorded/node-2.jsonl"), include_str!("recorded/node-3.jsonl")];

/// A testnet's folder with these event logs.
struct Scene {
    _folder: tempfile::TempDir,
    plan: Plan,
}

fn scene(logs: &[&[u8]]) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let node = |number: u16| NodePlan {
        number,
        dp: 2,
        tp: 1,
        late: number == 3,
        folder: folder.path().join(format!("node-{number}")),
    };
    let nodes: Vec<NodePlan> = (1..).take(logs.len()).map(node).collect();
    for (node, log) in nodes.iter().zip(logs) {
        std::fs::create_dir_all(node.data()).unwrap();
        std::fs::write(node.events(), log).unwrap();
    }
    let plan = Plan { out: PathBuf::from("/some/folder"), nodes, steps: 40, chain_speed: 8.0 };
    Scene { _folder: folder, plan }
}

fn endpoint() -> Endpoint {
    Endpoint { rpc: "http://127.0.0.1:8899".to_owned(), ws: "ws://127.0.0.1:8900".to_owned() }
}

impl Scene {
    fn summary(&self, records: &[NodeRecord]) -> Summary {
        let boards: Vec<NodeBoard> = records.iter().map(|record| record.board.clone()).collect();
        let paid = Account { earned: Points(7_654_321), claimed: Points(7_654_321) };
        verdict::summarize(&self.plan.nodes, &boards, &vec![paid; records.len()], Duration::from_secs(61))
    }

    fn page(&self, reference: Result<&Reference, &str>, sample: Result<&Sample, &str>) -> String {
        self.page_of((None, &[]), reference, sample)
    }

    /// A page of a run that failed as the first argument says, and fell short of the others.
    fn page_of(
        &self,
        (failure, shortcomings): (Option<&str>, &[String]),
        reference: Result<&Reference, &str>,
        sample: Result<&Sample, &str>,
    ) -> String {
        let records = read(&self.plan);
        let mut summary = self.summary(&records);
        summary.failure = failure.map(str::to_owned);
        let paid = Account { earned: Points(7_654_321), claimed: Points(7_654_321) };
        page(&Facts {
            plan: &self.plan,
            summary: &summary,
            shortcomings,
            records: &records,
            accounts: &vec![paid; records.len()],
            costs: Some(&Costs { owner: 841_855_040, operator: 673_160, nodes: vec![3_512_880; records.len()] }),
            endpoint: Some(&endpoint()),
            parameters: 1_901_696,
            reference,
            sample,
        })
    }
}

fn reference() -> Reference {
    let losses = (1..=12_u32).map(|step| (step, 8.5 - f64::from(step) * 0.2)).collect();
    Reference { losses, took: Duration::from_millis(12_300), cut_short: false }
}

fn sample(text: &str) -> Sample {
    Sample { step: 39, prompt: "In the beginning".to_owned(), text: text.to_owned(), ..Sample::default() }
}

/// Reads a page as XML; returns the elements' names, and the ids.
fn parse(page: &str) -> (Vec<String>, Vec<String>) {
    let (mut elements, mut ids) = (Vec::new(), Vec::new());
    for event in EventReader::new(page.as_bytes()) {
        if let XmlEvent::StartElement { name, attributes, .. } = event.expect("the page is well-formed") {
            elements.push(name.local_name);
            ids.extend(attributes.into_iter().filter(|at| at.name.local_name == "id").map(|at| at.value));
        }
    }
    (elements, ids)
}

fn line(unix_ms: u64, event: NodeEvent) -> String {
    serde_json::to_string(&LoggedEvent { v: EVENT_LOG_VERSION, unix_ms, event }).unwrap() + "\n"
}

fn started() -> NodeEvent {
    NodeEvent::Started { address: [3; 32].into(), peer: PeerKey([2; 32]), listen: Vec::new(), dp: 1, tp: 1 }
}

fn phase(step: u32, phase: Phase) -> NodeEvent {
    let (epoch, step) = (Epoch(0), Step(step));
    NodeEvent::PhaseChanged { epoch, step, phase, slot: 1.into(), since: 1.into(), clients: 1, total_steps: 4 }
}

/// A batch of 4 samples of 128 tokens that took `seconds`.
fn trained(step: u32, loss: f32, seconds: f32) -> NodeEvent {
    let (epoch, step) = (Epoch(0), Step(step));
    NodeEvent::StepTrained { epoch, step, loss, samples: 4, tokens_per_second: 512.0 / seconds, payload_bytes: 5_276 }
}

#[test]
fn a_recorded_run_becomes_a_well_formed_page_with_every_section() {
    let scene = scene(&RECORDED.map(str::as_bytes));
    let page = scene.page(Ok(&reference()), Ok(&sample(" God created")));
    let (elements, ids) = parse(&page);
    let sections = ["loss", "timeline", "bytes", "sample", "digests", "peers", "chain", "rewards", "troubles", "settings"];
    for id in sections.into_iter().chain(["loss-chart-t", "timeline-chart-t", "bytes-chart-t"]) {
        assert!(ids.iter().any(|found| found == id), "{id}");
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "ids are unique");
    assert!(elements.iter().all(|name| !["script", "img", "link", "iframe", "object"].contains(&name.as_str())));
    for outside in ["src=", "href=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}: the page needs nothing from outside");
    }
    for text in ["AdamW on one device", "it took 12.3 s", "In the beginning", " God created", "0.84185504 SOL", "0.00351288"] {
        assert!(page.contains(text), "{text}");
    }
    for text in ["5 276 bytes on average", "7 606 784 bytes as f32, 1 441 times", "late, on purpose", "warmup witness", "equal"]
    {
        assert!(page.contains(text), "{text}");
    }
    assert!(elements.iter().filter(|name| *name == "table").count() >= 8);
    assert!(
        elements.iter().filter(|name| *name == "svg").count() <= elements.iter().filter(|name| *name == "title").count() + 40
    );
}

#[test]
fn the_page_s_numbers_are_the_summary_s() {
    let scene = scene(&RECORDED.map(str::as_bytes));
    let summary = scene.summary(&read(&scene.plan));
    assert!(summary.steps > 5 && summary.digests_equal, "{summary:?}");
    let page = scene.page(Ok(&reference()), Err("none"));
    let tile = |value: &str| format!("<dd class=\"\">{value}</dd>");
    for value in [summary.steps.to_string(), format!("{:.3}", summary.loss_last.unwrap()), "22 962 963".to_owned()] {
        assert!(page.contains(&tile(&value)), "{value}");
    }
}

#[test]
fn a_run_that_failed_or_fell_short_is_marked_as_such_with_what_happened() {
    let scene = scene(&RECORDED.map(str::as_bytes));
    let short = ["the loss did not fall: 7.1 at first, 7.2 at last".to_owned()];
    for (failure, shortcomings, said) in [
        (Some("node 2 was killed by <SIGKILL>"), &[][..], "FAILED: node 2 was killed by &lt;SIGKILL&gt;."),
        (None, &short[..], "FAILED: the loss did not fall: 7.1 at first, 7.2 at last."),
        (Some("stopped by Ctrl-C"), &short[..], "What the run fell short of until then: the loss did not fall"),
    ] {
        let page = scene.page_of((failure, shortcomings), Err("x"), Err("y"));
        parse(&page);
        assert!(page.contains(said), "{said}");
        assert!(!page.contains("did all that it should"));
    }
    assert!(!scene.page(Err("x"), Err("y")).contains("FAILED"));
}

#[test]
fn what_is_missing_is_said_in_sentences() {
    for logs in [vec![&b""[..]; 2], Vec::new()] {
        let scene = scene(&logs);
        let page = scene.page(Err("it was not wanted (--no-reference)"), Err("no node has a snapshot"));
        let (_, ids) = parse(&page);
        assert!(!ids.iter().any(|id| id.ends_with("-chart-t")), "no empty chart");
        for text in ["no curve to draw", "No node&#39;s event log tells", "No payload was made", "no node has a snapshot"] {
            assert!(page.contains(text), "{text}");
        }
    }
    let scene = scene(&[b""]);
    std::fs::remove_file(scene.plan.nodes[0].events()).unwrap();
    let page = scene.page(Err("x"), Err("y"));
    assert!(page.contains("can&#39;t be read"), "a log that is not there is told of");
}

#[test]
fn torn_lines_and_lines_that_are_no_events_are_counted_and_passed_over() {
    let whole = RECORDED[0];
    let torn = format!("not json\n{}", &whole[..whole.len() - 30]);
    let scene = scene(&[torn.as_bytes(), b"\xff\xfe\x00\n{\"v\":9}\n"]);
    let records = read(&scene.plan);
    assert_eq!(records.iter().map(|record| record.unreadable).collect::<Vec<_>>(), [2, 2]);
    assert!(!records[0].board.trained.is_empty());
    parse(&scene.page(Err("x"), Err("y")));
}

#[test]
fn no_text_of_a_log_becomes_markup() {
    let evil = "<script>alert('x')</script>\u{0}\u{1b}]\u{ffff} \" & --> ]]>";
    let events = [
        started(),
        NodeEvent::Warning { message: evil.to_owned() },
        NodeEvent::EndpointChanged { endpoint: evil.to_owned(), state: EndpointState::Resting },
        NodeEvent::TransactionConfirmed { purpose: evil.to_owned(), signature: evil.to_owned() },
        trained(1, f32::NAN, 1.0),
        trained(2, f32::INFINITY, f32::NAN),
        NodeEvent::Stopped { reason: evil.to_owned() },
    ];
    let log: String = (1..).zip(events).map(|(at, event)| line(at * 1000, event)).collect();
    let mut scene = scene(&[log.as_bytes()]);
    scene.plan.out = PathBuf::from(evil);
    let page = scene.page(Err(evil), Ok(&sample(evil)));
    parse(&page);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert"), "escaped everywhere");
}

#[test]
fn thousands_of_rounds_make_no_larger_page() {
    let mut log = line(0, started());
    for step in 1..=6_000_u32 {
        let at = u64::from(step) * 2_000;
        log += &line(at, phase(step, Phase::RoundTrain));
        log += &line(at + 900, trained(step, 9.0 - 1.2 * (f64::from(step) as f32).ln() / 2.0, 0.7));
        log += &line(at + 1_500, phase(step, Phase::RoundWitness));
        let digest = Digest([7; 32]);
        log += &line(at + 1_600, NodeEvent::StepApplied { epoch: Epoch(0), step: Step(step), results: 2, digest });
    }
    let scene = scene(&[log.as_bytes(), log.as_bytes(), log.as_bytes()]);
    let page = scene.page(Err("x"), Err("y"));
    parse(&page);
    assert!(page.len() < 300_000, "{} bytes", page.len());
    assert!(page.contains("<td class=\"n\">6 000</td>"), "sums are exact");
}

#[test]
fn a_node_that_died_is_seen_as_such_between_its_last_word_and_its_next_start() {
    let mut lane = lane::Lane::default();
    for (at, event) in [
        (0, started()),
        (1_000, phase(1, Phase::Warmup)),
        (2_000, phase(1, Phase::RoundTrain)),
        (3_500, trained(1, 8.0, 1.0)),
        (4_000, phase(1, Phase::RoundWitness)),
        (9_000, started()),
        (9_500, phase(4, Phase::RoundTrain)),
        (11_000, NodeEvent::Stopped { reason: "finished".to_owned() }),
    ] {
        lane.add(at, &event, 128);
    }
    lane.end();
    let span = |from, to, doing| Span { from, to, doing };
    assert_eq!(
        lane.spans(),
        [
            span(0, 1_000, Doing::Starting),
            span(1_000, 2_000, Doing::Warmup),
            span(2_000, 2_500, Doing::Exchanging),
            span(2_500, 3_500, Doing::Training),
            span(3_500, 4_000, Doing::Exchanging),
            span(4_000, 9_000, Doing::Down),
            span(9_000, 9_500, Doing::Starting),
            span(9_500, 11_000, Doing::Exchanging),
        ]
    );
    assert_eq!(lane.marks, [(4_000, Mark::Died), (9_000, Mark::Restarted)]);
    assert_eq!(lane.sums()[&Doing::Down], 5_000);
}

#[test]
fn a_batch_that_outlasts_its_phase_is_shown_where_it_was_trained() {
    let mut lane = lane::Lane::default();
    for (at, event) in [
        (0, started()),
        (1_000, phase(1, Phase::RoundTrain)),
        (2_000, phase(1, Phase::RoundWitness)),
        (2_500, trained(1, 8.0, 1.2)),
        (2_400, phase(2, Phase::RoundTrain)),
        (2_600, trained(2, 8.0, 500.0)),
    ] {
        lane.add(at, &event, 128);
    }
    lane.end();
    let spans = lane.spans();
    assert!(spans.windows(2).all(|pair| pair[0].to <= pair[1].from), "{spans:?}");
    assert!(spans.iter().any(|span| span.doing == Doing::Training && span.from == 1_300), "{spans:?}");
    assert_eq!(spans.last().map(|span| span.to), Some(2_600));
}

#[test]
fn few_columns_show_what_took_most_of_them() {
    let span = |from, to, doing| Span { from, to, doing };
    let spans: Vec<Span> = (0..1_000)
        .flat_map(|round| {
            [span(round * 10, round * 10 + 8, Doing::Training), span(round * 10 + 8, round * 10 + 10, Doing::Witnessing)]
        })
        .collect();
    assert_eq!(coarse(&spans, 10), [span(0, 10_000, Doing::Training)]);
    assert_eq!(coarse(&spans, 5_000), spans);
    assert!(coarse(&[], 5).is_empty());
}

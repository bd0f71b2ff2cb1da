//! What only reads, for people and for scripts: list, dump, tick, close.
#![cfg(feature = "localnet")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod support;

use serde_json::Value;
use support::{Scene, text};

const OWNER: &str = "--wallet-private-key-path owner.json";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn runs_are_listed_by_state_and_authority_and_described_in_full() {
    let scene = Scene::with_run("first");
    scene.good(&format!("create-run --run-id second {OWNER}"));
    let bare = scene.run(&format!("set-paused --run-id second --resume {OWNER}"));
    assert_eq!(bare.status.code(), Some(15), "{}", text(&bare.stderr));
    assert!(text(&bare.stderr).contains("update-config --config-path"), "{}", text(&bare.stderr));
    scene.good(&format!("update-config --run-id first --name First --description Words --num-parameters 7 {OWNER}"));
    scene.good(&format!("set-paused --run-id first --resume {OWNER}"));
    let owner = scene.address("owner");
    let names = |options: &str| {
        let runs = json(&scene.good(&format!("list-runs --json {options}")));
        runs.as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(""), ["first", "second"]);
    assert_eq!(names("--state waiting-for-members"), ["first"]);
    assert_eq!(names(&format!("--join-authority {owner}")), ["first", "second"]);
    assert_eq!(names(&format!("--main-authority {}", scene.address("poor"))), [""; 0]);
    let list = scene.good("list-runs");
    assert!(list.contains("WaitingForMembers") && list.contains("First"), "{list}");

    let run = json(&scene.good("json-dump-run --run-id first"));
    assert_eq!((&run["metadata"]["name"], &run["metadata"]["num_parameters"]), (&"First".into(), &7.into()));
    assert_eq!(run["config"]["epoch_time"], 61);
    let user = json(&scene.good(&format!("json-dump-user --run-id first --address {owner}")));
    assert_eq!((&user["in_roster"], &user["points"]["earned"]), (&false.into(), &0.into()));
}

#[test]
fn what_is_wrong_in_a_change_leaves_the_run_as_it_is_and_a_repeated_change_does_nothing_new() {
    let scene = Scene::with_run("run");
    scene.good(&format!("set-future-epoch-rates --run-id run --earning-rate-points 9 --slashing-rate-points 3 {OWNER}"));
    let rates = json(&scene.good("json-dump-run --run-id run"))["rates"].clone();
    assert_eq!((&rates["future_earning"], &rates["future_slashing"]), (&9.into(), &3.into()));
    scene.good(&format!("set-paused --run-id run --resume {OWNER}"));
    let early = scene.run(&format!("update-config --run-id run --restart-from-step 2 {OWNER}"));
    assert_eq!(early.status.code(), Some(15), "{}", text(&early.stderr));
    assert!(
        text(&early.stderr).contains("must be paused") && text(&early.stderr).contains("set-paused"),
        "{}",
        text(&early.stderr)
    );
    let open = scene.run(&format!("close-run --run-id run {OWNER}"));
    assert_eq!(open.status.code(), Some(15), "{}", text(&open.stderr));

    let idle = scene.run(&format!("tick --run-id run --count 2 --ms-interval 10 {OWNER}"));
    assert!(idle.status.success() && idle.stdout.is_empty(), "{}", text(&idle.stderr));
    assert_eq!(text(&idle.stderr).matches("its time has not come").count(), 2, "{}", text(&idle.stderr));

    scene.good(&format!("set-paused --run-id run {OWNER}"));
    scene.good(&format!("update-config --run-id run --restart-from-step 2 --client-version test {OWNER}"));
    let run = json(&scene.good("json-dump-run --run-id run"));
    assert_eq!((&run["progress"]["step"], &run["client_version"]), (&2.into(), &"test".into()));
    let closed = json(&scene.good(&format!("close-run --run-id run --json {OWNER}")));
    assert!(closed["refunded"].as_u64().unwrap() > 800_000_000, "{closed}");
    assert_eq!(scene.run("json-dump-run --run-id run").status.code(), Some(4));
}

#[test]
fn a_run_with_a_treasury_is_funded_in_tokens_or_points_and_can_not_be_closed() {
    let scene = Scene::with_run("other");
    let token = json(&scene.good(&format!("wallet create-token --decimals 3 --supply 5 --json {OWNER}")));
    let mint = token["mint"].as_str().unwrap();
    scene.good(&format!("create-run --run-id run --treasurer-index 7 --treasurer-collateral-mint {mint} {OWNER}"));
    scene.good(&format!("treasurer-top-up-rewards --run-id run --treasurer-index 7 --collateral-amount 1.5 {OWNER}"));
    scene.good(&format!("treasurer-top-up-rewards --run-id run --points 250 {OWNER}"));
    scene.good(&format!("wallet mint-tokens --mint {mint} --tokens 10 {OWNER}"));
    let finer = scene.run(&format!("treasurer-top-up-rewards --run-id run --collateral-amount 0.0001 {OWNER}"));
    assert_eq!(finer.status.code(), Some(3), "{}", text(&finer.stderr));
    let more = scene.run(&format!("treasurer-top-up-rewards --run-id run --collateral-amount 1000 {OWNER}"));
    assert_eq!(more.status.code(), Some(15), "{}", text(&more.stderr));
    let treasury = json(&scene.good("json-dump-run --run-id run"))["treasury"].clone();
    assert_eq!((&treasury["funded"], &treasury["surplus"], &treasury["decimals"]), (&1750.into(), &1750.into(), &3.into()));
    let held = json(&scene.good(&format!("wallet balance --mint {mint} --json {OWNER}")));
    assert_eq!((&held["base_units"], &held["tokens"]), (&13_250.into(), &"13.25".into()));
    let wrong = scene.run(&format!("set-paused --run-id run --treasurer-index 8 {OWNER}"));
    assert_eq!(wrong.status.code(), Some(15), "{}", text(&wrong.stderr));
    let closed = scene.run(&format!("close-run --run-id run {OWNER}"));
    assert_eq!(closed.status.code(), Some(15), "{}", text(&closed.stderr));
    assert!(text(&closed.stderr).contains("treasury"), "{}", text(&closed.stderr));
    let none = scene.good(&format!("treasurer-claim-rewards --run-id run {OWNER}"));
    assert!(none.contains("nothing to claim"), "{none}");
}

//! Checkpoints of a real run: who keeps them, what the chain is told, and who can read them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use psyche_protocol::model::Checkpoint;
use serde_json::{Value, json};
use support::training::{Node, run_toml};
use support::{Scene, text};

const RUN: &str = "kept";
const REPO: &str = "org/model";

/// Says what transformers makes of the model in a folder.
const LOAD: &str = r#"
import json, sys, torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
model, info = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[1] + "/tokenizer.json")
ids = torch.tensor([tokenizer.encode("In the beginning", add_special_tokens=False)])
with torch.no_grad():
    loss = model(ids, labels=ids).loss.item()
odd = {name: sorted(map(str, found)) for name, found in info.items() if found}
print(json.dumps({"odd": odd, "loss": loss, "parameters": sum(p.numel() for p in model.parameters())}))
"#;

/// Steps and folders of the checkpoints that the node of `who` wrote, in order.
fn written(scene: &Scene, who: &str) -> Vec<(u64, PathBuf)> {
    let log = std::fs::read_to_string(scene.path(&format!("data-{who}/events.jsonl"))).unwrap();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let written = events.filter(|event| event["event"] == "checkpoint_written");
    let place = |event: &Value| scene.path("").join(event["path"].as_str().unwrap());
    written.map(|event| (event["step"].as_u64().unwrap(), place(&event))).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn transformers(folder: &Path) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/setup-python.sh");
    let output = Command::new(script).arg("--where").output().unwrap();
    // The script says which command fetches what is missing.
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found = text(&output.stdout);
    let found: HashMap<_, _> = found.lines().filter_map(|line| line.split_once('=')).collect();
    let mut process = Command::new(found["PYTHON"]);
    process.args(["-s", "-B", "-c", LOAD]).arg(folder).env("PYTHONPATH", found["PYTHONPATH"]).env("HF_HUB_OFFLINE", "1");
    let output = process.env("OMP_NUM_THREADS", "1").env("CUDA_VISIBLE_DEVICES", "").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn who_is_asked_to_keeps_and_names_checkpoints_and_everybody_the_last_one_which_others_can_read() {
    // Epochs of a few rounds, so that there are several.
    let toml = run_toml(&[
        ("warmup_time", "24"),
        // Long enough to write and name one, on a machine that does much else.
        ("cooldown_time", "24"),
        ("epoch_time", "28"),
        ("max_round_train_time", "20"),
        ("min_clients", "2"),
        ("init_min_clients", "2"),
        ("total_steps", "14"),
    ]);
    let scene = Scene::to_train(RUN, &toml, &["one", "two"]);
    // A checkpoint brings its tokenizer along, if the run's has one.
    std::fs::copy(scene.path("tokens/tokenizer.json"), scene.path("model/tokenizer.json")).unwrap();
    let mut one = scene.train(RUN, "one");
    let mut one = Node::start(one.args(["--checkpoint-dir", "kept", "--checkpoint-repo", REPO]));
    let peer = one.until("the address of the first node", || scene.listening("one"));
    let mut two = Node::start(scene.train(RUN, "two").env("BOOTSTRAP_PEERS", peer));
    for node in [&mut one, &mut two] {
        assert!(node.0.wait().unwrap().success(), "the run ends well");
    }

    let (kept, last) = (written(&scene, "one"), written(&scene, "two"));
    assert!(kept.len() >= 2 && kept.is_sorted() && last.len() == 1, "{kept:?} {last:?}");
    assert_eq!(kept.last().unwrap().0, last[0].0, "both keep the last one");
    let run = scene.rpc().run_info(&RUN.parse().unwrap()).await.unwrap();
    let account = run.account.to_string();
    let epochs = |folder: &Path| names(folder).into_iter().filter(|name| name.starts_with("epoch-")).count();
    assert_eq!((names(&scene.path("kept")), epochs(&scene.path("kept").join(&account))), (vec![account.clone()], 2));
    assert!(last[0].1.starts_with(scene.path("data-two/checkpoints").join(&account)), "{last:?}");
    let (mine, others) = (kept.last().unwrap().1.clone(), last[0].1.clone());
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&mine) == weights(&others), "the same parameters are the same file");
    // Who comes back when all is over finds its last snapshot, and writes what is missing.
    std::fs::remove_dir_all(&others).unwrap();
    let mut back = Node::start(&mut scene.train(RUN, "two"));
    assert!(back.0.wait().unwrap().success(), "there is nothing left to do");
    assert!(weights(&mine) == weights(&others), "the checkpoint is there again");
    assert!(names(&mine).iter().all(|name| !name.starts_with("momentum") && !name.starts_with("sent")), "{:?}", names(&mine));

    // What the run falls back to is what the elected node named.
    let view = scene.rpc().coordinator(run.account).await.unwrap();
    let named = view.account.state.coordinator.model.checkpoint.get();
    let Some(Checkpoint::P2P(repo) | Checkpoint::Hub(repo)) = named else { panic!("{named:?}") };
    assert_eq!(repo.repo_id.as_str(), REPO);

    let told = scene.good(&format!("generate --checkpoint {} --prompt In --tokens 8 --temperature 0", mine.display()));
    assert!(told.starts_with("In") && told.trim().len() > 2, "{told}");
    let read = transformers(&mine);
    assert_eq!(read["odd"], json!({}), "missing, unexpected or mismatched tensors: {read}");
    let (loss, parameters) = (read["loss"].as_f64().unwrap(), read["parameters"].as_u64().unwrap());
    assert!(loss.is_finite() && loss < 6.5 && parameters > 19_200, "{read}");
}

#[test]
fn check_config_says_where_checkpoints_go_and_refuses_a_repository_without_a_folder() {
    let scene = Scene::empty();
    scene.wallet("one", "1");
    let variables = [("RUN_ID", RUN), ("WALLET_PRIVATE_KEY_PATH", "one.json"), ("DEVICE", "cpu")];
    let check = |line: &str| scene.run_with(&format!("check-config --json {line}"), &variables);
    let output = check("--checkpoint-dir kept --checkpoint-repo org/model");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&checked["checkpoint_dir"], &checked["checkpoint_repo"]), (&json!("kept"), &json!(REPO)));
    let refused = check("--checkpoint-repo org/model");
    assert!(!refused.status.success() && text(&refused.stderr).contains("CHECKPOINT_REPO"), "{}", text(&refused.stderr));
}

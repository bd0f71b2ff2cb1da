#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: TestnetArgs,
}

fn plan(line: &str) -> Result<Plan> {
    let args = Line::try_parse_from(std::iter::once("testnet").chain(line.split_whitespace()))?.args;
    Plan::new(&args, Path::new("/out"))
}

fn layouts_of(line: &str) -> Vec<(u16, u16)> {
    plan(line).unwrap().nodes.iter().map(|node| (node.dp, node.tp)).collect()
}

#[test]
fn nodes_split_their_devices_differently_unless_told_how() {
    assert_eq!(layouts_of(""), [(2, 1), (1, 2), (2, 1)]);
    assert_eq!(layouts_of("--nodes 2 --devices 4"), [(4, 1), (1, 4)]);
    assert_eq!(layouts_of("--nodes 2 --devices 4 --tp 2"), [(2, 2), (2, 2)]);
    assert_eq!(layouts_of("--nodes 1 --dp 3 --tp 2"), [(3, 2)]);
    assert_eq!(layouts_of("--nodes 2 --devices 1"), [(1, 1), (1, 1)]);
}

#[test]
fn layouts_that_cannot_be_are_refused_with_a_reason() {
    for line in ["--devices 4 --dp 3", "--devices 2 --tp 4", "--dp 16 --tp 2", "--dp 1 --tp 3"] {
        assert!(plan(line).is_err(), "{line}");
    }
    for line in ["--nodes 0", "--nodes 17", "--steps 3", "--chain-speed 0", "--chain-speed inf", "--devices 0"] {
        assert!(plan(line).is_err(), "{line}");
    }
}

#[test]
fn the_last_of_three_nodes_comes_late_and_two_start_together() {
    let late = |line| plan(line).unwrap().nodes.iter().map(|node| node.late).collect::<Vec<_>>();
    assert_eq!(late("--nodes 3"), [false, false, true]);
    assert_eq!(late("--nodes 3 --steps 39"), [false, false, false]);
    assert_eq!(late("--nodes 2"), [false, false]);
    assert_eq!(late("--nodes 1"), [false]);
}

#[test]
fn run_configurations_keep_the_chain_s_rules_at_every_speed() {
    for line in ["", "--steps 4 --chain-speed 0.1", "--steps 4 --chain-speed 1", "--steps 1000 --chain-speed 40", "--nodes 16"]
    {
        let plan = plan(line).unwrap();
        let config: toml::Value = toml::from_str(&plan.run_config()).unwrap();
        let number = |name: &str| config["config"][name].as_integer().unwrap();
        assert!(number("warmup_time") < number("epoch_time"), "{line}");
        assert!(number("max_round_train_time") < number("epoch_time"), "{line}");
        assert!(number("max_round_train_time") > 0, "{line}");
        assert!((1..=number("init_min_clients")).contains(&number("min_clients")), "{line}");
        assert!((1..=255).contains(&number("waiting_for_members_extra_time")), "{line}");
        assert!(number("global_batch_size_end") > number("init_min_clients"), "{line}");
        assert!(number("cooldown_time") > 0, "{line}");
    }
}

#[test]
fn the_model_s_heads_can_be_split_by_every_layout() {
    for line in ["", "--devices 8", "--devices 16 --nodes 2", "--dp 1 --tp 1"] {
        let plan = plan(line).unwrap();
        let config: serde_json::Value = serde_json::from_str(&plan.model_config()).unwrap();
        for node in &plan.nodes {
            for field in ["num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size", "hidden_size"] {
                assert!(config[field].as_u64().unwrap().is_multiple_of(u64::from(node.tp)), "{line} {field}");
            }
        }
    }
}

#[test]
fn each_node_has_folders_of_its_own_and_knows_who_runs_already() {
    let plan = plan("").unwrap();
    let chain = Endpoint { rpc: "http://a".to_owned(), ws: "ws://a".to_owned() };
    let operator = Address([7; 32]);
    let first = plan.variables(&plan.nodes[0], &chain, operator, &[]);
    let second = plan.variables(&plan.nodes[1], &chain, operator, &["/ip4/127.0.0.1/tcp/1/p2p/x".to_owned()]);
    let value = |list: &[(&'static str, String)], name| list.iter().find(|(n, _)| *n == name).unwrap().1.clone();
    for name in ["WALLET_PRIVATE_KEY_PATH", "DATA_DIR"] {
        assert_ne!(value(&first, name), value(&second, name), "{name}");
    }
    assert_eq!(value(&first, "BOOTSTRAP_PEERS"), "");
    assert_eq!(value(&second, "BOOTSTRAP_PEERS"), "/ip4/127.0.0.1/tcp/1/p2p/x");
}

#[test]
fn the_reference_trains_by_the_rates_and_batches_that_the_run_is_given() {
    let plan = plan("--steps 55").unwrap();
    let table: toml::Value = toml::from_str(&plan.run_config()).unwrap();
    let cosine = &table["model"]["LLM"]["lr_schedule"]["Cosine"];
    let number = |name: &str| cosine[name].as_float().or_else(|| cosine[name].as_integer().map(|steps| steps as f64)).unwrap();
    let LrSchedule::Cosine { base, warmup_init, final_rate, warmup_steps, total_steps } = plan.schedule() else { panic!() };
    let ours = [base, warmup_init, final_rate, f64::from(warmup_steps), f64::from(total_steps)];
    let names = ["base_lr", "warmup_init_lr", "final_lr", "warmup_steps", "total_steps"];
    assert_eq!(ours, names.map(number));
    assert_eq!(table["config"]["global_batch_size_start"].as_integer(), Some(i64::from(plan.batch())));
    let distro = &table["model"]["LLM"]["optimizer"]["Distro"];
    assert_eq!(distro["clip_grad_norm"].as_float().map(|norm| norm as f32), Plan::optimizer().clip_grad_norm);
}

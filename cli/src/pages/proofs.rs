//! Which test runs a command of the documentation, or why none does here.

/// A subcommand, and the tests in which it runs as a process: files below the repository's root, and names of tests in them;
/// without a name, the whole file is a script that CI or a test runs.
pub(super) struct Proof {
    pub(super) command: &'static str,
    pub(super) run_by: &'static [(&'static str, &'static str)],
    /// Options that the documentation shows and none of these tests uses, with the reason.
    pub(super) except: &'static [(&'static str, &'static str)],
}

const SEED: (&str, &str) = ("cli/tests/seed_page.rs", "the_seed_pages_commands_work_from_an_empty_chain_to_claimed_rewards");
const SHELL: (&str, &str) = ("cli/tests/permissioned_run.sh", "");
const STATUS: (&str, &str) = ("cli/tests/status.rs", "a_node_shows_its_health_metrics_and_status_from_its_start_to_its_end");
const LISTS: (&str, &str) = ("cli/tests/owner_commands.rs", "runs_are_listed_by_state_and_authority_and_described_in_full");
const FUNDS: (&str, &str) =
    ("cli/tests/owner_commands.rs", "a_run_with_a_treasury_is_funded_in_tokens_or_points_and_can_not_be_closed");
const DOCTOR: (&str, &str) = ("cli/tests/doctor.rs", "with_everything_right_every_line_is_good_and_no_secret_is_shown");
const OPEN: (&str, &str) = ("cli/tests/doctor.rs", "without_a_name_the_only_run_is_taken_and_several_or_none_are_told");
const DEVICES: (&str, &str) = ("cli/tests/devices.rs", "the_machines_devices_are_listed_for_people_and_for_scripts");
const CHECK: (&str, &str) = ("cli/tests/devices.rs", "a_configuration_that_can_work_says_where_each_rank_computes");
const GRANTS: (&str, &str) = ("cli/tests/can_join.rs", "it_is_said_whose_grant_lets_a_wallet_in_and_whom_to_ask_otherwise");
const CHANGES: (&str, &str) =
    ("cli/tests/owner_commands.rs", "what_is_wrong_in_a_change_leaves_the_run_as_it_is_and_a_repeated_change_does_nothing_new");
const TOOLS: (&str, &str) = ("cli/tests/guides.rs", "tools_that_need_no_chain_do_what_the_guides_say");
const CHAINS: (&str, &str) = ("cli/tests/guides.rs", "a_chain_gets_programs_and_an_endpoint_as_the_guides_say");
const CONTEST: (&str, &str) = ("cli/tests/guides.rs", "optimizers_are_compared_as_the_guides_say");
const TESTNET: (&str, &str) = ("cli/tests/testnet.rs", "a_small_network_learns_agrees_and_claims");
const FILE: (&str, &str) = ("cli/tests/bad_input.rs", "everything_that_can_be_an_option_can_come_from_a_file_of_variables");

const fn by(command: &'static str, run_by: &'static [(&'static str, &'static str)]) -> Proof {
    Proof { command, run_by, except: &[] }
}

pub(super) const PROOFS: &[Proof] = &[
    by("train", &[SEED, SHELL]),
    by("status", &[STATUS, TOOLS]),
    by("check-config", &[CHECK, FILE, SHELL]),
    by("doctor", &[DOCTOR, SHELL]),
    by("devices", &[DEVICES]),
    by("can-join", &[SEED, GRANTS]),
    by("list-runs", &[LISTS, CHAINS]),
    by("json-dump-run", &[LISTS]),
    by("json-dump-user", &[LISTS]),
    by("treasurer-claim-rewards", &[SEED]),
    by("treasurer-top-up-rewards", &[FUNDS]),
    by("create-run", &[SEED, FUNDS]),
    by("update-config", &[SEED]),
    by("set-paused", &[SEED]),
    by("set-future-epoch-rates", &[SHELL, SEED]),
    by("close-run", &[CHANGES]),
    by("join-authorization-create", &[SEED, OPEN]),
    by("join-authorization-read", &[GRANTS, SHELL]),
    by("join-authorization-delegate", &[SHELL]),
    by("join-authorization-delete", &[GRANTS]),
    by("tick", &[CHANGES]),
    by("checkpoint", &[SHELL]),
    by("wallet new", &[SEED]),
    by("wallet address", &[SHELL]),
    by("wallet balance", &[SHELL, FUNDS, CHAINS]),
    by("wallet airdrop", &[SEED]),
    by("wallet create-token", &[SHELL]),
    by("wallet mint-tokens", &[FUNDS]),
    by("create-static-p2p-identity", &[TOOLS]),
    by("show-static-p2p-identity", &[TOOLS]),
    by("deploy", &[CHAINS]),
    by("tokenize", &[SEED]),
    by("init-model", &[SEED]),
    by("generate", &[TOOLS]),
    by("localnet", &[SHELL, CHAINS]),
    by("localnet-endpoint", &[CHAINS]),
    by("testnet", &[TESTNET]),
    by("compare-optimizers", &[CONTEST]),
];

/// Targets of make, and what runs them.
pub(super) const TARGETS: &[(&str, &str)] = &[
    ("testnet", "CI (.ci/run), with small numbers"),
    ("test", "CI (.ci/run)"),
    ("check", "CI (.ci/run)"),
    ("build", "CI (.ci/run)"),
    ("compose-test", "CI runs docker/test.sh, which it calls"),
    ("image", "docker/test.sh builds the image by docker/build.sh --prebuilt"),
    ("docs", "its result is compared by the_commands_page_is_what_the_program_says"),
    ("sim", "tests named sim_ are part of make test, with 200 seeds"),
    ("chaos", "not in CI: it takes half an hour and root; its bridge is tested (cli/examples/chaos)"),
    ("fuzz", "a short run of every target is part of make test"),
    ("bench", "not in CI: measures, on a quiet machine"),
    ("programs", "CI compares programs/elf by programs/build.sh --check"),
    ("clients", "CI (.ci/run)"),
    ("python", "CI (.ci/run)"),
    ("", "prints the help text"),
];

/// Other programs that the documentation calls, by their first words, and why no test runs them, if none does.
pub(super) const OTHERS: &[(&str, &str)] = &[
    ("docker/build.sh", "docker/test.sh runs it with --prebuilt; from the sources it takes half an hour"),
    ("docker/local-base.sh", "docker/test.sh runs it with --engine; --rust is for builds from the sources"),
    ("docker/test.sh", "CI (.ci/run)"),
    ("docker/observability/check.sh", "CI (.ci/run)"),
    ("cargo test", "make test, of which it is a part"),
    ("cargo run --example", "the example is tested where it lies"),
    ("curl", "asks a service that is tested where it lies"),
    ("nvidia-smi", "needs an NVIDIA driver"),
    ("sudo nvidia-ctk", "needs NVIDIA's container toolkit"),
    ("sudo systemctl", "needs systemd as the first process; cli/tests/systemd.rs checks the unit"),
    ("systemctl status", "needs systemd as the first process"),
    ("journalctl", "needs systemd as the first process"),
    ("sudo useradd", "makes a user of the system"),
    ("sudo install", "writes outside the repository, as another user"),
    ("sudo mkdir", "writes outside the repository"),
    ("sudo cp", "writes outside the repository"),
];

/// Options of docker run that docker/test.sh does not use, and why.
pub(super) const DOCKER_RUN: &[(&str, &str)] =
    &[("--restart", "docker/test.sh starts containers again itself; the compose file's services have it")];

//! Commands in the documentation are commands that there are, and that tests run.

use std::collections::{BTreeMap, BTreeSet};

use clap::{CommandFactory as _, error::ErrorKind};
use psyche_actors::NodeConfig;
use psyche_actors::config::VARIABLES;

use super::proofs::{DOCKER_RUN, OTHERS, PROOFS, TARGETS};
use super::shell::{Line, commands};
use super::{Page, pages, read, root};
use crate::args::Cli;

const PROGRAM: &str = "psyche-solana-client";
/// Blocks in which nothing is run.
const NO_SHELL: [&str; 10] = ["dockerfile", "text", "toml", "json", "rust", "yaml", "ini", "env", "mermaid", "cpp"];
/// How commands begin that must not hide in a block of another language.
const STARTS: [&str; 6] = [PROGRAM, "make ", "docker ", "docker-compose ", "sudo ", "cargo "];

/// The place of a complaint.
fn at(page: &Page, line: &str, problem: impl std::fmt::Display) -> String {
    format!("{}: {line}\n    {problem}", page.path)
}

/// Every line of every shell block, with its page.
fn lines(pages: &[Page]) -> Vec<(&Page, String, Line)> {
    let mut found = Vec::new();
    for page in pages {
        for block in page.blocks().iter().filter(|block| matches!(block.language.as_str(), "sh" | "bash" | "")) {
            let shell =
                !block.language.is_empty() || block.lines.iter().any(|line| STARTS.iter().any(|start| line.starts_with(start)));
            for text in block.lines.iter().filter(|_| shell) {
                found.extend(commands(text).into_iter().map(|line| (page, text.clone(), line)));
            }
        }
    }
    assert!(found.len() > 80, "{}", found.len());
    found
}

/// `text` with a value in the place of what a reader fills in, such as `<RUN_ID>`.
fn filled(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        let Some((name, behind)) = after.split_once('>') else { break };
        out += before;
        out += match name {
            "RPC" => "http://127.0.0.1:8899",
            "RUN_ID" => "my-run",
            "PATH" | "DATA_DIR" | "FILE" | "JSON_PRIVATE_KEY_PATH" => "some/path",
            // An address of Solana.
            _ => "So11111111111111111111111111111111111111112",
        };
        rest = behind;
    }
    out + rest
}

/// What the program's own parser says of the words behind its name.
fn parses(words: &[String]) -> Result<clap::ArgMatches, clap::Error> {
    let words = words.iter().map(|word| filled(word)).filter(|word| word != "…");
    Cli::command().try_get_matches_from(std::iter::once(PROGRAM.to_owned()).chain(words))
}

/// The subcommand, `wallet new` for an inner one, and the options of a command line that parses.
fn anatomy(words: &[String], matches: &clap::ArgMatches) -> (String, BTreeSet<String>) {
    let (name, inner) = matches.subcommand().unwrap_or(("train", matches));
    let name = inner.subcommand_name().map_or_else(|| name.to_owned(), |deeper| format!("{name} {deeper}"));
    let flag = |word: &&String| word.starts_with("--");
    let flags = words.iter().filter(flag).map(|word| word.split('=').next().unwrap_or_default().to_owned());
    (name, flags.collect())
}

/// Variables that something of ours reads.
fn known_variables() -> BTreeSet<String> {
    let of_nodes = VARIABLES.iter().flat_map(|variable| variable.name.split(", ")).map(str::to_owned);
    let of_options = crate::usage::variables();
    of_nodes.chain(of_options).collect()
}

/// The variable by which an option of a subcommand can be given as well.
fn variable_of(command: &str, flag: &str) -> Option<String> {
    let program = Cli::command();
    let of = command.split(' ').try_fold(&program, |program, name| program.find_subcommand(name))?;
    let mut args = of.get_arguments().chain(program.get_arguments());
    let arg = args.find(|arg| arg.get_long().is_some_and(|long| flag == format!("--{long}")))?;
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

#[test]
fn every_command_line_of_the_guides_is_understood_by_the_program() {
    let pages = pages();
    let mut wrong = Vec::new();
    let (mut parsed, known) = (0, known_variables());
    for (page, text, line) in lines(&pages) {
        for (name, _) in &line.variables {
            // What make and scripts read stands with them.
            let elsewhere = line.words.first().is_some_and(|word| matches!(word.as_str(), "docker-compose" | "make"));
            if !known.contains(name) && !elsewhere {
                wrong.push(at(page, &text, format_args!("nothing reads the variable {name}")));
            }
        }
        // The program itself, or as a container's command.
        let own = line.words.iter().position(|word| word == PROGRAM || word.starts_with("psyche-client:"));
        let Some(own) = own else { continue };
        let words = &line.words[own + 1..];
        // The image's own command, or another program of the image.
        let other = line.words[..own].iter().any(|word| word == "--entrypoint");
        if line.words[own] != PROGRAM && (words.is_empty() || other) {
            continue;
        }
        match parses(words) {
            Ok(_) => parsed += 1,
            Err(error) if matches!(error.kind(), ErrorKind::DisplayVersion | ErrorKind::DisplayHelp) => parsed += 1,
            Err(error) => wrong.push(at(page, &text, error)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(parsed > 60, "{parsed}");
}

#[test]
fn every_command_in_the_text_has_the_options_that_it_is_said_to_have() {
    let program = Cli::command();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for page in pages() {
        for span in page.spans() {
            let Some(Line { words, .. }) = commands(&span).into_iter().next() else { continue };
            let words = if words.first().is_some_and(|word| word == PROGRAM) { &words[1..] } else { &words[..] };
            let Some(first) = words.first() else { continue };
            let Some(command) = program.find_subcommand(first) else { continue };
            let inner = words.get(1).and_then(|word| command.find_subcommand(word));
            let command = inner.unwrap_or(command);
            for flag in words.iter().filter_map(|word| word.strip_prefix("--")) {
                let flag = flag.split('=').next().unwrap_or_default();
                let args = command.get_arguments().chain(program.get_arguments());
                let names = |arg: &clap::Arg| {
                    arg.get_long() == Some(flag) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&flag))
                };
                compared += 1;
                if !args.into_iter().any(names) {
                    wrong.push(at(&page, &span, format_args!("{} has no --{flag}", command.get_name())));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 15, "{compared}");
}

/// The part of a test's file that counts: everything, since helpers are part of what runs; the test must be there.
fn proof_text((path, test): (&str, &str)) -> String {
    let text = read(path);
    assert!(test.is_empty() || text.contains(&format!("fn {test}(")), "{path} has no test {test}");
    text + &read("cli/tests/support/mod.rs")
}

#[test]
fn every_command_of_the_guides_is_run_by_a_test() {
    let pages = pages();
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, _, line) in lines(&pages) {
        if line.words.first().is_some_and(|word| word == PROGRAM)
            && let Ok(matches) = parses(&line.words[1..])
        {
            let (name, flags) = anatomy(&line.words[1..], &matches);
            shown.entry(name).or_default().extend(flags);
        }
    }
    let mut wrong = Vec::new();
    for (command, flags) in &shown {
        let Some(proof) = PROOFS.iter().find(|proof| proof.command == command) else {
            wrong.push(format!("no test is named that runs {command}"));
            continue;
        };
        let texts: Vec<String> = proof.run_by.iter().copied().map(proof_text).collect();
        let has = |needle: &str| texts.iter().any(|text| text.contains(needle));
        // "train" may also be what happens without a subcommand.
        if !has(command) && !has(&command.replace(' ', "\", \"")) {
            wrong.push(format!("{command} is not in {:?}", proof.run_by));
        }
        for flag in flags {
            let variable = variable_of(command, flag);
            let used =
                has(flag) || variable.as_ref().is_some_and(|name| has(&format!("{name}=")) || has(&format!("\"{name}\"")));
            let by_chain = flag == "--rpc" || flag == "--run-id";
            if !used && !by_chain && !proof.except.iter().any(|(other, _)| other == flag) {
                wrong.push(format!("{command} {flag} is in no test of {:?}", proof.run_by));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for proof in PROOFS {
        assert!(shown.contains_key(proof.command), "no guide shows {}", proof.command);
    }
}

/// What is wrong with a call of make.
fn make_problem(words: &[String], makefile: &str) -> Option<String> {
    let targets = words[1..].iter().filter(|word| !word.contains('=') && !word.starts_with('-'));
    for variable in words[1..].iter().filter_map(|word| word.split_once('=')).map(|(name, _)| name) {
        if !makefile.contains(variable)
            && !read("scripts/test.sh").contains(variable)
            && !read("fuzz/README.md").contains(variable)
        {
            return Some(format!("nothing reads {variable}"));
        }
    }
    for target in targets {
        if !makefile.lines().any(|line| line.starts_with(&format!("{target}:"))) {
            return Some(format!("make has no target {target}"));
        }
        if !TARGETS.iter().any(|(known, _)| known == target) {
            return Some(format!("nobody says what runs make {target}"));
        }
    }
    None
}

/// docker/test.sh with its parts.
fn container_tests() -> String {
    let parts = std::fs::read_dir(root().join("docker/test")).unwrap().map(|entry| entry.unwrap().path());
    let mut parts: Vec<_> = parts.filter(|path| path.is_file()).collect();
    parts.sort();
    parts.iter().fold(read("docker/test.sh"), |text, part| text + &std::fs::read_to_string(part).unwrap())
}

/// What is wrong with a call of docker or docker-compose.
fn docker_problem(words: &[String], tested: &str, services: &str) -> Option<String> {
    let composes = words[0] == "docker-compose" || words.get(1).is_some_and(|word| word == "compose");
    if composes {
        let inner = words.iter().skip(1).filter(|word| !word.starts_with('-') && *word != "compose" && !word.ends_with(".yml"));
        let inner: Vec<_> = inner.collect();
        let known = |word: &&&String| {
            tested.contains(&format!("compose {word}"))
                || services.contains(&format!("  {word}:"))
                || services.contains(&format!("[{word}]"))
                || ["kill", "start"].contains(&word.as_str())
        };
        return inner
            .iter()
            .find(|word| !known(word))
            .map(|word| format!("neither docker/test.sh nor the compose file knows {word}"));
    }
    if words.get(1).is_some_and(|word| word != "run") {
        let command = &words[1];
        return (!tested.contains(&format!("docker {command}")) && command != "exec" && command != "logs")
            .then(|| format!("docker/test.sh does not use docker {command}"));
    }
    let flags =
        words.iter().skip(2).take_while(|word| !word.starts_with("psyche-client:")).filter(|word| word.starts_with('-'));
    let unknown = flags.filter(|flag| !tested.contains(flag.as_str()) && !DOCKER_RUN.iter().any(|(known, _)| known == flag));
    unknown.map(|flag| format!("docker/test.sh does not use {flag}, and no reason is given")).next()
}

#[test]
fn every_other_command_is_one_that_is_run_elsewhere_or_for_a_reason_is_not() {
    let (makefile, tested, services) = (read("Makefile"), container_tests(), read("docker-compose.yml"));
    let pages = pages();
    let mut wrong = Vec::new();
    for (page, text, line) in lines(&pages) {
        let Some(first) = line.words.first().filter(|word| *word != PROGRAM) else { continue };
        let problem = match first.as_str() {
            "make" => make_problem(&line.words, &makefile),
            "docker" | "docker-compose" => docker_problem(&line.words, &tested, &services),
            _ => {
                let call = line.words.join(" ");
                let known = OTHERS.iter().any(|(start, _)| call.starts_with(start));
                (!known).then(|| "nobody says what runs this, or why nothing does".to_owned())
            }
        };
        wrong.extend(problem.map(|problem| at(page, &text, problem)));
    }
    for (target, _) in TARGETS.iter().filter(|(target, _)| !target.is_empty()) {
        assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "make has no target {target}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_of_variables_in_the_guides_is_one_that_a_node_takes() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("id.json");
    psyche_chain::Wallet::new().save(&key).unwrap();
    let known = known_variables();
    let mut seen = 0;
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.language == "env") {
            let text: String = block.lines.iter().map(|line| filled(line) + "\n").collect();
            let mut variables = Vec::new();
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{}: {line}", page.path));
                assert!(known.contains(name), "{}: nothing reads {name}", page.path);
                variables.push((name.to_owned(), value.to_owned()));
            }
            // A key that is there; a run may be chosen by the node.
            variables.push(("WALLET_PRIVATE_KEY_PATH".to_owned(), key.display().to_string()));
            if !variables.iter().any(|(name, _)| name == "RUN_ID") {
                variables.push(("RUN_ID".to_owned(), "run".to_owned()));
            }
            let read = NodeConfig::from_variables(variables);
            assert!(read.is_ok(), "{}: {}", page.path, read.unwrap_err());
            seen += 1;
        }
    }
    assert!(seen >= 2, "{seen}");
}

#[test]
fn no_command_hides_in_a_block_of_another_language() {
    let mut wrong = Vec::new();
    for page in pages() {
        for block in page.blocks() {
            let language = block.language.split(',').next().unwrap_or_default();
            if matches!(language, "sh" | "bash" | "") {
                continue;
            }
            if !NO_SHELL.contains(&language) {
                wrong.push(at(&page, language, "is a language that nobody knows here"));
            }
            let starts = |line: &&String| STARTS.iter().any(|start| line.starts_with(start));
            wrong.extend(block.lines.iter().filter(starts).map(|line| at(&page, line, "is a command in a block of no shell")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

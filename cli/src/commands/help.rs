//! `print-all-help`: docs/CLI.md, from what the parser knows.

use std::fmt::Write as _;

use anyhow::Result;
use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command, CommandFactory as _};

use crate::args::{CHAIN, Cli, WALLET};
use crate::exit::CODES;
use crate::output;

/// Options that many commands share, by their heading, and what stands over them.
const SHARED: [(&str, &str); 2] =
    [(CHAIN, "Chain options: of every command that asks a chain"), (WALLET, "Wallet options: of every command that signs")];

/// What the page begins with.
const INTRODUCTION: &str = "\
# Commands

<!-- Written by `make docs` from the program itself; a test compares. -->

Every option is a variable too, in the environment or in the file given with `--env-file`: the environment wins over the file, \
and an option wins over both. Blanks and quotes around a variable's value do not matter, and an empty one counts as unset. The \
wallet's private key is never an option: it is read from a file that only its owner may read, or from the variable \
`RAW_WALLET_PRIVATE_KEY`, as a JSON array or base58.

Results go to stdout, everything else to stderr. Amounts of the reward token are either in *tokens*, as wallets show them, or in \
*points*, which are the token's base units: with 6 decimals, 1 token is 1,000,000 points.
";

pub(crate) fn run() -> Result<()> {
    output::text(&markdown())?;
    Ok(())
}

/// The page.
pub(crate) fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    let mut program = Cli::command();
    program.build();
    page.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for code in CODES {
        let _infallible = writeln!(page, "| {} | {} |", code.number, code.meaning);
    }
    page.push_str("\n## Options of every command\n\n");
    options(&mut page, program.get_arguments().filter(|arg| arg.is_global_set()));
    for (heading, about) in SHARED {
        let _infallible = write!(page, "\n## {about}\n\n");
        let sample = program.find_subcommand("create-run");
        options(
            &mut page,
            sample.iter().flat_map(|command| command.get_arguments()).filter(|arg| arg.get_help_heading() == Some(heading)),
        );
    }
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        section(&mut page, &program, command, "");
    }
    page
}

fn section(page: &mut String, program: &Command, command: &Command, above: &str) {
    let name = format!("{above}{}", command.get_name());
    let inner: Vec<_> = command.get_subcommands().filter(|inner| inner.get_name() != "help").collect();
    if name == "help" {
        return;
    }
    let _infallible = write!(page, "\n## {name}\n\n{}\n", sentence(command.get_about()));
    if inner.is_empty() {
        let global = |arg: &&Arg| program.get_arguments().any(|other| other.is_global_set() && other.get_id() == arg.get_id());
        let shared = |arg: &&Arg| SHARED.iter().any(|(heading, _)| arg.get_help_heading() == Some(heading));
        let (shared, own): (Vec<_>, Vec<_>) =
            command.get_arguments().filter(|arg| !global(arg) && !arg.is_hide_set()).partition(shared);
        if own.iter().any(|arg| !is_help(arg)) {
            page.push('\n');
            options(page, own.into_iter());
        }
        let named = |heading: &str| shared.iter().any(|arg| arg.get_help_heading() == Some(heading));
        let takes: Vec<_> = SHARED.iter().map(|(heading, _)| *heading).filter(|heading| named(heading)).collect();
        if !takes.is_empty() {
            let _infallible = write!(page, "\nAnd the options under {}.\n", takes.join(" and "));
        }
    }
    if let Some(text) = command.get_after_help() {
        after(page, &plain(text));
    }
    for command in inner {
        section(page, program, command, &format!("{name} "));
    }
}

/// The text behind a command's options: its examples become a block of code; variables are the operator's guide's matter.
fn after(page: &mut String, text: &str) {
    if text.starts_with("Variables:") {
        page.push_str("\nEvery other setting is a variable: see [OPERATORS.md](OPERATORS.md).\n");
        return;
    }
    let (before, block) = match text.split_once("Example:\n") {
        Some((before, block)) => (before.trim(), Some(block)),
        None => (text.trim(), None),
    };
    if !before.is_empty() {
        let _infallible = write!(page, "\n{before}\n");
    }
    if let Some(block) = block {
        page.push_str("\n```sh\n");
        for line in block.lines() {
            let _infallible = writeln!(page, "{}", line.strip_prefix("  ").unwrap_or(line));
        }
        page.push_str("```\n");
    }
}

fn options<'a>(page: &mut String, args: impl Iterator<Item = &'a Arg>) {
    page.push_str("| option | variable | meaning |\n|---|---|---|\n");
    for arg in args.filter(|arg| !is_help(arg)) {
        let _infallible = writeln!(page, "| {} | {} | {} |", spelling(arg), variable(arg), meaning(arg));
    }
}

fn is_help(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

fn spelling(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let value = match arg.get_action() {
        ArgAction::SetTrue => String::new(),
        _ => arg.get_value_names().and_then(|names| names.first()).map(|name| format!(" {name}")).unwrap_or_default(),
    };
    let long = arg.get_long().unwrap_or_default();
    let aliases = arg.get_visible_aliases().unwrap_or_default();
    let aliases: String = aliases.iter().map(|alias| format!(", `--{alias}`")).collect();
    format!("{short}`--{long}{value}`{aliases}")
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default()
}

fn meaning(arg: &Arg) -> String {
    let mut text = sentence(arg.get_help());
    let values: Vec<_> = match arg.get_action() {
        ArgAction::SetTrue => Vec::new(),
        _ => arg.get_possible_values().into_iter().filter(|value| !value.is_hide_set()).collect(),
    };
    if !values.is_empty() {
        let names: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        let _infallible = write!(text, " One of {}.", names.join(", "));
    }
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !default.is_empty() && !matches!(arg.get_action(), ArgAction::SetTrue) {
        let _infallible = write!(text, " Default: `{}`.", default.join(" "));
    } else if arg.is_required_set() {
        text.push_str(" Required.");
    }
    text.replace('|', "\\|")
}

fn sentence(text: Option<&StyledStr>) -> String {
    let text = text.map(plain).unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.ends_with('.') || text.is_empty() { text } else { format!("{text}.") }
}

fn plain(text: &StyledStr) -> String {
    text.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "localnet")]
    #[test]
    fn the_commands_page_is_what_the_program_says() {
        let page = include_str!("../../../docs/CLI.md");
        assert!(page == markdown(), "docs/CLI.md is stale: `make docs` writes it anew");
    }

    #[test]
    fn examples_become_blocks_of_code() {
        let mut page = String::new();
        after(&mut page, "First.\n\nExample:\n  a b\n  c");
        assert_eq!(page, "\nFirst.\n\n```sh\na b\nc\n```\n");
    }
}

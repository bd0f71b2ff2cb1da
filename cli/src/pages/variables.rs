//! The reference of variables is what the types say.

use clap::CommandFactory as _;
use psyche_actors::config::{Unset, VARIABLES};

use super::read;
use crate::args::Cli;

/// The table in docs/OPERATORS.md.
fn reference() -> String {
    let mut table = String::from("| variable | meaning | default |\n|---|---|---|\n");
    for variable in VARIABLES {
        let default = match variable.unset {
            Unset::Is(value) => format!("`{value}`"),
            Unset::Means(words) => words.to_owned(),
            Unset::Nothing => String::new(),
        };
        let quoted = |name: &str| if name == "…" { name.to_owned() } else { format!("`{name}`") };
        let names: Vec<_> = variable.name.split(", ").map(quoted).collect();
        let more = if variable.more.is_empty() { String::new() } else { format!(". {}", variable.more) };
        table.push_str(&format!("| {} | {}{more} | {default} |\n", names.join(", "), variable.meaning));
    }
    // Those of the program itself, as it knows them.
    let program = Cli::command();
    let own = program.get_arguments().filter(|arg| arg.is_global_set());
    own.fold(table, |table, arg| {
        let name = arg.get_env().unwrap().to_string_lossy().into_owned();
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let about = about.trim_end_matches('.');
        let values: Vec<_> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        let values = if values.is_empty() { String::new() } else { format!(": {}", values.join(", ")) };
        let default: Vec<_> = arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        table + &format!("| `{name}` | {about}{values} | {} |\n", default.join(" "))
    })
}

#[test]
fn the_reference_of_variables_is_what_the_types_say() {
    let guide = read("docs/OPERATORS.md");
    let (_, rest) = guide.split_once("<!-- variables: begin -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- variables: end -->").unwrap();
    let reference = reference();
    assert!(table == reference, "docs/OPERATORS.md is stale; between its marks belongs:\n{reference}");
}

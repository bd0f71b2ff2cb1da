//! The reference of variables is what the types say.

use clap::CommandFactory as _;
use psyche_actors::config::{Unset, VARIABLES};

use super::{read, root};
use crate::args::Cli;

const BEGIN: &str = "<!-- variables: begin -->\n";
const END: &str = "<!-- variables: end -->";

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
    let (before, rest) = guide.split_once(BEGIN).unwrap();
    let (table, behind) = rest.split_once(END).unwrap();
    let reference = reference();
    if std::env::var_os("PSYCHE_WRITE_VARIABLES").is_some() {
        std::fs::write(root().join("docs/OPERATORS.md"), format!("{before}{BEGIN}{reference}{END}{behind}")).unwrap();
        return;
    }
    assert!(table == reference, "the table in docs/OPERATORS.md is stale: PSYCHE_WRITE_VARIABLES=1 writes it anew");
}

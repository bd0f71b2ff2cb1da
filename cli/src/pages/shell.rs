//! As much of a shell's grammar as documentation uses.

/// A command with its words; `variables` stand before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) variables: Vec<(String, String)>,
    pub(super) words: Vec<String>,
}

/// The commands of a line: none for a comment. Pipes and `&&` separate commands.
pub(super) fn commands(line: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for word in split(line).into_iter().chain([String::from("|")]) {
        if matches!(word.as_str(), "|" | "&&" | ";") {
            let is_assignment = |word: &&String| {
                word.split_once('=').is_some_and(|(name, _)| {
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
                })
            };
            let ahead = words.iter().take_while(is_assignment).count();
            let command = words.split_off(ahead);
            let pair = |word: String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            let variables: Vec<_> = words.drain(..).filter_map(pair).collect();
            if !variables.is_empty() || !command.is_empty() {
                lines.push(Line { variables, words: command });
            }
        } else {
            words.push(word);
        }
    }
    lines
}

/// The words of a line, without quotes; what stands in `$(…)` stays one word, and a comment ends the line.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut depth) = (Vec::new(), String::new(), None, 0_u32);
    let mut started = false;
    for c in line.chars() {
        match c {
            '(' if word.ends_with('$') || depth > 0 => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ => {}
        }
        match (quote, c) {
            (Some(open), _) if c == open && depth == 0 => quote = None,
            (None, '"' | '\'') if depth == 0 => (quote, started) = (Some(c), true),
            (None, '#') if word.is_empty() && !started => break,
            (None, c) if c.is_whitespace() && depth == 0 => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            _ => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

#[test]
fn lines_are_read_as_a_shell_would() {
    let words = |line: &str| commands(line).into_iter().map(|line| line.words).collect::<Vec<_>>();
    assert_eq!(words("a --b 'c d' # e"), [["a", "--b", "c d"]]);
    assert_eq!(words("a | b && c"), [["a"], ["b"], ["c"]]);
    assert!(words("# nothing").is_empty());
    let [line] = &commands("KEY=\"$(cat id.json)\" X= run --y=\"z\"")[..] else { panic!("one command") };
    assert_eq!(line.variables, [("KEY".to_owned(), "$(cat id.json)".to_owned()), ("X".to_owned(), String::new())]);
    assert_eq!(line.words, ["run", "--y=z"]);
}

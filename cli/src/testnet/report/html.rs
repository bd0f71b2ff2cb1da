//! Pieces of a page that is well-formed XML and HTML at once. Every text goes through [`escaped`].

use std::fmt::Write as _;

/// Bytes from which on a cell is broken into lines.
const LONG: usize = 36;

/// `text` as it may stand in elements and in quoted attributes.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(character),
            // XML has no way to write these.
            _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            _ => safe.push(character),
        }
    }
    safe
}

/// A paragraph.
pub(crate) fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escaped(text))
}

/// A section with its heading; `body` is markup.
pub(crate) fn section(id: &str, title: &str, body: &str) -> String {
    format!("<section id=\"{id}\" aria-labelledby=\"{id}-h\">\n<h2 id=\"{id}-h\">{}</h2>\n{body}</section>\n", escaped(title))
}

/// A table whose first column names its rows.
pub(crate) fn table(caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("<div class=\"scroll\"><table>\n<caption>{}</caption>\n<thead><tr>", escaped(caption));
    for (column, title) in head.iter().enumerate() {
        // A column is as its first number is.
        let number = rows.iter().filter_map(|row| row.get(column)).any(|cell| is_number(cell));
        let _written = write!(text, "<th scope=\"col\"{}>{}</th>", class(number && column > 0), escaped(title));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _written = if column == 0 {
                write!(text, "<th scope=\"row\">{}</th>", escaped(cell))
            } else {
                let class = if cell.len() > LONG { " class=\"long\"" } else { class(is_number(cell)) };
                write!(text, "<td{class}>{}</td>", escaped(cell))
            };
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table></div>\n");
    text
}

const fn class(number: bool) -> &'static str {
    if number { " class=\"n\"" } else { "" }
}

fn is_number(cell: &str) -> bool {
    let mut characters = cell.chars();
    let first = characters.next();
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | ' '));
    first.is_some_and(|c| c.is_ascii_digit()) && digits(cell.trim_end_matches([' ', '%', 's', '×']))
}

/// A figure: an image for those who see it, its words for everybody. `svg` is the inside of the image.
pub(crate) fn figure(id: &str, (title, description): (&str, &str), (width, height): (f64, f64), svg: &str) -> String {
    let (title, description) = (escaped(title), escaped(description));
    format!(
        "<figure><div class=\"scroll\"><svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\">\n<title id=\"{id}-t\">{title}</title>\n<desc id=\"{id}-d\">{description}</desc>\n\
         {svg}</svg></div></figure>\n"
    )
}

/// A whole number with spaces between its thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

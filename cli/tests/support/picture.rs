//! What is on a terminal, as a picture for the guides: docs/pictures/tui.svg is made by
//! `TUI_PICTURE=$PWD/docs/pictures/tui.svg cargo test -p psyche-solana-client --test terminal a_person_sees`.

use std::fmt::Write as _;

/// Size of a cell.
const WIDTH: u16 = 8;
const HEIGHT: u16 = 17;
/// Room around all of them.
const MARGIN: u16 = 12;
const GROUND: &str = "#16181d";
const INK: &str = "#d5d9e0";

/// A picture of the screen, cell by cell.
pub(crate) fn svg(screen: &vt100::Screen) -> String {
    let (rows, columns) = screen.size();
    let (width, height) = (columns * WIDTH + 2 * MARGIN, rows * HEIGHT + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13\">\n\
         <title>The live view of a node</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"{GROUND}\"/>\n"
    );
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            column += piece(&mut svg, screen, row, column);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Draws a cell, and those after it that are text of its kind; how many.
fn piece(svg: &mut String, screen: &vt100::Screen, row: u16, column: u16) -> u16 {
    let Some(cell) = screen.cell(row, column) else { return 1 };
    let (x, y) = (MARGIN + column * WIDTH, MARGIN + row * HEIGHT);
    let fill = colour(cell.fgcolor(), INK);
    let opacity = if cell.dim() { " opacity=\"0.6\"" } else { "" };
    if let Some(shape) = shape(cell.contents(), x, y) {
        writeln!(svg, "<path d=\"{shape}\" fill=\"{fill}\"{opacity}/>").unwrap();
        return 1;
    }
    let style = |cell: &vt100::Cell| (cell.fgcolor(), cell.bgcolor(), cell.bold(), cell.dim());
    let alike = (column..screen.size().1).map_while(|column| {
        let next = screen.cell(row, column)?;
        let is_text = shape(next.contents(), 0, 0).is_none();
        (is_text && style(next) == style(cell)).then(|| if next.has_contents() { next.contents() } else { " " })
    });
    let text: Vec<&str> = alike.collect();
    let count = u16::try_from(text.len()).unwrap();
    if cell.bgcolor() != vt100::Color::Default {
        let (width, ground) = (count * WIDTH, colour(cell.bgcolor(), GROUND));
        writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" fill=\"{ground}\"/>").unwrap();
    }
    let text = text.concat();
    let (shown, blanks) = (text.trim(), text.len() - text.trim_start().len());
    if !shown.is_empty() {
        let (x, y) = (x + u16::try_from(blanks).unwrap() * WIDTH, y + 13);
        let length = u16::try_from(shown.chars().count()).unwrap() * WIDTH;
        let weight = if cell.bold() { " font-weight=\"bold\"" } else { "" };
        let shown = shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" textLength=\"{length}\" xml:space=\"preserve\" fill=\"{fill}\"{weight}{opacity}>{shown}</text>"
        )
        .unwrap();
    }
    count
}

fn colour(colour: vt100::Color, otherwise: &str) -> String {
    const NAMED: [&str; 8] = ["#16181d", "#e06c75", "#8cc570", "#e0b95f", "#61afef", "#c98be0", "#56b6c2", "#ffffff"];
    match colour {
        vt100::Color::Default => otherwise.to_owned(),
        vt100::Color::Idx(index) => NAMED[usize::from(index % 8)].to_owned(),
        vt100::Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
    }
}

/// Bars and lines, which fonts do not join.
fn shape(text: &str, x: u16, y: u16) -> Option<String> {
    let one = text.chars().next()?;
    if let eighths @ 1..=8 = u32::from(one).wrapping_sub(0x2580) {
        let high = f32::from(HEIGHT) * eighths as f32 / 8.0;
        return Some(format!("M{x} {}h{WIDTH}v{high}h-{WIDTH}z", f32::from(y + HEIGHT) - high));
    }
    // Half lines from the middle: left, right, up, down.
    let ways = match one {
        '─' | '━' => [true, true, false, false],
        '│' => [false, false, true, true],
        '┌' => [false, true, false, true],
        '┐' => [true, false, false, true],
        '└' => [false, true, true, false],
        '┘' => [true, false, true, false],
        _ => return None,
    };
    let thick: u16 = if one == '━' { 3 } else { 1 };
    let (middle, half) = ((x + WIDTH / 2, y + HEIGHT / 2), thick / 2);
    let (left, top) = (middle.0 - half, middle.1 - half);
    let lines = [
        format!("M{x} {top}h{}v{thick}h-{}z", WIDTH / 2 + 1, WIDTH / 2 + 1),
        format!("M{} {top}h{}v{thick}h-{}z", middle.0, WIDTH / 2, WIDTH / 2),
        format!("M{left} {y}h{thick}v{}h-{thick}z", HEIGHT / 2 + 1),
        format!("M{left} {}h{thick}v{}h-{thick}z", middle.1, HEIGHT - HEIGHT / 2),
    ];
    Some(lines.into_iter().zip(ways).filter_map(|(line, way)| way.then_some(line)).collect())
}

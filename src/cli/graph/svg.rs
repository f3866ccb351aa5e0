//! A picture without any tool: nodes in columns by the length of the longest way to them.

use std::fmt::Write;

use super::Drawing;

const WIDTH: usize = 210;
const HEIGHT: usize = 42;
const GAP_X: usize = 70;
const GAP_Y: usize = 16;
const MARGIN: usize = 20;
/// Characters of a name that fit into a box.
const FIT: usize = 30;

pub(super) fn draw(drawing: &Drawing) -> String {
    let layers = drawing.boxes.iter().map(|node| node.layer + 1).max().unwrap_or(0);
    let mut rows = vec![0; layers];
    let places: Vec<(usize, usize)> = drawing
        .boxes
        .iter()
        .map(|node| {
            let row = rows[node.layer];
            rows[node.layer] += 1;
            (MARGIN + node.layer * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
        })
        .collect();
    let width = 2 * MARGIN + layers * (WIDTH + GAP_X) - GAP_X.min(layers * GAP_X);
    let height = 2 * MARGIN + rows.iter().max().copied().unwrap_or(0) * (HEIGHT + GAP_Y);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    for &(from, to) in &drawing.arrows {
        let (x1, y1) = (places[from].0 + WIDTH, places[from].1 + HEIGHT / 2);
        let (x2, y2) = (places[to].0, places[to].1 + HEIGHT / 2);
        let bend = (x1 + x2) / 2;
        let _ = writeln!(
            text,
            "  <path d=\"M{x1} {y1} C{bend} {y1} {bend} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#8a8f98\"/>"
        );
    }
    for (node, (x, y)) in drawing.boxes.iter().zip(&places) {
        let _ = writeln!(
            text,
            "  <rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"#f4f6fa\" stroke=\"#4a5568\"/>"
        );
        let (tx, first, second) = (x + WIDTH / 2, y + 17, y + 33);
        let _ = writeln!(
            text,
            "  <text x=\"{tx}\" y=\"{first}\" text-anchor=\"middle\"><title>{}</title>{}</text>",
            escape(&node.id),
            escape(&fitted(&node.id))
        );
        let _ = writeln!(
            text,
            "  <text x=\"{tx}\" y=\"{second}\" text-anchor=\"middle\" fill=\"#6b7280\" font-style=\"italic\">{}</text>",
            node.kind
        );
    }
    text.push_str("</svg>");
    text
}

fn fitted(name: &str) -> String {
    if name.chars().count() <= FIT {
        return name.to_owned();
    }
    let head: String = name.chars().take(FIT - 1).collect();
    format!("{head}…")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

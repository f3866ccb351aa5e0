//! Graphviz.

use std::fmt::Write;

use super::Drawing;

pub(super) fn draw(drawing: &Drawing) -> String {
    let mut text =
        String::from("digraph pipeline {\n    rankdir=LR;\n    node [shape=box, fontname=\"sans-serif\"];\n");
    for (index, node) in drawing.boxes.iter().enumerate() {
        let id = node.id.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(text, "    n{index} [label=\"{id}\\n{}\"];", node.kind);
    }
    for (from, to) in &drawing.arrows {
        let _ = writeln!(text, "    n{from} -> n{to};");
    }
    text.push('}');
    text
}

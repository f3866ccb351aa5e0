//! Mermaid: what Markdown viewers draw.

use std::fmt::Write;

use super::Drawing;

pub(super) fn draw(drawing: &Drawing) -> String {
    let mut text = String::from("flowchart LR\n");
    for (index, node) in drawing.boxes.iter().enumerate() {
        // Brackets in names would end the label; their entities do not.
        let id = node.id.replace('[', "#91;").replace(']', "#93;").replace('"', "#quot;");
        let _ = writeln!(text, "    n{index}[\"{id}<br/><i>{}</i>\"]", node.kind);
    }
    for (from, to) in &drawing.arrows {
        let _ = writeln!(text, "    n{from} --> n{to}");
    }
    text.trim_end().to_owned()
}

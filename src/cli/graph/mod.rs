//! `qpipe graph`.

mod dot;
mod mermaid;
mod svg;

use clap::{Args, ValueEnum};

use super::exit::Exit;
use super::failure::Failure;
use super::open::FileArgs;
use super::printer;
use crate::pipeline::Pipeline;
use crate::plan::inputs_of;

/// Draws the pipeline.
#[derive(Debug, Args)]
pub(super) struct GraphArgs {
    #[command(flatten)]
    file: FileArgs,
    /// The language of the drawing.
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
    /// A picture.
    Svg,
}

pub(super) fn exec(args: &GraphArgs) -> Result<Exit, Failure> {
    let pipeline = args.file.load()?;
    let drawing = Drawing::of(&pipeline);
    printer::out(match args.format {
        Format::Mermaid => mermaid::draw(&drawing),
        Format::Dot => dot::draw(&drawing),
        Format::Svg => svg::draw(&drawing),
    });
    Ok(Exit::Done)
}

/// What is drawn, in whichever language: boxes and arrows.
struct Drawing {
    boxes: Vec<Node>,
    /// From a box to one that reads it.
    arrows: Vec<(usize, usize)>,
}

struct Node {
    id: String,
    kind: &'static str,
    /// Length of the longest way here.
    layer: usize,
}

impl Drawing {
    fn of(pipeline: &Pipeline) -> Self {
        let mut layers = vec![0; pipeline.instances.len()];
        let mut arrows = Vec::new();
        for &index in &pipeline.order {
            for input in inputs_of(&pipeline.instances[index]) {
                layers[index] = layers[index].max(layers[input] + 1);
                arrows.push((input, index));
            }
        }
        arrows.sort_unstable();
        arrows.dedup();
        let boxes = pipeline
            .instances
            .iter()
            .zip(layers)
            .map(|(instance, layer)| Node { id: instance.id.clone(), kind: instance.kind.name, layer })
            .collect();
        Self { boxes, arrows }
    }
}

//! Mistakes in a pipeline file: collected, then shown all at once, each at its line.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, SourceCode};
use thiserror::Error;

use super::source::{Position, Source, Sources, Span};

/// Lines this far apart are shown in one excerpt.
const NEAR: usize = 2;

/// What kind of mistake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A file cannot be read.
    Unreadable,
    /// The text is not YAML.
    Syntax,
    /// A key stands twice in one mapping.
    DuplicateKey,
    /// A key that means nothing there.
    UnknownKey,
    /// A key that had to be there.
    MissingKey,
    /// A value that does not fit its key.
    InvalidValue,
    /// A name with characters that names cannot have.
    InvalidName,
    /// `kind:` names none.
    UnknownKind,
    /// `${…}` names nothing.
    UnknownVariable,
    /// `--set` names no parameter.
    UnknownParam,
    /// A reference names no node.
    UnknownNode,
    /// A reference to a node of the wrong type.
    WrongArtifact,
    /// One node is due, and the reference names several.
    Ambiguous,
    /// The same node or parameter is declared in two files.
    Conflict,
    /// Two instances have the same name.
    DuplicateInstance,
    /// Files include each other in a circle.
    IncludeCycle,
    /// Nodes need each other in a circle.
    Cycle,
    /// Found after reading, when a node was looked at more closely.
    Node,
}

impl Code {
    /// As it is shown: `pipeline::unknown-key`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "pipeline::unreadable",
            Self::Syntax => "pipeline::syntax",
            Self::DuplicateKey => "pipeline::duplicate-key",
            Self::UnknownKey => "pipeline::unknown-key",
            Self::MissingKey => "pipeline::missing-key",
            Self::InvalidValue => "pipeline::invalid-value",
            Self::InvalidName => "pipeline::invalid-name",
            Self::UnknownKind => "pipeline::unknown-kind",
            Self::UnknownVariable => "pipeline::unknown-variable",
            Self::UnknownParam => "pipeline::unknown-param",
            Self::UnknownNode => "pipeline::unknown-node",
            Self::WrongArtifact => "pipeline::wrong-artifact",
            Self::Ambiguous => "pipeline::ambiguous",
            Self::Conflict => "pipeline::conflict",
            Self::DuplicateInstance => "pipeline::duplicate-instance",
            Self::IncludeCycle => "pipeline::include-cycle",
            Self::Cycle => "pipeline::cycle",
            Self::Node => "pipeline::node",
        }
    }

    /// Whether two such mistakes at one place are one: the instances of a group share their lines.
    fn once_a_place(self) -> bool {
        matches!(
            self,
            Self::UnknownNode | Self::WrongArtifact | Self::Ambiguous | Self::Cycle | Self::UnknownVariable
        )
    }
}

/// A mistake while the sources are still at hand.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    code: Code,
    message: String,
    at: Option<Span>,
    label: Option<String>,
    help: Option<String>,
    also: Vec<(Span, String)>,
}

impl Mistake {
    /// A mistake at `at`; `message` is a lower-case fragment without a period.
    pub(super) fn new(code: Code, at: Span, message: impl Into<String>) -> Self {
        Self { at: Some(at), ..Self::nowhere(code, message) }
    }

    /// A mistake that is in no text: the file is not there.
    pub(super) fn nowhere(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), at: None, label: None, help: None, also: Vec::new() }
    }

    /// What is written beside the carets.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// What to do, as a sentence.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A second place that has to do with it.
    pub(super) fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also.push((span, label.into()));
        self
    }

    /// With the place's file, line, column and text; places in other files become words.
    pub(super) fn finish(self, sources: &Sources) -> PipelineError {
        let Self { code, message, at, label, mut help, also } = self;
        let Some(at) = at else {
            return PipelineError { code, message, help, labels: Vec::new(), text: None, position: None };
        };
        let source = Arc::clone(sources.get(at.source));
        let labeled = |span: Span, text: Option<String>, primary: bool| {
            let span = source.first_line(span);
            let range = (span.start as usize, (span.end - span.start) as usize);
            match primary {
                true => LabeledSpan::new_primary_with_span(text, range),
                false => LabeledSpan::new_with_span(text, range),
            }
        };
        let mut labels = vec![labeled(at, label, true)];
        let position = source.position(at.start);
        for (span, text) in also {
            if span == at {
                continue;
            }
            // What is shown first is the place of the mistake: earlier lines only if they are close.
            let is_near = || source.position(span.start).line + NEAR >= position.line;
            if span.source == at.source && is_near() {
                labels.push(labeled(span, Some(text), false));
            } else {
                let line = format!("See {}: {text}.", sources.place(span));
                help = Some(help.map_or(line.clone(), |help| format!("{help}\n{line}")));
            }
        }
        let position = Some(position);
        PipelineError { code, message, help, labels, text: Some(source), position }
    }
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    list: Vec<Mistake>,
    seen: HashSet<(Code, Option<Span>, String)>,
}

impl Mistakes {
    /// Adds a mistake, unless it is known: the instances of a group repeat each other's.
    pub(super) fn push(&mut self, mistake: Mistake) {
        let words = if mistake.code.once_a_place() { String::new() } else { mistake.message.clone() };
        if self.seen.insert((mistake.code, mistake.at, words)) {
            self.list.push(mistake);
        }
    }

    /// Adds what was found elsewhere.
    pub(super) fn append(&mut self, other: Self) {
        other.list.into_iter().for_each(|mistake| self.push(mistake));
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them in the order of the text, the file first, then what it includes.
    pub(super) fn finish(mut self, sources: &Sources) -> PipelineErrors {
        self.list.sort_by_key(|mistake| mistake.at);
        PipelineErrors { list: self.list.into_iter().map(|mistake| mistake.finish(sources)).collect() }
    }
}

/// One mistake with its place and its text.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct PipelineError {
    code: Code,
    message: String,
    help: Option<String>,
    labels: Vec<LabeledSpan>,
    text: Option<Arc<Source>>,
    position: Option<Position>,
}

impl PipelineError {
    /// What kind of mistake it is.
    pub fn code(&self) -> Code {
        self.code
    }

    /// `file:line:column`, unless the file could not be read.
    pub fn place(&self) -> Option<String> {
        let (source, position) = (self.text.as_ref()?, self.position?);
        Some(format!("{}:{}:{}", source.name(), position.line, position.column))
    }
}

impl Diagnostic for PipelineError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code.as_str()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.text.as_deref().map(|text| text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// All mistakes of a pipeline; at least one.
#[derive(Clone, Debug, Error)]
pub struct PipelineErrors {
    list: Vec<PipelineError>,
}

impl PipelineErrors {
    /// Each mistake, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &PipelineError> {
        self.list.iter()
    }

    /// Each mistake as a diagnostic to be rendered.
    pub fn diagnostics(&self) -> impl Iterator<Item = &dyn Diagnostic> {
        self.list.iter().map(|error| error as &dyn Diagnostic)
    }
}

impl fmt::Display for PipelineErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match error.place() {
                Some(place) => write!(f, "{place}: {error}")?,
                None => write!(f, "{error}")?,
            }
        }
        Ok(())
    }
}

//! Where errors become words: what, where, what to do, and the exit code.

use miette::{GraphicalReportHandler, GraphicalTheme};
use qpipe_cache::StoreError;
use qpipe_nodes::kinds::Download;

use super::exit::Exit;
use super::{colour, printer};
use crate::fetch::FetchError;
use crate::pipeline::{Pipeline, PipelineErrors};
use crate::plan::PlanError;
use crate::run::RunError;

/// An error on its way to the terminal.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// The command line asks for something that cannot be.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::plain(Exit::Usage, &message.into(), None)
    }

    /// The environment is not as it should be.
    pub(super) fn environment(message: impl Into<String>, help: Option<&str>) -> Self {
        Self::plain(Exit::Environment, &message.into(), help)
    }

    /// The store cannot be used.
    pub(super) fn store(error: &StoreError) -> Self {
        Self::plain(Exit::Environment, &error.to_string(), error.help())
    }

    /// The lock file cannot be used.
    pub(super) fn lock(error: &FetchError) -> Self {
        Self::plain(Exit::Environment, &error.to_string(), error.help().as_deref())
    }

    /// All mistakes of a pipeline file.
    #[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
    pub(super) fn pipeline(errors: PipelineErrors) -> Self {
        let mut text = String::new();
        for diagnostic in errors.diagnostics() {
            // Writing to a string cannot fail.
            let _ = handler().render_report(&mut text, diagnostic);
        }
        text.push_str(&counted(errors.diagnostics().count()));
        Self { exit: Exit::Invalid, text }
    }

    /// A node that cannot be planned, shown at its line.
    pub(super) fn plan(pipeline: &Pipeline, errors: &[(usize, PlanError)]) -> Self {
        let mut exit = Exit::Invalid;
        let mut text = String::new();
        for (index, error) in errors {
            if matches!(error, PlanError::Store(error) if !error.is_of_input()) {
                exit = Exit::Environment;
            }
            let diagnostic = match source_key(pipeline, *index, error) {
                Some(key) => pipeline.diagnose_key(*index, key, error.to_string(), error.help()),
                None => pipeline.diagnose(*index, error.to_string(), error.help()),
            };
            let _ = handler().render_report(&mut text, &diagnostic);
        }
        text.push_str(&counted(errors.len()));
        Self { exit, text }
    }

    /// `--only` or `--force` or a command's node names nothing.
    pub(super) fn selection(error: &PlanError) -> Self {
        Self::plain(Exit::Usage, &error.to_string(), error.help().as_deref())
    }

    /// A run that did not begin.
    pub(super) fn run(pipeline: &Pipeline, error: &RunError) -> Self {
        match error {
            RunError::Plan(errors) => Self::plan(pipeline, errors),
            RunError::Selection(error) => Self::selection(error),
            RunError::Lock(error) => Self::lock(error),
        }
    }

    /// Its words.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Prints it and gives the exit code.
    pub(super) fn print(&self) -> Exit {
        printer::err(&self.text);
        self.exit
    }

    fn plain(exit: Exit, message: &str, help: Option<&str>) -> Self {
        let mut text = format!("error: {message}");
        if let Some(help) = help {
            text.push_str("\n  help: ");
            text.push_str(help);
        }
        Self { exit, text }
    }
}

fn counted(mistakes: usize) -> String {
    match mistakes {
        1 => "1 mistake in the pipeline".to_owned(),
        mistakes => format!("{mistakes} mistakes in the pipeline"),
    }
}

/// The key of a download whose path is what is wrong.
fn source_key(pipeline: &Pipeline, index: usize, error: &PlanError) -> Option<&'static str> {
    let path = match error {
        PlanError::Missing { path } | PlanError::Unsuitable { path, .. } | PlanError::Empty { path, .. } => {
            path
        }
        _ => return None,
    };
    let params = &pipeline.instances[index].parsed.params;
    Download::TARGETS.into_iter().chain(["tokenizer"]).find(|key| {
        let text = params[*key].as_str().unwrap_or_default();
        !text.is_empty() && path.ends_with(text.strip_prefix("random:").unwrap_or(text))
    })
}

fn handler() -> GraphicalReportHandler {
    let theme = if colour::wanted() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    GraphicalReportHandler::new_themed(theme).with_width(110).without_cause_chain()
}

//! Local sources that are not there, told together with a file's other mistakes: with none, planning tells.

use super::assemble::Assembled;
use super::directory::Draft;
use super::document::Declaration;
use super::error::{Code, Mistake, Mistakes};
use super::source::Sources;
use super::value::find;

use qpipe_nodes::Kind;
use qpipe_nodes::kinds::{Download, Source};

/// Adds a mistake for each download whose local file or folder does not exist.
pub(super) fn check(
    declarations: &[Declaration],
    drafts: &[(usize, &Draft)],
    assembled: &[Assembled],
    sources: &Sources,
    mistakes: &mut Mistakes,
) {
    for ((node, _), assembled) in drafts.iter().zip(assembled) {
        let declaration = &declarations[*node];
        let Some(parsed) = assembled.parsed.as_ref().filter(|_| declaration.kind.name == Download::NAME)
        else {
            continue;
        };
        let Ok(download) = serde_json::from_value::<Download>(parsed.params.clone()) else { continue };
        let (Some((key, _)), Some(Source::Local(path) | Source::Random(path))) =
            (download.target(), download.source())
        else {
            continue;
        };
        let span = find(&declaration.entries, key).map_or(declaration.name.span, |entry| entry.value.span);
        if !sources.get(declaration.name.span.source).folder().join(&path).exists() {
            mistakes.push(
                Mistake::new(Code::Node, span, format!("`{path}` does not exist"))
                    .help("Paths are relative to the file that names them."),
            );
        }
    }
}

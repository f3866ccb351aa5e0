//! Where the rules of task files stand: what a worker names when a template does not work. It is in no key, as the place of
//! a file is in none.

use std::collections::BTreeMap;

use qpipe_nodes::task_file::TaskFile;
use qpipe_nodes::task_origin::{Origin, Origins};
use serde_json::Value as Json;

use super::source::Sources;
use super::value::{Data, Entry};

/// By task.
pub type TaskOrigins = BTreeMap<String, Origins>;

/// Where the texts among `entries` stand.
pub(super) fn origins(entries: &[Entry], sources: &Sources) -> Origins {
    let texts = entries.iter().filter(|entry| matches!(entry.value.data, Data::Text(_)));
    let origin = |entry: &Entry| {
        let (key, value) = (entry.key.span, entry.value.span);
        let source = sources.get(value.source);
        let behind = source.text().get(key.end as usize..).unwrap_or_default();
        let is_block = behind.trim_start_matches([':', ' ']).starts_with('|');
        let line = match is_block {
            true => source.position(key.start).line + 1,
            false => source.position(value.start).line,
        };
        (entry.key.text.clone(), Origin { file: source.name().to_owned(), line, is_block })
    };
    texts.map(origin).collect()
}

/// Takes them out of tasks, by name.
pub(super) fn taken<'a>(tasks: impl Iterator<Item = &'a mut TaskFile>) -> TaskOrigins {
    tasks.map(|task| (task.task.clone(), std::mem::take(&mut task.origins))).collect()
}

/// Puts `origins` into the task files of an evaluation's parameters.
pub fn put_back(params: &mut Json, origins: &TaskOrigins) {
    for (task, origins) in origins {
        if let Some(Json::Object(file)) = params.get_mut("task_files").and_then(|files| files.get_mut(task)) {
            file.insert("@origins".to_owned(), serde_json::to_value(origins).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Mistakes;
    use super::super::source::Source;
    use super::super::yaml;
    use super::*;

    #[test]
    fn a_line_of_a_block_is_a_line_of_the_file() {
        let text = "task: t\ndoc_to_text: |\n  one\n  two {{ x | y }}\ndoc_to_target: \"{{ z }}\"\n";
        let mut sources = Sources::default();
        let source = Source::new("t.yaml".to_owned(), "".into(), text.to_owned());
        let (index, source) = sources.add(source);
        let root = yaml::parse(source.text(), index, 0, &mut Mistakes::default()).expect("a mapping");
        let found = origins(root.entries(), &sources);
        assert_eq!(found["doc_to_text"].place(Some(2)), "t.yaml:4");
        assert_eq!(found["doc_to_text"].place(None), "t.yaml:3");
        assert_eq!(found["doc_to_target"].place(Some(1)), "t.yaml:5");
    }
}

//! Which files of a repository or a folder an artifact consists of. Everything else (a README, weights in other
//! formats) is neither downloaded nor part of a key.

use qpipe_nodes::{Artifact, data_files};

/// Files of a checkpoint besides its weights, at the top of the folder.
const MODEL_FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "quantize_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// Files of an adapter besides those whose name begins with `adapter_`.
const ADAPTER_FILES: &[&str] = &["adapter_config.json", "adapter_model.safetensors"];

/// Descriptions that the `datasets` library leaves beside data.
const DATA_DESCRIPTIONS: &[&str] =
    &["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];

/// Whether `path` (relative, with `/`) belongs to a model: `model*.safetensors` and its index, config, tokenizer and chat template
/// at the top of the folder. Consolidated copies (`consolidated.safetensors`, `original/`) hold the same
/// weights again and do not.
pub fn wanted_model_file(path: &str) -> bool {
    let weights = path.starts_with("model")
        && (path.ends_with(".safetensors") || path.ends_with(".safetensors.index.json"))
        && !path.contains('/');
    let chat_templates = path.starts_with("additional_chat_templates/") && path.ends_with(".jinja");
    weights || chat_templates || MODEL_FILES.contains(&path)
}

/// Whether `path` is data: a table or rows of JSON, in no hidden folder.
pub fn wanted_data_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_hidden = path.split('/').any(|part| part.starts_with('.'));
    data_files::extension(name).is_some() && !is_hidden && !DATA_DESCRIPTIONS.contains(&name)
}

/// Whether `path` belongs to an `artifact` of a kind that can be downloaded.
pub fn wanted_file(artifact: Artifact, path: &str) -> bool {
    match artifact {
        Artifact::Model => wanted_model_file(path),
        Artifact::Adapter => ADAPTER_FILES.contains(&path),
        Artifact::Data => wanted_data_file(path),
        Artifact::Statistics | Artifact::Evaluation | Artifact::Benchmark | Artifact::Report => false,
    }
}

/// What [`wanted_file`] looks for, for messages.
pub(super) fn description(artifact: Artifact) -> &'static str {
    match artifact {
        Artifact::Model => "model*.safetensors with a config.json",
        Artifact::Adapter => "adapter_config.json with an adapter_model.safetensors",
        Artifact::Data => ".jsonl, .json, .csv, .tsv or .parquet files",
        Artifact::Statistics | Artifact::Evaluation | Artifact::Benchmark | Artifact::Report => {
            "artifact that can be downloaded"
        }
    }
}

/// Whether `paths` (all wanted) are enough for an `artifact`.
pub(super) fn suffices<'a>(artifact: Artifact, mut paths: impl Iterator<Item = &'a str> + Clone) -> bool {
    let weights = |path: &str| path.ends_with(".safetensors");
    match artifact {
        Artifact::Model => paths.clone().any(weights) && paths.any(|path| path == "config.json"),
        Artifact::Adapter => paths.clone().any(weights) && paths.any(|path| path == "adapter_config.json"),
        _ => paths.next().is_some(),
    }
}

/// Whether `paths` are the files of an `artifact` and not those of another kind.
pub fn holds<'a>(artifact: Artifact, mut paths: impl Iterator<Item = &'a str> + Clone) -> bool {
    suffices(artifact, paths.clone()) && (artifact != Artifact::Data || paths.all(wanted_data_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_its_safetensors_config_and_tokenizer() {
        for path in [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "model-00001-of-00004.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "chat_template.jinja",
            "additional_chat_templates/tool_use.jinja",
        ] {
            assert!(wanted_model_file(path), "{path}");
        }
        for path in [
            "README.md",
            ".gitattributes",
            "pytorch_model.bin",
            "consolidated.safetensors",
            "original/consolidated.00.pth",
            "original/model.safetensors",
            "onnx/config.json",
            "model.gguf",
        ] {
            assert!(!wanted_model_file(path), "{path}");
        }
    }

    #[test]
    fn data_are_json_lines_in_any_folder() {
        for path in ["train.jsonl", "data/test.jsonl", "train.json", "X.JSONL"] {
            assert!(wanted_file(Artifact::Data, path), "{path}");
        }
        for path in ["README.md", ".cache/x.jsonl", "dataset_infos.json", "data/train.arrow"] {
            assert!(!wanted_file(Artifact::Data, path), "{path}");
        }
    }

    #[test]
    fn weights_without_config_are_no_model() {
        assert!(!suffices(Artifact::Model, ["model.safetensors"].into_iter()));
        assert!(!suffices(Artifact::Model, ["config.json"].into_iter()));
        assert!(suffices(Artifact::Model, ["config.json", "model.safetensors"].into_iter()));
    }
}

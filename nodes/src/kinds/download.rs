//! `download`: gets a model, an adapter or data; its key is the content.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Artifact, Host, Kind, ParamError, Port, Sensitivity, data_files};

/// The floating-point type of a checkpoint's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE 754 single precision.
    #[serde(alias = "f32")]
    Float32,
    /// The upper half of a float32: 8 exponent bits, 7 fraction bits.
    #[serde(alias = "bf16")]
    Bfloat16,
    /// IEEE 754 half precision.
    #[serde(alias = "f16")]
    Float16,
}

/// Where the bytes come from, taken apart from the text in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or a folder; relative to the pipeline file.
    Local(String),
    /// `hf://org/name@revision`, optionally `hf://datasets/org/name@revision`; the revision defaults to `main`.
    Hub {
        /// `models` or `datasets`.
        repo_type: &'static str,
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// `http://…` or `https://…`: one file, with a digest.
    Http(String),
    /// `random:PATH/config.json`: fresh weights.
    Random(String),
}

impl Source {
    /// Takes `text` apart. The error says which form is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty source".to_owned());
        }
        if let Some(rest) = text.strip_prefix("hf://") {
            let (rest, revision) = rest.split_once('@').unwrap_or((rest, "main"));
            let (repo_type, repo) = match rest.strip_prefix("datasets/") {
                Some(repo) => ("datasets", repo),
                None => ("models", rest),
            };
            let parts: Vec<&str> = repo.split('/').collect();
            if parts.is_empty()
                || parts.len() > 2
                || parts.iter().any(|p| p.is_empty())
                || revision.is_empty()
            {
                return Err(format!("`{text}` is not of the form hf://org/name or hf://org/name@revision"));
            }
            return Ok(Self::Hub { repo_type, repo: repo.to_owned(), revision: revision.to_owned() });
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Http(text.to_owned()));
        }
        if let Some(path) = text.strip_prefix("random:") {
            if path.is_empty() {
                return Err("`random:` needs the path of a config.json".to_owned());
            }
            return Ok(Self::Random(path.to_owned()));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!(
                "`{scheme}://` is not a source that this version reads (hf, http, https, random, or a path)"
            ));
        }
        Ok(Self::Local(text.to_owned()))
    }
}

/// Gets a model, an adapter or data from a folder, a file, the Hugging Face Hub or a web server, or makes a
/// model with fresh random weights.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// A checkpoint folder: a path, `hf://org/name@revision`, or `random:PATH/config.json`.
    #[serde(default)]
    pub model: Option<String>,
    /// A data file or a folder of them: a path, `hf://datasets/org/name@revision`, or `https://…` with a digest.
    #[serde(default)]
    pub data: Option<String>,
    /// A LoRA adapter folder in peft's format.
    #[serde(default)]
    pub adapter: Option<String>,
    /// Branch, tag or commit on the Hub; the same as `@revision` in the source.
    #[serde(default)]
    pub revision: Option<String>,
    /// The expected digest of the file, `blake3:HEX` or `sha256:HEX`. Needed for `http(s)://`.
    #[serde(default)]
    pub digest: Option<String>,
    /// Of `random:`: the seed of the weights. Default 0.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Of `random:`: the type of the weights. Default: config.json's.
    #[serde(default)]
    pub dtype: Option<Dtype>,
    /// Of `random:`: a tokenizer.json, or a folder with one, that becomes the model's. Default: config.json's folder, if a
    /// tokenizer.json lies there.
    #[serde(default)]
    pub tokenizer: Option<String>,
}

impl Download {
    /// The keys of which one names the source.
    pub const TARGETS: [&str; 3] = ["model", "data", "adapter"];

    /// The one of [`Self::TARGETS`] that is given, and its text.
    pub fn target(&self) -> Option<(&'static str, &str)> {
        Self::TARGETS
            .into_iter()
            .zip([&self.model, &self.data, &self.adapter])
            .find_map(|(key, value)| value.as_deref().map(|text| (key, text)))
    }

    /// The source, with `revision` taken into account.
    pub fn source(&self) -> Option<Source> {
        let (_, text) = self.target()?;
        let mut source = Source::parse(text).ok()?;
        if let (Source::Hub { revision, .. }, Some(given)) = (&mut source, &self.revision) {
            revision.clone_from(given);
        }
        Some(source)
    }
}

impl Kind for Download {
    const NAME: &'static str = "download";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Gets a model, an adapter or data; its key is the content.";
    const PORTS: &'static [Port] = &[];

    fn check(&self) -> Vec<ParamError> {
        let given = [&self.model, &self.data, &self.adapter].into_iter().filter(|v| v.is_some()).count();
        if given != 1 {
            return vec![ParamError::missing("give exactly one of `model`, `data` and `adapter`")];
        }
        let Some((key, text)) = self.target() else { return Vec::new() };
        let source = match Source::parse(text) {
            Ok(source) => source,
            Err(message) => return vec![ParamError::value(key, message)],
        };
        let mut errors = Vec::new();
        let is_random = matches!(source, Source::Random(_));
        if is_random && key != "model" {
            errors.push(ParamError::value(key, "`random:` makes models only"));
        }
        for (name, present) in [
            ("seed", self.seed.is_some()),
            ("dtype", self.dtype.is_some()),
            ("tokenizer", self.tokenizer.is_some()),
        ] {
            if present && !is_random {
                errors.push(ParamError::value(name, format!("`{name}` belongs to `random:` sources")));
            }
        }
        if self.revision.is_some() {
            match source {
                Source::Hub { .. } if text.contains('@') => {
                    errors
                        .push(ParamError::value("revision", "the source already names a revision after `@`"));
                }
                Source::Hub { .. } => {}
                _ => errors.push(ParamError::value("revision", "`revision` belongs to `hf://` sources")),
            }
        }
        match (&source, &self.digest) {
            (Source::Http(_), None) => errors.push(
                ParamError::value(key, "a web address needs a `digest`")
                    .help("Add `digest: sha256:HEX` or `digest: blake3:HEX` of the file."),
            ),
            (Source::Http(_), Some(digest)) => {
                let hex = digest.strip_prefix("blake3:").or_else(|| digest.strip_prefix("sha256:"));
                if !hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())) {
                    errors.push(ParamError::value(
                        "digest",
                        "a digest is `sha256:` or `blake3:` and 64 hexadecimal digits",
                    ));
                }
                if key == "data" && data_files::extension_of_address(text).is_none() {
                    errors.push(
                        ParamError::value(key, "the address does not say what kind of file it gives").help(format!(
                            "Its path has to end in one of {}. Else download the file, and name its path here.",
                            data_files::in_words()
                        )),
                    );
                }
                if key != "data" {
                    errors.push(ParamError::value(
                        key,
                        "a web address gives one file; models and adapters are folders",
                    ));
                }
            }
            (_, Some(_)) => {
                errors.push(ParamError::value("digest", "`digest` belongs to `http(s)://` sources"))
            }
            (_, None) => {}
        }
        errors
    }

    fn output(&self) -> Artifact {
        match self.target() {
            Some(("model", _)) => Artifact::Model,
            Some(("adapter", _)) => Artifact::Adapter,
            _ => Artifact::Data,
        }
    }

    fn host(&self) -> Host {
        match self.source() {
            Some(Source::Random(_)) => Host::Worker,
            _ => Host::Qpipe,
        }
    }

    fn sensitivity(&self) -> Sensitivity {
        Sensitivity::Portable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(data: &str) -> Vec<ParamError> {
        let digest = format!("sha256:{}", "0".repeat(64));
        let download: Download =
            serde_json::from_value(serde_json::json!({"data": data, "digest": digest})).expect("parameters");
        download.check()
    }

    #[test]
    fn an_address_says_what_kind_of_file_it_gives() {
        assert_eq!(problems("https://example.org/x.jsonl?download=true"), []);
        let [problem] = &problems("https://example.org/files/17")[..] else { unreachable!("one problem") };
        assert!(problem.message.contains("what kind of file"), "{problem:?}");
        assert!(problem.help.as_ref().is_some_and(|help| help.contains(".parquet")), "{problem:?}");
    }
}

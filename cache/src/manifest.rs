//! What an action is: the manifest whose digest is its key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, canonical};

/// Everything that decides an action's output, and nothing else. Kept beside the record, so that what is
/// in the key can always be shown and compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the manifest's own layout; raised when the meaning of a field changes.
    pub schema: u32,
    /// The node kind.
    pub kind: String,
    /// The kind's own version, bumped by hand when its output bytes change.
    pub version: u32,
    /// Parameters with defaults filled in.
    pub params: Value,
    /// Content digests by port: a hexadecimal string, a list of them, or a map of them.
    pub inputs: BTreeMap<String, Value>,
    /// Device class, library versions, thread count: only for kinds whose output depends on them.
    pub runtime: BTreeMap<String, Value>,
}

impl Manifest {
    /// The action's key: the digest of the manifest's canonical text (see [`canonical`]).
    pub fn key(&self) -> Digest {
        Digest::of(self.canonical_text().as_bytes())
    }

    /// The digests of all inputs.
    pub fn input_digests(&self) -> Vec<Digest> {
        fn gather(value: &Value, digests: &mut Vec<Digest>) {
            match value {
                Value::String(text) => digests.extend(text.parse::<Digest>()),
                Value::Array(values) => values.iter().for_each(|value| gather(value, digests)),
                Value::Object(values) => values.values().for_each(|value| gather(value, digests)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut digests = Vec::new();
        self.inputs.values().for_each(|value| gather(value, &mut digests));
        digests
    }

    /// The members in the order of their names, written without building a `Value` of the whole.
    fn canonical_text(&self) -> String {
        let mut text = String::with_capacity(512);
        self.write(&mut text).expect("numbers parsed or made by serde_json are finite");
        text
    }

    fn write(&self, text: &mut String) -> Result<(), canonical::CanonicalError> {
        text.push_str("{\"inputs\":");
        canonical::write_object(text, self.inputs.iter().map(|(name, value)| (name.as_str(), value)))?;
        text.push_str(",\"kind\":");
        canonical::write_string(text, &self.kind);
        text.push_str(",\"params\":");
        canonical::write_value(text, &self.params)?;
        text.push_str(",\"runtime\":");
        canonical::write_object(text, self.runtime.iter().map(|(name, value)| (name.as_str(), value)))?;
        text.push_str(",\"schema\":");
        canonical::write_u32(text, self.schema);
        text.push_str(",\"version\":");
        canonical::write_u32(text, self.version);
        text.push('}');
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn quantize() -> Manifest {
        Manifest {
            schema: 1,
            kind: "quantize".to_owned(),
            version: 3,
            params: json!({"method": "rtn", "scheme": "W4A16", "group_size": 128, "damping": 0.01}),
            inputs: BTreeMap::from([("model".to_owned(), json!(Digest::of(b"model")))]),
            runtime: BTreeMap::from([
                ("device".to_owned(), json!("cpu-avx512")),
                ("threads".to_owned(), json!(2)),
            ]),
        }
    }

    #[test]
    fn the_key_is_pinned() {
        assert_eq!(
            quantize().key().to_string(),
            "2fa433f75fbc3f5e7ae2d5fedee32a80a9903d48d08e39836c934dfc7ad405d8"
        );
    }

    #[test]
    fn the_text_is_the_canonical_text_of_the_whole() {
        let manifest = quantize();
        let whole = serde_json::to_value(&manifest).unwrap();
        assert_eq!(manifest.canonical_text(), canonical::to_string(&whole).unwrap());
    }

    #[test]
    fn each_field_is_in_the_key() {
        let original = quantize();
        let mut changed = vec![original.clone(); 9];
        changed[1].schema += 1;
        changed[2].kind.push('x');
        changed[3].version += 1;
        changed[4].params["group_size"] = json!(64);
        changed[5].params["symmetric"] = json!(true);
        changed[6].inputs.insert("model".to_owned(), json!(Digest::of(b"another")));
        changed[7].inputs.insert("calibration".to_owned(), json!(Digest::of(b"model")));
        changed[8].runtime.insert("threads".to_owned(), json!(4));
        let keys: std::collections::BTreeSet<Digest> = changed.iter().map(Manifest::key).collect();
        assert_eq!(keys.len(), changed.len(), "each change gives another key");
    }

    proptest! {
        #[test]
        fn the_key_survives_the_record(
            numbers in prop::collection::btree_map("[a-z]{1,8}", any::<f64>().prop_filter("finite", |x| x.is_finite()), 0..6),
            texts in prop::collection::btree_map("[A-Z]{1,8}", ".*", 0..6),
        ) {
            let mut manifest = quantize();
            let object = manifest.params.as_object_mut().unwrap();
            object.extend(texts.into_iter().rev().map(|(name, text)| (name, json!(text))));
            object.extend(numbers.into_iter().map(|(name, number)| (name, json!(number))));
            let text = serde_json::to_string(&manifest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap().key(), manifest.key());
        }

        #[test]
        fn a_changed_parameter_changes_the_key(name in "[a-z]{1,8}", old in any::<i64>(), new in any::<i64>()) {
            let mut manifest = quantize();
            manifest.params[name.as_str()] = json!(old);
            let before = manifest.key();
            manifest.params[name.as_str()] = json!(new);
            prop_assert_eq!(before == manifest.key(), old == new);
        }
    }
}

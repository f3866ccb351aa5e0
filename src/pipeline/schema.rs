//! The JSON Schema of pipeline files, made from the table of kinds. Editors read it: `qpipe schema` prints
//! it, and the shipped pipelines name the committed copy in their first line.

use std::collections::BTreeMap;

use qpipe_nodes::{Arity, KINDS, KindSpec, Port, Resources};
use serde_json::{Map, Value, json};

/// The schema as pretty-printed JSON with a final line break.
pub fn text() -> String {
    // `{:#}` of a JSON value is its pretty-printed form.
    format!("{:#}\n", sorted(schema()))
}

fn schema() -> Value {
    let mut definitions = Map::new();
    for kind in KINDS {
        let (node, types) = node(kind);
        definitions.extend(types);
        definitions.insert(kind.name.to_owned(), node);
    }
    let mut types = Map::new();
    definitions.insert(
        "resources".to_owned(),
        with_variables(schemars::schema_for!(Resources).to_value(), &mut types),
    );
    definitions.extend(types);
    definitions.insert("variable".to_owned(), variable());
    definitions.insert("node".to_owned(), any_node());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "qpipe pipeline",
        "description": "A quantization study: nodes that get, train, quantize, evaluate and compare models.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "version": { "const": 1, "description": "The version of the file format." },
            "name": {
                "type": "string",
                "pattern": "^[A-Za-z0-9._-]+$",
                "description": "Names the folder of the results, and the runs. Default: the name of the file.",
            },
            "include": {
                "description": "Other pipeline files whose params and nodes belong to this one; paths relative to this file.",
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
            },
            "params": {
                "description": "Values that nodes refer to as ${params.NAME}, and that --set NAME=VALUE replaces.",
                "type": ["object", "null"],
                "propertyNames": identifier(),
            },
            "nodes": {
                "description": "What is computed, by name.",
                "type": "object",
                "propertyNames": identifier(),
                "additionalProperties": { "$ref": "#/$defs/node" },
            },
        },
        "$defs": definitions,
    })
}

fn identifier() -> Value {
    json!({ "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$" })
}

fn variable() -> Value {
    json!({
        "type": "string",
        "pattern": "\\$\\{[^}]+\\}",
        "description": "${params.NAME}, ${matrix.NAME} or ${item}.",
    })
}

/// A node of any kind: `kind` decides which keys it has.
fn any_node() -> Value {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let summaries: Vec<String> =
        KINDS.iter().map(|kind| format!("{}: {}", kind.name, kind.summary)).collect();
    let kinds: Vec<Value> = KINDS
        .iter()
        .map(|kind| {
            json!({
                "if": { "properties": { "kind": { "const": kind.name } }, "required": ["kind"] },
                "then": { "$ref": format!("#/$defs/{}", kind.name) },
            })
        })
        .collect();
    json!({
        "type": "object",
        "required": ["kind"],
        "properties": { "kind": { "enum": names, "description": summaries.join("\n") } },
        "allOf": kinds,
    })
}

/// A node of one kind, and the types that its parameters use. Where one key decides which others there may be
/// (`method` of quantize), each of its values has a schema of its own.
fn node(kind: &KindSpec) -> (Value, Map<String, Value>) {
    let mut types = Map::new();
    let schema = (kind.schema)().to_value();
    let Some(variants) = schema.get("oneOf").and_then(Value::as_array) else {
        let params = with_variables(schema, &mut types);
        return (with_ports(kind, kind.summary, &params), types);
    };
    let variants: Vec<Value> = variants.iter().map(|one| with_variables(one.clone(), &mut types)).collect();
    if let Some(Value::Object(definitions)) = schema.get("$defs") {
        let definitions = definitions.iter();
        types.extend(definitions.map(|(name, one)| (name.clone(), one.clone())).collect::<Map<_, _>>());
    }
    let tag =
        variants.first().and_then(|variant| constant(variant)).map_or("method", |(tag, _)| tag).to_owned();
    let names: Vec<&Value> = variants.iter().filter_map(|one| constant(one).map(|(_, name)| name)).collect();
    let cases: Vec<Value> = variants
        .iter()
        .filter_map(|variant| {
            let (tag, name) = constant(variant)?;
            let summary = variant.get("description").and_then(Value::as_str).unwrap_or(kind.summary);
            Some(json!({
                "if": { "properties": { tag: { "const": name } }, "required": [tag] },
                "then": with_ports(kind, summary, variant),
            }))
        })
        .collect();
    let node = json!({
        "type": "object",
        "description": kind.summary,
        "required": ["kind", &tag],
        "properties": { "kind": { "const": kind.name }, &tag: or_variable(json!({ "enum": names })) },
        "allOf": cases,
    });
    (node, types)
}

/// The key of a variant that tells it from the others, and its value.
fn constant(variant: &Value) -> Option<(&str, &Value)> {
    let properties = variant.get("properties")?.as_object()?;
    properties.iter().find_map(|(name, value)| Some((name.as_str(), value.get("const")?)))
}

/// The schema of a node with these parameters: ports and common keys added.
fn with_ports(kind: &KindSpec, summary: &str, params: &Value) -> Value {
    let mut properties = params.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut required = vec![json!("kind")];
    required.extend(params.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
    for port in kind.ports {
        properties.insert(port.name.to_owned(), references(port));
        if matches!(port.arity, Arity::One | Arity::Many | Arity::OneOrMap) {
            required.push(json!(port.name));
        }
    }
    properties.extend(common(kind));
    json!({
        "type": "object",
        "description": summary,
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

fn common(kind: &KindSpec) -> Map<String, Value> {
    let scalar = json!({ "type": ["string", "number", "boolean"] });
    let common = json!({
        "kind": { "const": kind.name, "description": kind.summary },
        "label": { "type": ["string", "number"], "description": "The name in reports." },
        "matrix": {
            "description": "Lists of values; one instance for each combination, its values being ${matrix.NAME}.",
            "type": "object",
            "minProperties": 1,
            "propertyNames": identifier(),
            "additionalProperties": {
                "anyOf": [{ "type": "array", "minItems": 1, "items": scalar }, { "$ref": "#/$defs/variable" }],
            },
        },
        "for_each": {
            "description": "Nodes; one instance for each, which is ${item}. A group stands for all its instances.",
            "anyOf": [{ "type": "string" }, { "type": "array", "minItems": 1, "items": { "type": "string" } }],
        },
        "resources": { "$ref": "#/$defs/resources" },
    });
    match common {
        Value::Object(common) => common,
        _ => Map::new(),
    }
}

fn references(port: &Port) -> Value {
    let description = format!("{} Takes {}.", port.summary, port.accepts.with_article());
    let one = json!({ "type": "string" });
    match port.arity {
        Arity::One | Arity::Optional => json!({ "type": "string", "description": description }),
        Arity::Many | Arity::OptionalMany => json!({
            "description": description,
            "anyOf": [one, { "type": "array", "minItems": 1, "items": one }],
        }),
        Arity::OneOrMap => json!({
            "description": description,
            "anyOf": [one, { "type": "object", "minProperties": 1, "additionalProperties": one }],
        }),
    }
}

/// The schema of a struct in which every value may also be a variable; its own definitions go into `types`.
fn with_variables(mut schema: Value, types: &mut Map<String, Value>) -> Value {
    let Some(object) = schema.as_object_mut() else { return schema };
    object.remove("$schema");
    object.remove("title");
    if let Some(Value::Object(definitions)) = object.remove("$defs") {
        for (name, definition) in definitions {
            let definition = with_variables(definition, types);
            types.insert(name, definition);
        }
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        // A constant tells variants apart and is no variable.
        for property in properties.values_mut().filter(|property| property.get("const").is_none()) {
            *property = or_variable(property.take());
        }
    }
    schema
}

fn or_variable(mut schema: Value) -> Value {
    if let Some(items) = schema.get_mut("items") {
        *items = or_variable(items.take());
    }
    let is_text = match schema.get("type") {
        Some(Value::String(name)) => name == "string",
        Some(Value::Array(names)) => names.iter().any(|name| name == "string"),
        _ => false,
    };
    if is_text && schema.get("enum").is_none() {
        return schema;
    }
    let mut outer = Map::new();
    if let Some(object) = schema.as_object_mut() {
        for key in ["description", "default"] {
            outer.extend(object.remove(key).map(|value| (key.to_owned(), value)));
        }
    }
    outer.insert("anyOf".to_owned(), json!([schema, { "$ref": "#/$defs/variable" }]));
    Value::Object(outer)
}

/// With the keys of every object in alphabetical order, whatever features serde_json was built with.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let object: BTreeMap<String, Value> =
                object.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(object.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_kind_lists_its_keys() {
        let schema = schema();
        let sft = &schema["$defs"]["sft"];
        assert_eq!(sft["required"], json!(["kind", "model", "data"]));
        for key in ["model", "data", "lora", "steps", "label", "matrix", "for_each", "resources"] {
            assert!(sft["properties"].get(key).is_some(), "{key}");
        }
        let kinds = schema["$defs"]["node"]["properties"]["kind"]["enum"].as_array().unwrap();
        assert_eq!(kinds.len(), KINDS.len());
    }

    #[test]
    fn all_references_lead_somewhere() {
        fn targets(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    object.values().for_each(|value| targets(value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| targets(value, found)),
                _ => {}
            }
        }
        let schema = schema();
        let mut found = Vec::new();
        targets(&schema, &mut found);
        for target in found {
            assert!(schema.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target}");
        }
    }
}

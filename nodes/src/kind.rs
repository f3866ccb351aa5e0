//! What a node kind is: typed parameters, input ports, a version.

use std::fmt;

use schemars::{JsonSchema, Schema};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Artifact;

/// How many artifacts a port takes, and how they are written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one reference.
    One,
    /// One reference, or the key is absent.
    Optional,
    /// A reference to a node or a group of instances, or a list of such; at least one.
    Many,
    /// Like [`Arity::Many`], or the key is absent.
    OptionalMany,
    /// One reference, or a map from names to references.
    OneOrMap,
}

/// An input of a node: the key in the file whose value refers to another node.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// The key in the file.
    pub name: &'static str,
    /// What may be connected.
    pub accepts: Artifact,
    /// How many.
    pub arity: Arity,
    /// One line for the JSON Schema and for editors.
    pub summary: &'static str,
}

/// Which program runs a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// `qpipe` itself: no tensors.
    Qpipe,
    /// `qpipe-worker`: links libtorch.
    Worker,
}

/// On what, besides its inputs and parameters, the bytes of a node's output depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensitivity {
    /// Nothing: the same bytes everywhere.
    Portable,
    /// The device class (instruction set, or compute capability), libtorch's version and the thread count.
    Device,
    /// The very hardware: measured times.
    Hardware,
}

/// Where in a parameter an error lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The key is wrong: it should not be there, or has another name.
    Key,
    /// The value is wrong.
    Value,
    /// Something is absent; the enclosing mapping is to be shown.
    Missing,
}

/// A mistake in a node's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamError {
    /// Where: mapping keys and list indices from the node's own mapping downward.
    pub path: Vec<String>,
    /// Which part of that place to show.
    pub target: Target,
    /// What is wrong: a lower-case fragment without a final period.
    pub message: String,
    /// What to do, as an imperative sentence.
    pub help: Option<String>,
}

impl ParamError {
    /// A mistake in the value of the top-level parameter `key`.
    pub fn value(key: &str, message: impl Into<String>) -> Self {
        Self { path: vec![key.to_owned()], target: Target::Value, message: message.into(), help: None }
    }

    /// A parameter that had to be there.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { path: Vec::new(), target: Target::Missing, message: message.into(), help: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path.join("."))?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ParamError {}

/// The typed parameters of one node kind. The struct is the node: what it says is what the file can say.
///
/// Implementors use `#[serde(deny_unknown_fields, default, ...)]`; every optional field has a serde
/// default, so that [`Parsed::params`] holds the defaults explicitly and they enter the key.
pub trait Kind: Serialize + DeserializeOwned + JsonSchema {
    /// The word after `kind:`.
    const NAME: &'static str;
    /// Bumped by hand whenever the same inputs and parameters give other output bytes.
    const VERSION: u32;
    /// One line for help, schema and documentation.
    const SUMMARY: &'static str;
    /// The keys that refer to other nodes.
    const PORTS: &'static [Port];

    /// What is wrong beyond types: ranges, contradictions. All mistakes, not the first.
    fn check(&self) -> Vec<ParamError>;

    /// What the node produces.
    fn output(&self) -> Artifact;

    /// Which program runs it.
    fn host(&self) -> Host {
        Host::Worker
    }

    /// What besides inputs and parameters decides its bytes.
    fn sensitivity(&self) -> Sensitivity {
        Sensitivity::Device
    }
}

/// Parameters that passed all checks.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The parameters with defaults filled in, as they enter the key and travel to the worker.
    pub params: Value,
    /// What the node produces.
    pub output: Artifact,
    /// Which program runs it.
    pub host: Host,
    /// What besides inputs and parameters decides its bytes.
    pub sensitivity: Sensitivity,
}

/// A [`Kind`] as a row of the table [`crate::KINDS`].
pub struct KindSpec {
    /// See [`Kind::NAME`].
    pub name: &'static str,
    /// See [`Kind::VERSION`].
    pub version: u32,
    /// See [`Kind::SUMMARY`].
    pub summary: &'static str,
    /// See [`Kind::PORTS`].
    pub ports: &'static [Port],
    /// Reads a JSON object of parameters (ports and common keys already taken out).
    pub parse: fn(Value) -> Result<Parsed, Vec<ParamError>>,
    /// The JSON Schema of the parameters.
    pub schema: fn() -> Schema,
}

impl KindSpec {
    /// The table row of `K`.
    pub const fn of<K: Kind>() -> Self {
        Self {
            name: K::NAME,
            version: K::VERSION,
            summary: K::SUMMARY,
            ports: K::PORTS,
            parse: parse::<K>,
            schema: schema::<K>,
        }
    }

    /// The port called `name`.
    pub fn port(&self, name: &str) -> Option<&'static Port> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// The names of the parameters, in the order of the struct.
    pub fn param_names(&self) -> Vec<String> {
        let schema = (self.schema)();
        match schema.get("properties") {
            Some(Value::Object(properties)) => properties.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }
}

fn schema<K: Kind>() -> Schema {
    schemars::schema_for!(K)
}

/// Types first, each mistake on its own: a top-level parameter that does not fit is noted and left out,
/// and the rest is read again, so that one pass over the file shows every mistake.
fn parse<K: Kind>(value: Value) -> Result<Parsed, Vec<ParamError>> {
    let Value::Object(mut object) = value else {
        return Err(vec![ParamError::missing("the node is not a mapping")]);
    };
    let mut errors: Vec<ParamError> = Vec::new();
    let kind = loop {
        match serde_path_to_error::deserialize::<_, K>(Value::Object(object.clone())) {
            Ok(kind) => break Some(kind),
            Err(error) => {
                let path = segments(error.path());
                let message = error.into_inner().to_string();
                let removable = path.first().filter(|key| object.contains_key(*key)).cloned();
                let already_known = removable.is_none()
                    && errors.iter().any(|e| message == format!("missing field `{}`", e.path.join(".")));
                if !already_known {
                    errors.push(classify(path, message));
                }
                match removable {
                    Some(key) => object.remove(&key),
                    None => break None,
                };
            }
        }
    };
    if let Some(kind) = &kind
        && errors.is_empty()
    {
        errors = kind.check();
    }
    match kind {
        Some(kind) if errors.is_empty() => Ok(Parsed {
            params: serde_json::to_value(&kind).map_err(|e| vec![ParamError::missing(e.to_string())])?,
            output: kind.output(),
            host: kind.host(),
            sensitivity: kind.sensitivity(),
        }),
        _ => Err(errors),
    }
}

fn segments(path: &serde_path_to_error::Path) -> Vec<String> {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect()
}

fn classify(mut path: Vec<String>, message: String) -> ParamError {
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    if let Some(name) = unknown {
        if path.last().map(String::as_str) != Some(name) {
            path.push(name.to_owned());
        }
        return ParamError {
            path,
            target: Target::Key,
            message: format!("unknown key `{name}`"),
            help: None,
        };
    }
    let target = if message.starts_with("missing field") { Target::Missing } else { Target::Value };
    ParamError { path, target, message, help: None }
}

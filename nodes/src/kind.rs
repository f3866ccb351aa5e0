//! What a node kind is: typed parameters, input ports, a version.

use std::fmt;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Artifact;
pub use crate::param_error::{ParamError, Target};

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

/// How many of the cores a node's worker takes, where `resources` does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Half of them, so that two nodes run side by side.
    Half,
    /// All where the model is large: what it computes takes long, and the others wait for it. Else half: small
    /// matrices are not worth dividing.
    AllIfLarge,
    /// All.
    All,
}

/// How much of a calibration a node reads. Each is contained in the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// No calibration.
    #[default]
    Nothing,
    /// The token ids of the samples.
    Samples,
    /// And for the input of every linear layer, a channel's extremes and mean magnitude.
    Ranges,
    /// And the second moments XᵀX.
    Moments,
}

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

    /// Reads the parameters; every mistake stands on its own, see [`read`].
    fn read(value: Value) -> (Option<Self>, Vec<ParamError>) {
        read::<Self>(value)
    }

    /// What is wrong beyond types: ranges, contradictions. All mistakes, not the first.
    fn check(&self) -> Vec<ParamError>;

    /// What is wrong with the ports that the node has been `given`, beyond [`Kind::PORTS`]: some parameters call
    /// for an optional port, others have no use for it.
    fn check_ports(&self, _given: &[&str]) -> Vec<ParamError> {
        Vec::new()
    }

    /// Fills in the defaults that depend on other parameters, so that a default written out and one left out
    /// have one key.
    #[must_use]
    fn completed(self) -> Self {
        self
    }

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

    /// How many of the cores its worker takes.
    fn cores(&self) -> Cores {
        Cores::Half
    }

    /// What it reads of a calibration.
    fn reads(&self) -> Reading {
        Reading::Nothing
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
    /// How many of the cores its worker takes.
    pub cores: Cores,
    /// What it reads of a calibration.
    pub reads: Reading,
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
    /// Reads a JSON object of parameters (ports and common keys already taken out); the list names the ports
    /// that are given.
    pub parse: fn(Value, &[&str]) -> Result<Parsed, Vec<ParamError>>,
    /// The JSON Schema of the parameters.
    pub schema: fn() -> Schema,
}

impl fmt::Debug for KindSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
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
        let alternatives = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let mut names = Vec::new();
        for part in alternatives.chain([schema.as_value()]) {
            let properties = part.get("properties").and_then(Value::as_object);
            for name in properties.into_iter().flat_map(|properties| properties.keys()) {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        names
    }
}

fn schema<K: Kind>() -> Schema {
    schemars::schema_for!(K)
}

fn parse<K: Kind>(value: Value, ports: &[&str]) -> Result<Parsed, Vec<ParamError>> {
    let keys: Vec<String> = value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    let (kind, mut errors) = K::read(value);
    if let Some(kind) = &kind {
        let known = errors.len();
        let is_known = |error: &ParamError, known: &[ParamError]| {
            known.iter().any(|other| other.path.first() == error.path.first())
        };
        for error in kind.check() {
            // What is absent may be what a mistake above took out.
            let follows = error.target == Target::Missing || is_known(&error, &errors[..known]);
            if known == 0 || (!follows && error.path.first().is_some_and(|key| keys.contains(key))) {
                errors.push(error);
            }
        }
        errors.extend(kind.check_ports(ports));
    }
    match kind {
        Some(kind) if errors.is_empty() => Ok(Parsed {
            output: kind.output(),
            host: kind.host(),
            sensitivity: kind.sensitivity(),
            cores: kind.cores(),
            reads: kind.reads(),
            params: serde_json::to_value(kind.completed())
                .map_err(|error| vec![ParamError::missing(error.to_string())])?,
        }),
        _ => Err(errors),
    }
}

/// Reads a JSON object by its types. Each mistake stands on its own: a key that does not fit is noted and
/// left out, and the rest is read again, so that one pass shows every mistake. The value is what could be
/// read.
pub fn read<T: DeserializeOwned + JsonSchema>(value: Value) -> (Option<T>, Vec<ParamError>) {
    // Nearly always all is well; then nothing is copied.
    if let Ok(read) = T::deserialize(&value) {
        return (Some(read), Vec::new());
    }
    if !value.is_object() {
        return (None, vec![ParamError::missing("this is not a mapping")]);
    }
    let given: Vec<String> = value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    let mut rest = value;
    let mut removed: Vec<Vec<String>> = Vec::new();
    let mut errors: Vec<ParamError> = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(rest.clone()) {
            Ok(read) => return (Some(read), errors),
            Err(error) => error,
        };
        let path = segments(error.path());
        let error = ParamError::from_serde(path, &error.into_inner().to_string());
        let is_absent = error.target == Target::Missing;
        if is_absent && error.path.is_empty() {
            // Serde names the first absent key only.
            let absent = required::<T>().into_iter().filter(|name| !given.contains(name));
            errors.extend(absent.map(|name| ParamError::absent(&name)));
            return (None, errors);
        }
        // What is absent may be what was left out.
        let absent: Vec<String> = error.path.iter().chain(&error.alternatives).cloned().collect();
        let place = error.path.clone();
        if !is_absent || !removed.contains(&absent) {
            errors.push(error);
        }
        match remove(&mut rest, &place) {
            Some(path) => removed.push(path),
            None => return (None, errors),
        }
    }
}

/// Takes the value at `path` out of `value`, or what holds it where that is a list. Gives the path of what
/// was taken.
fn remove(value: &mut Value, path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let object = value.as_object_mut()?;
    let deeper = object.get_mut(first).and_then(|inner| remove(inner, rest));
    if let Some(mut taken) = deeper {
        taken.insert(0, first.clone());
        return Some(taken);
    }
    object.remove(first).map(|_| vec![first.clone()])
}

fn required<T: JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T);
    let names = schema.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
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

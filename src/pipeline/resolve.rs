//! References: from names in the file to instances, by the types of ports.

use std::collections::BTreeMap;

use qpipe_nodes::{Arity, Artifact, Port};

use super::assemble::is_misspelt;
use super::directory::{Directory, Found, listed};
use super::document::Declaration;
use super::error::{Code, Mistake, Mistakes};
use super::graph::Link;
use super::instance::Binding;
use super::references::{self, Reference, with_origin};
use super::source::Span;
use super::substitute::Scope;
use super::value::{Data, Entry, Value, find};

/// All instances, as far as references are concerned.
pub(super) struct Resolver<'a> {
    pub(super) declarations: &'a [Declaration],
    pub(super) directory: &'a Directory<'a>,
    /// The index of each node's first instance.
    pub(super) starts: &'a [usize],
    /// What each instance produces; `None` if its parameters have mistakes.
    pub(super) outputs: &'a [Option<Artifact>],
}

/// The connected ports of one instance.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub(super) bindings: BTreeMap<&'static str, Binding>,
    /// Every instance it refers to, and where.
    pub(super) links: Vec<Link>,
}

/// One port of one instance while it is connected.
struct Plug<'a> {
    declaration: &'a Declaration,
    port: &'static Port,
    value: &'a Value,
    scope: Scope<'a>,
}

impl Resolver<'_> {
    /// Connects the ports of an instance of `declaration`.
    pub(super) fn connect(
        &self,
        declaration: &Declaration,
        scope: Scope<'_>,
        mistakes: &mut Mistakes,
    ) -> Inputs {
        let mut inputs = Inputs::default();
        for port in declaration.kind.ports {
            let optional = matches!(port.arity, Arity::Optional | Arity::OptionalMany);
            match find(&declaration.entries, port.name) {
                Some(Entry { value, .. }) if !matches!(value.data, Data::Null) => {
                    let plug = Plug { declaration, port, value, scope };
                    if let Some(binding) = self.bind(&plug, &mut inputs.links, mistakes) {
                        inputs.bindings.insert(port.name, binding);
                    }
                }
                _ if optional => {}
                Some(Entry { key, .. }) => {
                    let message = format!("`{}` names no node", port.name);
                    mistakes.push(Mistake::new(Code::MissingKey, key.span, message).help(due(port)));
                }
                None if is_misspelt(declaration, port.name) => {}
                None => {
                    let message = format!("`{}` is missing in `{}`", port.name, declaration.name.text);
                    mistakes
                        .push(Mistake::new(Code::MissingKey, declaration.name.span, message).help(due(port)));
                }
            }
        }
        inputs
    }

    fn bind(&self, plug: &Plug<'_>, links: &mut Vec<Link>, mistakes: &mut Mistakes) -> Option<Binding> {
        match (plug.port.arity, &plug.value.data) {
            (Arity::OneOrMap, Data::Mapping(entries)) => {
                let mut map = BTreeMap::new();
                for Entry { key, value } in entries {
                    if let Some(index) = self.one(plug, value, links, mistakes) {
                        map.insert(key.text.clone(), index);
                    }
                }
                if entries.is_empty() {
                    mistakes.push(empty(plug, "mapping"));
                }
                Some(Binding::Map(map))
            }
            (Arity::One | Arity::Optional | Arity::OneOrMap, _) => {
                self.one(plug, plug.value, links, mistakes).map(Binding::One)
            }
            (Arity::Many | Arity::OptionalMany, _) => {
                let references = references::many(plug.value, plug.scope, mistakes)?;
                if references.is_empty() {
                    mistakes.push(empty(plug, "list"));
                }
                let mut list: Vec<usize> = Vec::new();
                for reference in &references {
                    for index in self.instances(plug, plug.value, reference, mistakes) {
                        if list.contains(&index) {
                            mistakes.push(twice(plug, reference));
                            break;
                        }
                        links.push((index, reference.1));
                        list.push(index);
                    }
                }
                Some(Binding::Many(list))
            }
        }
    }

    fn one(
        &self,
        plug: &Plug<'_>,
        value: &Value,
        links: &mut Vec<Link>,
        mistakes: &mut Mistakes,
    ) -> Option<usize> {
        let reference = references::one(value, plug.scope, mistakes)?;
        let found = self.instances(plug, value, &reference, mistakes);
        match found.len() {
            0 => None,
            1 => {
                links.push((found.start, reference.1));
                Some(found.start)
            }
            count => {
                let (name, at) = reference;
                let node = self.directory.node_of(&name)?;
                let ids = self.directory.drafts(node).iter().map(|draft| draft.id.as_str());
                let message = format!(
                    "`{}` takes one {}, but `{name}` is {count} instances: {}",
                    plug.port.name,
                    plug.port.accepts,
                    listed(ids, count)
                );
                let mistake = Mistake::new(Code::Ambiguous, at, message)
                    .help(format!("Name one of them, or let `for_each: [{name}]` take each in turn."));
                mistakes.push(with_origin(mistake, value, plug.scope, &plug.declaration.entries));
                None
            }
        }
    }

    /// The instances that a reference means, if they are of the right type. None after a mistake, here or in
    /// what it refers to.
    fn instances(
        &self,
        plug: &Plug<'_>,
        value: &Value,
        (name, at): &Reference,
        mistakes: &mut Mistakes,
    ) -> std::ops::Range<usize> {
        let range = match self.directory.find(name, *at) {
            Ok(Found::Instance(node, number)) => self.starts[node] + number..self.starts[node] + number + 1,
            Ok(Found::Group(node)) => {
                self.starts[node]..self.starts[node] + self.directory.drafts(node).len()
            }
            Ok(Found::Broken) => return 0..0,
            Err(mistake) => {
                mistakes.push(with_origin(mistake, value, plug.scope, &plug.declaration.entries));
                return 0..0;
            }
        };
        for output in self.outputs[range.clone()].iter().flatten() {
            if *output != plug.port.accepts {
                let mistake = self.wrong_type(plug, name, *at, *output);
                mistakes.push(with_origin(mistake, value, plug.scope, &plug.declaration.entries));
                return 0..0;
            }
        }
        range
    }

    fn wrong_type(&self, plug: &Plug<'_>, name: &str, at: Span, output: Artifact) -> Mistake {
        let due = plug.port.accepts;
        let message = format!(
            "`{}` takes {}, but `{name}` is {}",
            plug.port.name,
            due.with_article(),
            output.with_article()
        );
        let mistake = Mistake::new(Code::WrongArtifact, at, message)
            .label(format!("this is {}", output.with_article()));
        let fitting: Vec<&str> = (0..self.declarations.len())
            .filter(|node| !self.directory.drafts(*node).is_empty())
            .filter(|node| self.outputs[self.starts[*node]] == Some(due))
            .filter(|node| self.declarations[*node].name.text != plug.declaration.name.text)
            .map(|node| self.declarations[node].name.text.as_str())
            .collect();
        match fitting.len() {
            0 => mistake.help(format!("The pipeline has no node that is {}.", due.with_article())),
            count => mistake.help(format!("What fits: {}.", listed(fitting.into_iter(), count))),
        }
    }
}

fn due(port: &Port) -> String {
    let nodes = match port.arity {
        Arity::Many | Arity::OptionalMany => "[NODE, …]",
        Arity::One | Arity::Optional | Arity::OneOrMap => "NODE",
    };
    format!("Write `{}: {nodes}`, NODE being {}. {}", port.name, port.accepts.with_article(), port.summary)
}

fn empty(plug: &Plug<'_>, what: &str) -> Mistake {
    let message = format!("`{}` is an empty {what}", plug.port.name);
    Mistake::new(Code::InvalidValue, plug.value.span, message).help(due(plug.port))
}

fn twice(plug: &Plug<'_>, (name, at): &Reference) -> Mistake {
    Mistake::new(Code::DuplicateInstance, *at, format!("`{name}` stands twice in `{}`", plug.port.name))
}

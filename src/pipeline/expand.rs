//! `matrix` and `for_each`: from nodes to instances.
//!
//! A node with a `matrix` of `n: [20, 200]` becomes `name[n=20]` and `name[n=200]`; several keys give all
//! combinations, the last one running fastest. A node with `for_each: [a, b]` becomes `name[a]` and
//! `name[b]`, a group among the elements standing for all its instances. With both, each element meets each
//! combination: `name[a,n=20]`.

use std::collections::HashSet;

use super::directory::{Directory, Draft, Found, Members};
use super::document::Declaration;
use super::error::{Code, Mistake, Mistakes};
use super::graph::{self, Link, Sorted};
use super::matrix::{self, Axis, combinations, shown};
use super::references::{self, Reference};
use super::substitute::Scope;
use super::value::find;

/// More instances of one node than this are taken for a slip.
const MOST_INSTANCES: usize = 100_000;

/// What `for_each` says.
enum ForEach {
    Absent,
    Broken,
    Elements(Vec<Reference>),
}

impl ForEach {
    fn read(declaration: &Declaration, scope: Scope<'_>, mistakes: &mut Mistakes) -> Self {
        let Some(entry) = find(&declaration.entries, "for_each") else { return Self::Absent };
        match references::many(&entry.value, scope, mistakes) {
            None => Self::Broken,
            Some(elements) if elements.is_empty() => {
                mistakes.push(
                    Mistake::new(Code::InvalidValue, entry.value.span, "`for_each` is an empty list")
                        .help("Name at least one node."),
                );
                Self::Broken
            }
            Some(elements) => Self::Elements(elements),
        }
    }

    fn elements(&self) -> &[Reference] {
        match self {
            Self::Elements(elements) => elements,
            Self::Absent | Self::Broken => &[],
        }
    }
}

/// Enters the instances of all nodes into `directory`. `scope` is that of the file: parameters only.
pub(super) fn expand(
    declarations: &[Declaration],
    scope: Scope<'_>,
    directory: &mut Directory<'_>,
    mistakes: &mut Mistakes,
) {
    let for_each: Vec<ForEach> =
        declarations.iter().map(|declaration| ForEach::read(declaration, scope, mistakes)).collect();
    let needs: Vec<Vec<Link>> = for_each
        .iter()
        .map(|for_each| {
            let elements = for_each.elements().iter();
            elements.filter_map(|(name, at)| directory.node_of(name).map(|node| (node, *at))).collect()
        })
        .collect();
    let Sorted { order, circles } = graph::sort(&needs);
    for circle in circles {
        let names = circle.iter().map(|(node, at)| (declarations[*node].name.text.as_str(), *at));
        mistakes.push(graph::circle_mistake(&names.collect::<Vec<_>>()));
    }
    let sorted = order.len();
    for &node in &order {
        let members = members(&declarations[node], &for_each[node], scope, directory, mistakes);
        directory.enter(node, members);
    }
    if sorted < declarations.len() {
        directory.break_pending();
    }
}

fn members(
    declaration: &Declaration,
    for_each: &ForEach,
    scope: Scope<'_>,
    directory: &Directory<'_>,
    mistakes: &mut Mistakes,
) -> Members {
    let name = &declaration.name.text;
    let axes = match find(&declaration.entries, "matrix") {
        None => Some(Vec::new()),
        Some(entry) => matrix::read(&entry.value, scope, mistakes),
    };
    let elements = match for_each {
        ForEach::Absent => Some(vec![None]),
        ForEach::Broken => None,
        ForEach::Elements(elements) => resolve(elements, directory, mistakes),
    };
    let (Some(axes), Some(elements)) = (axes, elements) else { return Members::Broken };
    if axes.is_empty() && matches!(for_each, ForEach::Absent) {
        return Members::Drafts(vec![Draft { id: name.clone(), matrix: Vec::new(), item: None }]);
    }
    if count(elements.len(), &axes).is_none_or(|count| count > MOST_INSTANCES) {
        let message = format!("`{name}` would have more than {MOST_INSTANCES} instances");
        mistakes.push(Mistake::new(Code::InvalidValue, declaration.name.span, message));
        return Members::Broken;
    }
    let points = combinations(&axes);
    let mut drafts = Vec::with_capacity(elements.len() * points.len());
    for element in elements {
        for point in &points {
            let values = point.iter().map(|(axis, value)| format!("{axis}={}", shown(value)));
            let parts: Vec<String> = element.iter().cloned().chain(values).collect();
            let id = format!("{name}[{}]", parts.join(","));
            drafts.push(Draft { id, matrix: point.clone(), item: element.clone() });
        }
    }
    let mut seen = HashSet::new();
    if let Some(twice) = drafts.iter().find(|draft| !seen.insert(draft.id.as_str())) {
        let message = format!("two instances of `{name}` would be called `{}`", twice.id);
        mistakes.push(Mistake::new(Code::DuplicateInstance, declaration.name.span, message));
        return Members::Broken;
    }
    Members::Drafts(drafts)
}

fn count(elements: usize, axes: &[Axis]) -> Option<usize> {
    axes.iter().try_fold(elements, |count, axis| count.checked_mul(axis.len()))
}

/// The instances that the elements of `for_each` mean, in order; `None` if one of them means nothing.
fn resolve(
    elements: &[Reference],
    directory: &Directory<'_>,
    mistakes: &mut Mistakes,
) -> Option<Vec<Option<String>>> {
    let mut seen = HashSet::new();
    let mut instances = Vec::new();
    let mut complete = true;
    for (name, at) in elements {
        let drafts = match directory.find(name, *at) {
            Ok(Found::Instance(node, number)) => &directory.drafts(node)[number..=number],
            Ok(Found::Group(node)) => directory.drafts(node),
            Ok(Found::Broken) => {
                complete = false;
                continue;
            }
            Err(mistake) => {
                mistakes.push(mistake);
                complete = false;
                continue;
            }
        };
        for draft in drafts {
            if !seen.insert(draft.id.as_str()) {
                let message = format!("`{}` is among the elements of `for_each` already", draft.id);
                mistakes.push(Mistake::new(Code::DuplicateInstance, *at, message));
                complete = false;
            }
            instances.push(Some(draft.id.clone()));
        }
    }
    complete.then_some(instances)
}

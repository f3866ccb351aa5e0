//! Who is called what: nodes, and the instances that `matrix` and `for_each` make of them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::document::Declaration;
use super::error::{Code, Mistake};
use super::nearest::nearest;
use super::source::Span;
use super::substitute::Scope;

/// One instance before its parameters and references are looked at.
#[derive(Debug)]
pub(super) struct Draft {
    /// `gptq[n=20]`.
    pub(super) id: String,
    /// The values of `matrix`, in the order of the file.
    pub(super) matrix: Vec<(String, Json)>,
    /// The element of `for_each`.
    pub(super) item: Option<String>,
}

impl Draft {
    /// The variables of this instance in addition to those of the `file`.
    pub(super) fn scope<'a>(&'a self, file: Scope<'a>) -> Scope<'a> {
        Scope { matrix: &self.matrix, item: self.item.as_deref(), ..file }
    }
}

/// What became of a node.
#[derive(Debug)]
pub(super) enum Members {
    /// Not looked at yet.
    Pending,
    /// Its instances; at least one.
    Drafts(Vec<Draft>),
    /// Mistakes in it were reported; what refers to it is not to blame.
    Broken,
}

/// What a reference means: an instance by its node and its number in there, or a whole node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Instance(usize, usize),
    Group(usize),
    /// A node that was reported already.
    Broken,
}

/// All names.
pub(super) struct Directory<'a> {
    nodes: HashMap<&'a str, usize>,
    declarations: &'a [Declaration],
    broken: &'a HashSet<String>,
    incomplete: bool,
    members: Vec<Members>,
    ids: HashMap<String, (usize, usize)>,
    /// For names that mean nothing, the node that may be meant: a generated file repeats its slips.
    meant: RefCell<HashMap<String, Option<&'a str>>>,
}

impl<'a> Directory<'a> {
    /// The names of `declarations`, and of nodes that are `broken`; `incomplete` if more may be declared in
    /// files that could not be read.
    pub(super) fn new(
        declarations: &'a [Declaration],
        broken: &'a HashSet<String>,
        incomplete: bool,
    ) -> Self {
        let nodes =
            declarations.iter().enumerate().map(|(index, node)| (node.name.text.as_str(), index)).collect();
        let members = declarations.iter().map(|_| Members::Pending).collect();
        Self {
            nodes,
            declarations,
            broken,
            incomplete,
            members,
            ids: HashMap::new(),
            meant: RefCell::default(),
        }
    }

    /// The index of the node that `reference` is to, whole or in part.
    pub(super) fn node_of(&self, reference: &str) -> Option<usize> {
        self.nodes.get(reference).or_else(|| self.nodes.get(base(reference))).copied()
    }

    /// Enters the instances of a node.
    pub(super) fn enter(&mut self, node: usize, members: Members) {
        if let Members::Drafts(drafts) = &members {
            for (number, draft) in drafts.iter().enumerate() {
                if draft.id != self.declarations[node].name.text {
                    self.ids.insert(draft.id.clone(), (node, number));
                }
            }
        }
        self.members[node] = members;
    }

    /// The nodes whose instances were not entered are not to be used.
    pub(super) fn break_pending(&mut self) {
        for members in &mut self.members {
            if matches!(members, Members::Pending) {
                *members = Members::Broken;
            }
        }
    }

    /// The instances of a node that is not broken.
    pub(super) fn drafts(&self, node: usize) -> &[Draft] {
        match &self.members[node] {
            Members::Drafts(drafts) => drafts,
            Members::Pending | Members::Broken => &[],
        }
    }

    /// What `reference` means, or why it means nothing.
    pub(super) fn find(&self, reference: &str, at: Span) -> Result<Found, Mistake> {
        if let Some(&node) = self.nodes.get(reference) {
            return Ok(match &self.members[node] {
                Members::Broken => Found::Broken,
                _ => Found::Group(node),
            });
        }
        if let Some(&(node, number)) = self.ids.get(reference) {
            return Ok(Found::Instance(node, number));
        }
        let base = base(reference);
        if self.broken.contains(reference) || self.broken.contains(base) || self.incomplete {
            return Ok(Found::Broken);
        }
        let Some(&node) = self.nodes.get(base) else { return Err(self.unknown(reference, at)) };
        let drafts = match &self.members[node] {
            Members::Broken => return Ok(Found::Broken),
            Members::Pending => &[],
            Members::Drafts(drafts) => drafts.as_slice(),
        };
        let mistake = |message: String| Mistake::new(Code::UnknownNode, at, message);
        if drafts.len() == 1 && drafts[0].id == base {
            return Err(
                mistake(format!("`{base}` is one node, without instances")).help(format!("Write `{base}`."))
            );
        }
        let ids = drafts.iter().map(|draft| draft.id.as_str());
        let near = nearest(reference, ids.clone()).map(|near| format!("Did you mean `{near}`? "));
        Err(mistake(format!("`{base}` has no instance `{reference}`")).help(format!(
            "{}Its instances: {}.",
            near.unwrap_or_default(),
            listed(ids, drafts.len())
        )))
    }

    fn unknown(&self, reference: &str, at: Span) -> Mistake {
        let mistake = Mistake::new(Code::UnknownNode, at, format!("there is no node `{reference}`"));
        // A node with a mistake of its own has a name too.
        let mut names: Vec<&str> = self.declarations.iter().map(|node| node.name.text.as_str()).collect();
        let mut broken: Vec<&str> = self.broken.iter().map(String::as_str).collect();
        broken.sort_unstable();
        names.extend(broken);
        let count = names.len();
        let names = names.into_iter();
        let mut known = self.meant.borrow_mut();
        let meant = *known.entry(reference.to_owned()).or_insert_with(|| {
            nearest(reference, names.clone()).or_else(|| nearest(base(reference), names.clone()))
        });
        match meant {
            Some(near) => mistake.help(format!("Did you mean `{near}`?")),
            None => mistake.help(format!("Nodes: {}.", listed(names, count))),
        }
    }
}

/// Up to a dozen names.
pub(super) fn listed<'n>(names: impl Iterator<Item = &'n str>, count: usize) -> String {
    const SHOWN: usize = 12;
    let mut shown: Vec<&str> = names.take(SHOWN).collect();
    let rest = count.saturating_sub(SHOWN);
    let more = format!("and {rest} more");
    if rest > 0 {
        shown.push(&more);
    }
    shown.join(", ")
}

/// `stats` of `stats[n=20]`.
fn base(reference: &str) -> &str {
    reference.split_once('[').map_or(reference, |(base, _)| base)
}

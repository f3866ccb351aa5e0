//! Which questions are computed behind a common prefix: the cheapest way, by what each costs.

use std::ops::Range;

use super::row::{Cost, Row};
use super::sequences::Sequences;

/// A shorter prefix is not worth a pass of its own.
const LEAST_PREFIX: usize = 16;
/// A family with fewer tokens would fill no batch; its questions find better company elsewhere.
const LEAST_FAMILY: usize = 256;
/// A family has to cost less than this part of what its questions cost apart.
const WORTH: f64 = 0.97;

/// Sequences that share nothing are in one row up to so many tokens.
const LONGEST_TREE: usize = 1024;

/// Equal documents, and what they cost.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) documents: Vec<usize>,
    /// Tokens of the row that holds it whole.
    tokens: usize,
    is_plain: bool,
    /// Whether it is long and its sequences, windows of a text, share nothing: in one row each token would be compared with all
    /// of the others.
    pub(super) is_scattered: bool,
    /// Tokens that it begins with like the one before, as far as all of both may have them in a prefix.
    shared: usize,
}

impl Question {
    /// All of them, sorted by their tokens.
    pub(super) fn all(sequences: &[Sequences]) -> Vec<Self> {
        let ids = |index: usize| sequences[index].0.iter().map(|sequence| &sequence.ids);
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by(|&one, &other| ids(one).cmp(ids(other)));
        let mut questions: Vec<Self> = Vec::new();
        for index in order {
            if let Some(last) = questions.last_mut()
                && sequences[last.documents[0]] == sequences[index]
            {
                last.documents.push(index);
                continue;
            }
            let shared = questions.last().map_or(0, |last| {
                let other = last.documents[0];
                let first = |index: usize| ids(index).next().map_or(&[][..], Vec::as_slice);
                let limit = sequences[index].common_context().min(sequences[other].common_context());
                common(first(index), first(other)).min(limit)
            });
            let row = Row::new(sequences, &[index], 0);
            questions.push(Self {
                documents: vec![index],
                tokens: row.len(),
                is_plain: row.is_plain(),
                is_scattered: row.len() > LONGEST_TREE && !sequences[index].begins_alike(),
                shared,
            });
        }
        questions
    }
}

/// How many tokens two sequences begin alike.
pub(super) fn common(one: &[i64], other: &[i64]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// Questions, sorted, on their way to families.
pub(super) struct Families<'a> {
    pub(super) questions: &'a [Question],
    pub(super) cost: Cost,
}

/// Neighbouring questions with a prefix; of length 0 where they have nothing to do with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) range: Range<usize>,
    pub(super) prefix: usize,
}

/// A way to compute some questions.
pub(super) struct Division {
    cost: f64,
    pub(super) parts: Vec<Part>,
}

impl Families<'_> {
    /// The cheapest of: one family of all in `range`, or each side for itself wherever the common prefix is shortest.
    pub(super) fn divide(&self, range: Range<usize>) -> Division {
        let between = range.start + 1..range.end;
        let Some(prefix) = between.clone().map(|index| self.questions[index].shared).min() else {
            let cost = self.questions.get(range.start).map_or(0.0, |question| self.alone(question));
            let parts = (!range.is_empty()).then_some(Part { range, prefix: 0 });
            return Division { cost, parts: parts.into_iter().collect() };
        };
        let mut apart = Division { cost: 0.0, parts: Vec::new() };
        let mut start = range.start;
        for end in between.filter(|&index| self.questions[index].shared == prefix).chain([range.end]) {
            let side = self.divide(start..end);
            apart.cost += side.cost;
            apart.parts.extend(side.parts);
            start = end;
        }
        let tokens: usize =
            self.questions[range.clone()].iter().map(|question| question.tokens - prefix).sum();
        if prefix < LEAST_PREFIX || prefix + tokens < LEAST_FAMILY {
            return apart;
        }
        let questions = self.questions[range.clone()].iter();
        let cost = self.cost.plain(prefix)
            + questions.map(|question| self.cost.of(question.tokens - prefix, question.tokens)).sum::<f64>();
        if cost < WORTH * apart.cost {
            return Division { cost, parts: vec![Part { range, prefix }] };
        }
        apart
    }

    fn alone(&self, question: &Question) -> f64 {
        match question.is_plain {
            true => self.cost.plain(question.tokens),
            false => self.cost.of(question.tokens, question.tokens),
        }
    }
}

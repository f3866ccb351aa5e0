//! How questions lie in a row of a batch: as a tree, so that what several sequences begin with is computed once.
//!
//! ```text
//! place      0  1  2  3 | 4  5 | 6 | 7  8      p0 p1 p2 p3 ─┬─ a0 a1
//! ids        p0 p1 p2 p3  a0 a1  b0  c0 c1                  ├─ b0
//! position   0  1  2  3   4  5   4   4  5                   └─ c0 c1
//! parent     -  0  1  2   3  4   3   3  7
//! ```
//!
//! A token attends to itself and to its ancestors, so that every branch sees exactly what it would see alone. The last
//! token of a sequence predicts nothing that is scored and is left out: the row of four single-token candidates is the
//! prompt alone, and needs no mask. What several questions begin with may be left out, too (see [`super::layout`]).

use std::collections::HashMap;

use super::families;
use super::sequences::Sequences;

/// What tokens cost in a model: in operations that only compare with each other, and in memory.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Of the linear layers.
    pub linear: f64,
    /// Of attention to one other token.
    pub attention: f64,
    /// Whether every row of a pass has its own copy of the prefix's keys and values, block by block.
    pub copies_prefix: bool,
}

impl Cost {
    /// Of `tokens` under a mask, which attend to `seen`: what a mask hides counts, as libtorch computes it all the same.
    pub fn of(&self, tokens: usize, seen: usize) -> f64 {
        tokens as f64 * (self.linear + self.attention * seen as f64)
    }

    /// Of one plain sequence: the upper triangle is left out.
    pub fn plain(&self, tokens: usize) -> f64 {
        self.of(tokens, tokens.div_ceil(2))
    }
}

/// One token to be scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Index in [`Row::documents`].
    pub document: usize,
    /// The document's request that it belongs to.
    pub request: usize,
    /// The place in the row whose prediction it is.
    pub place: usize,
    /// The token.
    pub id: i64,
}

/// Questions laid out for one forward pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Tokens.
    pub ids: Vec<i64>,
    /// The place of each token in its own sequence.
    pub positions: Vec<i64>,
    /// The place of the token before each in its sequence; of the first one here its own.
    pub parents: Vec<usize>,
    /// What is scored, document by document, request by request.
    pub targets: Vec<Target>,
    /// The questions: indices of documents, and how many requests each has.
    pub documents: Vec<(usize, usize)>,
}

impl Row {
    /// Lays out the documents `indices` of `sequences`, none of whose sequences is empty, without the first `prefix` tokens,
    /// which are fewer than those of any context.
    pub fn new(sequences: &[Sequences], indices: &[usize], prefix: usize) -> Self {
        let mut tree = Tree { prefix, ..Tree::default() };
        for &index in indices {
            tree.add(index, &sequences[index], 0..sequences[index].0.len());
        }
        tree.row
    }

    /// Lays out the equal documents `indices` of `sequences`, each of their sequences in a row of its own; sequences that differ
    /// in nothing but their last token are one. A document without sequences has a row without tokens.
    pub fn apart(sequences: &[Sequences], indices: &[usize]) -> Vec<Self> {
        let Some(document) = indices.first().map(|&index| &sequences[index]) else { return Vec::new() };
        let mut read: Vec<(&[i64], Vec<usize>)> = Vec::new();
        for (request, sequence) in document.0.iter().enumerate() {
            let tokens = &sequence.ids[..sequence.ids.len() - 1];
            match read.iter_mut().find(|(other, _)| *other == tokens) {
                Some((_, requests)) => requests.push(request),
                None => read.push((tokens, vec![request])),
            }
        }
        if read.is_empty() {
            read.push((&[], Vec::new()));
        }
        let row = |(_, requests): (_, Vec<usize>)| {
            let mut tree = Tree::default();
            for &index in indices {
                tree.add(index, document, requests.iter().copied());
            }
            tree.row
        };
        read.into_iter().map(row).collect()
    }

    /// Tokens that go through the model.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no token goes through the model.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether it is one sequence: then attention is plainly causal.
    pub fn is_plain(&self) -> bool {
        self.parents.iter().enumerate().all(|(place, &parent)| parent + 1 == place || place == 0)
    }
}

/// A row that grows.
#[derive(Default)]
struct Tree {
    row: Row,
    /// Tokens of every sequence that are left out.
    prefix: usize,
    /// The place of a token after another; `None`: the first.
    places: HashMap<(Option<usize>, i64), usize>,
}

impl Tree {
    /// Adds the `requests` of a document.
    fn add(&mut self, index: usize, sequences: &Sequences, requests: impl IntoIterator<Item = usize>) {
        let document = self.row.documents.len();
        self.row.documents.push((index, sequences.0.len()));
        // Of the sequence before, and where its tokens are: what both begin with need not be looked up again.
        let (mut last, mut path): (&[i64], Vec<usize>) = (&[], Vec::new());
        for request in requests {
            let sequence = &sequences.0[request];
            path.truncate(families::common(last, &sequence.ids).saturating_sub(self.prefix));
            last = &sequence.ids[..sequence.ids.len() - 1];
            for (position, &id) in sequence.ids.iter().enumerate().skip(self.prefix) {
                let number = position - self.prefix;
                let before = number.checked_sub(1).map(|number| path[number]);
                if let Some(place) = before
                    && position >= sequence.context
                {
                    self.row.targets.push(Target { document, request, place, id });
                }
                if position < last.len() && number == path.len() {
                    path.push(self.place(before, id, position));
                }
            }
        }
    }

    fn place(&mut self, before: Option<usize>, id: i64, position: usize) -> usize {
        let row = &mut self.row;
        *self.places.entry((before, id)).or_insert_with(|| {
            let place = row.ids.len();
            row.ids.push(id);
            row.positions.push(position as i64);
            row.parents.push(before.unwrap_or(place));
            place
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::sequences::Sequence;

    fn sequences(context: usize, full: &[&[i64]]) -> Sequences {
        Sequences(full.iter().map(|ids| Sequence { ids: ids.to_vec(), context }).collect())
    }

    fn row(context: usize, full: &[&[i64]]) -> Row {
        Row::new(&[sequences(context, full)], &[0], 0)
    }

    fn places(row: &Row) -> Vec<usize> {
        row.targets.iter().map(|target| target.place).collect()
    }

    #[test]
    fn single_tokens_need_the_prompt_alone() {
        let row = row(3, &[&[7, 8, 9, 1], &[7, 8, 9, 2]]);
        assert_eq!(row.ids, [7, 8, 9]);
        assert!(row.is_plain());
        let expected = [(0, 2, 1), (1, 2, 2)];
        let target = |(request, place, id)| Target { document: 0, request, place, id };
        assert_eq!(row.targets, expected.map(target));
    }

    #[test]
    fn longer_candidates_branch_off_where_they_differ() {
        let row = row(2, &[&[7, 8, 5, 1, 2], &[7, 8, 5, 3], &[7, 8, 5, 4, 6, 9]]);
        assert_eq!(row.ids, [7, 8, 5, 1, 4, 6]);
        assert_eq!(row.positions, [0, 1, 2, 3, 3, 4]);
        assert_eq!(row.parents, [0, 0, 1, 2, 2, 4]);
        assert!(!row.is_plain());
        assert_eq!(places(&row), [1, 2, 3, 1, 2, 1, 2, 4, 5]);
    }

    #[test]
    fn a_candidate_may_begin_another_and_equal_a_third() {
        let row = row(2, &[&[7, 8, 5], &[7, 8, 5, 6], &[7, 8, 5]]);
        assert_eq!(row.ids, [7, 8, 5]);
        assert!(row.is_plain());
        assert_eq!(places(&row), [1, 1, 2, 1]);
    }

    #[test]
    fn a_tokenizer_that_merges_over_the_border_shortens_what_is_shared() {
        let row = row(2, &[&[7, 1, 2], &[7, 3, 4]]);
        assert_eq!(row.ids, [7, 1, 3]);
        assert_eq!(row.parents, [0, 0, 0]);
        assert_eq!(places(&row), [1, 2]);
    }

    #[test]
    fn sequences_that_begin_differently_share_nothing() {
        let row = row(1, &[&[1, 2, 3], &[4, 5]]);
        assert_eq!(row.ids, [1, 2, 4]);
        assert_eq!(row.parents, [0, 0, 2]);
        assert_eq!(places(&row), [0, 1, 2]);
    }

    #[test]
    fn a_prefix_is_left_out() {
        let row = Row::new(&[sequences(3, &[&[7, 8, 9, 1, 2], &[7, 8, 9, 3]])], &[0], 2);
        assert_eq!(row.ids, [9, 1]);
        assert_eq!(row.positions, [2, 3]);
        assert_eq!(row.parents, [0, 0]);
        assert_eq!(places(&row), [0, 1, 0]);
    }
}

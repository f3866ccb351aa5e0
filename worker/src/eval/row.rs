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
//! prompt alone, and needs no mask. Questions that begin alike (a subject's examples) share a row where that costs less.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::sequences::Sequences;

/// What a token costs in a model, in operations that only compare with each other.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Of the linear layers.
    pub linear: f64,
    /// Of attention, for each token of the row: a mask hides what is not seen, it saves nothing.
    pub attention: f64,
}

impl Cost {
    fn of(&self, tokens: usize) -> f64 {
        let tokens = tokens as f64;
        tokens * (self.linear + self.attention * tokens)
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
    /// The place of the token before each in its sequence; of a first token its own.
    pub parents: Vec<usize>,
    /// What is scored, document by document, request by request.
    pub targets: Vec<Target>,
    /// The questions: indices of documents, and how many requests each has.
    pub documents: Vec<(usize, usize)>,
}

impl Row {
    /// Lays out the documents `indices` of `sequences`, none of whose sequences is empty.
    pub fn new(sequences: &[Sequences], indices: &[usize]) -> Self {
        let mut tree = Tree::default();
        for &index in indices {
            tree.add(index, &sequences[index]);
        }
        tree.row
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
    /// The place of a token after another; `None`: the first.
    places: HashMap<(Option<usize>, i64), usize>,
}

impl Tree {
    fn add(&mut self, index: usize, sequences: &Sequences) {
        let document = self.row.documents.len();
        self.row.documents.push((index, sequences.0.len()));
        for (request, sequence) in sequences.0.iter().enumerate() {
            let mut before = None;
            for (position, &id) in sequence.ids.iter().enumerate() {
                if let Some(place) = before
                    && position >= sequence.context
                {
                    self.row.targets.push(Target { document, request, place, id });
                }
                if position + 1 < sequence.ids.len() {
                    before = Some(self.place(before, id, position));
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

/// The rows of all documents: questions that begin alike in one row, as long as that costs less than two. Depends on
/// nothing but its arguments, so that an interrupted evaluation lays out the same rows again.
pub fn rows(sequences: &[Sequences], cost: Cost, most_tokens: usize) -> Vec<Row> {
    let first = |index: usize| sequences[index].0.first().map_or(&[][..], |sequence| &sequence.ids);
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by(|&one, &other| first(one).cmp(first(other)));
    let mut rows = Vec::new();
    let mut here = Tree::default();
    let mut last: &[i64] = &[];
    for index in order {
        let mut alone = Tree::default();
        alone.add(index, &sequences[index]);
        let shared = common(last, first(index)).min(alone.row.len());
        let (before, after) = (here.row.len(), here.row.len() + alone.row.len() - shared);
        let is_cheaper = cost.of(after) < cost.of(before) + cost.of(alone.row.len());
        if !here.row.documents.is_empty() && shared > 0 && after <= most_tokens && is_cheaper {
            here.add(index, &sequences[index]);
        } else {
            rows.push(std::mem::replace(&mut here, alone).row);
        }
        last = first(index);
    }
    rows.push(here.row);
    rows.retain(|row| !row.documents.is_empty());
    rows
}

/// How many tokens two sequences begin alike.
fn common(one: &[i64], other: &[i64]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// Packs rows into batches of at most `batch_tokens` tokens, padding counted, but at least one row: indices of
/// `rows`, the longest first, so that rows of one batch are of about one length. Rows that need a mask are not in one batch with
/// those that need none. Depends on nothing else, so that an interrupted evaluation packs the same batches again.
pub fn pack(rows: &[Row], batch_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&index| (rows[index].is_plain(), Reverse(rows[index].len())));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let (mut width, mut plain) = (0, false);
    for index in order {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * width <= batch_tokens && rows[index].is_plain() == plain => {
                batch.push(index);
            }
            _ => {
                (width, plain) = (rows[index].len(), rows[index].is_plain());
                batches.push(vec![index]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::sequences::Sequence;

    fn sequences(context: usize, full: &[&[i64]]) -> Sequences {
        Sequences(full.iter().map(|ids| Sequence { ids: ids.to_vec(), context }).collect())
    }

    fn row(context: usize, full: &[&[i64]]) -> Row {
        Row::new(&[sequences(context, full)], &[0])
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
    fn questions_that_begin_alike_share_a_row_while_it_is_cheaper() {
        let header = [1, 2, 3, 4, 5, 6];
        let question = |word: i64| {
            let ids: Vec<i64> = header.iter().copied().chain([word, 50, 51]).collect();
            sequences(7, &[&ids])
        };
        let all: Vec<Sequences> = [30, 10, 20].map(question).to_vec();
        let free = Cost { linear: 1.0, attention: 0.0 };
        let found = rows(&all, free, 100);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].len(), 6 + 3 * 2);
        assert_eq!(found[0].documents, [(1, 1), (2, 1), (0, 1)]);
        assert_eq!(rows(&all, free, 10).len(), 2);
        // Where attention costs much, 12 tokens cost less than three times 8, but not where little is shared.
        let dear = Cost { linear: 1.0, attention: 10.0 };
        assert_eq!(rows(&all, dear, 100).len(), 1);
        let apart: Vec<Sequences> =
            [10, 20].map(|word| sequences(1, &[&[1, word, 3, 4, 5, 6, 7, 8, 9]])).to_vec();
        assert_eq!(rows(&apart, free, 100).len(), 1);
        assert_eq!(rows(&apart, dear, 100).len(), 2);
        assert_eq!(rows(&[], free, 100).len(), 0);
    }

    #[test]
    fn batches_hold_rows_of_like_length_up_to_the_limit() {
        let rows: Vec<Row> =
            [2_i64, 5, 3, 5, 9].iter().map(|&length| row(1, &[&(0..=length).collect::<Vec<_>>()])).collect();
        assert_eq!(pack(&rows, 10), [vec![4], vec![1, 3], vec![2, 0]]);
        assert_eq!(pack(&rows, 1), [vec![4], vec![1], vec![3], vec![2], vec![0]]);
        assert_eq!(pack(&rows, 1000).len(), 1);
    }
}

//! Which rows go through the model together, and what is computed once for many of them.
//!
//! Questions that begin alike, with a subject's examples mostly, are a family: their prefix goes through the model once, and
//! each question's row sees its keys and values. Other rows are packed by their length. Equal questions are one row. Each
//! function depends on nothing but its arguments, so that an interrupted evaluation forms the same batches again.

use std::cmp::Reverse;
use std::sync::Arc;

use super::families::{Families, Question};
use super::row::{Cost, Row};
use super::sequences::Sequences;

/// Keys and values of a prefix's token, where rows have copies of it, take about such a part of the memory that a token takes on its
/// way through a block.
const PREFIX_PART: usize = 16;

/// What is computed in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Tokens that all its rows begin with and do not hold themselves; mostly none. The batches of a family have the same.
    pub prefix: Arc<[i64]>,
    /// Tokens that a row counts more than its own, by memory, for its copy of the prefix; none where rows share it.
    pub copied: usize,
    /// Rows that go through the model together, one pass after the other; one where there is a prefix.
    pub passes: Vec<Vec<Row>>,
}

impl Batch {
    /// Its rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.passes.iter().flatten()
    }

    /// Tokens of its rows, without padding.
    pub fn tokens(&self) -> usize {
        self.rows().map(Row::len).sum()
    }

    /// Whether `other` is of the same family.
    pub fn is_akin(&self, other: &Self) -> bool {
        !self.prefix.is_empty() && self.prefix == other.prefix
    }

    /// Tokens of its largest pass, padding counted, and its rows' copies of the prefix, by memory.
    pub fn cells(&self) -> usize {
        let cells =
            |pass: &Vec<Row>| pass.len() * (self.copied + pass.iter().map(Row::len).max().unwrap_or(0));
        self.passes.iter().map(cells).max().unwrap_or(0).max(self.prefix.len())
    }

    /// The documents that it answers, each once.
    pub fn documents(&self) -> Vec<usize> {
        let mut documents: Vec<usize> =
            self.rows().flat_map(|row| &row.documents).map(|&(document, _)| document).collect();
        documents.sort_unstable();
        documents.dedup();
        documents
    }
}

/// Every sequence by itself, in a pass of its own, for models in which the tokens of another sequence matter. Sequences of a
/// document that differ in nothing but their last token, which is not read, are one. A batch has whole documents, of about
/// `batch_tokens` tokens.
pub fn apart(sequences: &[Sequences], batch_tokens: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for index in 0..sequences.len() {
        let rows = Row::apart(sequences, &[index]);
        let tokens: usize = rows.iter().map(Row::len).sum();
        let passes = rows.into_iter().map(|row| vec![row]);
        match batches.last_mut() {
            Some(batch) if batch.tokens() + tokens <= batch_tokens => batch.passes.extend(passes),
            _ => batches.push(Batch { passes: passes.collect(), ..Batch::default() }),
        }
    }
    batches
}

/// Families and long texts first, then all others, the longest first. A pass has at most `batch_tokens` tokens, padding counted, but at least
/// a row; rows that need a mask are not in one pass with those that need none.
pub fn together(sequences: &[Sequences], cost: Cost, batch_tokens: usize) -> Vec<Batch> {
    let questions = Question::all(sequences);
    let (mut families, mut singles) = (Vec::new(), Vec::new());
    let families_of = Families { questions: &questions, cost };
    for part in families_of.divide(0..questions.len()).parts {
        let prefix = part.prefix;
        let first = part.range.start;
        if prefix == 0
            && let [question] = &questions[part.range.clone()]
            && question.is_scattered
        {
            families.push(vec![scattered(Row::apart(sequences, &question.documents), batch_tokens)]);
            continue;
        }
        let rows =
            questions[part.range].iter().map(|question| Row::new(sequences, &question.documents, prefix));
        if prefix == 0 {
            singles.extend(rows);
        } else {
            let first = &sequences[questions[first].documents[0]].0[0].ids[..prefix];
            families.push(family(first, rows.collect(), cost, batch_tokens));
        }
    }
    // The batches of a family stay together: who does one after the other reads the prefix once.
    families.sort_by_key(|batches: &Vec<Batch>| Reverse(batches.iter().map(Batch::tokens).sum::<usize>()));
    let mut batches: Vec<Batch> = families.into_iter().flatten().collect();
    singles.sort_by_key(|row| (row.is_plain(), Reverse(row.len())));
    batches.extend(
        packed(singles, 0, batch_tokens).map(|pass| Batch { passes: vec![pass], ..Batch::default() }),
    );
    batches
}

/// The windows of a long text as a batch.
fn scattered(mut windows: Vec<Row>, batch_tokens: usize) -> Batch {
    windows.sort_by_key(|row| Reverse(row.len()));
    Batch { passes: packed(windows, 0, batch_tokens).collect(), ..Batch::default() }
}

/// A family as batches, the longest rows first.
fn family(prefix: &[i64], mut rows: Vec<Row>, cost: Cost, batch_tokens: usize) -> Vec<Batch> {
    rows.sort_by_key(|row| Reverse(row.len()));
    let prefix: Arc<[i64]> = prefix.into();
    let copied = if cost.copies_prefix { prefix.len() / PREFIX_PART } else { 0 };
    packed(rows, copied, batch_tokens)
        .map(|pass| Batch { prefix: Arc::clone(&prefix), copied, passes: vec![pass] })
        .collect()
}

/// Neighbouring rows, the first of which is the longest of its kind, in passes. Each counts `copied` tokens more than its own.
fn packed(rows: Vec<Row>, copied: usize, batch_tokens: usize) -> impl Iterator<Item = Vec<Row>> {
    let mut passes: Vec<Vec<Row>> = Vec::new();
    let (mut width, mut plain) = (0, false);
    for row in rows {
        match passes.last_mut() {
            Some(pass) if (pass.len() + 1) * (copied + width) <= batch_tokens && row.is_plain() == plain => {
                pass.push(row)
            }
            _ => {
                (width, plain) = (row.len(), row.is_plain());
                passes.push(vec![row]);
            }
        }
    }
    passes.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::sequences::Sequence;

    fn sequences(context: usize, full: &[&[i64]]) -> Sequences {
        Sequences(full.iter().map(|ids| Sequence { ids: ids.to_vec(), context }).collect())
    }

    /// A question of `length` tokens after the tokens of `header`, and a continuation of one.
    fn question(header: &[i64], own: i64, length: usize) -> Sequences {
        let ids: Vec<i64> = header.iter().copied().chain(vec![own; length]).chain([9]).collect();
        sequences(header.len() + length, &[&ids])
    }

    fn documents(batches: &[Batch]) -> Vec<Vec<usize>> {
        batches.iter().map(Batch::documents).collect()
    }

    const FREE: Cost = Cost { linear: 1.0, attention: 0.0, copies_prefix: true };

    #[test]
    fn rows_of_like_length_are_one_pass_up_to_the_limit() {
        let all: Vec<Sequences> = [2, 5, 3, 5, 9]
            .iter()
            .enumerate()
            .map(|(own, &length)| question(&[], own as i64, length))
            .collect();
        let found = |most| documents(&together(&all, FREE, most));
        assert_eq!(found(10), [vec![4], vec![1, 3], vec![0, 2]]);
        assert_eq!(found(1), [vec![4], vec![1], vec![3], vec![2], vec![0]]);
        assert_eq!(found(1000).len(), 1);
        assert_eq!(together(&[], FREE, 10), []);
    }

    #[test]
    fn questions_with_the_same_examples_are_a_family() {
        let header: Vec<i64> = (100..400).collect();
        let mut all: Vec<Sequences> = (1..6).map(|own| question(&header, own, 40)).collect();
        all.push(question(&[], 50, 30));
        // Two rows of 40 tokens, each with 18 for what it sees of the prefix.
        let found = together(&all, FREE, 120);
        assert_eq!(documents(&found), [vec![0, 1], vec![2, 3], vec![4], vec![5]]);
        assert_eq!(*found[0].prefix, *header);
        assert!(found[0].is_akin(&found[1]) && found[0].is_akin(&found[2]) && !found[0].is_akin(&found[3]));
        assert_eq!(found[0].tokens(), 2 * 40);
        assert!(found[0].rows().all(|row| row.positions[0] == 300 && row.parents[0] == 0));
        assert!(found[3].prefix.is_empty() && !found[3].is_akin(&found[3]));
    }

    #[test]
    fn two_headers_make_two_families_also_below_a_common_beginning() {
        let header = |own: i64| -> Vec<i64> { [7; 20].into_iter().chain(vec![own; 200]).collect() };
        let all: Vec<Sequences> = (0..8).map(|index| question(&header(300 + index % 2), index, 40)).collect();
        assert_eq!(documents(&together(&all, FREE, 110)), [[0, 2], [4, 6], [1, 3], [5, 7]]);
    }

    #[test]
    fn a_family_that_saves_little_is_none() {
        let short: Vec<i64> = (100..120).collect();
        let all: Vec<Sequences> = (1..4).map(|own| question(&short, own, 1000)).collect();
        assert!(together(&all, FREE, 100).iter().all(|batch| batch.prefix.is_empty()));
        // Attention to a prefix is dearer than the triangle: half of a row sees it in vain.
        let half: Vec<i64> = (100..200).collect();
        let all: Vec<Sequences> = (1..4).map(|own| question(&half, own, 400)).collect();
        let prefixes =
            |cost| together(&all, cost, 100).iter().filter(|batch| !batch.prefix.is_empty()).count();
        assert!(prefixes(FREE) > 0);
        assert_eq!(prefixes(Cost { attention: 1.0, ..FREE }), 0);
    }

    #[test]
    fn the_batches_of_a_family_are_passes_up_to_the_limit() {
        let header: Vec<i64> = (100..150).collect();
        let all: Vec<Sequences> = (0..60).map(|own| question(&header, own, 40)).collect();
        // Two rows of 40 tokens, each with 3 for what it sees of the prefix.
        let found = together(&all, FREE, 100);
        assert_eq!(found.len(), 30);
        assert!(
            found
                .iter()
                .all(|batch| *batch.prefix == *header && batch.passes.len() == 1 && batch.cells() <= 100)
        );
        assert_eq!(found.iter().map(|batch| batch.documents().len()).sum::<usize>(), 60);
        // Where rows share it, it takes no room of theirs.
        assert!(
            together(&all, Cost { copies_prefix: false, ..FREE }, 160)
                .iter()
                .all(|batch| batch.tokens() == 160)
        );
    }

    #[test]
    fn windows_of_a_long_text_are_rows_of_their_own() {
        // The prefix token before the first window, the last token of the window before in front of the others.
        let window = |own: i64| Sequence { ids: vec![own; 801], context: 1 };
        let text = Sequences(vec![window(1), window(2), window(3)]);
        let all = [question(&[], 9, 5), text.clone(), text];
        let found = together(&all, FREE, 1600);
        assert_eq!(documents(&found), [vec![1, 2], vec![0]]);
        assert_eq!(found[0].passes.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert!(found[0].rows().all(Row::is_plain));
        assert_eq!(found[0].tokens(), 2400);
    }

    #[test]
    fn equal_questions_are_one_row() {
        let all = [question(&[], 1, 5), question(&[], 2, 5), question(&[], 1, 5)];
        let found = together(&all, FREE, 100);
        assert_eq!(documents(&found), [[0, 1, 2]]);
        assert_eq!(found[0].tokens(), 10);
        assert_eq!(found[0].passes[0][0].documents, [(0, 1), (2, 1)]);
    }

    #[test]
    fn a_prefix_ends_before_the_last_token_of_every_context() {
        // All of one context is in the other.
        let long: Vec<i64> = (100..400).collect();
        let all = [sequences(299, &[&long]), sequences(20, &[&long])];
        let found = together(&all, FREE, 100);
        assert_eq!(found[0].prefix.len(), 19);
    }

    #[test]
    fn sequences_lie_apart_where_they_differ_in_what_is_read() {
        let one = sequences(2, &[&[7, 8, 1], &[7, 8, 2], &[7, 8, 3, 4]]);
        let all = [one, Sequences(Vec::new()), sequences(1, &[&[5, 6]])];
        assert_eq!(documents(&apart(&all, 1)), [vec![0], vec![1, 2]]);
        let found = apart(&all, 5);
        assert_eq!(documents(&found), [vec![0, 1], vec![2]]);
        let ids: Vec<&[i64]> = found[0].rows().map(|row| row.ids.as_slice()).collect();
        assert_eq!(ids, [&[7, 8][..], &[7, 8, 3], &[]]);
        assert!(found[0].passes.iter().all(|pass| pass.len() == 1));
        let first = &found[0].passes[0][0];
        assert_eq!(first.documents, [(0, 3)]);
        assert_eq!(first.targets.iter().map(|target| target.request).collect::<Vec<_>>(), [0, 1]);
    }
}

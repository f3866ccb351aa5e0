//! How a question lies in a row of a batch: what its candidates share once, then a branch a candidate.
//!
//! ```text
//! ids        p0 p1 p2 p3 | a0 a1 | b0 | c0 c1 c2
//! positions   0  1  2  3    4  5    4    4  5  6
//! segment     0  0  0  0    1  1    2    3  3  3
//! ```
//!
//! A token attends to earlier tokens of segment 0 and of its own segment, so that every branch sees exactly
//! what it would see alone. The last token of a sequence predicts nothing that is scored and is left out: the
//! row of four single-token candidates is the prompt alone, and needs no mask.

use super::sequences::Sequences;

/// The segment of what all candidates share.
pub const SHARED: i64 = 0;

/// One token to be scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The candidate that it belongs to.
    pub candidate: usize,
    /// The place in the row whose prediction it is.
    pub place: usize,
    /// The token.
    pub id: i64,
}

/// A question laid out for one forward pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Tokens.
    pub ids: Vec<i64>,
    /// The place of each token in its own sequence.
    pub positions: Vec<i64>,
    /// [`SHARED`], or 1 + the candidate.
    pub segments: Vec<i64>,
    /// What is scored, candidate by candidate.
    pub targets: Vec<Target>,
}

impl Row {
    /// Lays out `sequences`, none of which is empty.
    pub fn new(sequences: &Sequences) -> Self {
        let full = &sequences.full;
        let shared = shared_tokens(full);
        let mut row = Self {
            ids: full.first().map(|ids| ids[..shared].to_vec()).unwrap_or_default(),
            positions: (0..shared as i64).collect(),
            segments: vec![SHARED; shared],
            targets: Vec::new(),
        };
        for (candidate, ids) in full.iter().enumerate() {
            let branch = row.ids.len();
            let last = ids.len() - 1;
            row.ids.extend_from_slice(&ids[shared..last]);
            row.positions.extend(shared as i64..last as i64);
            row.segments.resize(row.ids.len(), candidate as i64 + 1);
            for (target, &id) in ids.iter().enumerate().skip(sequences.prompt_tokens) {
                let before = target - 1;
                let place = if before < shared { before } else { branch + before - shared };
                row.targets.push(Target { candidate, place, id });
            }
        }
        row
    }

    /// Tokens that go through the model.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no token goes through the model.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether all tokens are shared: then attention is plainly causal.
    pub fn is_plain(&self) -> bool {
        self.segments.last().is_none_or(|&segment| segment == SHARED)
    }
}

/// Tokens that all sequences begin with, the last token of each left out.
fn shared_tokens(full: &[Vec<i64>]) -> usize {
    let Some((first, others)) = full.split_first() else { return 0 };
    let most = full.iter().map(|ids| ids.len() - 1).min().unwrap_or(0);
    (0..most).take_while(|&place| others.iter().all(|ids| ids[place] == first[place])).count()
}

/// Packs rows into batches of at most `batch_tokens` tokens, padding counted, but at least one row: indices of
/// `rows`, the longest first, so that rows of one batch are of about one length. Depends on nothing else, so
/// that an interrupted evaluation packs the same batches again.
pub fn pack(rows: &[Row], batch_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(rows[index].len()));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut width = 0;
    for index in order {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * width <= batch_tokens => batch.push(index),
            _ => {
                width = rows[index].len();
                batches.push(vec![index]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(prompt_tokens: usize, full: &[&[i64]]) -> Sequences {
        Sequences { full: full.iter().map(|ids| ids.to_vec()).collect(), prompt_tokens }
    }

    #[test]
    fn single_tokens_need_the_prompt_alone() {
        let row = Row::new(&sequences(3, &[&[7, 8, 9, 1], &[7, 8, 9, 2]]));
        assert_eq!(row.ids, [7, 8, 9]);
        assert!(row.is_plain());
        let expected = [(0, 2, 1), (1, 2, 2)];
        assert_eq!(row.targets, expected.map(|(candidate, place, id)| Target { candidate, place, id }));
    }

    #[test]
    fn longer_candidates_branch_off_where_they_differ() {
        let row = Row::new(&sequences(2, &[&[7, 8, 5, 1, 2], &[7, 8, 5, 3], &[7, 8, 5, 4, 6, 9]]));
        assert_eq!(row.ids, [7, 8, 5, 1, 4, 6]);
        assert_eq!(row.positions, [0, 1, 2, 3, 3, 4]);
        assert_eq!(row.segments, [0, 0, 0, 1, 3, 3]);
        assert!(!row.is_plain());
        let places: Vec<usize> = row.targets.iter().map(|target| target.place).collect();
        assert_eq!(places, [1, 2, 3, 1, 2, 1, 2, 4, 5]);
    }

    #[test]
    fn a_candidate_may_begin_another_and_equal_a_third() {
        let row = Row::new(&sequences(2, &[&[7, 8, 5], &[7, 8, 5, 6], &[7, 8, 5]]));
        assert_eq!(row.ids, [7, 8, 5]);
        assert_eq!(row.segments, [0, 0, 2]);
        assert_eq!(row.targets.iter().map(|target| target.place).collect::<Vec<_>>(), [1, 1, 2, 1]);
    }

    #[test]
    fn a_tokenizer_that_merges_over_the_border_shortens_what_is_shared() {
        let row = Row::new(&sequences(2, &[&[7, 1, 2], &[7, 3, 4]]));
        assert_eq!(row.ids, [7, 1, 3]);
        assert_eq!(row.positions, [0, 1, 1]);
        assert_eq!(row.targets.iter().map(|target| target.place).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn batches_hold_rows_of_like_length_up_to_the_limit() {
        let rows: Vec<Row> = [2_i64, 5, 3, 5, 9]
            .iter()
            .map(|&length| Row::new(&sequences(1, &[&(0..=length).collect::<Vec<_>>()])))
            .collect();
        assert_eq!(pack(&rows, 10), [vec![4], vec![1, 3], vec![2, 0]]);
        assert_eq!(pack(&rows, 1), [vec![4], vec![1], vec![3], vec![2], vec![0]]);
        assert_eq!(pack(&rows, 1000).len(), 1);
    }
}

//! The edits of [`super::ter`]: words put in, taken out or replaced, and runs of words that are shifted, for each of which one
//! edit counts.
//!
//! Which shifts are tried, and how many, is Tercom's heuristic in sacrebleu's form: greedy, the shift that saves most edits
//! first; the edit distance is searched near the diagonal only. Both bounds show in the figures, so they are kept.

use std::cmp::Reverse;

/// Words of a shifted run at most.
const LONGEST_SHIFT: usize = 10;
/// Places between a run and its like in the other text at most.
const FARTHEST_SHIFT: usize = 50;
/// Shifts that are tried at most.
const MOST_SHIFTS: usize = 1000;
/// Places to each side of the diagonal.
const BEAM: usize = 25;
/// No way leads there; far from overflowing when something is added.
const FAR: u32 = u32::MAX / 2;

/// One step from a text to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Keep,
    Replace,
    TakeOut,
    PutIn,
}

/// How many edits make `right` of `reply`.
pub(super) fn count(reply: &[&str], right: &[&str]) -> u64 {
    if right.is_empty() {
        return reply.len() as u64;
    }
    let mut words = reply.to_vec();
    let (mut shifts, mut tried) = (0, 0);
    loop {
        let (distance, steps) = distance(&words, right);
        let shifted = best_shift(&words, right, (distance, &steps), &mut tried);
        match shifted {
            Some((saved, better)) if saved > 0 && tried < MOST_SHIFTS => {
                shifts += 1;
                words = better;
            }
            _ => return shifts + u64::from(distance),
        }
    }
}

/// What the steps say of places: the place in the words before or at which each right word stands (-1: before all), and whether
/// each word, of either text, is wrong.
#[derive(Default)]
struct Alignment {
    places: Vec<isize>,
    right_is_wrong: Vec<bool>,
    word_is_wrong: Vec<bool>,
}

impl Alignment {
    fn of(steps: &[Step]) -> Self {
        let mut found = Self::default();
        let mut place = -1;
        for step in steps {
            let is_wrong = *step != Step::Keep;
            if *step != Step::PutIn {
                place += 1;
                found.word_is_wrong.push(is_wrong);
            }
            if *step != Step::TakeOut {
                found.places.push(place);
                found.right_is_wrong.push(is_wrong);
            }
        }
        found
    }
}

/// The shift that saves most edits: how many, and the words after it. `tried` counts all that were looked at.
fn best_shift<'a>(
    words: &[&'a str],
    right: &[&str],
    (before, steps): (u32, &[Step]),
    tried: &mut usize,
) -> Option<(i64, Vec<&'a str>)> {
    let found = Alignment::of(steps);
    let mut best = None;
    for (start, right_start, length) in like_runs(words, right) {
        let is_wrong = |flags: &[bool], start: usize| flags[start..start + length].contains(&true);
        let target = found.places[right_start];
        let is_within = usize::try_from(target).is_ok_and(|place| (start..start + length).contains(&place));
        // Both the run and what stands where it should be have to be wrong.
        if !is_wrong(&found.word_is_wrong, start)
            || !is_wrong(&found.right_is_wrong, right_start)
            || is_within
        {
            continue;
        }
        let mut last = None;
        for right_place in (right_start..=right_start + length).map(|place| place.checked_sub(1)) {
            // Behind the word that the right word before stands at, or before all.
            let target = right_place.map_or(0, |place| (found.places[place] + 1) as usize);
            if last.replace(target) == Some(target) {
                continue;
            }
            let shifted = shifted(words, start, length, target);
            let saved = i64::from(before) - i64::from(distance(&shifted, right).0);
            *tried += 1;
            let rank = (saved, length, Reverse(start), Reverse(target));
            if best.as_ref().is_none_or(|(highest, _)| rank > *highest) {
                best = Some((rank, shifted));
            }
        }
        if *tried >= MOST_SHIFTS {
            break;
        }
    }
    best.map(|((saved, ..), shifted)| (saved, shifted))
}

/// Runs that both texts have: where each begins, and words.
fn like_runs(words: &[&str], right: &[&str]) -> impl Iterator<Item = (usize, usize, usize)> {
    let starts = (0..words.len()).flat_map(|start| (0..right.len()).map(move |right| (start, right)));
    let near = starts.filter(|(start, right)| start.abs_diff(*right) <= FARTHEST_SHIFT);
    near.flat_map(|(start, right_start)| {
        let both = words[start..].iter().zip(&right[right_start..]).take(LONGEST_SHIFT);
        let longest = both.take_while(|(one, other)| one == other).count();
        (1..=longest).map(move |length| (start, right_start, length))
    })
}

/// The words with the run of `length` from `start` on moved to `target`.
fn shifted<'a>(words: &[&'a str], start: usize, length: usize, target: usize) -> Vec<&'a str> {
    let run = &words[start..start + length];
    let parts = if target < start {
        [&words[..target], run, &words[target..start], &words[start + length..]]
    } else if target > start + length {
        [&words[..start], &words[start + length..target], run, &words[target..]]
    } else {
        // Within itself: so many words further.
        let end = (length + target).min(words.len());
        [&words[..start], &words[start + length..end], run, &words[end..]]
    };
    parts.concat()
}

/// The edit distance without shifts, and its steps.
fn distance(words: &[&str], right: &[&str]) -> (u32, Vec<Step>) {
    let width = right.len() + 1;
    let mut cells = vec![(FAR, Step::Keep); (words.len() + 1) * width];
    for (place, cell) in cells[..width].iter_mut().enumerate() {
        *cell = (place as u32, Step::PutIn);
    }
    let ratio = if words.is_empty() { 1.0 } else { right.len() as f64 / words.len() as f64 };
    let beam = match ratio / 2.0 {
        half if half > BEAM as f64 => (half + BEAM as f64).ceil() as usize,
        _ => BEAM,
    };
    for row in 1..=words.len() {
        let diagonal = (row as f64 * ratio).floor() as usize;
        let end = if row == words.len() { width } else { width.min(diagonal + beam) };
        for column in diagonal.saturating_sub(beam)..end {
            let above = cells[(row - 1) * width + column].0 + 1;
            let here = row * width + column;
            if column == 0 {
                cells[here] = (above, Step::TakeOut);
                continue;
            }
            let is_same = words[row - 1] == right[column - 1];
            let replaced = cells[here - width - 1].0 + u32::from(!is_same);
            let replace = if is_same { Step::Keep } else { Step::Replace };
            // Of equals the first, as in sacrebleu.
            for (cost, step) in
                [(replaced, replace), (above, Step::TakeOut), (cells[here - 1].0 + 1, Step::PutIn)]
            {
                if cost < cells[here].0 {
                    cells[here] = (cost, step);
                }
            }
        }
    }
    (cells[cells.len() - 1].0, steps_to(&cells, words.len(), right.len()))
}

/// The steps that lead to a cell.
fn steps_to(cells: &[(u32, Step)], mut row: usize, mut column: usize) -> Vec<Step> {
    let width = column + 1;
    let mut steps = Vec::new();
    while row > 0 || column > 0 {
        let step = match (row, column) {
            (0, _) => Step::PutIn,
            (_, 0) => Step::TakeOut,
            _ => cells[row * width + column].1,
        };
        steps.push(step);
        row -= usize::from(step != Step::PutIn);
        column -= usize::from(step != Step::TakeOut);
    }
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is expected is what sacrebleu 2.6.0 gives: `translation_edit_rate(reply.split(), right.split())[0]`.
    #[test]
    fn edits_are_those_of_sacrebleu() {
        for (reply, right, expected) in EDITS {
            let (reply, right): (Vec<&str>, Vec<&str>) =
                (reply.split(' ').collect(), right.split(' ').collect());
            assert_eq!(count(&reply, &right), expected, "{reply:?}");
        }
    }

    /// The same, of long texts: beyond the beam and the bound of shifts.
    #[test]
    fn long_texts_reach_the_bounds() {
        let word = |number: usize| ["a", "b", "c", "d", "e", "f", "g"][number * number % 97 % 7];
        for (length, right_length, step, expected) in LONG {
            let reply: Vec<&str> = (0..length).map(|place| word(place * step + 3)).collect();
            let right: Vec<&str> = (0..right_length).map(word).collect();
            assert_eq!(count(&reply, &right), expected, "{length} {right_length} {step}");
        }
    }

    const EDITS: [(&str, &str, u64); 8] = [
        ("a b c d e f", "d e f a b c", 1),
        ("a b c", "a b c", 0),
        ("x a b y", "a x y b", 2),
        ("a a b a", "b a a a", 1),
        ("the cat the dog the end", "the end the dog the cat", 2),
        ("a", "b c d", 3),
        ("a b c d", "a", 3),
        ("one two two three one", "one three two one two four", 3),
    ];
    const LONG: [(usize, usize, usize, u64); 5] =
        [(60, 60, 1, 6), (80, 70, 3, 44), (5, 200, 1, 195), (200, 9, 2, 191), (120, 120, 5, 81)];
}

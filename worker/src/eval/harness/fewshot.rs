//! The examples before a question.

use std::sync::Arc;

use serde_json::Value;

use crate::eval::python::random::PythonRandom;

/// How examples are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// At random, one generator for all questions of a task.
    Random,
    /// The first of the split, in its order.
    First,
}

/// Chooses examples for one question after another.
pub(super) struct Sampler {
    pool: Arc<Vec<Value>>,
    sampling: Sampling,
    random: PythonRandom,
}

impl Sampler {
    /// `pool` are the rows to choose from.
    pub(super) fn new(pool: Arc<Vec<Value>>, sampling: Sampling, seed: u64) -> Self {
        Self { pool, sampling, random: PythonRandom::new(seed) }
    }

    /// `count` rows; `asked` is the question's own, where it may be among them. `None`: there are fewer.
    pub(super) fn sample(&mut self, count: usize, asked: Option<&Value>) -> Option<Vec<Value>> {
        let others = |rows: &mut dyn Iterator<Item = &Value>| -> Vec<Value> {
            rows.filter(|row| Some(*row) != asked).take(count).cloned().collect()
        };
        let drawn = match (self.sampling, asked) {
            (Sampling::First, _) => others(&mut self.pool.iter()),
            (Sampling::Random, None) => {
                let indices = self.random.sample(self.pool.len(), count)?;
                indices.into_iter().map(|index| self.pool[index].clone()).collect()
            }
            (Sampling::Random, Some(_)) => {
                // One more than needed, should the question itself be drawn.
                let indices = self.random.sample(self.pool.len(), count + 1)?;
                let drawn = others(&mut indices.iter().map(|&index| &self.pool[index]));
                if drawn.len() == count {
                    drawn
                } else {
                    // It was drawn more than once.
                    let rest: Vec<&Value> = self.pool.iter().filter(|row| Some(*row) != asked).collect();
                    let indices = self.random.sample(rest.len(), count)?;
                    indices.into_iter().map(|index| rest[index].clone()).collect()
                }
            }
        };
        (drawn.len() == count).then_some(drawn)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sampler(rows: usize, sampling: Sampling) -> Sampler {
        Sampler::new(Arc::new((0..rows).map(|row| json!(row)).collect()), sampling, 1234)
    }

    #[test]
    fn the_question_itself_is_no_example() {
        for sampling in [Sampling::Random, Sampling::First] {
            let mut sampler = sampler(6, sampling);
            for _ in 0..20 {
                let drawn = sampler.sample(5, Some(&json!(2)));
                let mut drawn = drawn.unwrap_or_default();
                drawn.sort_by_key(Value::as_u64);
                assert_eq!(drawn, [0, 1, 3, 4, 5].map(|row| json!(row)));
            }
        }
    }

    #[test]
    fn too_few_rows_give_no_examples() {
        assert_eq!(sampler(3, Sampling::First).sample(4, None), None);
        assert_eq!(sampler(3, Sampling::Random).sample(4, None), None);
        assert_eq!(sampler(3, Sampling::First).sample(2, None), Some(vec![json!(0), json!(1)]));
    }
}

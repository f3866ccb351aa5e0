//! Task files of lm-eval's as tasks.

use std::borrow::Cow;
use std::sync::Arc;

use qpipe_nodes::task_file::{Metric, OutputType, Sampler, Step as FileStep, TaskFile};
use serde_json::Value;

use super::choice_letter::{self, ChoiceLetter};
use super::exact_match::ExactMatch;
use super::fewshot::Sampling;
use super::filter::{Filter, Step};
use super::spec::{Answering, DEFAULT_TOKENS, Examples, Prefix, Spec, Splits};
use super::template::Rule;
use super::writing::{Measure, Verdict, Writing};
use crate::eval::error::EvalError;
use crate::eval::metrics;
use crate::eval::python;
use crate::eval::python::pattern::Pattern;
use crate::eval::python::translate::Flags;
use crate::eval::task::{GenerationRule, Sampling as Drawing};

/// The task that `file` describes.
///
/// # Errors
/// When an expression of it is none of Python's, or a number is out of its range.
pub fn spec(file: &TaskFile) -> Result<Spec, EvalError> {
    let wrong = |problem: String| EvalError::TaskFile { task: file.task.clone(), problem };
    let config = file.fewshot_config.as_ref();
    let named = |split: &Option<String>| split.clone().map(Cow::Owned);
    Ok(Spec {
        name: file.task.clone(),
        alias: file.task_alias.clone(),
        version: file.version(),
        part: file.dataset_name.clone(),
        part_may_be_absent: true,
        splits: Splits {
            training: named(&file.training_split),
            validation: named(&file.validation_split),
            test: named(&file.test_split),
            fewshot: config
                .and_then(|config| config.split.clone())
                .or_else(|| file.fewshot_split.clone())
                .map(Cow::Owned),
        },
        text: rule(&file.doc_to_text),
        choices: rule(&file.doc_to_choice),
        target: match file.output_type {
            OutputType::MultipleChoice => rule_or_text(&file.doc_to_target),
            _ => rule(&file.doc_to_target),
        },
        description: rule_or_text(&file.description.clone().into()),
        prefix: file.gen_prefix.as_deref().and_then(prefix),
        examples: examples(file),
        target_delimiter: file.target_delimiter.clone(),
        fewshot_delimiter: file.fewshot_delimiter.clone(),
        sampling: match config.map(|config| config.sampler).unwrap_or_default() {
            Sampler::Default => Sampling::Random,
            Sampler::FirstN => Sampling::First,
        },
        prepare: None,
        num_fewshot: file.num_fewshot,
        metrics: file.metric_names(),
        repeats: file.repeats as usize,
        answering: match file.output_type {
            OutputType::MultipleChoice => Answering::Choosing,
            OutputType::Loglikelihood => Answering::Continuing,
            OutputType::LoglikelihoodRolling => Answering::Foreseeing { counted: None },
            OutputType::GenerateUntil => Answering::Writing(Writing {
                rule: Arc::new(generation(file).map_err(wrong)?),
                verdict: verdict(file).map_err(wrong)?,
            }),
        },
    })
}

/// How examples differ from questions.
fn examples(file: &TaskFile) -> Examples {
    let config = file.fewshot_config.clone().unwrap_or_default();
    let given = |value: &Value, rule: fn(&Value) -> Rule| (!value.is_null()).then(|| rule(value));
    let target = match file.output_type {
        OutputType::MultipleChoice => rule_or_text,
        _ => rule,
    };
    let samples = config.samples.map(|samples| samples.into_iter().map(Value::Object).collect());
    Examples {
        samples: samples.map(Arc::new),
        text: given(&config.doc_to_text, rule),
        choices: given(&config.doc_to_choice, rule),
        target: given(&config.doc_to_target, target),
        prefix: config.gen_prefix.as_deref().or(file.gen_prefix.as_deref()).and_then(prefix),
        target_delimiter: config.target_delimiter,
        fewshot_delimiter: config.fewshot_delimiter,
    }
}

/// What begins an answer; an empty text is nothing.
fn prefix(source: &str) -> Option<Prefix> {
    let rule = rule_or_text(&source.into());
    (!source.is_empty()).then(|| Prefix { rule, source: source.to_owned() })
}

/// A text is a field's name or a template; all else stands for itself.
fn rule(value: &Value) -> Rule {
    match value {
        Value::String(source) => Rule::template(source),
        other => Rule::Constant(other.clone()),
    }
}

/// The same, but a text that is neither stands for itself as well.
fn rule_or_text(value: &Value) -> Rule {
    match value {
        Value::String(source) if !["{{", "{%", "{#"].iter().any(|begin| source.contains(begin)) => {
            Rule::FieldOrText(source.clone())
        }
        value => rule(value),
    }
}

fn generation(file: &TaskFile) -> Result<GenerationRule, String> {
    let mut given = file.generation_kwargs.clone().unwrap_or_else(|| {
        let by_default = [
            ("temperature", Value::from(0.0)),
            ("do_sample", Value::from(false)),
            ("max_gen_toks", Value::from(DEFAULT_TOKENS)),
        ];
        by_default.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
    });
    // Without a word, a reply ends where the next example would begin.
    given.entry("until").or_insert_with(|| vec![file.fewshot_delimiter.clone()].into());
    if let Some(temperature) = given.get_mut("temperature")
        && let Some(number) = temperature.as_f64()
    {
        *temperature = number.into();
    }
    let until = match &given["until"] {
        Value::Null => Vec::new(),
        Value::Array(ends) => ends.iter().map(python::text_of).collect(),
        end => vec![python::text_of(end)],
    };
    let limits = ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"];
    let max_gen_toks = match limits.iter().find_map(|key| Some((key, given.get(*key)?))) {
        None => DEFAULT_TOKENS,
        Some((key, limit)) => {
            let limit =
                limit.as_u64().filter(|&limit| limit > 0).and_then(|limit| usize::try_from(limit).ok());
            limit.ok_or_else(|| format!("`{key}` has to be a number above 0"))?
        }
    };
    let number = |key: &str| match given.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| format!("`{key}` has to be a number")),
    };
    let temperature = number("temperature")?;
    let draws = match given.get("do_sample") {
        Some(value) => value == true,
        None => temperature.is_some_and(|temperature| temperature > 0.0),
    };
    let sampling = match draws {
        false => None,
        true => Some(Drawing {
            temperature: temperature
                .filter(|&temperature| temperature > 0.0)
                .ok_or("`do_sample: true` needs a `temperature` above 0")?,
            // transformers' default.
            top_k: match number("top_k")?.unwrap_or(50.0) {
                0.0 => None,
                most => Some(most as usize),
            },
            top_p: number("top_p")?.unwrap_or(1.0),
        }),
    };
    Ok(GenerationRule { until, max_gen_toks, sampling, arguments: Value::Object(given) })
}

fn verdict(file: &TaskFile) -> Result<Verdict, String> {
    let filters = match &file.filter_list {
        None => vec![Filter::new(qpipe_nodes::results::NO_FILTER, vec![Step::First])],
        Some(list) => {
            let filter = |entry: &qpipe_nodes::task_file::FilterList| {
                let steps = entry.filter.iter().map(step).collect::<Result<_, String>>()?;
                Ok(Filter::new(&entry.name, steps))
            };
            list.iter().map(filter).collect::<Result<_, String>>()?
        }
    };
    let measures = match &file.metric_list {
        None => vec![Measure::ExactMatch(ExactMatch::default())],
        Some(list) => list.iter().map(measure).collect::<Result<_, String>>()?,
    };
    Ok(Verdict::Compared { filters, measures })
}

fn step(step: &FileStep) -> Result<Step, String> {
    Ok(match step {
        FileStep::TakeFirst => Step::First,
        FileStep::TakeFirstK { k } => Step::FirstOf(*k as usize),
        FileStep::MajorityVote => Step::Majority,
        FileStep::RemoveWhitespace => Step::RemoveWhitespace,
        FileStep::Lowercase => Step::Lowercase,
        FileStep::Uppercase => Step::Uppercase,
        FileStep::FormatSpan => Step::Spans,
        FileStep::RegexPos { fallback, .. } => Step::Tags(fallback.clone()),
        FileStep::Map { mapping_dict, default_value } => {
            Step::Map { values: mapping_dict.clone().unwrap_or_default(), other: default_value.clone() }
        }
        FileStep::Regex { regex_pattern, group_select, fallback } => Step::Regex {
            pattern: pattern(regex_pattern)?,
            select: *group_select,
            fallback: fallback.clone(),
        },
        FileStep::MultiChoiceRegex {
            regex_pattern,
            group_select,
            fallback,
            ignore_case,
            ignore_punctuation,
            regexes_to_ignore,
        } => {
            let ignored = regexes_to_ignore.iter().flatten().map(|source| pattern(source));
            Step::ChoiceLetter(ChoiceLetter {
                pattern: pattern(regex_pattern)?,
                select: *group_select,
                fallback: fallback.clone(),
                ignore_case: *ignore_case,
                punctuation: ignore_punctuation.then(choice_letter::punctuation),
                ignored: ignored.collect::<Result<_, _>>()?,
            })
        }
    })
}

fn measure(metric: &Metric) -> Result<Measure, String> {
    if metrics::compares_texts(&metric.metric) {
        return Ok(Measure::Together(metric.metric.clone()));
    }
    let ignored = metric.regexes_to_ignore.iter().map(|source| pattern(source));
    Ok(Measure::ExactMatch(ExactMatch {
        ignored: ignored.collect::<Result<_, _>>()?,
        ignore_case: metric.ignore_case,
        ignore_punctuation: metric.ignore_punctuation,
        ignore_numbers: metric.ignore_numbers,
    }))
}

fn pattern(source: &str) -> Result<Pattern, String> {
    Pattern::new(source, Flags::default()).map_err(|error| error.to_string())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Spec, String> {
        spec(&serde_json::from_value(value).unwrap()).map_err(|error| error.to_string())
    }

    fn rule_of(generation: Value) -> Result<GenerationRule, String> {
        let task =
            json!({"task": "t", "doc_to_text": "q", "doc_to_target": "a", "generation_kwargs": generation});
        match read(task)?.answering {
            Answering::Writing(writing) => Ok((*writing.rule).clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_a_task_like_those_that_are_built_in() {
        let task = read(json!({
            "task": "t", "output_type": "multiple_choice", "dataset_name": "part", "test_split": "test",
            "doc_to_text": "{{question}}", "doc_to_choice": ["yes", "no"], "doc_to_target": "label",
            "fewshot_config": {"sampler": "first_n", "split": "dev"}, "metadata": {"version": 2.5},
        }))
        .unwrap();
        assert_eq!((&task.version, task.part.as_deref()), (&json!(2.5), Some("part")));
        assert_eq!((task.asked_split(), task.example_split()), ("test", "dev"));
        assert_eq!(
            (task.sampling, task.metrics),
            (Sampling::First, vec!["acc".to_owned(), "acc_norm".to_owned()])
        );
        assert!(matches!(task.choices, Rule::Constant(choices) if choices == json!(["yes", "no"])));
    }

    #[test]
    fn replies_are_greedy_unless_the_file_draws() {
        let rule = rule_of(json!({"until": "\n", "max_gen_toks": 7})).unwrap();
        assert_eq!((rule.until, rule.max_gen_toks, rule.sampling), (vec!["\n".to_owned()], 7, None));
        let drawn =
            rule_of(json!({"do_sample": true, "temperature": 0.8, "top_k": 0, "top_p": 0.9})).unwrap();
        assert_eq!(drawn.sampling, Some(Drawing { temperature: 0.8, top_k: None, top_p: 0.9 }));
        assert_eq!(rule_of(json!({"do_sample": false, "temperature": 0.8})).unwrap().sampling, None);
        assert_eq!(rule_of(json!({"max_tokens": 3})).unwrap().until, ["\n\n"]);
        assert!(rule_of(json!({"do_sample": true})).unwrap_err().contains("temperature"));
        assert!(rule_of(json!({"max_gen_toks": 0})).unwrap_err().contains("`max_gen_toks`"));
    }

    #[test]
    fn examples_are_as_questions_but_for_what_the_file_says() {
        let task = |config: Value| {
            read(json!({
                "task": "t", "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "c",
                "doc_to_target": "label", "gen_prefix": "So {{x}}", "fewshot_config": config,
            }))
            .unwrap()
        };
        let plain = task(json!({})).examples;
        assert!(plain.text.is_none() && plain.choices.is_none() && plain.target.is_none());
        assert_eq!(plain.prefix.map(|prefix| prefix.source).as_deref(), Some("So {{x}}"));
        let own = task(
            json!({"samples": [{"q": 1}], "doc_to_target": "{{a}}", "gen_prefix": "", "target_delimiter": ":"}),
        );
        assert!(own.prefix.is_some() && own.examples.prefix.is_none());
        assert_eq!(own.examples.samples.as_deref(), Some(&vec![json!({"q": 1})]));
        assert!(matches!(own.examples.target, Some(Rule::Template(source)) if source == "{{a}}"));
        assert_eq!(own.examples.target_delimiter.as_deref(), Some(":"));
    }

    #[test]
    fn an_expression_that_does_not_work_is_named() {
        let filter = json!([{"name": "f", "filter": [{"function": "regex", "regex_pattern": "("}]}]);
        let error =
            read(json!({"task": "t", "doc_to_text": "q", "doc_to_target": "a", "filter_list": filter}))
                .unwrap_err();
        assert!(error.contains("`t`") && error.contains("`(`"), "{error}");
    }
}

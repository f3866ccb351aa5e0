//! Verdicts on IFEval's verifiable instructions.
//!
//! ```text
//! row of the dataset ─► instructions ─► judge ─► Verdict { strict, loose }
//!   id list, kwargs      INSTRUCTIONS     ▲
//!                                     response ─► variants
//! ```
//!
//! The reference is the task `ifeval`, version 4, of lm-evaluation-harness 0.4.13 with NLTK 3.10 and langdetect
//! 1.0.9. A check asks what that asks, with the same edge cases: keywords are regular expressions of Python
//! (`pattern`), white space and case are Python's (`python`), sentences are Punkt's (`sentences`), words
//! with capital letters are those of NLTK's tokenizer (`words`). NLTK before 3.10 knew no curly quotes in Punkt
//! and counted words by another `\w`.
//!
//! Three things are settled here that the reference leaves open, so that a verdict is a function of its inputs:
//!
//! - langdetect draws random n-grams, and the reference gives it no seed. It has seed 0 here.
//! - A letter to be counted that is none (two prompts of the dataset ask for `#` and `!`) is replaced by a random
//!   letter in the reference, another one in each run. It is counted as it stands here.
//! - An argument that is missing is drawn at random in the reference. It is an error here.
//!
//! Characters have the properties of the Unicode version that Rust's standard library and `regex` know; a Python
//! that knows an older one takes younger characters for unassigned.
//!
//! A new kind of instruction is one function in the file of its family and one line in [`INSTRUCTIONS`].

mod arguments;
mod change_case;
mod combination;
mod content;
pub mod error;
mod format;
mod json;
mod keywords;
mod language;
mod length;
mod pattern;
mod punctuation;
mod punkt;
mod sentences;
mod startend;
mod variants;
mod words;

use serde_json::{Map, Value};

use arguments::Arguments;
pub use error::IfevalError;

/// Whether a text follows one instruction whose arguments are set.
type Check = Box<dyn Fn(&str) -> Result<bool, IfevalError>>;

/// A kind of instruction.
pub struct Kind {
    /// The name in the dataset: family, colon, instruction.
    pub id: &'static str,
    /// The arguments that it needs, by their names in the dataset.
    pub arguments: &'static [&'static str],
    build: fn(&Arguments<'_>) -> Result<Check, IfevalError>,
}

impl Kind {
    const fn new(
        id: &'static str,
        arguments: &'static [&'static str],
        build: fn(&Arguments<'_>) -> Result<Check, IfevalError>,
    ) -> Self {
        Self { id, arguments, build }
    }
}

/// Every kind of instruction, sorted by name.
pub static INSTRUCTIONS: &[Kind] = &[
    Kind::new(
        "change_case:capital_word_frequency",
        &["capital_frequency", "capital_relation"],
        change_case::capital_word_frequency,
    ),
    Kind::new("change_case:english_capital", &[], change_case::english_capital),
    Kind::new("change_case:english_lowercase", &[], change_case::english_lowercase),
    Kind::new("combination:repeat_prompt", &["prompt_to_repeat"], combination::repeat_prompt),
    Kind::new("combination:two_responses", &[], combination::two_responses),
    Kind::new("detectable_content:number_placeholders", &["num_placeholders"], content::number_placeholders),
    Kind::new("detectable_content:postscript", &["postscript_marker"], content::postscript),
    Kind::new("detectable_format:constrained_response", &[], format::constrained_response),
    Kind::new("detectable_format:json_format", &[], format::json_format),
    Kind::new(
        "detectable_format:multiple_sections",
        &["section_spliter", "num_sections"],
        format::multiple_sections,
    ),
    Kind::new("detectable_format:number_bullet_lists", &["num_bullets"], format::number_bullet_lists),
    Kind::new(
        "detectable_format:number_highlighted_sections",
        &["num_highlights"],
        format::number_highlighted_sections,
    ),
    Kind::new("detectable_format:title", &[], format::title),
    Kind::new("keywords:existence", &["keywords"], keywords::existence),
    Kind::new("keywords:forbidden_words", &["forbidden_words"], keywords::forbidden_words),
    Kind::new("keywords:frequency", &["keyword", "frequency", "relation"], keywords::frequency),
    Kind::new(
        "keywords:letter_frequency",
        &["letter", "let_frequency", "let_relation"],
        keywords::letter_frequency,
    ),
    Kind::new("language:response_language", &["language"], language::response_language),
    Kind::new(
        "length_constraints:nth_paragraph_first_word",
        &["num_paragraphs", "nth_paragraph", "first_word"],
        length::nth_paragraph_first_word,
    ),
    Kind::new("length_constraints:number_paragraphs", &["num_paragraphs"], length::number_paragraphs),
    Kind::new(
        "length_constraints:number_sentences",
        &["num_sentences", "relation"],
        length::number_sentences,
    ),
    Kind::new("length_constraints:number_words", &["num_words", "relation"], length::number_words),
    Kind::new("punctuation:no_comma", &[], punctuation::no_comma),
    Kind::new("startend:end_checker", &["end_phrase"], startend::end_checker),
    Kind::new("startend:quotation", &[], startend::quotation),
];

/// One instruction of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// The name of its kind, one of [`INSTRUCTIONS`].
    pub id: String,
    /// Its arguments, by name.
    pub kwargs: Map<String, Value>,
}

impl Instruction {
    fn check(&self) -> Result<Check, IfevalError> {
        let kind = INSTRUCTIONS
            .iter()
            .find(|kind| kind.id == self.id)
            .ok_or_else(|| IfevalError::UnknownInstruction { id: self.id.clone() })?;
        (kind.build)(&Arguments::new(kind, &self.kwargs)?)
    }
}

/// Which instructions a response follows, in their order. It follows the prompt when it follows all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The response as it stands follows.
    pub strict: Vec<bool>,
    /// One of its eight readings follows: with or without its first line, its last line, its asterisks.
    pub loose: Vec<bool>,
}

/// The instructions of `doc`, a row of the dataset: its fields `instruction_id_list` and `kwargs`. Arguments that
/// Python counts as false (null, zero, empty) are left out, as in the reference.
///
/// # Errors
/// When a field is missing or of another type, an instruction is unknown, or an argument is missing or wrong. All
/// that can be known before there is a response is checked here.
pub fn instructions(doc: &Value) -> Result<Vec<Instruction>, IfevalError> {
    let ids = list(doc, "instruction_id_list")?;
    let kwargs = list(doc, "kwargs")?;
    if ids.len() != kwargs.len() {
        return Err(IfevalError::Lengths { instructions: ids.len(), kwargs: kwargs.len() });
    }
    ids.iter()
        .zip(kwargs)
        .map(|(id, kwargs)| {
            let id = id.as_str().ok_or_else(|| row("instruction_id_list", id, "a list of texts"))?;
            let kwargs = kwargs.as_object().ok_or_else(|| row("kwargs", kwargs, "a list of objects"))?;
            let set = kwargs.iter().filter(|(_, value)| is_true(value));
            let instruction = Instruction {
                id: id.to_owned(),
                kwargs: set.map(|(name, value)| (name.clone(), value.clone())).collect(),
            };
            drop(instruction.check()?);
            Ok(instruction)
        })
        .collect()
}

/// Judges `response`. No kind of instruction looks at the prompt: what must be repeated of it is an argument.
///
/// # Errors
/// When an instruction is unknown, an argument is missing or wrong, or a keyword backtracks without end.
pub fn judge(instructions: &[Instruction], response: &str) -> Result<Verdict, IfevalError> {
    let variants = variants::of(response);
    let mut verdict = Verdict { strict: Vec::new(), loose: Vec::new() };
    for instruction in instructions {
        let check = instruction.check()?;
        let mut follows = variants.iter().map(|variant| check(variant));
        let strict = follows.next().transpose()?.unwrap_or(false);
        let mut loose = strict;
        while !loose && let Some(one) = follows.next() {
            loose = one?;
        }
        verdict.strict.push(strict);
        verdict.loose.push(loose);
    }
    Ok(verdict)
}

fn list<'a>(doc: &'a Value, field: &'static str) -> Result<&'a Vec<Value>, IfevalError> {
    let value = doc.get(field).ok_or(IfevalError::MissingField { field })?;
    value.as_array().ok_or_else(|| row(field, value, "a list"))
}

fn row(field: &'static str, found: &Value, expected: &'static str) -> IfevalError {
    IfevalError::Field { field, found: found.to_string(), expected }
}

/// What Python's `bool` says.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whether `response` follows one instruction strictly.
    pub(super) fn follows(id: &str, kwargs: Value, response: &str) -> bool {
        let instruction =
            Instruction { id: id.to_owned(), kwargs: kwargs.as_object().expect("an object").clone() };
        judge(&[instruction], response).expect("a verdict").strict[0]
    }

    fn problem(doc: Value) -> String {
        instructions(&doc).expect_err("a row that is wrong").to_string()
    }

    #[test]
    fn the_table_is_sorted_and_has_25_kinds() {
        assert!(INSTRUCTIONS.is_sorted_by(|one, next| one.id < next.id));
        assert_eq!(INSTRUCTIONS.len(), 25);
    }

    #[test]
    fn arguments_that_python_counts_as_false_are_left_out() {
        let doc = json!({
            "instruction_id_list": ["length_constraints:number_words"],
            "kwargs": [{"num_words": 3, "relation": "at least", "keyword": null, "num_bullets": 0, "letter": ""}],
        });
        let found = instructions(&doc).expect("a row");
        assert_eq!(found[0].kwargs.keys().collect::<Vec<_>>(), ["num_words", "relation"]);
    }

    #[test]
    fn a_row_that_is_wrong_is_named_before_there_is_a_response() {
        assert_eq!(problem(json!({"kwargs": []})), "`instruction_id_list` is missing");
        assert_eq!(
            problem(json!({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []})),
            "`instruction_id_list` has 1 entry, `kwargs` has 0"
        );
        assert_eq!(
            problem(json!({"instruction_id_list": ["punctuation:no_colon"], "kwargs": [{}]})),
            "unknown instruction `punctuation:no_colon`"
        );
        assert_eq!(
            problem(json!({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"letter": "a"}]})),
            "`punctuation:no_comma` takes no argument `letter`"
        );
        assert_eq!(
            problem(json!({"instruction_id_list": ["startend:end_checker"], "kwargs": [{"end_phrase": ""}]})),
            "`startend:end_checker`: `end_phrase` is missing"
        );
    }

    #[test]
    fn a_blank_response_follows_nothing() {
        let instruction = Instruction { id: "punctuation:no_comma".to_owned(), kwargs: Map::new() };
        for response in ["", " \n\u{1f}\u{3000}"] {
            let verdict = judge(std::slice::from_ref(&instruction), response).expect("a verdict");
            assert_eq!(verdict, Verdict { strict: vec![false], loose: vec![false] });
        }
    }

    #[test]
    fn loose_passes_over_what_a_model_adds_around_its_answer() {
        let instruction = Instruction { id: "punctuation:no_comma".to_owned(), kwargs: Map::new() };
        let response = "Sure, here it is:\nA poem.";
        let verdict = judge(&[instruction], response).expect("a verdict");
        assert_eq!(verdict, Verdict { strict: vec![false], loose: vec![true] });
    }
}

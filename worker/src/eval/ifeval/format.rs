//! `detectable_format`: lists, sections, titles, JSON, fixed answers.

use std::sync::LazyLock;

use regex::Regex;

use super::arguments::Arguments;
use super::error::IfevalError;
use super::pattern::Pattern;
use super::{Check, json};
use crate::eval::python;

/// The answers that a constrained response chooses from.
const ANSWERS: [&str; 3] = ["My answer is yes.", "My answer is no.", "My answer is maybe."];
/// What may open a fenced block of JSON. Each is taken away once, in this order.
const FENCES: [&str; 4] = ["```json", "```Json", "```JSON", "```"];

static STAR_BULLET: LazyLock<Regex> = LazyLock::new(|| expression(r"(?m)^[\s\x1c-\x1f]*\*[^*].*$"));
static DASH_BULLET: LazyLock<Regex> = LazyLock::new(|| expression(r"(?m)^[\s\x1c-\x1f]*-.*$"));
static ITALIC: LazyLock<Regex> = LazyLock::new(|| expression(r"\*[^\n*]*\*"));
static BOLD: LazyLock<Regex> = LazyLock::new(|| expression(r"\*\*[^\n*]*\*\*"));
static TITLE: LazyLock<Regex> = LazyLock::new(|| expression(r"<<[^\n]+>>"));

fn expression(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid expression")
}

/// One of the fixed answers occurs.
pub(super) fn constrained_response(_arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    Ok(Box::new(|text| Ok(ANSWERS.iter().any(|answer| text.contains(answer)))))
}

/// Everything is one JSON value, perhaps in a fenced block.
pub(super) fn json_format(_arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    Ok(Box::new(|text| {
        let mut text = python::strip(text);
        for fence in FENCES {
            text = text.strip_prefix(fence).unwrap_or(text);
        }
        text = text.strip_suffix("```").unwrap_or(text);
        Ok(json::is_value(python::strip(text)))
    }))
}

/// At least `num_sections` headings: the word `section_spliter` and a number.
pub(super) fn multiple_sections(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let heading = python::strip(arguments.text("section_spliter")?);
    let heading = Pattern::new(arguments.id(), "section_spliter", &format!(r"\s?{heading}\s?\d+\s?"))?;
    let least = arguments.count("num_sections")?;
    Ok(Box::new(move |text| {
        // Python's `re.split` gives back what each group of the expression matched, and that is counted too.
        Ok(heading.count(text)? * (1 + heading.groups()) >= least)
    }))
}

/// Exactly `num_bullets` lines that begin with an asterisk or a dash. What follows an asterisk may be a line
/// break, and then the next line is part of the same bullet.
pub(super) fn number_bullet_lists(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let number = arguments.count("num_bullets")?;
    Ok(Box::new(move |text| {
        Ok(STAR_BULLET.find_iter(text).count() + DASH_BULLET.find_iter(text).count() == number)
    }))
}

/// At least `num_highlights` spans between asterisks or pairs of them. Between three asterisks are one of each.
pub(super) fn number_highlighted_sections(arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    let least = arguments.count("num_highlights")?;
    Ok(Box::new(move |text| {
        let marked = |style: &Regex| {
            let spans = style.find_iter(text);
            spans.filter(|span| !python::strip(span.as_str().trim_matches('*')).is_empty()).count()
        };
        Ok(marked(&ITALIC) + marked(&BOLD) >= least)
    }))
}

/// A title in double angular brackets.
pub(super) fn title(_arguments: &Arguments<'_>) -> Result<Check, IfevalError> {
    Ok(Box::new(|text| {
        Ok(TITLE.find_iter(text).any(|title| {
            let title = title.as_str().trim_start_matches('<').trim_end_matches('>');
            !python::strip(title).is_empty()
        }))
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::follows;

    #[test]
    fn a_bullet_that_breaks_its_line_takes_the_next_one_with_it() {
        let two = |text| follows("detectable_format:number_bullet_lists", json!({"num_bullets": 2}), text);
        assert!(two("* a\n\t- b\n+ c\n** d"));
        assert!(two("*\n* a\n* b"));
        assert!(!two("* a\n* b\n- c"));
    }

    #[test]
    fn text_between_three_asterisks_is_highlighted_twice() {
        let highlights = |number: u8, text| {
            follows("detectable_format:number_highlighted_sections", json!({"num_highlights": number}), text)
        };
        assert!(highlights(1, "**a**"));
        assert!(!highlights(2, "**a**"));
        assert!(highlights(2, "*a* *b*"));
        assert!(highlights(2, "***a***"));
        assert!(!highlights(3, "***a***"));
        assert!(!highlights(1, "* * *a\nb*"));
    }

    #[test]
    fn a_heading_is_a_word_and_digits_and_its_groups_count_too() {
        let sections = |heading: &str, text| {
            let kwargs = json!({"section_spliter": heading, "num_sections": 2});
            follows("detectable_format:multiple_sections", kwargs, text)
        };
        assert!(sections("Day", "Day 1\na\nDay2\nb"));
        assert!(!sections("Day", "Day 1\na\nDay  2\nDay X\nday 3"));
        assert!(sections("(Day|Week)", "Week 1"));
    }

    #[test]
    fn json_may_stand_in_a_fenced_block() {
        let json = |text| follows("detectable_format:json_format", json!({}), text);
        assert!(json("```JSON\n{\"a\": [1]}\n```"));
        assert!(json("```json```{}"));
        assert!(!json("Here it is:\n```json\n{}\n```"));
    }

    #[test]
    fn a_title_is_on_one_line_and_not_blank() {
        let titled = |text| follows("detectable_format:title", json!({}), text);
        assert!(titled("x <<a>> y"));
        assert!(!titled("<<a\nb>> << >> <b>"));
        assert!(titled("<< >> and >>"));
    }

    #[test]
    fn a_fixed_answer_has_its_capital_and_its_period() {
        let fixed = |text| follows("detectable_format:constrained_response", json!({}), text);
        assert!(fixed("Well. My answer is maybe."));
        assert!(!fixed("My answer is yes"));
    }
}

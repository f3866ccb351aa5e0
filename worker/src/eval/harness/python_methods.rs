//! Methods of Python's strings and mappings that templates call, where minijinja's collection lacks them or does otherwise.

use minijinja::value::{Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Value};

use super::python_objects::Listed;
use crate::data::space::stripped;
use crate::eval::python;

/// `value.method(args)`. `None`: it is none of these.
pub(super) fn call(value: &Value, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    match value.kind() {
        ValueKind::String => of_text(value.as_str()?, method, args).transpose(),
        ValueKind::Map => of_mapping(value, method, args).transpose(),
        _ => None,
    }
}

fn of_mapping(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let entry =
        |key: Value| -> Result<Value, Error> { Ok(Tuple::from([key.clone(), value.get_item(&key)?]).into()) };
    let values: Vec<Value> = match method {
        "keys" => value.try_iter()?.collect(),
        "values" => value.try_iter()?.map(|key| value.get_item(&key)).collect::<Result<_, _>>()?,
        "items" => value.try_iter()?.map(entry).collect::<Result<_, _>>()?,
        _ => return Ok(None),
    };
    let () = from_args(args)?;
    Ok(Some(Listed::view(&format!("dict_{method}"), values)))
}

fn of_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let pair = || from_args::<(&str,)>(args).map(|(part,)| part);
    Ok(Some(match (method, args.len()) {
        ("strip" | "lstrip" | "rstrip", 0) => stripped(text, method).into(),
        ("split", 0) => python::split(text).map(Value::from).collect::<Vec<_>>().into(),
        ("isspace", 0) => (!text.is_empty() && text.chars().all(python::is_space)).into(),
        ("capitalize", 0) => python::capitalize(text).into(),
        ("title", 0) => title(text).into(),
        ("swapcase", 0) => swapped(text).into(),
        ("casefold", 0) if text.is_ascii() => text.to_ascii_lowercase().into(),
        ("splitlines", 0) => lines(text).into(),
        ("removeprefix", _) => text.strip_prefix(pair()?).unwrap_or(text).into(),
        ("removesuffix", _) => text.strip_suffix(pair()?).unwrap_or(text).into(),
        ("partition", _) => parts(text, pair()?, text.find(pair()?), true)?,
        ("rpartition", _) => parts(text, pair()?, text.rfind(pair()?), false)?,
        ("rsplit", _) => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            split_from_end(text, separator, most)?
        }
        ("zfill", _) => {
            let (width,): (usize,) = from_args(args)?;
            let sign =
                text.len() - text.trim_start_matches(['+', '-']).len().max(text.len().saturating_sub(1));
            let zeros = "0".repeat(width.saturating_sub(text.chars().count()));
            format!("{}{zeros}{}", &text[..sign], &text[sign..]).into()
        }
        ("ljust" | "rjust" | "center", _) => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            padded(text, method, width, fill.unwrap_or(' ')).into()
        }
        ("index" | "rindex" | "find" | "rfind" | "count", _) => search(text, method, args)?,
        _ => return Ok(None),
    }))
}

/// Each letter behind what is none in upper case, all others in lower case.
fn title(text: &str) -> String {
    let mut out = String::new();
    let mut is_within = false;
    for character in text.chars() {
        match is_within {
            true => out.extend(character.to_lowercase()),
            false => out.push_str(&python::capitalize(character.encode_utf8(&mut [0; 4]))),
        }
        is_within = character.is_lowercase() || character.is_uppercase();
    }
    out
}

fn swapped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match (character.is_uppercase(), character.is_lowercase()) {
            (true, _) => out.extend(character.to_lowercase()),
            (_, true) => out.extend(character.to_uppercase()),
            _ => out.push(character),
        }
    }
    out
}

/// Python knows more ends of lines than `str::lines`.
fn lines(text: &str) -> Vec<Value> {
    let is_end = |character: char| {
        matches!(
            character,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let text = text.replace("\r\n", "\n");
    let mut lines: Vec<&str> = text.split(is_end).collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    lines.into_iter().map(Value::from).collect()
}

/// What is before `separator`, itself, and what is behind it, where it is at `place`; else all of the text first, or last.
fn parts(text: &str, separator: &str, place: Option<usize>, is_first: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(wrong("empty separator"));
    }
    let parts = match (place, is_first) {
        (Some(place), _) => [&text[..place], separator, &text[place + separator.len()..]],
        (None, true) => [text, "", ""],
        (None, false) => ["", "", text],
    };
    Ok(Tuple::from(parts.map(Value::from)).into())
}

fn split_from_end(text: &str, separator: Option<&str>, most: Option<i64>) -> Result<Value, Error> {
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = Vec::new();
    match separator {
        Some("") => return Err(wrong("empty separator")),
        Some(separator) => parts.extend(text.rsplitn(most.saturating_add(1), separator)),
        None => {
            let mut rest = python::strip_end(text);
            while !rest.is_empty() {
                let space = rest.rfind(python::is_space).filter(|_| parts.len() < most);
                let behind = |place: usize| place + rest[place..].chars().next().map_or(0, char::len_utf8);
                let start = space.map_or(0, behind);
                parts.push(&rest[start..]);
                rest = python::strip_end(&rest[..start]);
            }
        }
    }
    Ok(parts.into_iter().rev().map(Value::from).collect())
}

pub(super) fn padded(text: &str, side: &str, width: usize, fill: char) -> String {
    let lacking = width.saturating_sub(text.chars().count());
    let left = match side {
        "ljust" => 0,
        "rjust" => lacking,
        // As in CPython.
        _ => lacking / 2 + (lacking & width & 1),
    };
    let fills = |count: usize| fill.to_string().repeat(count);
    format!("{}{text}{}", fills(left), fills(lacking - left))
}

/// `index`, `find` and `count`, from either end, within a part of the text.
fn search(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let length = text.chars().count() as i64;
    let place = |place: i64| if place < 0 { (place + length).max(0) } else { place };
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(length)).min(length));
    if start > end {
        return if method.ends_with("index") {
            Err(wrong("substring not found"))
        } else {
            Ok(if method == "count" { 0 } else { -1 }.into())
        };
    }
    let at = |place: i64| text.char_indices().nth(place as usize).map_or(text.len(), |(byte, _)| byte);
    let part = &text[at(start)..at(end)];
    let found = match method {
        "count" => return Ok(part.matches(wanted).count().into()),
        "index" | "find" => part.find(wanted),
        _ => part.rfind(wanted),
    };
    match found {
        Some(byte) => Ok((start + part[..byte].chars().count() as i64).into()),
        None if method.ends_with("index") => Err(wrong("substring not found")),
        None => Ok((-1).into()),
    }
}

fn wrong(problem: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

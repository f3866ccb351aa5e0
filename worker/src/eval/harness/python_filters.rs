//! Filters of Jinja's that minijinja lacks or has otherwise.

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::printed::text_of;
use super::{json_text, python_methods};
use crate::data::space;
use crate::eval::python;
use crate::eval::python::pattern::Pattern;
use crate::eval::python::translate::Flags;

/// Puts them into `environment`.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("string", |value: &Value| text_of(value));
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
    environment.add_filter("tojson", to_json);
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", word_count);
    environment.add_filter("center", |value: &Value, width: Option<usize>| -> Result<String, Error> {
        Ok(python_methods::padded(&text_of(value)?, "center", width.unwrap_or(80), ' '))
    });
    environment.add_filter("urlencode", url_encode);
    environment.add_filter("title", |value: &Value| text_of(value).map(|text| title(&text)));
    for name in ["e", "escape"] {
        environment.add_filter(name, escape);
    }
    space::add_trim(environment);
}

/// As MarkupSafe writes it.
fn escape(value: &Value) -> Result<String, Error> {
    let text = text_of(value)?.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(text.replace('\'', "&#39;").replace('"', "&#34;"))
}

/// Words, which end at whitespace, dashes and opening brackets, with their first letter in upper case and the others in lower case.
fn title(text: &str) -> String {
    let is_between = |character| python::is_space(character) || "-({[<".contains(character);
    let mut out = String::new();
    for part in text.split_inclusive(is_between) {
        let mut rest = part.chars();
        out.extend(rest.next().into_iter().flat_map(char::to_uppercase));
        out.push_str(&rest.as_str().to_lowercase());
    }
    out
}

/// What is given for the parameters `names`, by place or by name.
fn given<const N: usize>(names: [&str; N], args: Rest<ValueOrKwargs>) -> Result<[Option<Value>; N], Error> {
    let mut found = [const { None }; N];
    let mut place = 0;
    for value in args.into_values() {
        if value.is_kwargs() {
            let named = Kwargs::try_from(value)?;
            for (slot, name) in found.iter_mut().zip(names) {
                *slot = slot.take().or(named.get::<Option<Value>>(name)?);
            }
            named.assert_all_used()?;
        } else {
            let slot = found.get_mut(place).ok_or_else(|| Error::from(ErrorKind::TooManyArguments))?;
            *slot = Some(value);
            place += 1;
        }
    }
    Ok(found)
}

fn count_of(value: Option<Value>, default: usize) -> Result<usize, Error> {
    value.map_or(Ok(default), usize::try_from)
}

fn join(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [between, attribute] = given(["d", "attribute"], args)?;
    let between = between.map_or(Ok(String::new()), |between| text_of(&between))?;
    let mut texts = Vec::new();
    for entry in value.try_iter()? {
        texts.push(text_of(&match &attribute {
            None => entry,
            Some(path) => at_path(entry, &text_of(path)?)?,
        })?);
    }
    Ok(texts.join(&between))
}

/// `value.a.0.b`.
fn at_path(value: Value, path: &str) -> Result<Value, Error> {
    path.split('.').try_fold(value, |value, part| match part.parse::<usize>() {
        Ok(index) => value.get_item_by_index(index),
        Err(_) => value.get_attr(part),
    })
}

fn replace(value: &Value, old: &Value, new: &Value, count: Option<i64>) -> Result<String, Error> {
    let (text, old, new) = (text_of(value)?, text_of(old)?, text_of(new)?);
    Ok(match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => text.replacen(&old, &new, count),
        None => text.replace(&old, &new),
    })
}

fn to_json(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [indent] = given(["indent"], args)?;
    let indent = indent.filter(|indent| !indent.is_none()).map(usize::try_from).transpose()?;
    json_text::of(value, indent)
}

fn truncate(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let text = text_of(value)?;
    let [length, kill_words, end, leeway] = given(["length", "killwords", "end", "leeway"], args)?;
    let (length, leeway) = (count_of(length, 255)?, count_of(leeway, 5)?);
    let end = end.map_or(Ok("...".to_owned()), |end| text_of(&end))?;
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        let problem = format!("expected length >= {}, got {length}", end.chars().count());
        return Err(Error::new(ErrorKind::InvalidOperation, problem));
    };
    if text.chars().count() <= length + leeway {
        return Ok(text);
    }
    let cut: String = text.chars().take(kept).collect();
    let kills_words = kill_words.is_some_and(|kill_words| kill_words.is_true());
    let whole = cut.rsplit_once(' ').map_or(cut.as_str(), |(before, _)| before);
    Ok(format!("{}{end}", if kills_words { &cut } else { whole }))
}

fn word_count(value: &Value) -> Result<usize, Error> {
    let words = Pattern::new(r"\w+", Flags::default()).and_then(|words| {
        let text = text_of(value).unwrap_or_default();
        words.count(&text)
    });
    words.map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

fn url_encode(value: &Value) -> Result<String, Error> {
    let pair = |key: &Value, value: &Value| -> Result<String, Error> {
        let quoted = |value: &Value| Ok::<_, Error>(quoted(&text_of(value)?, "").replace("%20", "+"));
        Ok(format!("{}={}", quoted(key)?, quoted(value)?))
    };
    let pairs: Vec<String> = match value.kind() {
        ValueKind::Map => {
            let pairs = value.try_iter()?.map(|key| pair(&key, &value.get_item(&key)?));
            pairs.collect::<Result<_, _>>()?
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let both = |entry: Value| pair(&entry.get_item_by_index(0)?, &entry.get_item_by_index(1)?);
            value.try_iter()?.map(both).collect::<Result<_, _>>()?
        }
        _ => return Ok(quoted(&text_of(value)?, "/")),
    };
    Ok(pairs.join("&"))
}

/// `urllib.parse.quote(text, safe)`.
fn quoted(text: &str, safe: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let character = char::from(byte);
        if character.is_ascii_alphanumeric() || "_.-~".contains(character) || safe.contains(character) {
            out.push(character);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

//! `${params.x}`, `${matrix.x}` and `${item}` inside values. Alone in a text, a variable keeps its type;
//! among other characters it becomes text. `$${` stands for `${` itself.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::error::{Code, Mistake, Mistakes};
use super::nearest::{advice, nearest};
use super::params::Params;
use super::source::{Sources, Span};
use super::value::{Data, Value};

/// What variables stand for in one instance of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) sources: &'a Sources,
    pub(super) params: &'a Params,
    /// Whether unknown parameters may stand in a file that could not be read.
    pub(super) incomplete: bool,
    /// Whether `matrix` or `for_each` of this node could not be read, so that their variables are unknown.
    pub(super) blind: bool,
    /// The values of `matrix` in this instance.
    pub(super) matrix: &'a [(String, Json)],
    /// The element of `for_each` in this instance.
    pub(super) item: Option<&'a str>,
}

/// Whether `text` has a variable in it.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("${")
}

/// The name in `text` if it is one variable and nothing else.
pub(super) fn alone(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("${")?.strip_suffix('}')?;
    (!inner.contains('}')).then(|| inner.trim())
}

enum Piece<'t> {
    Text(&'t str),
    /// The name, and the whole `${…}`.
    Variable(&'t str, &'t str),
    Unclosed(&'t str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            pieces.push(Piece::Text(&rest[..at - 1]));
            pieces.push(Piece::Text("${"));
            rest = &rest[at + 2..];
            continue;
        }
        pieces.push(Piece::Text(&rest[..at]));
        let Some(length) = rest[at..].find('}') else {
            pieces.push(Piece::Unclosed(&rest[at..]));
            return pieces;
        };
        let whole = &rest[at..=at + length];
        pieces.push(Piece::Variable(whole[2..whole.len() - 1].trim(), whole));
        rest = &rest[at + length + 1..];
    }
    pieces.push(Piece::Text(rest));
    pieces
}

impl<'a> Scope<'a> {
    /// `value` as JSON with variables replaced; `None` after a mistake.
    pub(super) fn json(&self, value: &Value, mistakes: &mut Mistakes) -> Option<Json> {
        match &value.data {
            Data::Text(text) if is_template(text) => self.text(text, value.span, mistakes),
            Data::List(list) => {
                // All items, so that each one's mistakes are seen.
                let items: Vec<_> = list.iter().map(|item| self.json(item, mistakes)).collect();
                items.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
            }
            Data::Mapping(entries) => {
                let mut complete = true;
                let mut object = serde_json::Map::new();
                for entry in entries {
                    match self.json(&entry.value, mistakes) {
                        Some(json) => drop(object.insert(entry.key.text.clone(), json)),
                        None => complete = false,
                    }
                }
                complete.then_some(Json::Object(object))
            }
            _ => Some(value.to_json()),
        }
    }

    fn text(&self, text: &str, span: Span, mistakes: &mut Mistakes) -> Option<Json> {
        if let Some(name) = alone(text) {
            return match self.lookup(name, span) {
                Ok(found) => found.map(Cow::into_owned),
                Err(mistake) => {
                    mistakes.push(mistake);
                    None
                }
            };
        }
        let mut result = Some(String::with_capacity(text.len()));
        for piece in pieces(text) {
            let found = match piece {
                Piece::Text(text) => Ok(Some(Cow::Borrowed(text))),
                Piece::Variable(name, whole) => self.embedded(name, self.place(span, whole)),
                Piece::Unclosed(rest) => {
                    let at = self.place(span, rest);
                    Err(Mistake::new(Code::UnknownVariable, at, "`${` without `}`")
                        .help("Close it, or write `$${` for the characters themselves."))
                }
            };
            match found {
                Ok(Some(found)) => {
                    if let Some(result) = &mut result {
                        result.push_str(&found);
                    }
                }
                Ok(None) => result = None,
                Err(mistake) => {
                    mistakes.push(mistake);
                    result = None;
                }
            }
        }
        result.map(Json::String)
    }

    /// Where `part` stands in the text under `span`; all of it if it is written with escapes.
    fn place(&self, span: Span, part: &str) -> Span {
        self.sources.slice(span).find(part).map_or(span, |offset| span.part(offset, part.len()))
    }

    fn embedded(&self, name: &str, at: Span) -> Result<Option<Cow<'a, str>>, Mistake> {
        let Some(found) = self.lookup(name, at)? else { return Ok(None) };
        let what = match found.as_ref() {
            Json::String(_) => {
                return Ok(Some(match found {
                    Cow::Borrowed(Json::String(text)) => Cow::Borrowed(text.as_str()),
                    other => Cow::Owned(other.as_str().unwrap_or_default().to_owned()),
                }));
            }
            Json::Number(number) => return Ok(Some(Cow::Owned(number.to_string()))),
            Json::Bool(value) => return Ok(Some(Cow::Owned(value.to_string()))),
            Json::Null => "nothing",
            Json::Array(_) => "a list",
            Json::Object(_) => "a mapping",
        };
        let message = format!("`{name}` is {what}, which cannot stand inside a text");
        let help = format!("Only `\"${{{name}}}\"` alone keeps its type.");
        Err(Mistake::new(Code::InvalidValue, at, message).help(help))
    }

    /// What `name` stands for; `None` if that is unknown because of another mistake.
    fn lookup(&self, name: &str, at: Span) -> Result<Option<Cow<'a, Json>>, Mistake> {
        let unknown = |message: String| Mistake::new(Code::UnknownVariable, at, message);
        let mut parts = name.split('.');
        match (parts.next().unwrap_or_default(), parts.next()) {
            ("item" | "matrix", _) if self.blind => Ok(None),
            ("item", None) => match self.item {
                Some(item) => Ok(Some(Cow::Owned(Json::String(item.to_owned())))),
                None => Err(unknown("`item` has no meaning without `for_each`".to_owned())
                    .help("Add `for_each: [NODE, …]` to this node.")),
            },
            ("matrix", Some(axis)) => {
                if self.matrix.is_empty() {
                    return Err(unknown(format!("`{name}` has no meaning without `matrix`"))
                        .help(format!("Add `matrix: {{ {axis}: [VALUE, …] }}` to this node.")));
                }
                let found = self.matrix.iter().find(|(known, _)| known == axis);
                let Some((_, value)) = found else {
                    let axes: Vec<&str> = self.matrix.iter().map(|(axis, _)| axis.as_str()).collect();
                    return Err(with_advice(
                        unknown(format!("`matrix` has no `{axis}`")),
                        axis,
                        "Its keys",
                        &axes,
                    ));
                };
                inside(value, "matrix", parts, at).map(Some)
            }
            ("params", Some(first)) => {
                let Some(param) = self.params.get(first) else {
                    if self.incomplete {
                        return Ok(None);
                    }
                    let names: Vec<&str> = self.params.keys().map(String::as_str).collect();
                    let mistake = unknown(format!("there is no parameter `{first}`"));
                    return Err(match names.is_empty() {
                        true => mistake.help(format!("Add `params: {{ {first}: VALUE }}` to the file.")),
                        false => with_advice(mistake, first, "Parameters", &names),
                    });
                };
                inside(&param.value, first, parts, at).map(Some)
            }
            (first, _) => {
                let mistake = unknown(format!("`${{{name}}}` stands for nothing"));
                if self.params.contains_key(first) {
                    return Err(mistake.help(format!("Did you mean `${{params.{name}}}`?")));
                }
                if self.matrix.iter().any(|(axis, _)| axis == first) {
                    return Err(mistake.help(format!("Did you mean `${{matrix.{name}}}`?")));
                }
                let known = ["params", "matrix", "item"];
                let near = nearest(first, known).map(|near| {
                    let rest = name[first.len()..].to_owned();
                    format!("Did you mean `${{{near}{rest}}}`? ")
                });
                let forms = "Variables are `${params.NAME}`, `${matrix.NAME}` and `${item}`.";
                Err(mistake.help(format!("{}{forms}", near.unwrap_or_default())))
            }
        }
    }
}

/// Follows the remaining names of a dotted path into a mapping.
fn inside<'v, 'n>(
    value: &'v Json,
    name: &str,
    parts: impl Iterator<Item = &'n str>,
    at: Span,
) -> Result<Cow<'v, Json>, Mistake> {
    let mut value = value;
    let mut name = name;
    for part in parts {
        let Some(inner) = value.get(part) else {
            let mistake =
                Mistake::new(Code::UnknownVariable, at, format!("`{name}` has no value called `{part}`"));
            let known: Vec<&str> =
                value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
            return Err(with_advice(mistake, part, "Its keys", &known));
        };
        value = inner;
        name = part;
    }
    Ok(Cow::Borrowed(value))
}

fn with_advice(mistake: Mistake, name: &str, what: &str, known: &[&str]) -> Mistake {
    match advice(name, what, known) {
        Some(advice) => mistake.help(advice),
        None => mistake,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::params::Param;
    use super::*;
    use serde_json::json;

    const NOWHERE: Span = Span { source: 0, start: 0, end: 0 };

    fn replaced(text: &str) -> Result<Json, String> {
        let mut sources = Sources::default();
        let source = super::super::source::Source::new("x".into(), "".into(), text.into());
        sources.add(source);
        let param = |value| Param { value, given: NOWHERE, declared: NOWHERE };
        let params: Params = [
            ("calib".to_owned(), param(json!([20, 200]))),
            ("model".to_owned(), param(json!("tiny"))),
            ("deep".to_owned(), param(json!({ "a": { "b": 1.5 } }))),
        ]
        .into();
        let matrix = [("n".to_owned(), json!(20))];
        let scope = Scope {
            sources: &sources,
            params: &params,
            incomplete: false,
            blind: false,
            matrix: &matrix,
            item: Some("g[n=1]"),
        };
        let end = u32::try_from(text.len()).unwrap();
        let value = Value { span: Span { end, ..NOWHERE }, data: Data::Text(text.to_owned()) };
        let mut mistakes = Mistakes::default();
        let json = scope.json(&value, &mut mistakes);
        json.ok_or_else(|| mistakes.finish(&sources).to_string())
    }

    #[test]
    fn a_variable_alone_keeps_its_type() {
        assert_eq!(replaced("${params.calib}"), Ok(json!([20, 200])));
        assert_eq!(replaced("${ matrix.n }"), Ok(json!(20)));
        assert_eq!(replaced("${params.deep.a.b}"), Ok(json!(1.5)));
        assert_eq!(replaced("${item}"), Ok(json!("g[n=1]")));
    }

    #[test]
    fn among_other_characters_it_becomes_text() {
        assert_eq!(replaced("calib${matrix.n}"), Ok(json!("calib20")));
        assert_eq!(replaced("${params.model}/${params.deep.a.b}é"), Ok(json!("tiny/1.5é")));
        assert_eq!(replaced("$${matrix.n} costs 5$"), Ok(json!("${matrix.n} costs 5$")));
        assert_eq!(replaced("a }{ $b"), Ok(json!("a }{ $b")));
    }

    #[test]
    fn mistakes_point_at_the_variable() {
        let message = |text| replaced(text).unwrap_err();
        assert_eq!(message("x${params.modle}"), "x:1:2: there is no parameter `modle`");
        assert_eq!(message("${matrix.m}"), "x:1:1: `matrix` has no `m`");
        assert_eq!(
            message("a ${params.calib}"),
            "x:1:3: `params.calib` is a list, which cannot stand inside a text"
        );
        assert_eq!(message("a ${params.deep.c}"), "x:1:3: `deep` has no value called `c`");
        assert_eq!(message("ab${model"), "x:1:3: `${` without `}`");
        assert_eq!(message("${model}"), "x:1:1: `${model}` stands for nothing");
    }
}

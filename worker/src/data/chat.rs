//! Conversations through the model's own chat template (Jinja, as transformers renders it), and which part of
//! the text is the assistant's.
//!
//! A template that marks the assistant's words with `{% generation %}` is taken at its word. Any other is asked
//! three times for each turn of the assistant: up to the turn with the generation prompt on it (where the turn
//! begins), and twice with a placeholder for the turn's content (where it ends, and what closes it). A template
//! that writes earlier turns differently from the last one, as Qwen3's does, is understood too.

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, context};
use minijinja_contrib::pycompat;
use serde_json::{Value, json};
use thiserror::Error;

use super::error::DataError;
use super::space;
use crate::model::Tokenizer;

/// Stand where a `{% generation %}` block begins and ends; from Unicode's private use area.
const BEGIN: char = '\u{F5F1}';
const END: char = '\u{F5F2}';
/// Stands for the content of one turn.
const PLACEHOLDER: &str = "\u{F5F3}content\u{F5F3}";

/// Why a conversation cannot be written in the model's format.
#[derive(Debug, Error)]
pub enum ChatError {
    /// The model has no chat template.
    #[error("a {{messages}} row needs a chat template, and the model's tokenizer has none")]
    NoTemplate,
    /// The template is no Jinja.
    #[error("the model's chat template does not parse: {0}")]
    Parse(String),
    /// The template refuses the conversation.
    #[error("the model's chat template refuses the conversation: {0}")]
    Render(String),
    /// The turn cannot be found again in the text.
    #[error(
        "the model's chat template changes the assistant's turn {0}, so that its tokens cannot be told apart"
    )]
    Unclear(usize),
}

impl ChatError {
    /// What to do.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoTemplate => {
                Some("Write the rows as {prompt, completion}, or use a model with a chat template.")
            }
            Self::Parse(_) | Self::Render(_) => None,
            Self::Unclear(_) => Some("Mark the assistant's words in the template with `{% generation %}`."),
        }
    }
}

/// A conversation as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// All of it, special tokens written out.
    pub text: String,
    /// Byte ranges of the assistant's turns, each with what closes it.
    pub learned: Vec<Range<usize>>,
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    marks: bool,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// The template of `tokenizer`, if it has one.
    pub fn of(tokenizer: &Tokenizer) -> Result<Option<Self>, DataError> {
        let text_of = |id: Option<u32>| id.map_or(Ok(String::new()), |id| tokenizer.decode(&[id], false));
        let Some(source) = tokenizer.chat_template() else { return Ok(None) };
        let (bos, eos) = (text_of(tokenizer.bos_id())?, text_of(tokenizer.eos_id())?);
        Self::new(source, &bos, &eos).map(Some).map_err(DataError::Template)
    }

    /// Compiles `source`. `bos` and `eos` are the texts of those tokens, empty where there is none.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        let (source, marks) = with_marks(source);
        let mut environment = Environment::new();
        let parse = |error: Error| ChatError::Parse(error.to_string());
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(parse)?;
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(|state, value, method, args| {
            let stripped =
                value.as_str().filter(|_| args.is_empty()).and_then(|text| space::stripped(text, method));
            stripped.map_or_else(
                || pycompat::unknown_method_callback(state, value, method, args),
                |text| Ok(text.into()),
            )
        });
        space::add_trim(&mut environment);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned("chat", source).map_err(parse)?;
        Ok(Self { environment, marks, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// Writes `messages` as the model expects them.
    pub fn write(&self, messages: &[Value]) -> Result<String, ChatError> {
        let text = self.text(messages, false)?;
        Ok(if self.marks { take_marks(&text).text } else { text })
    }

    /// Writes `messages` up to where the assistant's next turn begins.
    pub fn prompt(&self, messages: &[Value]) -> Result<String, ChatError> {
        let text = self.text(messages, true)?;
        Ok(if self.marks { take_marks(&text).text } else { text })
    }

    /// Writes `messages` as the model expects them and says what the assistant said.
    pub fn render(&self, messages: &[Value]) -> Result<Rendered, ChatError> {
        if self.marks {
            return Ok(take_marks(&self.text(messages, false)?));
        }
        let text = self.text(messages, false)?;
        let mut learned = Vec::new();
        let assistant = messages.iter().enumerate().filter(|(_, message)| message["role"] == "assistant");
        for (turn, (index, _)) in assistant.enumerate() {
            learned.push(self.turn(messages, index, &text)?.ok_or(ChatError::Unclear(turn + 1))?);
        }
        Ok(Rendered { text, learned })
    }

    fn turn(&self, messages: &[Value], index: usize, text: &str) -> Result<Option<Range<usize>>, ChatError> {
        let mut replaced = messages.to_vec();
        replaced[index]["content"] = json!(PLACEHOLDER);
        let whole = self.text(&replaced, false)?;
        let Some((before, after)) = whole.split_once(PLACEHOLDER) else { return Ok(None) };
        if !(text.starts_with(before) && text.ends_with(after) && before.len() + after.len() <= text.len()) {
            return Ok(None);
        }
        let prompt = self.text(&messages[..index], true)?;
        let start = if text.starts_with(&prompt) && prompt.len() <= before.len() {
            prompt.len()
        } else {
            before.len()
        };
        // What stands behind the content whether or not the conversation goes on closes the turn.
        let alone = self.text(&replaced[..=index], false)?;
        let Some((_, closing)) = alone.split_once(PLACEHOLDER) else { return Ok(None) };
        let closed = common_prefix(closing, after);
        Ok(Some(start..text.len() - after.len() + closed))
    }

    fn text(&self, messages: &[Value], add_generation_prompt: bool) -> Result<String, ChatError> {
        let variables = context! {
            messages => minijinja::Value::from(Serde(messages)),
            add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        };
        let render =
            |error: Error| ChatError::Render(error.detail().map_or_else(|| error.to_string(), str::to_owned));
        self.environment.get_template("chat").map_err(render)?.render(variables).map_err(render)
    }
}

fn common_prefix(one: &str, two: &str) -> usize {
    one.char_indices()
        .zip(two.chars())
        .find(|((_, a), b)| a != b)
        .map_or(one.len().min(two.len()), |((i, _), _)| i)
}

/// Replaces `{% generation %}` and `{% endgeneration %}`, which are transformers' own tags, by marks in the text,
/// their whitespace control kept.
fn with_marks(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut marks = false;
    while let Some(open) = rest.find("{%") {
        let Some(length) = rest[open..].find("%}") else { break };
        let tag = &rest[open + 2..open + length];
        let left = if tag.starts_with('-') { "-" } else { "" };
        let right = if tag.ends_with('-') { "-" } else { "" };
        let mark = match tag.trim_matches('-').trim() {
            "generation" => Some(BEGIN),
            "endgeneration" => Some(END),
            _ => None,
        };
        match mark {
            Some(mark) => {
                marks = true;
                out.push_str(&rest[..open]);
                out.push_str(&format!("{{{{{left} '{mark}' {right}}}}}"));
            }
            None => out.push_str(&rest[..open + length + 2]),
        }
        rest = &rest[open + length + 2..];
    }
    out.push_str(rest);
    (out, marks)
}

fn take_marks(marked: &str) -> Rendered {
    let mut text = String::with_capacity(marked.len());
    let mut learned = Vec::new();
    let mut start = None;
    for character in marked.chars() {
        match character {
            BEGIN => start = Some(text.len()),
            END => learned.extend(start.take().map(|start| start..text.len())),
            other => text.push(other),
        }
    }
    Rendered { text, learned }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content.strip() }}\
        <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    fn conversation() -> Vec<Value> {
        vec![
            json!({"role": "user", "content": "one"}),
            json!({"role": "assistant", "content": " two "}),
            json!({"role": "user", "content": "three"}),
            json!({"role": "assistant", "content": "two"}),
        ]
    }

    fn learned(source: &str) -> Vec<String> {
        let rendered = ChatTemplate::new(source, "<s>", "</s>").unwrap().render(&conversation()).unwrap();
        rendered.learned.iter().map(|range| rendered.text[range.clone()].to_owned()).collect()
    }

    #[test]
    fn the_assistants_turns_and_what_closes_them_are_learned() {
        assert_eq!(learned(CHATML), ["two<|im_end|>\n", "two<|im_end|>\n"]);
    }

    #[test]
    fn earlier_turns_may_be_written_differently_from_the_last() {
        let source = "{%- for message in messages %}[{{ message.role }}]{% if loop.last and message.role == 'assistant' %}\
            <think></think>{% endif %}{{ message.content|trim }}<end>{% endfor %}\
            {% if add_generation_prompt %}[assistant]{% endif %}";
        assert_eq!(learned(source), ["two<end>", "<think></think>two<end>"]);
    }

    #[test]
    fn generation_marks_are_taken_at_their_word() {
        let source = "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %}\
            {%- generation -%} {{ message.content }}{{ eos_token }} {%- endgeneration %}{% else %}<u>{{ message.content }}{% endif %}{% endfor %}";
        assert_eq!(learned(source), [" two </s>", "two</s>"]);
    }

    #[test]
    fn a_template_may_refuse() {
        let template = ChatTemplate::new("{{ raise_exception('roles must alternate') }}", "", "").unwrap();
        let error = template.render(&conversation()).unwrap_err();
        assert!(error.to_string().ends_with("refuses the conversation: roles must alternate"), "{error}");
    }

    #[test]
    fn a_broken_template_is_an_error() {
        assert!(matches!(ChatTemplate::new("{% for %}", "", ""), Err(ChatError::Parse(_))));
    }
}

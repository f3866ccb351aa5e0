//! Figures in JSON, which has no word for those that are not finite: they are the texts `NaN`, `Infinity` and `-Infinity`. For
//! serde's `with`.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserializer, Serializer};

/// Writes a figure.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(figure: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match word_for(*figure) {
        Some(word) => serializer.serialize_str(word),
        None => serializer.serialize_f64(*figure),
    }
}

/// Reads a figure.
///
/// # Errors
/// When it is neither a number nor one of the words.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(FigureVisitor)
}

fn word_for(figure: f64) -> Option<&'static str> {
    match figure {
        figure if figure.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

struct FigureVisitor;

impl Visitor<'_> for FigureVisitor {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
    }

    fn visit_u64<E>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_i64<E>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_f64<E>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<f64, E> {
        match word {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
        }
    }
}

/// The same for a figure that may be missing.
pub mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Figure(#[serde(with = "super")] f64);

    /// Writes a figure or `null`.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(figure: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        figure.map(Figure).serialize(serializer)
    }

    /// Reads a figure or `null`.
    ///
    /// # Errors
    /// When it is neither a number nor one of the words.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Figure>::deserialize(deserializer)?.map(|Figure(figure)| figure))
    }
}

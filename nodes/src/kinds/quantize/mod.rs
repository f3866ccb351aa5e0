//! `quantize`: stores a model's linear layers in few bits. One file a method, and the table of them.

mod awq;
mod bnb_int8;
mod bnb_nf4;
mod gptq;
mod int8_dynamic;
mod outside;
mod rtn;
mod smoothquant;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kind::{self, Target};
use crate::{Arity, Artifact, Kind, KindSpec, ParamError, Port, Reading, Sensitivity};

pub use awq::{Awq, AwqFormat};
pub use bnb_int8::BnbInt8;
pub use bnb_nf4::BnbNf4;
pub use gptq::{ColumnOrder, Gptq, GptqFormat, GptqProfile, GptqScheme, Propagate};
pub use int8_dynamic::{Convention, Int8Dynamic};
pub use outside::{Outside, Storage};
pub use rtn::Rtn;
pub use smoothquant::{
    ActivationScales, Alpha, IntegerScheme, ScaleRule, Smoothquant, W4A8Format, WeightRounding,
};

/// The options of one method: what may stand beside `method: NAME` in the file.
pub trait Method: Serialize + DeserializeOwned + JsonSchema {
    /// The word after `method:`.
    const NAME: &'static str;

    /// What is wrong beyond types. All mistakes, not the first.
    fn check(&self) -> Vec<ParamError>;

    /// Fills in the defaults that depend on other options.
    #[must_use]
    fn completed(self) -> Self {
        self
    }

    /// What it reads of the `calibration` port.
    fn reads(&self) -> Reading {
        Reading::Nothing
    }

    /// What becomes of the embedding and the output projection.
    fn outside(&self) -> Outside {
        Outside::default()
    }

    /// On what, besides inputs and options, the bytes depend.
    fn sensitivity(&self) -> Sensitivity {
        Sensitivity::Device
    }
}

/// Makes the enum of methods and sends each call to the method it holds.
macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident,)*) => {
        /// Quantizes the linear layers of a model and writes a checkpoint that other tools load. `method` says
        /// how; each method has its own options. Embeddings and `lm_head` stay as they are unless an option says
        /// otherwise.
        #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "method", rename_all = "kebab-case")]
        pub enum Quantize {
            $($(#[$doc])* $variant($variant),)*
        }

        /// The words after `method:`, in the order of the enum.
        pub static METHODS: &[&str] = &[$($variant::NAME,)*];

        impl Quantize {
            /// Reads the options of the method called `name` from the keys beside it.
            fn read_options(name: &str, options: Value) -> (Option<Self>, Vec<ParamError>) {
                match name {
                    $($variant::NAME => {
                        let (read, errors) = kind::read::<$variant>(options);
                        (read.map(Self::$variant), errors)
                    })*
                    _ => (None, vec![unknown_method(name)]),
                }
            }

            /// The word after `method:`.
            pub fn method(&self) -> &'static str {
                match self { $(Self::$variant(_) => $variant::NAME,)* }
            }

            /// What becomes of the embedding and the output projection.
            pub fn outside(&self) -> Outside {
                match self { $(Self::$variant(options) => options.outside(),)* }
            }

            fn check_options(&self) -> Vec<ParamError> {
                match self { $(Self::$variant(options) => options.check(),)* }
            }

            fn completed_options(self) -> Self {
                match self { $(Self::$variant(options) => Self::$variant(options.completed()),)* }
            }

            fn reading(&self) -> Reading {
                match self { $(Self::$variant(options) => options.reads(),)* }
            }

            fn sensitivity_of_options(&self) -> Sensitivity {
                match self { $(Self::$variant(options) => options.sensitivity(),)* }
            }
        }
    };
}

methods! {
    /// AWQ.
    Awq,
    /// LLM.int8().
    BnbInt8,
    /// NF4.
    BnbNf4,
    /// GPTQ.
    Gptq,
    /// int8 weights and activations.
    Int8Dynamic,
    /// Round to nearest.
    Rtn,
    /// SmoothQuant.
    Smoothquant,
}

fn unknown_method(name: &str) -> ParamError {
    let message = match METHODS {
        [only] => format!("`{name}` is not `{only}`"),
        several => format!("`{name}` is not one of {}", several.join(", ")),
    };
    let mut error = ParamError::value("method", message);
    error.alternatives = METHODS.iter().map(|&name| name.to_owned()).collect();
    error
}

impl Kind for Quantize {
    const NAME: &'static str = "quantize";
    const VERSION: u32 = 6;
    const SUMMARY: &'static str = "Stores a model's linear layers in few bits.";
    const PORTS: &'static [Port] = &[
        Port {
            name: "model",
            accepts: Artifact::Model,
            arity: Arity::One,
            summary: "The model to quantize, in 16 or 32 bits.",
        },
        Port {
            name: "calibration",
            accepts: Artifact::Statistics,
            arity: Arity::Optional,
            summary: "What was measured on that model, for methods that need it.",
        },
    ];

    /// `method` decides which other keys there may be.
    fn read(value: Value) -> (Option<Self>, Vec<ParamError>) {
        let Value::Object(mut options) = value else { return kind::read(value) };
        match options.remove("method") {
            Some(Value::String(name)) => Self::read_options(&name, Value::Object(options)),
            Some(_) => (None, vec![ParamError::value("method", "is the name of a method")]),
            None => {
                // Whatever the method is: what no method has is a mistake, and may be the method misspelt.
                let known = KindSpec::of::<Self>().param_names();
                let mut errors = vec![ParamError::absent("method")];
                for name in options.keys().filter(|name| !known.contains(name)) {
                    let mut error = ParamError::value(name, format!("unknown key `{name}`"));
                    error.target = Target::Key;
                    errors.push(error);
                }
                (None, errors)
            }
        }
    }

    fn check(&self) -> Vec<ParamError> {
        self.check_options()
    }

    fn check_ports(&self, given: &[&str]) -> Vec<ParamError> {
        let (reads, is_given) = (self.reading() != Reading::Nothing, given.contains(&"calibration"));
        match (reads, is_given) {
            (true, false) => vec![
                ParamError { target: Target::Missing, ..ParamError::absent("calibration") }
                    .help(format!("`{}` needs what a `calibrate` node measured.", self.method())),
            ],
            (false, true) => {
                let mut error =
                    ParamError::value("calibration", format!("`{}` reads no calibration", self.method()))
                        .help("Remove `calibration`.");
                error.target = Target::Key;
                vec![error]
            }
            _ => Vec::new(),
        }
    }

    fn completed(self) -> Self {
        self.completed_options()
    }

    fn output(&self) -> Artifact {
        Artifact::Model
    }

    fn sensitivity(&self) -> Sensitivity {
        self.sensitivity_of_options()
    }

    fn reads(&self) -> Reading {
        self.reading()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_options_are_those_of_the_method() {
        let (read, errors) = <Quantize as Kind>::read(json!({"method": "rtn", "scheme": "W4A16"}));
        assert!(errors.is_empty());
        assert_eq!(read.map(|read| read.method()), Some("rtn"));
        let (_, errors) = <Quantize as Kind>::read(json!({"method": "rtn", "scheme": "W8A8", "alpha": 0.5}));
        assert_eq!(errors[0].message, "unknown key `alpha`");
        let (_, errors) = <Quantize as Kind>::read(json!({"method": "rnt"}));
        assert_eq!(errors[0].path, ["method"]);
    }
}

//! Variables that say how nodes compute. A value that means nothing is refused before anything is planned: of QPIPE_CPU and QPIPE_KERNELS the worker
//! refuses it too, and would only be gone.

use std::env;

use thiserror::Error;

use crate::pipeline::nearest;

/// The variables, and what each may say. The names of `QPIPE_CPU` are those of the kernels.
const VARIABLES: [(&str, &[&str]); 3] = [
    ("QPIPE_CPU", &["portable", "avx2", "avx512", "avx512-vnni", "avx512-bf16", "amx"]),
    ("QPIPE_KERNELS", &["reference"]),
    // `cuda`, or nothing, is what nodes do anyway where there is a card.
    ("QPIPE_DEVICE", &["cpu", "cuda", ""]),
];

/// A variable whose value means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{variable} is `{found}`, expected {}{}", if allowed.len() > 1 { "one of " } else { "" }, allowed.iter().filter(|value| !value.is_empty()).copied().collect::<Vec<_>>().join(", "))]
pub struct EnvironmentError {
    /// Its name.
    variable: &'static str,
    /// What it says.
    found: String,
    /// What it may say.
    allowed: &'static [&'static str],
}

impl EnvironmentError {
    /// What to do, as a sentence.
    pub fn help(&self) -> String {
        match nearest(&self.found, self.allowed.iter().copied().filter(|value| !value.is_empty())) {
            Some(near) => format!("Did you mean `{near}`? Or unset {}.", self.variable),
            None => format!("Unset {}, or set it to one of these.", self.variable),
        }
    }
}

/// Whether the variables say what can be heeded. An empty one says nothing that can, but for QPIPE_DEVICE.
pub fn check_environment() -> Result<(), EnvironmentError> {
    check(|variable| Some(env::var_os(variable)?.to_string_lossy().into_owned()))
}

fn check(value: impl Fn(&str) -> Option<String>) -> Result<(), EnvironmentError> {
    for (variable, allowed) in VARIABLES {
        if let Some(found) = value(variable).filter(|found| !allowed.contains(&found.as_str())) {
            return Err(EnvironmentError { variable, found, allowed });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said where `variable` is `value`.
    fn said(variable: &str, value: &str) -> Option<(String, String)> {
        let error = check(|name| (name == variable).then(|| value.to_owned())).err()?;
        Some((error.to_string(), error.help()))
    }

    #[test]
    fn what_means_nothing_is_named_with_what_would() {
        assert_eq!(check(|_| None), Ok(()));
        for (variable, allowed) in VARIABLES {
            assert!(allowed.iter().all(|value| said(variable, value).is_none()), "{variable}");
            assert_eq!(said(variable, "").is_some(), variable != "QPIPE_DEVICE", "{variable}");
        }
        let (problem, help) = said("QPIPE_CPU", "avx512_vnn").expect("an error");
        assert_eq!(
            problem,
            "QPIPE_CPU is `avx512_vnn`, expected one of portable, avx2, avx512, avx512-vnni, avx512-bf16, amx"
        );
        assert_eq!(help, "Did you mean `avx512-vnni`? Or unset QPIPE_CPU.");
        let (problem, help) = said("QPIPE_KERNELS", "fast").expect("an error");
        assert_eq!(problem, "QPIPE_KERNELS is `fast`, expected reference");
        assert_eq!(help, "Unset QPIPE_KERNELS, or set it to one of these.");
    }

    #[test]
    fn the_names_are_those_of_the_kernels() {
        let kernels = include_str!("../../kernels/src/cpu/isa.rs");
        let names = kernels.split("const NAMED").nth(1).and_then(|text| text.split("];").next());
        let names: Vec<&str> = names.unwrap_or_default().split('"').skip(1).step_by(2).collect();
        assert_eq!(names, VARIABLES[0].1);
    }
}

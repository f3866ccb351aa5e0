//! What lm-eval calls its files.

use jiff::civil::DateTime;

/// `2026-11-22T03-14-57.921301`, as it stands in the names of a run's files. Whole seconds have no fraction.
pub fn time(local: DateTime) -> String {
    let seconds = local.strftime("%Y-%m-%dT%H-%M-%S").to_string();
    match local.subsec_nanosecond() / 1_000 {
        0 => seconds,
        microseconds => format!("{seconds}.{microseconds:06}"),
    }
}

/// A model's name as a folder: each run of characters that some system forbids is `__`.
pub fn sanitized_model_name(name: &str) -> String {
    let mut folder = String::new();
    let mut in_run = false;
    for character in name.chars() {
        let is_forbidden = "\"<>:/|\\?*[]".contains(character);
        match (is_forbidden, in_run) {
            (true, true) => {}
            (true, false) => folder.push_str("__"),
            (false, _) => folder.push(character),
        }
        in_run = is_forbidden;
    }
    folder
}

/// `results_TIME.json`.
pub fn results(time: &str) -> String {
    format!("results_{time}.json")
}

/// `samples_TASK_TIME.jsonl`.
pub fn samples(task: &str, time: &str) -> String {
    format!("samples_{task}_{time}.jsonl")
}

/// Whether a file's name is of the forms of [`results`] and [`samples`].
pub fn is_dated(name: &str) -> bool {
    let time = match (name.strip_suffix(".jsonl"), name.strip_suffix(".json")) {
        (Some(stem), _) => {
            stem.strip_prefix("samples_").and_then(|rest| rest.rsplit_once('_')).map(|(_, time)| time)
        }
        (None, Some(stem)) => stem.strip_prefix("results_"),
        (None, None) => None,
    };
    time.is_some_and(is_time)
}

/// Whether `text` is of the form of [`time`].
fn is_time(text: &str) -> bool {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "000000"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let form: String = seconds.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    form == "0000-00-00T00-00-00" && fraction.len() == 6 && digits(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_microseconds_or_no_fraction() {
        let whole = jiff::civil::date(2026, 11, 22).at(3, 14, 5, 0);
        assert_eq!(time(whole), "2026-11-22T03-14-05");
        let part = jiff::civil::date(2026, 11, 22).at(3, 14, 57, 921_301_999);
        assert_eq!(time(part), "2026-11-22T03-14-57.921301");
        let small = jiff::civil::date(2026, 1, 2).at(0, 0, 0, 42_000);
        assert_eq!(time(small), "2026-01-02T00-00-00.000042");
    }

    #[test]
    fn dated_names_are_told_from_others() {
        let part = jiff::civil::date(2026, 11, 22).at(3, 14, 57, 921_301_999);
        for time in [time(part), time(jiff::civil::date(2026, 1, 2).at(0, 0, 0, 0))] {
            for name in [results(&time), samples("arc_easy", &time), samples("a_b", &time)] {
                assert!(is_dated(&name), "{name}");
            }
        }
        for name in [
            "results.json",
            "results_mine.json",
            "results_2026-11-22.json",
            "samples_2026-11-22T03-14-57.jsonl",
            "results_2026-11-22T03-14-57.json.bak",
            "notes_2026-11-22T03-14-57.json",
            "results_2026-11-22T03-14-57.9.json",
        ] {
            assert!(!is_dated(name), "{name}");
        }
    }

    #[test]
    fn runs_of_forbidden_characters_become_two_underscores() {
        assert_eq!(sanitized_model_name("org/model"), "org__model");
        assert_eq!(sanitized_model_name("/data//a:b[c]?"), "__data__a__b__c__");
        assert_eq!(sanitized_model_name("a_b-c.d"), "a_b-c.d");
    }
}

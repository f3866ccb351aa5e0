//! The verdicts of `ifeval` against those of lm-evaluation-harness on responses of our own. The golden file, with its
//! provenance in the first line, is made by tests/parity/ifeval.py, which also compares the whole dataset.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::Path;

use qpipe_worker::eval::ifeval::{INSTRUCTIONS, Verdict, instructions, judge};
use serde_json::{Value, json};

fn golden() -> Vec<Value> {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/ifeval/verdicts.jsonl"));
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_golden_verdict_is_reproduced() {
    for case in golden() {
        let row = json!({"instruction_id_list": [case["id"]], "kwargs": [case["kwargs"]]});
        let found = judge(&instructions(&row).unwrap(), case["response"].as_str().unwrap()).unwrap();
        let expected = Verdict {
            strict: vec![case["strict"].as_bool().unwrap()],
            loose: vec![case["loose"].as_bool().unwrap()],
        };
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn the_golden_file_has_right_and_wrong_responses_of_every_kind() {
    let mut verdicts: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for case in golden() {
        let strict = case["strict"].as_bool().unwrap();
        verdicts.entry(case["id"].as_str().unwrap().to_owned()).or_default().push(strict);
    }
    assert!(verdicts.keys().eq(INSTRUCTIONS.iter().map(|kind| kind.id)));
    for (kind, verdicts) in verdicts {
        let right = verdicts.iter().filter(|&&strict| strict).count();
        assert!(right >= 3 && verdicts.len() - right >= 3, "{kind}: {right} of {}", verdicts.len());
    }
}

//! Tests of `table.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::json::Json;
use super::super::results::{GroupResults, Metric, TaskResults};
use super::*;

/// A file of tests/golden/lm_eval_table, written by tests/parity/lm_eval_table.py.
#[derive(Deserialize)]
struct Golden {
    version: TableVersion,
    cases: Vec<GoldenCase>,
}

#[derive(Deserialize)]
struct GoldenCase {
    results: Results,
    aggregate: BTreeMap<String, Vec<String>>,
    tasks: String,
    groups: Option<String>,
}

fn sum_up(results: &mut Results, aggregate: &BTreeMap<String, Vec<String>>) {
    for (name, metrics) in aggregate {
        let figures = metrics.iter().flat_map(|metric| results.aggregate(name, metric)).collect();
        results.groups.get_mut(name).expect("a group that is there").metrics = figures;
    }
}

#[test]
fn tables_are_those_that_lm_eval_printed() {
    for version in ["0.4.11", "0.4.13"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm_eval_table");
        let text = std::fs::read_to_string(folder.join(format!("{version}.json"))).expect("a golden file");
        let golden: Golden = serde_json::from_str(&text).expect("valid golden file");
        assert!(golden.cases.len() > 3);
        for mut case in golden.cases {
            sum_up(&mut case.results, &case.aggregate);
            assert_eq!(tasks_table(&case.results, golden.version), case.tasks);
            assert_eq!(groups_table(&case.results, golden.version), case.groups);
        }
    }
}

#[test]
fn an_evaluation_of_nothing_has_a_heading() {
    let heading = "|Tasks|Version|Filter|n-shot|Metric|   |Value|   |Stderr|\n\
                   |-----|-------|------|------|------|---|-----|---|------|\n";
    assert_eq!(tasks_table(&Results::default(), TableVersion::V0_4_13), heading);
    assert_eq!(groups_table(&Results::default(), TableVersion::V0_4_11), None);
}

/// The figures of a published run of 57 tasks in four groups, five documents each.
fn mmlu() -> Option<Results> {
    let folder = PathBuf::from(std::env::var_os("QPIPE_TEST_DATA")?).join("golden_lm_eval/out_mmlu_0shot");
    let mut files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "json"));
    let text = std::fs::read_to_string(file.expect("a results file")).expect("readable results");
    Some(super::super::files::tests::read_results(&serde_json::from_str::<Json>(&text).expect("valid JSON")))
}

#[test]
#[expect(clippy::print_stdout, reason = "says why it did nothing")]
fn groups_of_a_published_run_come_out_to_the_last_bit() {
    let Some(published) = mmlu() else {
        println!("skipped: QPIPE_TEST_DATA is not set");
        return;
    };
    assert_eq!((published.tasks.len(), published.groups.len()), (57, 5));
    for (name, group) in &published.groups {
        assert_eq!(published.aggregate(name, "acc"), group.metrics, "{name}");
    }
    let top = &published.groups["mmlu"].metrics[0];
    assert_eq!((top.value, top.stderr, top.n), (0.2771929824561403, Some(0.026_836_944_808_383_074), 285));
}

#[test]
#[expect(clippy::print_stdout, reason = "says why it did nothing")]
fn only_the_older_table_has_an_arrow_on_a_group_of_groups() {
    let Some(published) = mmlu() else {
        println!("skipped: QPIPE_TEST_DATA is not set");
        return;
    };
    let old = groups_table(&published, TableVersion::V0_4_11).expect("groups");
    let new = groups_table(&published, TableVersion::V0_4_13).expect("groups");
    let line = |table: &str, number: usize| table.lines().nth(number).expect("a row").to_owned();
    assert_eq!(line(&old, 2), "|mmlu              |      2|none  |      |acc   |↑  |0.2772|±  |0.0268|");
    assert_eq!(line(&old, 3), "| - humanities     |      2|none  |      |acc   |↑  |0.2769|±  |0.0586|");
    assert_eq!(line(&new, 2), "|mmlu              |      2|none  |      |acc   |   |0.2772|±  |0.0268|");
    assert_eq!(line(&new, 3), "| - humanities     |      2|none  |     0|acc   |↑  |0.2769|±  |0.0586|");
}

#[test]
fn a_group_without_figures_is_a_row_of_the_older_table_only() {
    let metric = Metric {
        name: "acc".into(),
        filter: "none".into(),
        value: 0.5,
        stderr: None,
        higher_is_better: Some(true),
    };
    let task = TaskResults {
        alias: "t".into(),
        version: None,
        n_shot: Some(0),
        n_original: 1,
        n_effective: 1,
        metrics: vec![metric],
    };
    let group =
        GroupResults { alias: "g".into(), version: None, children: vec!["t".into()], metrics: Vec::new() };
    let results = Results {
        tasks: BTreeMap::from([("t".to_owned(), task)]),
        groups: BTreeMap::from([("g".to_owned(), group)]),
    };
    let rows = |version| tasks_table(&results, version).lines().skip(2).collect::<Vec<_>>().join("\n");
    let row = "| - t |    N/A|none  |     0|acc   |↑  |  0.5|±  |   N/A|";
    assert_eq!(rows(TableVersion::V0_4_13), row);
    assert_eq!(
        rows(TableVersion::V0_4_11),
        format!("|g    |    N/A|      |      |      |   |     |   |      |\n{row}")
    );
}

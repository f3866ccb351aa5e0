//! Tests of `sample.rs`.

use std::path::{Path, PathBuf};

use super::super::files::tests::{get, list, text};
use super::*;

fn request(choice: &str, log_probability: f64, is_greedy: bool) -> Request {
    let response = Response::Continuation { log_probability, is_greedy };
    Request {
        prompt: "Q: é?\nA:".to_owned(),
        arguments: vec![choice.into()],
        responses: vec![response.clone()],
        filtered: response,
    }
}

fn sample() -> Sample {
    Sample {
        doc_id: 3,
        doc: Json::object([("q", Json::from("é?")), ("n", 0.5.into()), ("list", Json::List(Vec::new()))]),
        target: "1".to_owned(),
        requests: vec![request(" a", -1.5, false), request(" b", -0.25, true)],
        filter: "none".to_owned(),
        metrics: vec![("acc".to_owned(), 1.0.into())],
    }
}

#[test]
fn a_line_has_lm_evals_keys_in_their_order() {
    // Hashes of json.dumps(doc, indent=2, ensure_ascii=False), of the prompt and of the target, from Python's hashlib.
    let expected = "{\"doc_id\": 3, \"doc\": {\"q\": \"é?\", \"n\": 0.5, \"list\": []}, \"target\": \"1\", \
        \"arguments\": {\"gen_args_0\": {\"arg_0\": \"Q: é?\\nA:\", \"arg_1\": \" a\"}, \
        \"gen_args_1\": {\"arg_0\": \"Q: é?\\nA:\", \"arg_1\": \" b\"}}, \
        \"resps\": [[[\"-1.5\", \"False\"]], [[\"-0.25\", \"True\"]]], \
        \"filtered_resps\": [[\"-1.5\", \"False\"], [\"-0.25\", \"True\"]], \"filter\": \"none\", \"metrics\": [\"acc\"], \
        \"doc_hash\": \"234189780d200928c73e0333dc57c1076a807b8201148c184202bce5bc64babc\", \"prompt_hash\": \"c33235f3ce9b2ff6d80dbe757111a0ea7923d0c91152df85821df67e6be6448a\", \"target_hash\": \"6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b\", \"acc\": 1.0}";
    assert_eq!(sample().to_line().expect("two requests"), expected);
}

#[test]
fn a_sample_without_a_request_is_an_error() {
    let nothing = Sample { requests: Vec::new(), ..sample() };
    assert_eq!(nothing.to_line(), Err(LmEvalError::NoRequest { doc_id: 3 }));
    assert_eq!(task_hash([&nothing]), Err(LmEvalError::NoRequest { doc_id: 3 }));
}

#[test]
fn texts_and_whole_texts_scored_are_texts() {
    let mut generated = sample();
    generated.requests = vec![Request {
        prompt: "P".to_owned(),
        arguments: vec![Json::object([("until", Json::List(vec!["\n".into()]))])],
        responses: vec![Response::Text("x".to_owned()), Response::Rolling(-7.0)],
        filtered: Response::Text("x".to_owned()),
    }];
    let line = generated.to_line().expect("a request");
    assert!(
        line.contains(r#""arg_1": {"until": ["\n"]}}}, "resps": [["x", "-7.0"]], "filtered_resps": ["x"]"#),
        "{line}"
    );
}

/// What a line says, taken apart so that it has to be put together again.
fn read(line: &str) -> Sample {
    let json: Json = serde_json::from_str(line).expect("valid JSON");
    let requests = list(get(&json, "resps")).iter().enumerate().map(|(index, responses)| {
        let arguments = get(get(&json, "arguments"), &format!("gen_args_{index}"));
        let filtered = response(&list(get(&json, "filtered_resps"))[index]);
        Request {
            prompt: text(get(arguments, "arg_0")),
            arguments: vec![get(arguments, "arg_1").clone()],
            responses: list(responses).iter().map(response).collect(),
            filtered,
        }
    });
    let metrics =
        list(get(&json, "metrics")).iter().map(|name| (text(name), get(&json, &text(name)).clone()));
    Sample {
        doc_id: match get(&json, "doc_id") {
            Json::Integer(number) => u64::try_from(*number).expect("an index"),
            other => panic!("{other:?}"),
        },
        doc: get(&json, "doc").clone(),
        target: text(get(&json, "target")),
        requests: requests.collect(),
        filter: text(get(&json, "filter")),
        metrics: metrics.collect(),
    }
}

fn response(json: &Json) -> Response {
    let [log_probability, is_greedy] = list(json) else { panic!("{json:?}") };
    Response::Continuation {
        log_probability: text(log_probability).parse().expect("a number"),
        is_greedy: text(is_greedy) == "True",
    }
}

/// Every line of two runs, and the hash of every task.
#[test]
#[expect(clippy::print_stdout, reason = "says why it did nothing")]
fn lines_of_published_runs_are_written_again() {
    let Some(data) = std::env::var_os("QPIPE_TEST_DATA") else {
        println!("skipped: QPIPE_TEST_DATA is not set");
        return;
    };
    let mut counts = (0, 0);
    for run in ["out_mc_0shot", "out_mmlu_0shot"] {
        let folder = PathBuf::from(&data).join("golden_lm_eval").join(run);
        let files: Vec<PathBuf> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        let is = |path: &Path, kind: &str| path.extension().is_some_and(|extension| extension == kind);
        let results = files.iter().find(|path| is(path, "json")).expect("a results file");
        let results = std::fs::read_to_string(results).expect("readable results");
        let results: Json = serde_json::from_str(&results).expect("valid JSON");
        for path in files.iter().filter(|path| is(path, "jsonl")) {
            let content = std::fs::read_to_string(path).expect("readable samples");
            let samples: Vec<Sample> = content.lines().map(read).collect();
            for (sample, line) in samples.iter().zip(content.lines()) {
                assert_eq!(sample.to_line().expect("requests"), line, "{}", path.display());
            }
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
            let task = name.trim_start_matches("samples_").rsplit_once('_').expect("a time").0;
            let expected = text(get(get(&results, "task_hashes"), task));
            assert_eq!(task_hash(&samples).expect("requests"), expected, "{task}");
            counts = (counts.0 + 1, counts.1 + samples.len());
        }
    }
    assert_eq!(counts, (59, 685));
}

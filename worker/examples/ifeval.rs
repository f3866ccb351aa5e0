//! Judges JSON lines from standard input: `{"id", "kwargs", "response"}` in, `{"strict", "loose"}` or `{"error"}`
//! out, one line a line. The parity script `tests/parity/ifeval.py` runs it.

use std::io::{BufRead, Write};

use qpipe_worker::eval::ifeval::{IfevalError, Verdict, instructions, judge};
use serde_json::{Value, json};

fn verdict(line: &Value) -> Result<Verdict, IfevalError> {
    let row = json!({"instruction_id_list": [line["id"]], "kwargs": [line["kwargs"]]});
    judge(&instructions(&row)?, line["response"].as_str().unwrap_or_default())
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let found = match verdict(&serde_json::from_str(&line?)?) {
            Ok(verdict) => json!({"strict": verdict.strict[0], "loose": verdict.loose[0]}),
            Err(error) => json!({"error": error.to_string()}),
        };
        writeln!(out, "{found}")?;
    }
    out.flush()
}

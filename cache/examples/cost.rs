//! What the store costs: `cargo run --release -p qpipe-cache --example cost [FOLDER]`.
//!
//! Prints the price of a commit (one file, everything synced), of a look at a known action, of digesting
//! unchanged files, and of reading the stat cache. FOLDER decides which disk is measured.

#![expect(clippy::print_stdout, reason = "an example that reports figures")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use qpipe_cache::{Digest, Lookup, Manifest, Meta, StatCache, Store};
use serde_json::json;

const ACTIONS: u64 = 10_000;
const COMMITS: u64 = 300;
const THREADS: u64 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let place = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(place)?;
    let store = Store::open(&folder.path().join("store"))?;

    let start = Instant::now();
    for number in 0..COMMITS {
        commit(&store, number)?;
    }
    report("commit, one at a time", start.elapsed(), COMMITS);

    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || (1..=COMMITS).try_for_each(|i| commit(store, COMMITS * (thread + 1) + i)))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panics").map_err(|error| error.to_string()))
    })?;
    report("commit, eight threads", start.elapsed(), COMMITS * THREADS);
    let start = Instant::now();
    store.settle()?;
    println!("{:<30} {:>9.2} ms in all", "settle after these", milliseconds(start.elapsed()));

    for number in COMMITS * (THREADS + 1) + 1..ACTIONS {
        commit(&store, number)?;
    }
    let manifests: Vec<Manifest> = (0..ACTIONS).map(manifest).collect();
    let (wall, cpu) = (Instant::now(), cpu_time()?);
    let keys: Vec<Digest> = manifests.iter().map(Manifest::key).collect();
    report("key", wall.elapsed(), ACTIONS);
    report("key, CPU", cpu_time()? - cpu, ACTIONS);
    for _ in 0..3 {
        let (wall, cpu) = (Instant::now(), cpu_time()?);
        let hits = keys.iter().filter(|key| matches!(store.peek(key, "quantize"), Ok(Some(_)))).count();
        report(&format!("peek ({hits} hits)"), wall.elapsed(), ACTIONS);
        report("peek, CPU", cpu_time()? - cpu, ACTIONS);
    }
    let (wall, cpu) = (Instant::now(), cpu_time()?);
    let hits = keys.iter().filter(|key| matches!(store.peek_output(key, "quantize"), Ok(Some(_)))).count();
    report(&format!("peek_output ({hits} hits)"), wall.elapsed(), ACTIONS);
    report("peek_output, CPU", cpu_time()? - cpu, ACTIONS);
    let start = Instant::now();
    let records = store.records_of("quantize", 100)?;
    println!(
        "{:<30} {:>9.2} ms in all",
        format!("records_of, {} newest", records.len()),
        milliseconds(start.elapsed())
    );

    stat_cache(folder.path())
}

fn stat_cache(folder: &Path) -> Result<(), Box<dyn Error>> {
    let data = folder.join("data");
    fs::create_dir(&data)?;
    let paths: Vec<PathBuf> = (0..ACTIONS).map(|number| data.join(format!("{number}.jsonl"))).collect();
    for path in &paths {
        fs::write(path, path.as_os_str().as_encoded_bytes())?;
    }
    std::thread::sleep(Duration::from_millis(200));
    let log = folder.join("stat.log");
    let start = Instant::now();
    StatCache::new(log.clone()).digest_tree(&data, &|_| true)?;
    report("digest a new file", start.elapsed(), ACTIONS);
    let (wall, cpu) = (Instant::now(), cpu_time()?);
    let cache = StatCache::new(log.clone());
    cache.digest_file(&paths[0])?;
    println!("{:<30} {:>9.2} ms in all", "read the stat cache", milliseconds(wall.elapsed()));
    println!("{:<30} {:>9.2} ms in all", "read the stat cache, CPU", milliseconds(cpu_time()? - cpu));
    let (wall, cpu) = (Instant::now(), cpu_time()?);
    for path in &paths {
        cache.digest_tree(path, &|_| true)?;
    }
    report("digest an unchanged file", wall.elapsed(), ACTIONS);
    report("digest an unchanged file, CPU", cpu_time()? - cpu, ACTIONS);
    Ok(())
}

fn manifest(number: u64) -> Manifest {
    Manifest {
        schema: 1,
        kind: "quantize".to_owned(),
        version: 1,
        params: json!({
            "method": "gptq", "bits": 4, "group_size": 128, "symmetric": true, "damping": 0.01, "number": number,
            "profile": "llmc", "rounding": "gptq", "activations": "dynamic", "format": null,
        }),
        inputs: BTreeMap::from([
            ("calibration".to_owned(), json!(Digest::of(b"calibration"))),
            ("model".to_owned(), json!(Digest::of(b"model"))),
        ]),
        runtime: BTreeMap::from([
            ("device".to_owned(), json!("cpu-avx512-amx")),
            ("threads".to_owned(), json!(2)),
            ("torch".to_owned(), json!("2.11.0")),
        ]),
    }
}

fn commit(store: &Store, number: u64) -> Result<(), qpipe_cache::StoreError> {
    let manifest = manifest(number);
    let Lookup::Miss(claim) = store.lookup(&manifest.key(), &manifest.kind, &mut |_| {})? else {
        return Ok(());
    };
    fs::write(claim.staging().join("out/result.json"), number.to_string())?;
    let meta = Meta {
        node: format!("gptq[n={number}]"),
        pipeline: "sweep".to_owned(),
        run: "20261122-070000".to_owned(),
        finished_unix: 1.795e9,
        seconds: 0.25,
        host: qpipe_cache::host_name(),
        facts: BTreeMap::from([("peak_memory_MB".to_owned(), json!(1234.5))]),
    };
    claim.commit(manifest, meta).map(drop)
}

/// Time on a processor of this thread.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

fn report(what: &str, time: Duration, times: u64) {
    let each = milliseconds(time) * 1000.0 / times as f64;
    println!("{what:<30} {each:>9.2} µs each, {:>9.2} ms in all", milliseconds(time));
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

//! Downloads from a local server that speaks the Hub's interface and breaks in the ways servers do.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod hub_server;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;
use hub_server::{Asked, COMMIT, Fault, HubServer, TOKEN};
use qpipe::fetch::{Client, FetchError, Hub, HubRequest, Patience, Pin, Resolved, fetch_http_with};
use qpipe_cache::{Digest, Entry, Tree};
use qpipe_nodes::Artifact;
use qpipe_nodes::protocol::Failure;
use tempfile::TempDir;

const REPOSITORY: &str = "org/tiny";
const WEIGHTS: &str = "/cdn/org/tiny/--/model.safetensors";

/// Larger than a chunk of the transfer and than any socket buffer.
fn weights() -> Vec<u8> {
    (0..3_000_000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn client() -> Client {
    let wait = Duration::from_millis(5);
    Client::new(Patience { attempts: 3, first_wait: wait, longest_wait: wait })
}

fn model_server() -> HubServer {
    let server = HubServer::start();
    server.add(REPOSITORY, "config.json", b"{}", false);
    server.add(REPOSITORY, "tokenizer.json", b"{\"version\": \"1.0\"}", false);
    server.add(REPOSITORY, "model.safetensors", &weights(), true);
    server.add(REPOSITORY, "pytorch_model.bin", b"the same weights again", true);
    server.add(REPOSITORY, "README.md", b"# tiny", false);
    server
}

fn request(repo: &str) -> HubRequest {
    HubRequest {
        repo_type: "models".to_owned(),
        repo: repo.to_owned(),
        revision: "main".to_owned(),
        artifact: Artifact::Model,
    }
}

fn fetch(server: &HubServer, request: &HubRequest, folder: &Path) -> Result<Resolved, FetchError> {
    fetch_as(server, None, request, folder, None)
}

fn fetch_as(
    server: &HubServer,
    token: Option<&str>,
    request: &HubRequest,
    folder: &Path,
    pin: Option<&Pin>,
) -> Result<Resolved, FetchError> {
    Hub::new(&server.endpoint, token.map(str::to_owned), client())
        .fetch(request, folder, pin, &mut |_, _| ControlFlow::Continue(()))
}

/// The names of all files below `folder`.
fn names(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    names
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn assert_complete(folder: &Path) {
    assert_eq!(names(folder), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), b"{}");
    assert!(fs::read(folder.join("model.safetensors")).unwrap() == weights());
}

/// Of the requests for the weights, the ranges.
fn ranges(asked: &[Asked]) -> Vec<Option<&str>> {
    asked.iter().filter(|asked| asked.path == WEIGHTS).map(|asked| asked.range.as_deref()).collect()
}

#[test]
fn wanted_files_of_a_model_arrive_with_progress() {
    let (server, folder) = (model_server(), folder());
    let mut steps: Vec<(u64, Option<u64>)> = Vec::new();
    let resolved = Hub::new(&format!("{}/", server.endpoint), None, client())
        .fetch(&request(REPOSITORY), folder.path(), None, &mut |done, total| {
            steps.push((done, total));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(resolved.revision, COMMIT);
    assert_complete(folder.path());
    let total = (weights().len() + 2 + 18) as u64;
    assert_eq!(steps.last(), Some(&(total, Some(total))));
    assert!(steps.len() > 10 && steps.is_sorted(), "{} steps", steps.len());
    // What is fetched belongs to the commit, not to whatever `main` is by then.
    let asked = server.asked();
    assert_eq!(asked[0].path, "/api/models/org/tiny/revision/main");
    assert!(asked.iter().any(|asked| asked.path == format!("/org/tiny/resolve/{COMMIT}/config.json")));
    assert!(asked.iter().all(|asked| asked.authorization.is_none()));
}

#[test]
fn data_of_a_dataset_arrive_in_their_folders() {
    let (server, folder) = (HubServer::start(), folder());
    server.add("datasets/org/questions", "data/train set.jsonl", b"{}\n", false);
    server.add("datasets/org/questions", "README.md", b"", false);
    let mut request = request("org/questions");
    request.repo_type = "datasets".to_owned();
    request.artifact = Artifact::Data;
    request.revision = "refs/pr/1".to_owned();
    fetch(&server, &request, folder.path()).unwrap();
    assert_eq!(names(folder.path()), ["data/train set.jsonl"]);
    let asked = server.asked();
    assert_eq!(asked[0].path, "/api/datasets/org/questions/revision/refs%2Fpr%2F1");
    assert_eq!(asked[1].path, format!("/datasets/org/questions/resolve/{COMMIT}/data/train%20set.jsonl"));
}

#[test]
fn passing_faults_are_sat_out() {
    let (server, folder) = (model_server(), folder());
    server.fault("/api/models/org/tiny/revision/main", Fault::Status(503, &[]));
    server.fault("/api/models/org/tiny/revision/main", Fault::Status(429, &[("Retry-After", "0")]));
    server.fault(WEIGHTS, Fault::Status(502, &[]));
    fetch(&server, &request(REPOSITORY), folder.path()).unwrap();
    assert_complete(folder.path());
}

#[test]
fn retry_after_is_heeded() {
    let (server, folder) = (model_server(), folder());
    server.fault("/api/models/org/tiny/revision/main", Fault::Status(429, &[("Retry-After", "1")]));
    let start = Instant::now();
    fetch(&server, &request(REPOSITORY), folder.path()).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn patience_ends() {
    let (server, folder) = (model_server(), folder());
    for _ in 0..3 {
        server.fault("/api/models/org/tiny/revision/main", Fault::Status(503, &[]));
    }
    let error = fetch(&server, &request(REPOSITORY), folder.path()).unwrap_err();
    assert!(matches!(error, FetchError::Busy { status: 503, .. }), "{error}");
    assert_eq!(error.class(), Failure::Surroundings);
}

#[test]
fn broken_connections_are_resumed_where_they_broke() {
    let (server, folder) = (model_server(), folder());
    // More breaks than patience has attempts: each brought some bytes.
    for _ in 0..5 {
        server.fault(WEIGHTS, Fault::Drop(400_000));
    }
    fetch(&server, &request(REPOSITORY), folder.path()).unwrap();
    assert_complete(folder.path());
    let asked = server.asked();
    let ranges = ranges(&asked);
    assert_eq!(ranges.len(), 6);
    assert_eq!(ranges[..3], [None, Some("bytes=400000-"), Some("bytes=800000-")]);
}

#[test]
fn a_later_process_goes_on_with_what_is_there() {
    let (server, folder) = (model_server(), folder());
    let stopped = Hub::new(&server.endpoint, None, client()).fetch(
        &request(REPOSITORY),
        folder.path(),
        None,
        &mut |done, _| if done > 1_000_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) },
    );
    assert!(matches!(stopped, Err(FetchError::Stopped)), "{stopped:?}");
    assert!(!folder.path().join("model.safetensors").exists());
    server.asked();
    fetch(&server, &request(REPOSITORY), folder.path()).unwrap();
    assert_complete(folder.path());
    let asked = server.asked();
    let range = ranges(&asked)[0].unwrap();
    let from: u64 = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(from > 1_000_000, "{range}");

    // Complete files with a digest are not asked for again.
    fetch(&server, &request(REPOSITORY), folder.path()).unwrap();
    assert!(ranges(&server.asked()).is_empty());
}

#[test]
fn a_server_without_ranges_starts_over() {
    let (server, folder) = (model_server(), folder());
    server.fault(WEIGHTS, Fault::Drop(400_000));
    server.fault(WEIGHTS, Fault::IgnoreRange);
    fetch(&server, &request(REPOSITORY), folder.path()).unwrap();
    assert_complete(folder.path());
}

#[test]
fn wrong_bytes_never_get_their_name() {
    let (server, folder) = (model_server(), folder());
    server.fault(WEIGHTS, Fault::Corrupt);
    let error = fetch(&server, &request(REPOSITORY), folder.path()).unwrap_err();
    assert!(matches!(error, FetchError::WrongDigest { pinned: false, .. }), "{error}");
    assert_eq!(names(folder.path()), ["config.json"]);
    // The broken bytes are gone: the next attempt is whole.
    fetch(&server, &request(REPOSITORY), folder.path()).unwrap();
    assert_complete(folder.path());
}

#[test]
fn a_broken_beginning_is_found_and_fetched_again() {
    let (server, folder) = (model_server(), folder());
    server.fault(WEIGHTS, Fault::Drop(400_000));
    server.fault(WEIGHTS, Fault::Status(404, &[]));
    fetch(&server, &request(REPOSITORY), folder.path()).unwrap_err();
    let partial = names(folder.path()).into_iter().find(|name| name.ends_with(".partial")).unwrap();
    let mut bytes = fs::read(folder.path().join(&partial)).unwrap();
    bytes[7] ^= 1;
    fs::write(folder.path().join(&partial), bytes).unwrap();
    fetch(&server, &request(REPOSITORY), folder.path()).unwrap();
    assert_complete(folder.path());
}

#[test]
fn files_of_another_revision_do_not_stay() {
    let (server, folder) = (model_server(), folder());
    fs::write(folder.path().join("model-00001-of-00002.safetensors"), "old").unwrap();
    fs::write(folder.path().join("model.safetensors.ffffffffffff.partial"), "old").unwrap();
    fetch(&server, &request(REPOSITORY), folder.path()).unwrap();
    assert_complete(folder.path());
}

fn pin(weights: &[u8]) -> Pin {
    let entry = |bytes: &[u8]| Entry { digest: Digest::of(bytes), size: bytes.len() as u64 };
    let files = BTreeMap::from([
        ("config.json".to_owned(), entry(b"{}")),
        ("model.safetensors".to_owned(), entry(weights)),
    ]);
    Pin::new(Some(COMMIT.to_owned()), &Tree { files })
}

#[test]
fn a_pin_decides_revision_files_and_bytes() {
    let (server, folder) = (model_server(), folder());
    let mut moved = request(REPOSITORY);
    moved.revision = "a-branch-that-is-gone".to_owned();
    let resolved = fetch_as(&server, None, &moved, folder.path(), Some(&pin(&weights()))).unwrap();
    assert_eq!(resolved.revision, COMMIT);
    assert_eq!(names(folder.path()), ["config.json", "model.safetensors"]);
    assert!(server.asked().iter().all(|asked| !asked.path.starts_with("/api/")));

    let mut other = weights();
    other[0] ^= 1;
    let error = fetch_as(&server, None, &moved, folder.path(), Some(&pin(&other))).unwrap_err();
    assert!(matches!(error, FetchError::WrongDigest { pinned: true, .. }), "{error}");
    assert!(error.help().unwrap().contains("lock file"));
}

#[test]
fn a_token_opens_what_is_private_and_stays_with_its_host() {
    let (server, elsewhere, folder) = (model_server(), model_server(), folder());
    server.make_private(REPOSITORY);
    let error = fetch(&server, &request(REPOSITORY), folder.path()).unwrap_err();
    assert!(matches!(error, FetchError::NoRepository { with_token: false, .. }), "{error}");
    assert!(error.help().unwrap().contains("HF_TOKEN"));
    fetch_as(&server, Some(TOKEN), &request(REPOSITORY), folder.path(), None).unwrap();
    assert_complete(folder.path());

    // `localhost` is another host than `127.0.0.1`.
    let location: &'static str =
        format!("{}{WEIGHTS}", elsewhere.endpoint.replace("127.0.0.1", "localhost")).leak();
    let headers: &'static [(&str, &str)] = vec![("Location", location)].leak();
    let path = format!("/org/tiny/resolve/{COMMIT}/model.safetensors");
    server.fault(&path, Fault::Status(302, headers));
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    fetch_as(&server, Some(TOKEN), &request(REPOSITORY), folder.path(), None).unwrap();
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].authorization, None);
}

#[test]
fn refusals_say_what_to_do() {
    let (server, folder) = (model_server(), folder());
    let error = fetch(&server, &request("org/tinny"), folder.path()).unwrap_err();
    assert_eq!(error.to_string(), "the Hub has no repository `org/tinny`, or hides it");
    assert!(error.help().unwrap().starts_with("Check the spelling."));

    let error = fetch_as(&server, Some(TOKEN), &request("org/tinny"), folder.path(), None).unwrap_err();
    assert!(matches!(error, FetchError::NoRepository { with_token: true, .. }), "{error}");

    let mut unknown = request(REPOSITORY);
    unknown.revision = "v9".to_owned();
    let error = fetch(&server, &unknown, folder.path()).unwrap_err();
    assert_eq!(error.to_string(), "`org/tiny` has no revision `v9`");

    server.make_gated(REPOSITORY);
    let error = fetch(&server, &request(REPOSITORY), folder.path()).unwrap_err();
    let page = format!("{}/org/tiny", server.endpoint);
    assert_eq!(
        error.help().unwrap(),
        format!("Ask for access at {page}. Set HF_TOKEN to a token of an account with access.")
    );
    let error = fetch_as(&server, Some(TOKEN), &request(REPOSITORY), folder.path(), None).unwrap_err();
    assert!(matches!(error, FetchError::Gated { with_token: true, .. }), "{error}");
    assert_eq!(error.class(), Failure::User);

    server.add("org/parquet", "data/train.parquet", b"PAR1", true);
    let error = fetch(&server, &request("org/parquet"), folder.path()).unwrap_err();
    assert_eq!(error.to_string(), "`org/parquet` holds no model*.safetensors with a config.json");
}

#[test]
fn an_absent_server_is_of_the_surroundings() {
    let folder = folder();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Hub::new(&format!("http://127.0.0.1:{port}"), None, client())
        .fetch(&request(REPOSITORY), folder.path(), None, &mut |_, _| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(matches!(error, FetchError::Network { .. }), "{error}");
    assert_eq!(error.class(), Failure::Surroundings);
}

#[test]
fn listed_files_cannot_leave_the_folder() {
    let (server, folder) = (HubServer::start(), folder());
    server.add("datasets/org/evil", "/outside.jsonl", b"{}", false);
    let mut request = request("org/evil");
    request.repo_type = "datasets".to_owned();
    request.artifact = Artifact::Data;
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let error = fetch(&server, &request, &target).unwrap_err();
    assert!(matches!(error, FetchError::BadPath { .. }), "{error}");
    assert!(names(folder.path()).is_empty());
}

fn fetch_plain(server: &HubServer, name: &str, digest: &str, folder: &Path) -> Result<(), FetchError> {
    let url = format!("{}/plain/{name}", server.endpoint);
    let destination = folder.join("data.jsonl");
    fetch_http_with(&client(), &url, digest, &destination, &mut |_, _| ControlFlow::Continue(()))
}

#[test]
fn one_file_by_address_is_verified_either_way_and_resumed() {
    let server = model_server();
    let name = "org/tiny/--/model.safetensors";
    let bytes = weights();
    for digest in [
        format!("blake3:{}", Digest::of(&bytes)),
        "sha256:ac64956bfb8b88d81f18a14627f9e7a1b5a9cdf2034344cbe78817d474154fb8".to_owned(),
    ] {
        let folder = folder();
        server.fault(&format!("/plain/{name}"), Fault::Drop(500_000));
        server.fault(&format!("/plain/{name}"), Fault::Status(503, &[]));
        fetch_plain(&server, name, &digest, folder.path()).unwrap();
        assert!(fs::read(folder.path().join("data.jsonl")).unwrap() == bytes);
        assert_eq!(names(folder.path()), ["data.jsonl"]);
    }
}

#[test]
fn one_file_with_another_digest_is_refused() {
    let (server, folder) = (model_server(), folder());
    let digest = format!("blake3:{}", Digest::of(b"something else"));
    let error = fetch_plain(&server, "org/tiny/--/config.json", &digest, folder.path()).unwrap_err();
    assert!(error.to_string().contains(&format!("expected {digest}")), "{error}");
    assert_eq!(error.class(), Failure::User);
    assert!(names(folder.path()).is_empty());

    let error = fetch_plain(&server, "org/none/--/x", &digest, folder.path()).unwrap_err();
    assert!(matches!(error, FetchError::NotFound { status: 404, .. }), "{error}");
    let error = fetch_plain(&server, "org/tiny/--/config.json", "md5:1", folder.path()).unwrap_err();
    assert!(matches!(error, FetchError::BadDigest { .. }), "{error}");
}

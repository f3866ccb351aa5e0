//! A small server on a local port that speaks the Hub's HTTP interface, with faults on request.
#![allow(unreachable_pub, reason = "a module of several test binaries")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The commit that every branch of every repository points to.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The token that opens private repositories.
pub const TOKEN: &str = "hf_test";

/// What goes wrong with the next request of a path.
pub enum Fault {
    /// This status and these headers instead of an answer.
    Status(u16, &'static [(&'static str, &'static str)]),
    /// The connection ends after so many bytes of the body.
    Drop(usize),
    /// The first byte of the body is another one.
    Corrupt,
    /// The whole file, whatever range was asked for.
    IgnoreRange,
}

/// What a request asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// A file of a repository, and whether it is in large file storage.
type File = (Vec<u8>, bool);

#[derive(Default)]
struct State {
    /// By `org/name` or `datasets/org/name`, then by path.
    repositories: BTreeMap<String, BTreeMap<String, File>>,
    private: Vec<String>,
    gated: Vec<String>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    asked: Vec<Asked>,
}

/// The server; it ends with the test's process.
pub struct HubServer {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl HubServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that stops reading breaks the pipe, which is part of some tests.
                std::thread::spawn(move || _ = serve(stream, &shared));
            }
        });
        Self { endpoint, state }
    }

    pub fn add(&self, repository: &str, path: &str, content: &[u8], large: bool) {
        let mut state = self.state.lock().unwrap();
        let files = state.repositories.entry(repository.to_owned()).or_default();
        files.insert(path.to_owned(), (content.to_vec(), large));
    }

    pub fn make_private(&self, repository: &str) {
        self.state.lock().unwrap().private.push(repository.to_owned());
    }

    pub fn make_gated(&self, repository: &str) {
        self.state.lock().unwrap().gated.push(repository.to_owned());
    }

    /// The next request of `path` (without its query) meets `fault`.
    pub fn fault(&self, path: &str, fault: Fault) {
        self.state.lock().unwrap().faults.entry(path.to_owned()).or_default().push_back(fault);
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let target = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let (mut range, mut authorization) = (None, None);
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("range") => range = Some(value.to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.to_owned());
            }
            Some(_) => {}
        }
    }
    let (answer, fault) = {
        let mut state = state.lock().unwrap();
        let authorized = authorization.as_deref() == Some(&format!("Bearer {TOKEN}"));
        state.asked.push(Asked { path: path.clone(), range: range.clone(), authorization });
        let fault = state.faults.get_mut(&path).and_then(VecDeque::pop_front);
        let range = range.filter(|_| !matches!(fault, Some(Fault::IgnoreRange)));
        (route(&state, &path, range.as_deref(), authorized), fault)
    };
    let mut answer = answer;
    let mut cut = usize::MAX;
    match fault {
        Some(Fault::Status(status, headers)) => {
            answer = Answer::new(status, "a fault");
            for (name, value) in headers {
                answer = answer.with(name, value);
            }
        }
        Some(Fault::Drop(bytes)) => cut = bytes,
        Some(Fault::Corrupt) => answer.body[0] ^= 1,
        Some(Fault::IgnoreRange) | None => {}
    }
    write!(
        stream,
        "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n",
        answer.status,
        answer.body.len()
    )?;
    for (name, value) in &answer.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&answer.body[..cut.min(answer.body.len())])?;
    stream.flush()
}

fn route(state: &State, path: &str, range: Option<&str>, authorized: bool) -> Answer {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api", kind, owner, name, "revision", revision] => {
            let prefix = if *kind == "datasets" { "datasets/" } else { "" };
            let repository = format!("{prefix}{owner}/{name}");
            refusal(state, &repository, revision, authorized)
                .unwrap_or_else(|| Answer::new(200, listing(&state.repositories[&repository])))
        }
        ["cdn", repository @ .., "--", file] => {
            ranged(&state.repositories[&repository.join("/")][*file].0, range)
        }
        ["plain", repository @ .., "--", file] => match state.repositories.get(&repository.join("/")) {
            Some(files) => ranged(&files[*file].0, range),
            None => Answer::new(404, ""),
        },
        _ => {
            let Some(at) = parts.iter().position(|part| *part == "resolve") else {
                return Answer::new(404, "");
            };
            let (repository, file) = (parts[..at].join("/"), decoded(&parts[at + 2..].join("/")));
            if let Some(refusal) = refusal(state, &repository, parts[at + 1], authorized) {
                return refusal;
            }
            match state.repositories[&repository].get(&file) {
                None => Answer::new(404, "").with("X-Error-Code", "EntryNotFound"),
                Some((_, true)) => {
                    Answer::new(302, "").with("Location", &format!("/cdn/{repository}/--/{file}"))
                }
                Some((content, false)) => ranged(content, range),
            }
        }
    }
}

/// As the Hub refuses: 401 for what does not exist too.
fn refusal(state: &State, repository: &str, revision: &str, authorized: bool) -> Option<Answer> {
    let hidden = state.private.iter().any(|private| private == repository) && !authorized;
    if hidden || !state.repositories.contains_key(repository) {
        let status = if authorized { 404 } else { 401 };
        return Some(Answer::new(status, "").with("X-Error-Code", "RepoNotFound"));
    }
    if state.gated.iter().any(|gated| gated == repository) {
        let status = if authorized { 403 } else { 401 };
        return Some(Answer::new(status, "").with("X-Error-Code", "GatedRepo"));
    }
    let known = [COMMIT, "main", "refs%2Fpr%2F1"].contains(&revision);
    (!known).then(|| Answer::new(404, "").with("X-Error-Code", "RevisionNotFound"))
}

fn listing(files: &BTreeMap<String, File>) -> String {
    let siblings: Vec<_> = files
        .iter()
        .map(|(path, (content, large))| {
            let mut sibling =
                json!({ "rfilename": path, "size": content.len(), "blobId": "not computed here" });
            if *large {
                let sha256: String =
                    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
                sibling["lfs"] = json!({ "sha256": sha256, "size": content.len(), "pointerSize": 130 });
            }
            sibling
        })
        .collect();
    json!({ "sha": COMMIT, "private": false, "siblings": siblings }).to_string()
}

fn ranged(content: &[u8], range: Option<&str>) -> Answer {
    let start =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        None => Answer::new(200, content),
        Some(start) if start >= content.len() => Answer::new(416, ""),
        Some(start) => Answer::new(206, &content[start..])
            .with("Content-Range", &format!("bytes {start}-{}/{}", content.len() - 1, content.len())),
    }
}

/// `%20` and the like as the bytes they stand for.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (hex, rest) = part.split_at(2);
        decoded.push(char::from(u8::from_str_radix(hex, 16).unwrap()));
        decoded.push_str(rest);
    }
    decoded
}

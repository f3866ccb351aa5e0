//! One HTTP request, and patience with servers.

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::{FetchError, Progress};

/// How long a slow or silent server is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// No `Retry-After` keeps a run longer than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How often, and after what waits, a request is repeated that failed for a passing reason (429, 5xx, a
/// broken connection). A transfer that went on by some bytes starts counting anew.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Failures in a row after which the last one stands.
    pub attempts: u32,
    /// Before the first repetition; doubled before each further one. A `Retry-After` wins.
    pub first_wait: Duration,
    /// The longest of the doubled waits.
    pub longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 5, first_wait: Duration::from_millis(500), longest_wait: Duration::from_secs(8) }
    }
}

/// Speaks HTTP: redirects are followed, a token stays with its host, proxies come from the environment.
pub struct Client {
    agent: Agent,
    patience: Patience,
}

impl Default for Client {
    fn default() -> Self {
        Self::new(Patience::default())
    }
}

/// A request that failed, and whether repeating it may help.
pub(super) struct Failed {
    pub(super) error: FetchError,
    pub(super) passing: bool,
    pub(super) retry_after: Option<Duration>,
}

impl Failed {
    pub(super) fn for_good(error: FetchError) -> Self {
        Self { error, passing: false, retry_after: None }
    }

    pub(super) fn passing(error: FetchError) -> Self {
        Self { error, passing: true, retry_after: None }
    }
}

impl Client {
    /// A client that is as patient as said.
    pub fn new(patience: Patience) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(SILENCE_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .user_agent(concat!("qpipe/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.new_agent(), patience }
    }

    /// Asks once. `offset` asks for the bytes from there on. Statuses below 500 other than 429 are answers.
    pub(super) fn ask(&self, url: &str, bearer: Option<&str>, offset: u64) -> Result<Response<Body>, Failed> {
        let mut request = self.agent.get(url);
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let response = request.call().map_err(|error| unanswered(url, error))?;
        let status = response.status().as_u16();
        if status == 429 || status >= 500 {
            let retry_after = header_text(&response, header::RETRY_AFTER.as_str())
                .and_then(|text| text.trim().parse().ok())
                .map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
            let error = FetchError::Busy { url: url.to_owned(), status };
            return Err(Failed { error, passing: true, retry_after });
        }
        Ok(response)
    }

    /// A fresh count of failures.
    pub(super) fn retries(&self) -> Retries {
        Retries { patience: self.patience, failures: 0 }
    }
}

/// A header's value, if it is there and is text.
pub(super) fn header_text<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// A connection that gave no response.
fn unanswered(url: &str, error: ureq::Error) -> Failed {
    let passing = matches!(
        error,
        ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_)
            | ureq::Error::BodyStalled
    );
    let cause = match error {
        ureq::Error::HostNotFound => io::Error::new(io::ErrorKind::NotFound, "no such host, or no network"),
        other => other.into_io(),
    };
    Failed { error: FetchError::Network { url: url.to_owned(), cause }, passing, retry_after: None }
}

/// Failures in a row.
pub(super) struct Retries {
    patience: Patience,
    failures: u32,
}

impl Retries {
    /// Something was received: the failures so far do not count any more.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt, or gives the failure back when it is for good or patience is over.
    /// `idle` is asked now and then whether to go on.
    pub(super) fn wait(
        &mut self,
        failed: Failed,
        idle: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(), FetchError> {
        self.failures += 1;
        if !failed.passing || self.failures >= self.patience.attempts {
            return Err(failed.error);
        }
        let doubled = self.patience.first_wait.saturating_mul(1 << (self.failures - 1).min(16));
        let wait = failed.retry_after.unwrap_or(doubled.min(self.patience.longest_wait));
        tracing::debug!(error = %failed.error, ?wait, "trying again");
        let until = Instant::now() + wait;
        loop {
            if idle().is_break() {
                return Err(FetchError::Stopped);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}

/// Tells `progress` where a transfer stands and passes its wish to stop on.
pub(super) fn report(progress: &mut Progress<'_>, done: u64, total: Option<u64>) -> Result<(), FetchError> {
    match progress(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(FetchError::Stopped),
    }
}

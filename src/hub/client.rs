//! Requests to the Hub: who is told the token, which redirects are followed, what is tried again and what an error means.
//! Knows HTTP; deliberately knows no repository and no file. The only place that names the HTTP client.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::{Request, Response, header};
use ureq::{Agent, Body};

use super::error::clean;
use super::service::Service;
use super::{Argilla, Hub, HubError};

/// The longest wait that a server may ask for; past it the user is told.
const MAX_WAIT_S: u64 = 120;
/// The first wait of several where the server asks for none, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The most that is read of an answer that is no file.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// As many redirects as any real server needs.
const MAX_REDIRECTS: usize = 5;
const USER_AGENT: &str = concat!("pairwright/", env!("CARGO_PKG_VERSION"));

/// Why an attempt failed.
pub(super) enum Fault {
    /// The next one may succeed, after so many seconds if the server said so.
    Passing(HubError, Option<u64>),
    /// No other one will.
    Final(HubError),
}

impl From<HubError> for Fault {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// What goes with a request.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    /// Nothing.
    None,
    /// Text of this type.
    Text(&'static str, &'a str),
    /// A file's content.
    File(&'a Path),
}

/// A request: method, address, further headers, content.
pub(super) struct Ask<'a> {
    pub(super) method: &'static str,
    pub(super) url: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) payload: Payload<'a>,
}

impl<'a> Ask<'a> {
    /// The content of an address.
    pub(super) fn get(url: &'a str) -> Self {
        Self { method: "GET", url, headers: &[], payload: Payload::None }
    }

    /// JSON sent to an address.
    pub(super) fn post(url: &'a str, json: &'a str) -> Self {
        Self { method: "POST", url, headers: &[], payload: Payload::Text("application/json", json) }
    }

    /// JSON put in an address's place.
    pub(super) fn put(url: &'a str, json: &'a str) -> Self {
        Self { method: "PUT", ..Self::post(url, json) }
    }
}

/// An answer, and what the Hub itself said of a file before it sent us elsewhere.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// `X-Repo-Commit`.
    pub(super) commit: Option<String>,
    /// `X-Linked-Etag` without quotes: the file's hash.
    pub(super) etag: Option<String>,
    /// `X-Linked-Size`.
    pub(super) size: Option<String>,
}

/// A connection to one server.
pub(super) struct Client {
    agent: Agent,
    service: Service,
    endpoint: String,
    secret: Option<String>,
    num_retries: u32,
}

impl Client {
    /// To the Hub. Opens no connection yet.
    ///
    /// # Errors
    /// [`HubError::Offline`], or an endpoint or token that cannot be one.
    pub(super) fn new(hub: &Hub) -> Result<Self, HubError> {
        let Hub { endpoint, token, offline, silence_s, num_retries, .. } = hub;
        Self::open(Service::Hub, (endpoint, token.as_deref()), *offline, (*silence_s, *num_retries))
    }

    /// To an Argilla server. Opens no connection yet.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn of_argilla(server: &Argilla) -> Result<Self, HubError> {
        let Argilla { url, api_key, offline, silence_s, num_retries } = server;
        Self::open(Service::Argilla, (url, api_key.as_deref()), *offline, (*silence_s, *num_retries))
    }

    fn open(
        service: Service,
        (given, secret): (&str, Option<&str>),
        offline: bool,
        (silence_s, num_retries): (u64, u32),
    ) -> Result<Self, HubError> {
        if offline {
            return Err(HubError::Offline);
        }
        let endpoint = given.trim_end_matches('/').to_owned();
        if origin(&endpoint).is_none() || endpoint.contains(['?', '#']) {
            return Err(service.no_address(given));
        }
        if secret.is_some_and(|secret| !secret.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(service.no_secret());
        }
        let silence = Some(Duration::from_secs(silence_s));
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .accept_encoding("identity")
            .timeout_resolve(silence)
            .timeout_connect(silence)
            .timeout_per_read(silence)
            .timeout_per_write(silence)
            .timeout_recv_response(silence)
            .build()
            .new_agent();
        Ok(Self { agent, service, endpoint, secret: secret.map(str::to_owned), num_retries })
    }

    /// `https://huggingface.co`, without a slash behind.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether requests say who asks.
    pub(super) fn has_token(&self) -> bool {
        self.secret.is_some()
    }

    /// Is `url` on the server itself? Nobody else learns the token.
    pub(super) fn is_hub(&self, url: &str) -> bool {
        origin(url).is_some() && origin(url) == origin(&self.endpoint)
    }

    /// Tries until it succeeds, fails for good, or has failed in passing too often.
    pub(super) fn persist<T>(&self, mut attempt: impl FnMut() -> Result<T, Fault>) -> Result<T, HubError> {
        let mut num_failures = 0;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Passing(error, wait_s)) => self.wait(&mut num_failures, error, wait_s)?,
            }
        }
    }

    /// Waits before the next attempt, or gives `error` back if there shall be none.
    pub(super) fn wait(&self, num_failures: &mut u32, error: HubError, wait_s: Option<u64>) -> Result<(), HubError> {
        if *num_failures >= self.num_retries || wait_s.is_some_and(|seconds| seconds > MAX_WAIT_S) {
            return Err(error);
        }
        let doubled = FIRST_WAIT.saturating_mul(1 << (*num_failures).min(6));
        std::thread::sleep(wait_s.map_or(doubled, Duration::from_secs));
        *num_failures += 1;
        Ok(())
    }

    /// The answer to one request, redirects of a GET followed. Numbers above 299 are errors.
    pub(super) fn once(&self, ask: &Ask<'_>) -> Result<Answer, Fault> {
        let mut url = ask.url.to_owned();
        let (mut commit, mut etag, mut size) = (None, None, None);
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(ask, &url)?;
            if self.is_hub(&url) {
                let named = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
                commit = named("x-repo-commit").or(commit);
                size = named("x-linked-size").or(size);
                etag = named("x-linked-etag").map(|etag| etag.trim_matches('"').to_owned()).or(etag);
            }
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) || ask.method != "GET" {
                return Ok(Answer { response: self.judge(response, &url)?, commit, etag, size });
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            url = follow(&url, location.unwrap_or_default())?;
        }
        let what = format!("redirects more than {MAX_REDIRECTS} times");
        Err(Fault::Final(HubError::Answer { url: shown(ask.url), what }))
    }

    fn send(&self, ask: &Ask<'_>, url: &str) -> Result<Response<Body>, Fault> {
        let mut request = Request::builder().method(ask.method).uri(url);
        if let Some(secret) = self.secret.as_ref().filter(|_| self.is_hub(url)) {
            let (name, value) = self.service.header(secret);
            request = request.header(name, value);
        }
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        let malformed = |error: ureq::http::Error| HubError::Answer { url: shown(url), what: error.to_string() };
        let sent = match ask.payload {
            Payload::None => self.agent.run(request.body(()).map_err(malformed)?),
            Payload::Text(kind, text) => {
                self.agent.run(request.header(header::CONTENT_TYPE, kind).body(text).map_err(malformed)?)
            }
            Payload::File(path) => {
                let unreadable = |source| HubError::Io { action: "read", path: path.to_owned(), source };
                self.agent.run(request.body(File::open(path).map_err(unreadable)?).map_err(malformed)?)
            }
        };
        sent.map_err(|error| broken(url, &error))
    }

    /// Turns HTTP's numbers into what they mean here.
    fn judge(&self, mut response: Response<Body>, url: &str) -> Result<Response<Body>, Fault> {
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(response);
        }
        let named = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let wait_s = named("retry-after").and_then(|text| text.trim().parse::<u64>().ok());
        let code = named("x-error-code").unwrap_or_default();
        let message = named("x-error-message");
        let said = clean(&message.unwrap_or_else(|| start_of(&mut response)));
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let url = shown(url);
        let error = match (status, code.as_str()) {
            (404, _) | (401, "RepoNotFound") => {
                let hint = self.service.not_found(self.has_token());
                HubError::NotFound { url, status, said, hint }
            }
            (401 | 403, _) => {
                let hint = self.service.no_access(&code, self.has_token()).to_owned();
                HubError::NoAccess { url, status, said, hint }
            }
            (429 | 503, _) => {
                let hint = match wait_s {
                    Some(seconds) => format!("it asks to wait {seconds} s; then run the same command again"),
                    None => "it has too much to do; run the same command again later".to_owned(),
                };
                return Err(Fault::Passing(HubError::Status { url, status, said, hint }, wait_s));
            }
            _ => HubError::Status { url, status, said, hint: self.service.refused(status).to_owned() },
        };
        Err(if matches!(status, 408 | 500 | 502 | 504) { Fault::Passing(error, wait_s) } else { Fault::Final(error) })
    }

    /// The JSON that answers `ask`, and the header `Link` if there is one.
    pub(super) fn json<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> Result<(T, Option<String>), Fault> {
        let mut response = self.once(ask)?.response;
        let link = response.headers().get(header::LINK).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let reader = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut bytes = Vec::new();
        reader
            .take(MAX_ANSWER_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| broken(ask.url, &ureq::Error::from(error)))?;
        let answer = |what: String| HubError::Answer { url: shown(ask.url), what };
        if bytes.len() as u64 > MAX_ANSWER_BYTES {
            return Err(answer(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes")).into());
        }
        let value =
            serde_json::from_slice(&bytes).map_err(|error| answer(format!("not the JSON expected: {error}")))?;
        Ok((value, link))
    }
}

/// A connection that could not be made, or broke.
pub(super) fn broken(url: &str, error: &ureq::Error) -> Fault {
    let what = match error {
        ureq::Error::HostNotFound => "no such host, or no connection to the network".to_owned(),
        other => format!("the connection failed: {}", clean(&other.to_string())),
    };
    Fault::Passing(HubError::Connection { url: shown(url), what }, None)
}

/// The first words of an answer that is an error.
fn start_of(response: &mut Response<Body>) -> String {
    const MAX_BYTES: u64 = 2048;
    let mut bytes = Vec::new();
    // Best effort: the number alone says what is wrong.
    let _ = response.body_mut().as_reader().take(MAX_BYTES).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let said = serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|value| said_in(&value));
    let is_page = text.trim_start().starts_with('<');
    said.unwrap_or_else(|| if is_page { String::new() } else { text.to_string() })
}

/// The sentence in an error's JSON: the Hub's `error`; Argilla's `detail`, a text, a list of what is wrong where, or parameters with one.
fn said_in(value: &serde_json::Value) -> Option<String> {
    if let Some(text) = value.get("error").or(value.get("detail")).and_then(|text| text.as_str()) {
        return Some(text.to_owned());
    }
    let params = value.get("detail")?.get("params")?;
    if let Some(text) = params.get("detail").and_then(|text| text.as_str()) {
        return Some(text.to_owned());
    }
    let wrong = |entry: &serde_json::Value| {
        let steps = entry.get("loc")?.as_array()?.iter();
        let steps: Vec<String> =
            steps.map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned)).collect();
        Some(format!("{}: {}", steps.join("."), entry.get("msg")?.as_str()?))
    };
    let all: Vec<String> = params.get("errors")?.as_array()?.iter().filter_map(wrong).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Scheme, host and port of an address, in lower case; `None` if it is none of HTTP's.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty())?;
    let scheme = scheme.to_ascii_lowercase();
    ["http", "https"].contains(&scheme.as_str()).then(|| format!("{scheme}://{}", host.to_ascii_lowercase()))
}

/// The address as messages show it: without a query, which may hold a signature.
pub(super) fn shown(url: &str) -> String {
    clean(url.split(['?', '#']).next().unwrap_or_default())
}

/// Where a redirect from `from` leads.
fn follow(from: &str, location: &str) -> Result<String, HubError> {
    let wrong = |what: &str| HubError::Answer { url: shown(from), what: format!("{what} `{}`", shown(location)) };
    let base = origin(from).ok_or_else(|| wrong("redirects from no address to"))?;
    let url = match location {
        path if path.starts_with("//") => format!("{}:{path}", base.split(':').next().unwrap_or_default()),
        path if path.starts_with('/') => format!("{base}{path}"),
        absolute => absolute.to_owned(),
    };
    match origin(&url) {
        None => Err(wrong("redirects to")),
        Some(target) if base.starts_with("https:") && target.starts_with("http:") => {
            Err(wrong("redirects from a secure connection to"))
        }
        Some(_) => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_stays_with_one_origin() {
        let hub = |endpoint: &str| Hub {
            endpoint: endpoint.to_owned(),
            token: Some("secret".to_owned()),
            cache: "cache".into(),
            offline: false,
            silence_s: 1,
            num_retries: 0,
        };
        let client = Client::new(&hub("https://hub.example/")).ok().unwrap();
        assert_eq!(client.endpoint(), "https://hub.example");
        for own in ["https://hub.example/a", "HTTPS://HUB.example?x", "https://hub.example"] {
            assert!(client.is_hub(own), "{own}");
        }
        let others = [
            "http://hub.example/a",
            "https://hub.example:444/a",
            "https://hub.example.evil/a",
            "https://hub.example@evil/a",
            "https://cdn.hub.example/a",
            "hub.example/a",
            "",
        ];
        for other in others {
            assert!(!client.is_hub(other), "{other}");
        }
        for wrong in ["", "huggingface.co", "ftp://a", "https://", "https://a?b"] {
            assert!(Client::new(&hub(wrong)).is_err(), "{wrong}");
        }
        let split = Hub { token: Some("a\r\nX: b".to_owned()), ..hub("https://a") };
        let said = Client::new(&split).err().unwrap().to_string();
        assert!(!said.contains("X: b"), "{said}");
        assert!(matches!(Client::new(&Hub { offline: true, ..hub("https://a") }), Err(HubError::Offline)));
    }

    #[test]
    fn redirects_lead_to_addresses_and_never_to_less_security() {
        let from = "https://a.example/x/y?z";
        assert_eq!(follow(from, "/b").ok().unwrap(), "https://a.example/b");
        assert_eq!(follow(from, "//c.example/b").ok().unwrap(), "https://c.example/b");
        assert_eq!(follow(from, "https://c.example/b?sig=1").ok().unwrap(), "https://c.example/b?sig=1");
        assert_eq!(follow("http://a:1/x", "http://b:2/y").ok().unwrap(), "http://b:2/y");
        for wrong in ["http://a.example/b", "file:///etc/passwd", "b", ""] {
            assert!(follow(from, wrong).is_err(), "{wrong}");
        }
        assert_eq!(shown("https://a/b?sig=secret#c"), "https://a/b");
    }
}

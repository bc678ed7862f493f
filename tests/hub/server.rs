//! A small Hub on 127.0.0.1: the shapes of its answers as recorded from the real one, a second host for contents, and faults on
//! demand. Knows HTTP as far as the program speaks it; a thread per connection, an answer per connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::argilla::Argilla;

/// What the first commit of every repository here is called.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The token that opens everything.
pub const TOKEN: &str = "hf_secretSECRETsecret";

/// A repository.
#[derive(Clone, Default)]
pub struct Repo {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Which of them lie in the large-file storage.
    pub large: Vec<String>,
    pub commit: String,
    pub card: Value,
    pub private: bool,
    pub gated: bool,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `hub` or `store`.
    pub host: &'static str,
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// What goes wrong, or otherwise.
#[derive(Clone)]
pub enum Action {
    /// This number, these headers, this text.
    Status(u16, Vec<(&'static str, String)>, &'static str),
    /// It is done, and no byte of the answer comes.
    Lost,
    /// So many bytes of the body, and the end.
    Cut(usize),
    /// So many bytes of the body, and then nothing for as long as the other side waits.
    Stall(usize),
    /// One byte is another.
    Spoil,
    /// More than was promised.
    Lengthen,
    /// No end, and no length.
    Endless,
    /// A range is asked for and all is given.
    WholeInsteadOfRange,
    /// A range is asked for and another one given.
    OtherRange,
    /// A header says something else.
    Header(&'static str, String),
}

/// An action for requests whose method and path, with a space between, contain `on`, so many times.
pub struct Fault {
    pub on: &'static str,
    pub times: usize,
    pub action: Action,
}

/// What is there and what was asked.
#[derive(Default)]
pub struct State {
    pub repos: BTreeMap<String, Repo>,
    faults: Vec<Fault>,
    seen: Vec<Seen>,
    pub page_size: usize,
    /// What the links of pages name as their host.
    pub link_host: Option<String>,
    /// Contents that were sent, by hash.
    pub stored: BTreeMap<String, Vec<u8>>,
    pub num_commits: usize,
    /// What an Argilla server has, under the same address.
    pub argilla: Argilla,
}

/// See the module's text.
pub struct Server {
    state: Arc<Mutex<State>>,
    hub: SocketAddr,
}

/// An answer.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Lower-case SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Git's name for content.
pub fn blob_id(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Repo {
    /// Files, those that end in `.safetensors`, `.gguf`, `.bin` or `.parquet` as large ones.
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let is_large = |path: &str| [".safetensors", ".gguf", ".bin", ".parquet"].iter().any(|end| path.ends_with(end));
        Self {
            files: files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect(),
            large: files.iter().map(|(path, _)| (*path).to_owned()).filter(|path| is_large(path)).collect(),
            commit: COMMIT.to_owned(),
            card: json!({"license": "apache-2.0"}),
            ..Self::default()
        }
    }

    /// Each file's name in the cache.
    pub fn etag(&self, path: &str) -> String {
        let bytes = &self.files[path];
        if self.large.iter().any(|large| large == path) { sha256(bytes) } else { blob_id(bytes) }
    }
}

impl Server {
    /// Starts with these repositories: `models/OWNER/NAME` or `datasets/OWNER/NAME`.
    pub fn new(repos: &[(&str, Repo)]) -> Self {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on the loopback");
        let (hub, store) = (listen(), listen());
        let address = |listener: &TcpListener| listener.local_addr().expect("its address");
        let server = Self { state: Arc::default(), hub: address(&hub) };
        {
            let mut state = server.state.lock().unwrap();
            state.repos = repos.iter().map(|(name, repo)| ((*name).to_owned(), repo.clone())).collect();
            state.page_size = 1000;
            state.argilla.workspaces = vec!["team"];
        }
        let store_address = address(&store);
        for (host, listener) in [("hub", hub), ("store", store)] {
            let state = Arc::clone(&server.state);
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || serve(host, stream, &state, store_address));
                }
            });
        }
        server
    }

    /// For HF_ENDPOINT.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// From now on, in this order.
    pub fn fault(&self, on: &'static str, times: usize, action: Action) {
        self.state.lock().unwrap().faults.push(Fault { on, times, action });
    }

    /// No more of them.
    pub fn clear_faults(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// Files per page of a listing, and whom its links name.
    pub fn pages(&self, size: usize, link_host: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        state.page_size = size;
        state.link_host = link_host.map(str::to_owned);
    }

    /// All requests since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    /// A repository as it is now.
    pub fn repo(&self, name: &str) -> Option<Repo> {
        self.state.lock().unwrap().repos.get(name).cloned()
    }

    /// Looks at Argilla, or changes what it has.
    pub fn argilla<R>(&self, look: impl FnOnce(&mut Argilla) -> R) -> R {
        look(&mut self.state.lock().unwrap().argilla)
    }

    /// Puts one there, or another in its place.
    pub fn put(&self, name: &str, repo: Repo) {
        self.state.lock().unwrap().repos.insert(name.to_owned(), repo);
    }
}

fn serve(host: &'static str, stream: TcpStream, state: &Mutex<State>, store: SocketAddr) {
    let Some(request) = read_request(host, &stream) else { return };
    let (mut reply, action) = {
        let mut state = state.lock().unwrap();
        state.seen.push(request.clone());
        let asked = format!("{} {}", request.method, request.path);
        let found = state.faults.iter_mut().find(|fault| fault.times > 0 && asked.contains(fault.on));
        let action = found.map(|fault| {
            fault.times -= 1;
            fault.action.clone()
        });
        let reply = match (&action, host) {
            (Some(Action::Status(status, headers, body)), _) => {
                let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
                Reply { status: *status, headers, body: body.as_bytes().to_vec() }
            }
            (_, "store") => store_reply(&request, &mut state, action.as_ref()),
            _ if request.path.starts_with("/api/v1/") => state.argilla.reply(&request),
            _ => super::interface::reply(&request, &mut state, store, action.as_ref()),
        };
        (reply, action)
    };
    if matches!(action, Some(Action::Lost)) {
        return;
    }
    let stalls = matches!(action, Some(Action::Stall(_)));
    let mut length = Some(reply.body.len());
    let mut sent = reply.body.len();
    match action {
        Some(Action::Cut(bytes) | Action::Stall(bytes)) => sent = bytes.min(sent),
        Some(Action::Spoil) => reply.body[0] ^= 1,
        Some(Action::Lengthen) => {
            reply.body.extend_from_slice(&[7; 100]);
            (length, sent) = (Some(reply.body.len()), reply.body.len());
        }
        Some(Action::Endless) => length = None,
        Some(Action::Header(name, value)) => {
            reply.headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
            reply.headers.push((name.to_owned(), value));
        }
        _ => {}
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
    let write = |bytes: &[u8]| (&stream).write_all(bytes).and_then(|()| (&stream).flush()).is_ok();
    if !write((head + "\r\n").as_bytes()) || !write(&reply.body[..sent]) {
        return;
    }
    if stalls {
        // Until the other side hangs up.
        let _ = (&stream).read(&mut [0]);
    }
    if length.is_some() {
        return;
    }
    while write(&[b' '; 1 << 16]) {}
}

fn read_request(host: &'static str, stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { host, method, path, headers, body })
}

/// The host of contents: whole or from a byte on, and what is sent there.
fn store_reply(request: &Seen, state: &mut State, action: Option<&Action>) -> Reply {
    let hash = request.path.split(['/', '?']).nth(2).unwrap_or_default().to_owned();
    if request.method == "PUT" {
        state.stored.insert(hash, request.body.clone());
        return Reply { status: 200, headers: Vec::new(), body: Vec::new() };
    }
    let mut contents = state.repos.values().flat_map(|repo| repo.files.values());
    match contents.find(|bytes| sha256(bytes) == hash) {
        Some(bytes) => ranged(bytes, request, Vec::new(), action),
        None => Reply { status: 404, headers: Vec::new(), body: b"gone".to_vec() },
    }
}

/// Content, from where it is asked for.
pub fn ranged(bytes: &[u8], request: &Seen, mut headers: Vec<(String, String)>, action: Option<&Action>) -> Reply {
    let asked = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    let start = asked.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
    let start = start.filter(|_| !matches!(action, Some(Action::WholeInsteadOfRange)));
    let Some(start) = start else { return Reply { status: 200, headers, body: bytes.to_vec() } };
    let start = if matches!(action, Some(Action::OtherRange)) { start + 1 } else { start };
    headers.push(("Content-Range".to_owned(), format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())));
    Reply { status: 206, headers, body: bytes[start..].to_vec() }
}

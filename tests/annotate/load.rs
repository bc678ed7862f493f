//! Many people at once, and a server that is killed: no vote lost, none twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pairwright::annotate::vote::{ItemKind, current_votes};

use crate::client::Client;
use crate::server::Server;
use crate::serving::{items, plain, stored};

const NUM_PEOPLE: usize = 50;

#[test]
fn fifty_people_at_once_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let num_items = 1_000;
    let mut options = plain();
    options.queue.overlap = 2;
    let server = Server::start(folder.path(), items(num_items), options);
    let people: Vec<_> = (0..NUM_PEOPLE).map(|n| (n, server.client())).collect();
    let threads: Vec<_> = people
        .into_iter()
        .map(|(n, mut client)| {
            std::thread::spawn(move || {
                client.join(&format!("person {n}"));
                let mut tokens = Vec::new();
                loop {
                    let page = client.get("/");
                    if !page.body.contains("name=\"item\"") {
                        return tokens;
                    }
                    let [csrf, item, token] = ["csrf", "item", "token"].map(|name| page.field(name));
                    let fields = [("csrf", csrf.as_str()), ("item", &item), ("token", &token), ("choice", "better-0")];
                    // Every third is sent twice, as by somebody who does not wait.
                    for _ in 0..1 + usize::from(tokens.len() % 3 == 0) {
                        assert_eq!(client.post("/vote", &fields).status, 303);
                    }
                    tokens.push(token);
                }
            })
        })
        .collect();
    let acknowledged: Vec<String> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let events = stored(folder.path());
    let ids: BTreeSet<&str> = events.iter().map(|vote| vote.id.as_str()).collect();
    assert_eq!(ids, acknowledged.iter().map(String::as_str).collect());
    assert_eq!((events.len(), ids.len()), (2 * num_items, 2 * num_items));
    let mut people_of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for vote in &events {
        people_of.entry(&vote.item).or_default().insert(&vote.annotator);
    }
    assert!(people_of.len() == num_items && people_of.values().all(|people| people.len() == 2));
}

/// The program's server on a demonstration's run, killed when it goes.
struct Process {
    child: Child,
    address: SocketAddr,
    /// Who writes where nobody reads any more ends; so somebody does.
    _messages: BufReader<ChildStderr>,
}

impl Process {
    fn start(run: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pairwright"));
        command
            .args(["annotate", "serve", "--port", "0", "--overlap", "60", "--repeats", "0.2", "--planted", "0.2"])
            .arg(run);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("people") {
            line.clear();
            assert!(messages.read_line(&mut line).unwrap() > 0, "the server ended before it served");
        }
        let address = line.trim().rsplit("http://").next().unwrap().trim_end_matches('/').parse().unwrap();
        Self { child, address, _messages: messages }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whoever was told that their vote is taken finds it, however often the server is killed in between.
#[test]
fn a_killed_server_has_every_vote_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("demo");
    let made = crate::program::run(&["make", "--demo", "--quiet", "--out", run.to_str().unwrap()]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let acknowledged: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut people: Vec<BTreeMap<String, String>> = Vec::new();
    for round in 0..3 {
        let process = Process::start(&run);
        // Some are new, and some go on where the last server left them.
        for n in 0..12 {
            let mut client = Client::new(process.address);
            client.join(&format!("person {n}"));
            people.push(client.cookies.into_iter().collect());
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = people
            .iter()
            .map(|cookies| {
                let (cookies, address) = (cookies.clone(), process.address);
                let (acknowledged, is_over) = (Arc::clone(&acknowledged), Arc::clone(&is_over));
                std::thread::spawn(move || {
                    let mut client = Client::new(address);
                    client.cookies = cookies.into_iter().collect();
                    while !is_over.load(Ordering::SeqCst) {
                        let Ok(page) = client.ask("GET", "/", "") else { return };
                        let wanted = ["csrf", "item", "token"].map(|name| crate::client::value_of(&page.body, name));
                        let [Some(csrf), Some(item), Some(token)] = wanted else { return };
                        let fields = [("csrf", csrf.as_str()), ("item", &item), ("token", &token), ("choice", "same")];
                        match client.try_post("/vote", &fields) {
                            Ok(answer) if answer.header("location") == "/" => acknowledged.lock().unwrap().push(token),
                            _ => return,
                        }
                    }
                })
            })
            .collect();
        // Killed in the midst of it: after some votes of this round.
        while acknowledged.lock().unwrap().len() < 15 * (round + 1)
            && threads.iter().any(|thread| !thread.is_finished())
        {
            std::thread::yield_now();
        }
        drop(process);
        is_over.store(true, Ordering::SeqCst);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    let events = stored(&run);
    let ids: BTreeSet<&str> = events.iter().map(|vote| vote.id.as_str()).collect();
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.len() >= 40, "{}", acknowledged.len());
    assert!(acknowledged.iter().all(|token| ids.contains(token.as_str())), "an acknowledged vote is gone");
    assert_eq!(ids.len(), events.len());
    let places: BTreeSet<(&str, &str, bool)> = current_votes(&events)
        .iter()
        .map(|current| {
            (current.vote.annotator.as_str(), current.vote.item.as_str(), current.vote.kind == ItemKind::Repeat)
        })
        .collect();
    assert_eq!(places.len(), events.len(), "nobody voted twice on one thing");
    // The last server is gone; what it left is served again.
    let server = Process::start(&run);
    assert_eq!(Client::new(server.address).get("/join").status, 200);
    // Making the run again, and anew, leaves votes as they are.
    drop(server);
    let again = crate::program::run(&["make", "--demo", "--quiet", "--out", run.to_str().unwrap(), "--fresh"]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(stored(&run), events);
}

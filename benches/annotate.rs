//! Fifty people voting at once on the real server: 20,000 votes with the time of each, and 30 kills in the midst of it. Ends with an error if an
//! acknowledged vote is lost or an event stands twice. Knows forms and processes; makes no claim about pages.
//! Usage: cargo bench --bench annotate -- [NUM_VOTES [NUM_KILLS]]

#[path = "../tests/annotate/client.rs"]
mod client;

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pairwright::annotate::store::read_votes;

use client::{Client, value_of};

const NUM_PEOPLE: usize = 50;
const PROGRAM: &str = env!("CARGO_BIN_EXE_pairwright");

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(run: &Path, overlap: &str) -> Self {
        let flags =
            ["annotate", "serve", "--port", "0", "--overlap", overlap, "--repeats", "0.05", "--planted", "0.05"];
        let mut child =
            Command::new(PROGRAM).args(flags).arg(run).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut messages = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.starts_with("people") {
            line.clear();
            assert!(messages.read_line(&mut line).expect("messages") > 0, "the server ended before it served");
        }
        let address = line.trim().rsplit("http://").next().and_then(|rest| rest.trim_end_matches('/').parse().ok());
        Self { child, address: address.expect("an address") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL on Unix.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Seen {
    acknowledged: Mutex<Vec<String>>,
    times: Mutex<Vec<Duration>>,
    num_votes: AtomicUsize,
}

/// One person votes until there is nothing left, the server is gone, or all have voted enough.
fn vote(address: SocketAddr, cookies: HashMap<String, String>, seen: &Seen, most: usize) {
    let mut client = Client::new(address);
    client.cookies = cookies;
    while seen.num_votes.load(Ordering::SeqCst) < most {
        let Ok(page) = client.ask("GET", "/", "") else { return };
        let fields = ["csrf", "item", "token"].map(|name| value_of(&page.body, name));
        let [Some(csrf), Some(item), Some(token)] = fields else {
            if page.status != 429 {
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
            continue;
        };
        let fields = [("csrf", csrf.as_str()), ("item", &item), ("token", &token), ("choice", "better-0")];
        let start = Instant::now();
        match client.try_post("/vote", &fields) {
            Ok(answer) if answer.status == 303 && answer.header("location") == "/" => {
                seen.times.lock().expect("times").push(start.elapsed());
                seen.acknowledged.lock().expect("tokens").push(token);
                seen.num_votes.fetch_add(1, Ordering::SeqCst);
            }
            Ok(answer) if answer.status == 429 => std::thread::sleep(Duration::from_secs(1)),
            _ => return,
        }
    }
}

fn people(address: SocketAddr) -> Vec<HashMap<String, String>> {
    let join = |n: usize| {
        let mut client = Client::new(address);
        let page = client.join(&format!("person {n}"));
        assert!(!page.field("token").is_empty(), "a task");
        client.cookies
    };
    (0..NUM_PEOPLE).map(join).collect()
}

/// All vote at once until `most` votes are acknowledged in all.
fn together(process: &Process, people: &[HashMap<String, String>], seen: &Arc<Seen>, most: usize) {
    let threads: Vec<_> = people
        .iter()
        .map(|cookies| {
            let (cookies, seen, address) = (cookies.clone(), Arc::clone(seen), process.address);
            std::thread::spawn(move || vote(address, cookies, &seen, most))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a person"));
}

fn check(run: &Path, seen: &Seen) -> usize {
    let events = read_votes(run).expect("votes");
    let ids: BTreeSet<&str> = events.iter().map(|stored| stored.vote.id.as_str()).collect();
    assert_eq!(ids.len(), events.len(), "an event stands twice");
    let acknowledged = seen.acknowledged.lock().expect("tokens");
    let lost = acknowledged.iter().filter(|token| !ids.contains(token.as_str())).count();
    assert_eq!(lost, 0, "acknowledged votes are lost");
    events.len()
}

/// A run of so many prompts, made with the demonstration's toy.
fn made(folder: &Path, num_rows: usize) -> std::path::PathBuf {
    let (demo, run) = (folder.join("demo"), folder.join(format!("run-{num_rows}")));
    let make = |arguments: &[&std::ffi::OsStr]| {
        let status = Command::new(PROGRAM).arg("make").args(arguments).arg("--quiet").stderr(Stdio::null()).status();
        assert!(status.expect("the program starts").success(), "{arguments:?}");
    };
    make(&["--demo".as_ref(), "--out".as_ref(), demo.as_os_str()]);
    let row = |n: usize| format!("{{\"inputs\": \"Question {n}?\", \"targets\": \"Answer {n}.\"}}\n");
    let prompts = folder.join("prompts.jsonl");
    std::fs::write(&prompts, (0..num_rows).map(row).collect::<String>()).expect("prompts");
    let toy = demo.join("demo/model");
    let [generator, judge] = ["--generator", "--judge"].map(std::ffi::OsStr::new);
    make(&[
        "--prompts".as_ref(),
        prompts.as_os_str(),
        generator,
        toy.as_os_str(),
        judge,
        toy.as_os_str(),
        "--max-tokens".as_ref(),
        "8".as_ref(),
        "--out".as_ref(),
        run.as_os_str(),
    ]);
    run
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let num_votes = numbers.first().copied().unwrap_or(20_000);
    let num_kills = numbers.get(1).copied().unwrap_or(30);
    let folder = std::env::temp_dir().join(format!("bench-annotate-{}", std::process::id()));
    let run = made(&folder, num_votes.div_ceil(NUM_PEOPLE) + num_votes.div_ceil(NUM_PEOPLE) / 4 + 10);
    let seen = Arc::new(Seen::default());
    let process = Process::start(&run, "50");
    let all = people(process.address);
    let start = Instant::now();
    together(&process, &all, &seen, num_votes);
    let elapsed_s = start.elapsed().as_secs_f64();
    drop(process);
    let num_events = check(&run, &seen);
    let mut times = seen.times.lock().expect("times").clone();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{num_events} events of {NUM_PEOPLE} people in {elapsed_s:.1} s, none lost or doubled; a vote takes {:.1} ms (median), {:.1} ms (p99), {:.1} ms (most)",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    // The same with a server that is killed again and again; each round has new people, so that none runs out of items.
    let seen = Arc::new(Seen::default());
    let other = made(&folder, 120);
    for kill in 0..num_kills {
        let process = Process::start(&other, "5000");
        let all = people(process.address);
        let target = seen.num_votes.load(Ordering::SeqCst) + 300 + 37 * (kill % 7);
        let address = process.address;
        let threads: Vec<_> = all
            .into_iter()
            .map(|cookies| {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || vote(address, cookies, &seen, usize::MAX))
            })
            .collect();
        while seen.num_votes.load(Ordering::SeqCst) < target && threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // In the midst of it: all fifty are sending.
        drop(process);
        threads.into_iter().for_each(|thread| thread.join().expect("a person"));
    }
    println!(
        "{num_kills} kills: {} events, {} acknowledged, none lost or doubled",
        check(&other, &seen),
        seen.num_votes.load(Ordering::SeqCst)
    );
    let _ = std::fs::remove_dir_all(&folder);
}

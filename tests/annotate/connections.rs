//! Connections that take too long or are too many: they end, and others are served meanwhile and after.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pairwright::annotate::serve::{Connections, ServeOptions};

use crate::server::Server;
use crate::serving::{items, plain};

const SILENCE: Duration = Duration::from_millis(700);
/// No clock of a busy machine is held to more than this.
const PATIENCE: Duration = Duration::from_secs(30);

fn start(folder: &std::path::Path, most: usize) -> Server {
    let connections = Connections { most, silence: SILENCE, ..Connections::default() };
    Server::start(folder, items(3), ServeOptions { connections, ..plain() })
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.ready.address.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Waits until the server hangs up; what it said before.
fn end_of(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        // Of a connection that was given up while something was on its way.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the server does not hang up: {error}"),
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn whoever_says_nothing_or_too_little_or_too_slowly_is_hung_up_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), 100);
    let mut silent = connect(&server);
    let mut half = connect(&server);
    half.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ").unwrap();
    let mut body = connect(&server);
    body.write_all(b"POST /vote HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nchoice=").unwrap();
    // One byte at a time is not answered more than nothing at all.
    let mut drip = connect(&server);
    let begun = Instant::now();
    while drip.write_all(b"G").is_ok() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() < PATIENCE, "a slow sender stays");
    assert_eq!(end_of(&mut silent), "");
    end_of(&mut half);
    assert!(!end_of(&mut body).contains("200 OK"));
    let kept = server.client().get("/join");
    assert_eq!(kept.status, 200);
}

#[test]
fn a_connection_that_is_answered_may_stay_and_ends_when_idle() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), 100);
    let mut stream = connect(&server);
    let begun = Instant::now();
    let mut num_asked = 0;
    while begun.elapsed() < SILENCE * 3 {
        stream.write_all(b"HEAD /style.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "hung up after {num_asked} requests");
            said.push(byte[0]);
        }
        assert!(said.starts_with(b"HTTP/1.1 200"));
        num_asked += 1;
        std::thread::sleep(SILENCE / 7);
    }
    assert!(num_asked > 3);
    assert_eq!(end_of(&mut stream), "");
}

#[test]
fn too_many_are_closed_at_once_and_those_who_go_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), 3);
    let held: Vec<TcpStream> = (0..3).map(|_| connect(&server)).collect();
    let mut further = connect(&server);
    let begun = Instant::now();
    assert_eq!(end_of(&mut further), "");
    assert!(begun.elapsed() < PATIENCE);
    drop(held);
    // The places are free again, sooner or later.
    let begun = Instant::now();
    let is_served = || {
        let mut stream = connect(&server);
        let asked = stream.write_all(b"GET /join HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        asked.is_ok() && end_of(&mut stream).starts_with("HTTP/1.1 200")
    };
    while !is_served() {
        assert!(begun.elapsed() < PATIENCE, "nobody is served any more");
        std::thread::sleep(Duration::from_millis(50));
    }
}

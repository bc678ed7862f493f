//! A server in this process, for tests that look at what it left. Knows how to start and stop it; says nothing of requests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use pairwright::annotate::items::Items;
use pairwright::annotate::serve::{Ready, ServeOptions, serve};

use crate::client::Client;

/// A server in this process, stopped when it goes.
pub struct Server {
    pub ready: Ready,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(run: &Path, items: Items, options: ServeOptions) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, ready) = mpsc::channel();
        let (run, asked) = (run.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let say = |ready: &Ready| told.send(ready.clone()).unwrap();
            serve(run, items, options, say, move || asked.load(Ordering::SeqCst)).expect("it serves");
        });
        let ready = ready.recv_timeout(Duration::from_secs(60)).expect("it is ready");
        Self { ready, stop, thread: Some(thread) }
    }

    pub fn client(&self) -> Client {
        Client::new(SocketAddr::from(([127, 0, 0, 1], self.ready.address.port())))
    }

    /// The part of one of its links behind the address.
    pub fn path(link: &str) -> String {
        format!("/{}", link.splitn(4, '/').nth(3).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().map(JoinHandle::join);
    }
}

//! How many connections there may be and how long one may take: so many in all and from one address, and none on which nothing was
//! answered for a minute, whether it sends nothing, sends slowly, or does not read. Knows sockets and clocks; knows nothing of requests.

use std::collections::HashMap;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};

/// Limits on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Open ones in all; further ones are closed at once. Below the 1,024 files that a process may often have open.
    pub most: usize,
    /// Open ones from one address; this machine's own, from which a tunnel brings everybody, has no such limit.
    pub most_of_one: usize,
    /// Between two answers, or before the first.
    pub silence: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self { most: 512, most_of_one: 64, silence: Duration::from_secs(60) }
    }
}

/// After an error of the system, such as no file left: connections that end meanwhile make room.
const PAUSE: Duration = Duration::from_millis(200);

/// Open connections by address.
type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A listener that keeps to the limits.
pub(super) struct Limited {
    listener: TcpListener,
    limits: Connections,
    open: Open,
}

impl Limited {
    pub(super) fn new(listener: TcpListener, limits: Connections) -> Self {
        Self { listener, limits, open: Open::default() }
    }

    /// A place for a connection from here, if there is one.
    fn place(&self, address: IpAddr) -> Option<Place> {
        // A thread that panicked left numbers, and numbers are all there is.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.get(&address).copied().unwrap_or(0);
        let is_full = open.values().sum::<usize>() >= self.limits.most;
        if is_full || !address.is_loopback() && own >= self.limits.most_of_one {
            return None;
        }
        open.insert(address, own + 1);
        Some(Place { open: Arc::clone(&self.open), address })
    }
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Without a place the stream is dropped, which closes it.
                    if let Some(place) = self.place(address.ip()) {
                        let silence = self.limits.silence;
                        let until = Box::pin(sleep(silence));
                        return (Connection { stream, until, silence, _place: place }, address);
                    }
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Given back when the connection goes.
struct Place {
    open: Open,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// A connection that ends when nothing was answered on it for too long.
pub(super) struct Connection {
    stream: TcpStream,
    until: Pin<Box<Sleep>>,
    silence: Duration,
    _place: Place,
}

impl Connection {
    /// What the stream says, or that it has waited too long.
    fn in_time<T>(&mut self, context: &mut Context<'_>, said: Poll<Result<T, Error>>) -> Poll<Result<T, Error>> {
        match said {
            Poll::Pending if self.until.as_mut().poll(context).is_ready() => {
                Poll::Ready(Err(ErrorKind::TimedOut.into()))
            }
            said => said,
        }
    }

    /// Something was answered: the next answer has its own time.
    fn answered(&mut self, said: &Poll<Result<usize, Error>>) {
        if matches!(said, Poll::Ready(Ok(1..))) {
            let until = Instant::now() + self.silence;
            self.until.as_mut().reset(until);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        let said = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.in_time(context, said)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        let said = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.answered(&said);
        self.in_time(context, said)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let said = Pin::new(&mut self.stream).poll_flush(context);
        self.in_time(context, said)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let said = Pin::new(&mut self.stream).poll_shutdown(context);
        self.in_time(context, said)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        let said = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.answered(&said);
        self.in_time(context, said)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

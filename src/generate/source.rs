//! A stage's rows on their way to the engine and back, each way on a thread of its own: a feeder renders and encodes ahead of
//! the engine, a reader makes answers and ratings of what the engine says. Knows neither what a row asks nor the engine's loop.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::Scope;

use super::GenerateError;
use crate::engine::{EngineError, FinishReason, Request, SequenceId, SequenceOutput};

/// A row while the engine works on it. What becomes of it must depend on what the engine says and never on when it is heard.
pub trait Row: Send {
    /// What becomes of it.
    type Done: Send;

    /// Takes a generated token; true if its sequence is to end there. The engine may be some tokens ahead by then: these are
    /// not handed over, but stand in the output.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn token(&mut self, _token: u32) -> Result<bool, GenerateError> {
        Ok(false)
    }

    /// All requests have ended; `parts` are in their order.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn finish(self, parts: Vec<Ended>) -> Result<Self::Done, GenerateError>;

    /// The engine takes none of the requests.
    ///
    /// # Errors
    /// `error`, if it is about the run and not about this row.
    fn refused(self, error: EngineError) -> Result<Self::Done, GenerateError>;
}

/// How a request ended, and all it gave.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub reason: FinishReason,
    /// What.
    pub output: SequenceOutput,
}

/// A row, rendered and encoded.
pub enum Prepared<R: Row> {
    /// It needs answers to these requests, which are queued together or not at all.
    Asks(R, Vec<Request>),
    /// It is over without the engine.
    Done(R::Done),
}

/// The rows of a stage and where they go when they are done.
pub struct Source<'a> {
    feeder: Box<dyn FnOnce(Link, SyncSender<()>) + Send + 'a>,
    reader: Box<dyn FnOnce(Link, Receiver<Vec<Heard>>) + Send + 'a>,
}

/// Rows that are encoded before the engine's queue has a place for them.
const NUM_AHEAD: usize = 32;
/// Steps that a reader may be behind before the engine waits for it.
const STEPS_BEHIND: usize = 64;

impl<'a> Source<'a> {
    /// `rows` is asked on the feeder's thread, `done` called on the reader's; an error of either ends the run.
    pub fn new<R: Row + 'a>(
        rows: impl Iterator<Item = Result<Prepared<R>, GenerateError>> + Send + 'a,
        done: impl FnMut(R::Done) -> Result<(), GenerateError> + Send + 'a,
    ) -> Self
    where
        R::Done: 'a,
    {
        let (sender, entries) = mpsc::channel();
        Self {
            feeder: Box::new(move |link, permits| {
                let _last = Last { link: &link, message: Message::Fed };
                link.report(feed(rows, &sender, &link, &permits));
            }),
            reader: Box::new(move |link, heard| {
                let _last = Last { link: &link, message: Message::Over };
                link.report(read(&heard, &entries, &link, done));
            }),
        }
    }

    /// Starts both threads.
    pub(super) fn start<'scope>(self, scope: &'scope Scope<'scope, '_>, link: Link) -> (Receiver<()>, Telling)
    where
        'a: 'scope,
    {
        let (permits, taken) = mpsc::sync_channel(NUM_AHEAD);
        let (telling, heard) = mpsc::sync_channel(STEPS_BEHIND);
        let (feeder, reader, to_reader) = (self.feeder, self.reader, link.clone());
        scope.spawn(move || feeder(link, permits));
        scope.spawn(move || reader(to_reader, heard));
        (taken, telling)
    }
}

/// The engine's way to a reader, a step's news at a time.
pub(super) type Telling = SyncSender<Vec<Heard>>;

/// What a reader hears. Rows are counted from 0 in the order in which they were fed.
pub(super) enum Heard {
    Token {
        row: u64,
        sequence: SequenceId,
        token: u32,
    },
    Ended {
        row: u64,
        part: usize,
        ended: Ended,
    },
    Refused {
        row: u64,
        error: EngineError,
    },
    /// It asked nothing.
    Passed {
        row: u64,
    },
}

/// What the engine's thread hears from the sources.
pub(super) enum Message {
    /// The next row of a source.
    Row { source: usize, requests: Vec<Request> },
    /// No further row will come from it.
    Fed(usize),
    /// A sequence is to end.
    Stop(SequenceId),
    /// So many rows of it are done.
    Done { source: usize, num_rows: u64 },
    /// A row does not fit the cache, and is left.
    TooLarge(EngineError),
    /// Its reader is at its end.
    Over(usize),
    /// The run cannot go on.
    Failed(GenerateError),
}

/// A source's way to the engine's thread; nobody may be there any more.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) source: usize,
    pub(super) inbox: Sender<Message>,
}

impl Link {
    fn send(&self, message: Message) {
        _ = self.inbox.send(message);
    }

    fn report(&self, result: Result<(), GenerateError>) {
        if let Err(error) = result {
            self.send(Message::Failed(error));
        }
    }
}

/// Sends a thread's last message, however it ends: the engine's thread must not wait for one that panicked.
struct Last<'l> {
    link: &'l Link,
    message: fn(usize) -> Message,
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.link.send((self.message)(self.link.source));
    }
}

/// What a feeder tells its reader of a row.
enum Entry<R: Row> {
    Open(Open<R>),
    Done(R::Done),
}

struct Open<R> {
    row: R,
    parts: Vec<Option<Ended>>,
    num_pending: usize,
    is_stopped: bool,
}

/// Hands on each row, at most [`NUM_AHEAD`] of them before the engine takes one. It ends early when nobody takes any more.
fn feed<R: Row>(
    mut rows: impl Iterator<Item = Result<Prepared<R>, GenerateError>>,
    reader: &Sender<Entry<R>>,
    link: &Link,
    permits: &SyncSender<()>,
) -> Result<(), GenerateError> {
    while permits.send(()).is_ok() {
        let Some(prepared) = rows.next() else { break };
        let (entry, requests) = match prepared? {
            Prepared::Done(done) => (Entry::Done(done), Vec::new()),
            Prepared::Asks(row, requests) => {
                let parts = requests.iter().map(|_| None).collect();
                (Entry::Open(Open { row, parts, num_pending: requests.len(), is_stopped: false }), requests)
            }
        };
        // The reader first: the engine may speak of the row as soon as it knows it.
        _ = reader.send(entry);
        link.send(Message::Row { source: link.source, requests });
    }
    Ok(())
}

/// Follows every row to its end, until the engine has nothing more to tell.
fn read<R: Row>(
    heard: &Receiver<Vec<Heard>>,
    fed: &Receiver<Entry<R>>,
    link: &Link,
    mut done: impl FnMut(R::Done) -> Result<(), GenerateError>,
) -> Result<(), GenerateError> {
    let mut entries: HashMap<u64, Entry<R>> = HashMap::new();
    let mut num_fed = 0;
    for step in heard {
        let mut num_rows = 0;
        for heard in step {
            while num_fed <= heard.row()
                && let Ok(entry) = fed.recv()
            {
                entries.insert(num_fed, entry);
                num_fed += 1;
            }
            if let Some(finished) = take(&mut entries, heard, link)? {
                done(finished)?;
                num_rows += 1;
            }
        }
        if num_rows > 0 {
            link.send(Message::Done { source: link.source, num_rows });
        }
    }
    Ok(())
}

/// Takes a piece of news; gives what the row has become if it was the last one.
fn take<R: Row>(
    entries: &mut HashMap<u64, Entry<R>>,
    heard: Heard,
    link: &Link,
) -> Result<Option<R::Done>, GenerateError> {
    let number = heard.row();
    if let Some(Entry::Open(open)) = entries.get_mut(&number) {
        match heard {
            Heard::Token { sequence, token, .. } => {
                if !open.is_stopped && open.row.token(token)? {
                    open.is_stopped = true;
                    link.send(Message::Stop(sequence));
                }
                return Ok(None);
            }
            Heard::Ended { part, ended, .. } => {
                open.parts[part] = Some(ended);
                open.num_pending -= 1;
                if open.num_pending > 0 {
                    return Ok(None);
                }
            }
            Heard::Refused { error, .. } => {
                let Some(Entry::Open(open)) = entries.remove(&number) else { return Ok(None) };
                if matches!(error, EngineError::KvTooSmall { .. }) {
                    // That is this machine's, and not the row's: it is left for a call with a larger cache.
                    link.send(Message::TooLarge(error));
                    return Ok(None);
                }
                return open.row.refused(error).map(Some);
            }
            Heard::Passed { .. } => {}
        }
    }
    match entries.remove(&number) {
        None => Ok(None),
        Some(Entry::Done(done)) => Ok(Some(done)),
        Some(Entry::Open(open)) => open.row.finish(open.parts.into_iter().flatten().collect()).map(Some),
    }
}

impl Heard {
    fn row(&self) -> u64 {
        match self {
            Self::Token { row, .. } | Self::Ended { row, .. } | Self::Refused { row, .. } | Self::Passed { row } => {
                *row
            }
        }
    }
}

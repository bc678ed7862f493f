//! The loop around the engine, the same for every stage: take what the sources have encoded, step, pass on what it gave. Several
//! sources share one continuous batch. Knows requests and events; text, rows and files are the sources' own.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::closing::Closing;
use super::source::{Heard, Link, Message, Telling};
use super::{Ended, Ending, GenerateError, Observer, Source};
use crate::engine::{EngineError, Event, FinishReason, Fleet, Request, SequenceId};

/// How long an idle engine waits for a row before the observer is asked whether to stop.
const IDLE_WAIT: Duration = Duration::from_millis(100);

/// Computes all rows of all sources, which may make rows of one another's; each source has up to `queue_len` sequences in the
/// engine, plus what its last row brings. The engine is idle before and afterwards.
///
/// # Errors
/// [`GenerateError`] of a source or of the engine. What was finished before has been handed on.
pub fn drive<'a>(
    engine: &mut Fleet,
    queue_len: usize,
    sources: Vec<Source<'a>>,
    observer: &mut dyn Observer,
) -> Result<Ending, GenerateError> {
    let (sender, inbox) = mpsc::channel();
    std::thread::scope(|scope| {
        let start = |(source, rows): (usize, Source<'a>)| {
            let (permits, telling) = rows.start(scope, Link { source, inbox: sender.clone() });
            Lane::new(permits, telling)
        };
        let lanes = sources.into_iter().enumerate().map(start).collect();
        drop(sender);
        let closing = Closing::new(observer.deadline());
        let mut driver = Driver { engine, queue_len, lanes, inbox, parts: HashMap::new(), closing, too_large: None };
        let ending = driver.run(observer);
        driver.end(ending, observer)
    })
}

struct Driver<'e> {
    engine: &'e mut Fleet,
    queue_len: usize,
    lanes: Vec<Lane>,
    inbox: Receiver<Message>,
    /// What each sequence in the engine is part of.
    parts: HashMap<SequenceId, Part>,
    closing: Closing,
    /// Rows that were left, and why the first was.
    too_large: Option<(u64, EngineError)>,
}

/// Which request of which row a sequence is.
#[derive(Debug, Clone, Copy)]
struct Part {
    source: usize,
    row: u64,
    part: usize,
}

/// A source as the engine's thread sees it.
struct Lane {
    /// One is taken out for each row that leaves `waiting`.
    permits: Receiver<()>,
    /// Encoded rows with their numbers, in order.
    waiting: VecDeque<(u64, Vec<Request>)>,
    num_fed: u64,
    is_fed: bool,
    num_sequences: usize,
    /// Rows in the engine: since when, and how many of their sequences are.
    begun: HashMap<u64, (Instant, usize)>,
    /// The present step's news, and where they go; `None` when there will be no more.
    news: Vec<Heard>,
    telling: Option<Telling>,
    is_over: bool,
    /// Rows done since the observer was last told.
    num_done: u64,
}

impl Lane {
    fn new(permits: Receiver<()>, telling: Telling) -> Self {
        Self {
            permits,
            waiting: VecDeque::new(),
            num_fed: 0,
            is_fed: false,
            num_sequences: 0,
            begun: HashMap::new(),
            news: Vec::new(),
            telling: Some(telling),
            is_over: false,
            num_done: 0,
        }
    }

    /// Takes the source's next row.
    fn accept(&mut self, requests: Vec<Request>) {
        let row = self.num_fed;
        self.num_fed += 1;
        if requests.is_empty() {
            _ = self.permits.try_recv();
            self.news.push(Heard::Passed { row });
        } else {
            self.waiting.push_back((row, requests));
        }
    }

    /// A sequence of the row has left the engine; how long the row took, if it was its last one.
    fn leave(&mut self, row: u64) -> Option<Duration> {
        self.num_sequences -= 1;
        let (since, num_left) = self.begun.get_mut(&row)?;
        *num_left -= 1;
        if *num_left > 0 {
            return None;
        }
        let took = since.elapsed();
        self.begun.remove(&row);
        Some(took)
    }

    /// Passes the step's news on. With the last of them its reader comes to its end.
    fn tell(&mut self) {
        if let Some(telling) = &self.telling
            && !self.news.is_empty()
        {
            // A reader that is gone has said why.
            _ = telling.send(std::mem::take(&mut self.news));
        }
        if self.is_fed && self.waiting.is_empty() && self.num_sequences == 0 {
            self.telling = None;
        }
    }
}

impl Driver<'_> {
    /// Goes on until every reader is at its end.
    fn run(&mut self, observer: &mut dyn Observer) -> Result<Ending, GenerateError> {
        loop {
            self.listen()?;
            self.admit();
            if !self.parts.is_empty() {
                for event in self.engine.step()? {
                    self.sort(event);
                }
            }
            self.lanes.iter_mut().for_each(Lane::tell);
            self.report(observer);
            if self.lanes.iter().all(|lane| lane.is_over) {
                return match self.too_large.take() {
                    None => Ok(Ending::Completed),
                    Some((num_rows, error)) => Err(GenerateError::TooLarge { num_rows, error }),
                };
            }
            if observer.should_stop() || self.lanes.iter().any(|lane| lane.is_over && lane.telling.is_some()) {
                return Ok(Ending::Interrupted);
            }
            let now = Instant::now();
            let has_more = self.lanes.iter().any(|lane| !lane.is_fed || !lane.waiting.is_empty());
            if self.closing.is_over(now) || (self.closing.is_closed(now) && self.parts.is_empty() && has_more) {
                return Ok(Ending::OutOfTime);
            }
        }
    }

    /// Takes what the sources have sent. Waits for it only if there is nothing else to do.
    fn listen(&mut self) -> Result<(), GenerateError> {
        let is_idle = self.parts.is_empty() && self.lanes.iter().all(|lane| lane.waiting.is_empty());
        let mut next = if is_idle { self.inbox.recv_timeout(IDLE_WAIT).ok() } else { self.inbox.try_recv().ok() };
        while let Some(message) = next {
            match message {
                Message::Row { source, requests } => self.lanes[source].accept(requests),
                Message::Stop(id) => {
                    // A sequence that has ended by itself needs no stop: its reader cuts what it gave.
                    if let Some(output) = self.engine.stop(id) {
                        self.ended(id, Ended { reason: FinishReason::Stop, output });
                    }
                }
                Message::Fed(source) => self.lanes[source].is_fed = true,
                Message::Done { source, num_rows } => self.lanes[source].num_done += num_rows,
                Message::TooLarge(error) => self.too_large.get_or_insert((0, error)).0 += 1,
                Message::Over(source) => self.lanes[source].is_over = true,
                Message::Failed(error) => return Err(error),
            }
            next = self.inbox.try_recv().ok();
        }
        Ok(())
    }

    /// Queues rows in the engine, as many as each source may have there.
    fn admit(&mut self) {
        let now = Instant::now();
        if self.closing.is_closed(now) {
            return;
        }
        for (source, lane) in self.lanes.iter_mut().enumerate() {
            while lane.num_sequences < self.queue_len
                && let Some((row, requests)) = lane.waiting.pop_front()
            {
                _ = lane.permits.try_recv();
                match self.engine.add_all(requests) {
                    Ok(ids) => {
                        lane.num_sequences += ids.len();
                        lane.begun.insert(row, (now, ids.len()));
                        let parts = ids.into_iter().enumerate();
                        self.parts.extend(parts.map(|(part, id)| (id, Part { source, row, part })));
                    }
                    Err(error) => lane.news.push(Heard::Refused { row, error }),
                }
            }
        }
    }

    fn sort(&mut self, event: Event) {
        match event {
            Event::Token { id, token } => {
                let Some(&Part { source, row, .. }) = self.parts.get(&id) else { return };
                self.lanes[source].news.push(Heard::Token { row, sequence: id, token });
            }
            Event::Finished { id, reason, output } => self.ended(id, Ended { reason, output }),
        }
    }

    fn ended(&mut self, id: SequenceId, ended: Ended) {
        let Some(Part { source, row, part }) = self.parts.remove(&id) else { return };
        let lane = &mut self.lanes[source];
        if let Some(took) = lane.leave(row) {
            self.closing.note(took);
        }
        lane.news.push(Heard::Ended { row, part, ended });
    }

    fn report(&mut self, observer: &mut dyn Observer) {
        let num_rows: Vec<u64> = self.lanes.iter_mut().map(|lane| std::mem::take(&mut lane.num_done)).collect();
        observer.progress(&num_rows, &self.engine.stats());
    }

    /// Gives up what is in flight, and waits until the readers have handed on what was finished.
    fn end(
        mut self,
        ending: Result<Ending, GenerateError>,
        observer: &mut dyn Observer,
    ) -> Result<Ending, GenerateError> {
        for id in self.parts.keys() {
            _ = self.engine.stop(*id);
        }
        let mut num_rows = Vec::new();
        for mut lane in std::mem::take(&mut self.lanes) {
            lane.tell();
            num_rows.push(lane.num_done);
        }
        let mut failed = None;
        for message in &self.inbox {
            match message {
                Message::Done { source, num_rows: more } => num_rows[source] += more,
                Message::Failed(error) => _ = failed.get_or_insert(error),
                _ => {}
            }
        }
        observer.progress(&num_rows, &self.engine.stats());
        match failed {
            Some(error) if ending.is_ok() => Err(error),
            _ => ending,
        }
    }
}

//! One engine, or several with the same model, each on a device and a thread of its own, fed as one. What a request gives does not depend
//! on its neighbours, so neither on the engine that serves it. Knows requests and events; knows no device.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use super::admission::Admission;
use super::{Engine, EngineError, EngineStats, Event, Request, SequenceId, SequenceOutput};

/// See the module's text. On one engine everything happens on the caller's thread.
pub struct Fleet(Form);

enum Form {
    One(Box<Engine>),
    Several(Several),
}

/// Engines on threads. A sequence's id tells its engine: that one's own id times the number of engines, plus its number.
struct Several {
    members: Vec<Member>,
    reports: Receiver<(usize, Report)>,
}

struct Member {
    /// Dropped first, which ends the thread.
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    admission: Admission,
    /// As of the last report.
    stats: EngineStats,
    num_free_blocks: usize,
    /// Requests so far, and those that have not ended.
    num_added: u64,
    num_sequences: usize,
}

enum Command {
    Add(Vec<Request>),
    Stop(SequenceId),
}

/// What a step gave.
struct Report {
    events: Result<Vec<Event>, EngineError>,
    stats: EngineStats,
    num_free_blocks: usize,
}

impl Fleet {
    /// Of one engine or more, with the same model.
    ///
    /// # Errors
    /// [`EngineError::NoEngine`] if there is none.
    pub fn new(mut engines: Vec<Engine>) -> Result<Self, EngineError> {
        match engines.len() {
            0 => Err(EngineError::NoEngine),
            1 => Ok(Self(Form::One(Box::new(engines.remove(0))))),
            _ => Ok(Self(Form::Several(Several::new(engines)))),
        }
    }

    /// As [`Engine::add`].
    ///
    /// # Errors
    /// As there.
    pub fn add(&mut self, request: Request) -> Result<SequenceId, EngineError> {
        match &mut self.0 {
            Form::One(engine) => engine.add(request),
            Form::Several(several) => several.add_all(vec![request]).map(|ids| ids[0]),
        }
    }

    /// As [`Engine::add_all`]; all go to the same engine, so that what they share is computed once.
    ///
    /// # Errors
    /// As there.
    pub fn add_all(&mut self, requests: Vec<Request>) -> Result<Vec<SequenceId>, EngineError> {
        match &mut self.0 {
            Form::One(engine) => engine.add_all(requests),
            Form::Several(several) => several.add_all(requests),
        }
    }

    /// Ends a sequence from outside. With several engines what it gave comes as an event, unless it ends by itself before.
    pub fn stop(&mut self, id: SequenceId) -> Option<SequenceOutput> {
        match &mut self.0 {
            Form::One(engine) => engine.stop(id),
            Form::Several(several) => {
                several.stop(id);
                None
            }
        }
    }

    /// What steps gave: a step's of one engine; with several, of those that have made one since. Waits for one unless all are idle.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        match &mut self.0 {
            Form::One(engine) => engine.step(),
            Form::Several(several) => several.step(),
        }
    }

    /// Totals so far, of several engines as of their last steps: counts are sums, seconds those of the busiest.
    pub fn stats(&self) -> EngineStats {
        match &self.0 {
            Form::One(engine) => engine.stats(),
            Form::Several(several) => {
                several.members.iter().map(|member| member.stats).reduce(|a, b| a.beside(&b)).unwrap_or_default()
            }
        }
    }

    /// Sequences that have not ended.
    pub fn num_sequences(&self) -> usize {
        match &self.0 {
            Form::One(engine) => engine.num_sequences(),
            Form::Several(several) => several.members.iter().map(|member| member.num_sequences).sum(),
        }
    }

    /// Blocks that no sequence holds; all of them when idle.
    pub fn num_free_blocks(&self) -> usize {
        match &self.0 {
            Form::One(engine) => engine.num_free_blocks(),
            Form::Several(several) => several.members.iter().map(|member| member.num_free_blocks).sum(),
        }
    }

    /// V, token ids are below it.
    pub fn vocab_size(&self) -> usize {
        match &self.0 {
            Form::One(engine) => engine.admission().vocab_size,
            Form::Several(several) => several.members.first().map_or(0, |member| member.admission.vocab_size),
        }
    }

    /// Engines.
    pub fn num_engines(&self) -> usize {
        match &self.0 {
            Form::One(_) => 1,
            Form::Several(several) => several.members.len(),
        }
    }
}

impl Several {
    fn new(engines: Vec<Engine>) -> Self {
        let (sender, reports) = mpsc::channel();
        let members = engines.into_iter().enumerate().map(|(number, engine)| {
            let (commands, inbox) = mpsc::channel();
            let (admission, stats) = (engine.admission(), engine.stats());
            let num_free_blocks = engine.num_free_blocks();
            let sender = sender.clone();
            let thread = std::thread::spawn(move || serve(engine, number, &inbox, &sender));
            let (commands, thread) = (Some(commands), Some(thread));
            Member { commands, thread, admission, stats, num_free_blocks, num_added: 0, num_sequences: 0 }
        });
        Self { members: members.collect(), reports }
    }

    fn add_all(&mut self, requests: Vec<Request>) -> Result<Vec<SequenceId>, EngineError> {
        let num_engines = self.members.len() as u64;
        let idlest = (0..self.members.len()).min_by_key(|&number| self.members[number].num_sequences).unwrap_or(0);
        let member = &mut self.members[idlest];
        for request in &requests {
            member.admission.check(request)?;
        }
        let count = requests.len() as u64;
        let ids = (member.num_added..member.num_added + count).map(|own| own * num_engines + idlest as u64).collect();
        member.num_added += count;
        member.num_sequences += requests.len();
        member.send(Command::Add(requests))?;
        Ok(ids)
    }

    fn stop(&mut self, id: SequenceId) {
        let num_engines = self.members.len() as u64;
        if let Some(member) = self.members.get_mut((id % num_engines) as usize) {
            // An engine that is gone has said why.
            _ = member.send(Command::Stop(id / num_engines));
        }
    }

    fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        if self.members.iter().all(|member| member.num_sequences == 0) {
            return Ok(Vec::new());
        }
        let first = self.reports.recv().map_err(|_| EngineError::Gone)?;
        let more: Vec<_> = self.reports.try_iter().collect();
        let mut all = Vec::new();
        for (number, report) in std::iter::once(first).chain(more) {
            let num_engines = self.members.len() as u64;
            let member = &mut self.members[number];
            (member.stats, member.num_free_blocks) = (report.stats, report.num_free_blocks);
            for mut event in report.events? {
                let (Event::Token { id, .. } | Event::Finished { id, .. }) = &mut event;
                *id = *id * num_engines + number as u64;
                member.num_sequences -= usize::from(matches!(event, Event::Finished { .. }));
                all.push(event);
            }
        }
        Ok(all)
    }
}

impl Member {
    fn send(&self, command: Command) -> Result<(), EngineError> {
        let sent = self.commands.as_ref().map(|commands| commands.send(command));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(EngineError::Gone) }
    }
}

impl Drop for Several {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(|member| member.commands = None);
        for member in &mut self.members {
            // What made an engine panic was printed when it did.
            _ = member.thread.take().map(JoinHandle::join);
        }
    }
}

/// Tells that an engine's thread has panicked, so that nobody waits for it.
struct Farewell<'a> {
    number: usize,
    reports: &'a Sender<(usize, Report)>,
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let report = Report { events: Err(EngineError::Gone), stats: EngineStats::default(), num_free_blocks: 0 };
            // If nobody listens any more, nobody waits.
            _ = self.reports.send((self.number, report));
        }
    }
}

/// An engine's thread: takes what is asked, steps, tells what that gave; until nobody asks any more, or it fails.
fn serve(mut engine: Engine, number: usize, inbox: &Receiver<Command>, reports: &Sender<(usize, Report)>) {
    let _farewell = Farewell { number, reports };
    loop {
        let mut events = Vec::new();
        // An idle engine waits for work.
        let mut next = if engine.num_sequences() == 0 { inbox.recv().ok() } else { None };
        if engine.num_sequences() == 0 && next.is_none() {
            return;
        }
        loop {
            match next.take().map_or_else(|| inbox.try_recv(), Ok) {
                Ok(Command::Add(requests)) => {
                    if let Err(error) = engine.add_all(requests) {
                        let report = Report::of(&engine, Err(error));
                        // If nobody listens any more, nobody waits.
                        _ = reports.send((number, report));
                        return;
                    }
                }
                Ok(Command::Stop(id)) => events.extend(engine.stop(id).map(|output| {
                    let reason = super::FinishReason::Stop;
                    Event::Finished { id, reason, output }
                })),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
        let stepped = engine.step().map(|more| {
            events.extend(more);
            events
        });
        let failed = stepped.is_err();
        if reports.send((number, Report::of(&engine, stepped))).is_err() || failed {
            return;
        }
    }
}

impl Report {
    fn of(engine: &Engine, events: Result<Vec<Event>, EngineError>) -> Self {
        Self { events, stats: engine.stats(), num_free_blocks: engine.num_free_blocks() }
    }
}

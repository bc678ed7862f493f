//! One thread owns room and store. It takes all requests that wait, lets them change the room, writes what they added in one transaction, and
//! only then answers any of them: who was answered has their vote on the disk, and many people cost few writes.
//! Knows the room and the store; knows nothing of HTTP.

use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::sync::oneshot;

use super::items::Items;
use super::keys::Keys;
use super::packed;
use super::queue::QueueOptions;
use super::room::Room;
use super::store::{Appended, Person, Store, StoreError};

/// Requests in one transaction at most, so that nobody waits for all others.
const MOST_AT_ONCE: usize = 256;
/// Without a request for so long the store is tidied up.
const IDLE: Duration = Duration::from_secs(1);

/// Why somebody got no answer. What they sent is not counted, and can be sent again.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct DeskError(String);

impl From<std::io::Error> for DeskError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A request: changes the room, and gives what is to be done when that is on the disk, or is not.
type Request = Box<dyn FnOnce(&mut Room) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), DeskError>) + Send>;

enum Message {
    Ask(Request),
    Note(Person, oneshot::Sender<Result<(), DeskError>>),
}

/// The way to the thread. Dropping all of them ends it.
#[derive(Clone)]
pub struct Desk {
    sender: mpsc::Sender<Message>,
}

/// What the thread needs to make the room, at the start and again after a disk refused.
pub struct Setting {
    /// The run's folder.
    pub run: PathBuf,
    /// Its items.
    pub items: Arc<Items>,
    /// Its secret.
    pub keys: Keys,
    /// The queue's options.
    pub options: QueueOptions,
}

impl Setting {
    fn room(&self, store: &Store) -> Result<Room, StoreError> {
        let (votes, people) = (store.votes()?, store.people()?);
        let mut room = Room::new(Arc::clone(&self.items), self.keys.clone(), self.options, votes, people);
        room.set_sealed(store.sealed_through()?);
        self.hold_packs(&mut room)?;
        Ok(room)
    }

    /// What went out in packs is not shown here.
    fn hold_packs(&self, room: &mut Room) -> Result<(), StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        room.hold(&packed::out(&self.run, packed::DEFAULT_LEASE_DAYS, i64::try_from(now).unwrap_or(i64::MAX))?);
        Ok(())
    }
}

impl Desk {
    /// Opens the store and starts the thread, which ends when all desks are gone.
    ///
    /// # Errors
    /// A store that cannot be opened, see [`Store::open`].
    pub fn open(setting: Setting) -> Result<(Self, JoinHandle<()>), StoreError> {
        let store = Store::open(&setting.run)?;
        let room = setting.room(&store)?;
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || work(&setting, store, room, &receiver));
        Ok((Self { sender }, thread))
    }

    /// Asks the room something, or tells it; the answer comes when all that it depends on is on the disk.
    ///
    /// # Errors
    /// A disk that refused: nothing of the request counts.
    pub async fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Room) -> T + Send + 'static,
    ) -> Result<T, DeskError> {
        let (answer, answered) = oneshot::channel();
        let request: Request = Box::new(move |room| {
            let said = request(room);
            // Whoever asked may be gone.
            Box::new(move |written| drop(answer.send(written.map(|()| said))))
        });
        self.sender.send(Message::Ask(request)).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Notes a person.
    ///
    /// # Errors
    /// A disk that refused.
    pub async fn note(&self, person: Person) -> Result<(), DeskError> {
        let (answer, answered) = oneshot::channel();
        self.sender.send(Message::Note(person, answer)).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

fn closed() -> DeskError {
    DeskError("the server is stopping".to_owned())
}

fn work(setting: &Setting, mut store: Store, mut room: Room, receiver: &mpsc::Receiver<Message>) {
    let mut is_untidy = false;
    // As the room was made without: the first request looks.
    let mut packs_bytes = 0;
    loop {
        let first = match receiver.recv_timeout(IDLE) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                // What cannot be tidied up now is tried again; votes are safe either way.
                is_untidy = is_untidy && store.tidy_up().is_err();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let waiting = std::iter::once(first).chain(std::iter::from_fn(|| receiver.try_recv().ok()));
        let mut replies: Vec<Reply> = Vec::new();
        // An export, which is another process, may have sealed events meanwhile. Who cannot read cannot write either, and says so then.
        if let Ok(through) = store.sealed_through() {
            room.set_sealed(through);
        }
        // The same of a pack that was made meanwhile; one that comes back needs the store, which is this process's.
        let size_bytes = packed::size_bytes(&setting.run);
        if size_bytes != packs_bytes && setting.hold_packs(&mut room).is_ok() {
            packs_bytes = size_bytes;
        }
        for message in waiting.take(MOST_AT_ONCE) {
            match message {
                Message::Ask(request) => replies.push(request(&mut room)),
                Message::Note(person, answer) => {
                    let noted = store.note_person(&person).map_err(|error| DeskError(error.to_string()));
                    if noted.is_ok() {
                        room.set_person(person);
                    }
                    // Whoever asked may be gone.
                    drop(answer.send(noted));
                }
            }
        }
        let written = write(&mut store, &mut room);
        is_untidy = true;
        if written.is_err() {
            // The room is ahead of the disk: it goes back to what is there. If not even that can be read, the thread ends, and all who
            // ask from now on are told so.
            match setting.room(&store) {
                Ok(as_stored) => room = as_stored,
                Err(_) => return,
            }
        }
        replies.into_iter().for_each(|reply| reply(written.clone()));
    }
}

fn write(store: &mut Store, room: &mut Room) -> Result<(), DeskError> {
    let votes = room.take_waiting();
    if votes.is_empty() {
        return Ok(());
    }
    let appended = store.append(&votes).map_err(|error| DeskError(error.to_string()))?;
    match appended.iter().all(|one| matches!(one, Appended::New(_))) {
        true => Ok(()),
        false => Err(DeskError("an event was there already under another person's name".to_owned())),
    }
}

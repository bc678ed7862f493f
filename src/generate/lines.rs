//! Answers as JSON lines in the order of the requests, continued where an earlier call stopped.
//! Knows the line format and the file; knows nothing of how answers are made.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, FinishReason};
use crate::provenance::write_atomic;

/// Why the output cannot be continued or written.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The file cannot be read or written.
    #[error(
        "{path} cannot be read or written: {source}\nhint: give a path in a folder that exists and may be written to"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file was made by something else.
    #[error("{path} is not empty and {why}\nhint: give another --out, or --fresh to start it anew")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// Another process is at it.
    #[error("another process is writing {path}\nhint: wait for it, or give another --out")]
    Locked {
        /// The file.
        path: PathBuf,
    },
}

/// What a line says of itself; the rest is for readers.
#[derive(Deserialize)]
struct LineKey {
    id: String,
    #[serde(default)]
    sample_index: u32,
}

/// Writes answers. Those that come before their turn wait in memory.
pub struct LineWriter {
    file: File,
    path: PathBuf,
    /// Place of each (id, sample) in the output.
    places: HashMap<String, usize>,
    samples: u32,
    logprobs: bool,
    done: HashSet<(String, u32)>,
    waiting: BTreeMap<usize, String>,
    /// Places that are to be written, in order, and how many are.
    todo: Vec<usize>,
    next: usize,
    /// Lines stand out of turn, as an interruption leaves them; put right when all are there.
    unsorted: bool,
}

impl LineWriter {
    /// Opens `path` for the answers to `ids` (in this order, `samples` each) made with `parameters`, which are kept beside it
    /// in `path.lock`. Complete lines that are there are kept; a torn last line is cut off.
    ///
    /// # Errors
    /// [`LineError::NotOurs`] if the file was made with other parameters, and not `fresh`.
    pub fn open(
        path: &Path,
        ids: &[String],
        samples: u32,
        logprobs: bool,
        parameters: &Value,
        fresh: bool,
    ) -> Result<Self, LineError> {
        let io = |source| LineError::Io { path: path.to_owned(), source };
        let lock = lock_of(path);
        let text = serde_json::to_string_pretty(parameters).map_err(|error| io(error.into()))?;
        let has_lines = !fresh && path.metadata().is_ok_and(|file| file.len() > 0);
        if has_lines {
            check_lock(path, &lock, parameters)?;
        }
        let mut file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path).map_err(io)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(LineError::Locked { path: path.to_owned() }),
            // Some network file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        if !has_lines {
            file.set_len(0).map_err(io)?;
        }
        write_atomic(&lock, text.as_bytes()).map_err(|error| io(std::io::Error::other(error)))?;
        let found = if has_lines { read_done(&mut file, path)? } else { Vec::new() };
        let places: HashMap<String, usize> =
            ids.iter().enumerate().map(|(index, id)| (id.clone(), index * samples as usize)).collect();
        let all = ids.iter().flat_map(|id| (0..samples).map(move |sample| (id.clone(), sample)));
        let in_turn = all.clone().take(found.len()).eq(found.iter().cloned());
        let done: HashSet<(String, u32)> = found.into_iter().collect();
        let todo = all.enumerate().filter(|(_, key)| !done.contains(key)).map(|(place, _)| place).collect();
        Ok(Self {
            file,
            path: path.to_owned(),
            places,
            samples,
            logprobs,
            done,
            waiting: BTreeMap::new(),
            todo,
            next: 0,
            unsorted: !in_turn,
        })
    }

    /// The parameters that the lines in `path` were made with; `None` if there are no lines.
    pub fn parameters(path: &Path) -> Option<Value> {
        path.metadata().ok().filter(|file| file.len() > 0)?;
        serde_json::from_str(&std::fs::read_to_string(lock_of(path)).ok()?).ok()
    }

    /// Whether all samples of this request are there.
    pub fn is_done(&self, id: &str) -> bool {
        (0..self.samples).all(|sample| self.done.contains(&(id.to_owned(), sample)))
    }

    /// Lines that an earlier call left.
    pub fn num_done(&self) -> usize {
        self.done.len()
    }

    /// Takes an answer; it is written when all before it are.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, answer: Answer) -> Result<(), LineError> {
        let (id, sample_index) = (answer.id.clone(), answer.sample_index);
        let line = line(answer, self.samples > 1, self.logprobs);
        self.write_line(&id, sample_index, line)
    }

    /// Takes a request's line, ended by a line feed and with its `id` in it; it is written when all before it are.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_line(&mut self, id: &str, sample_index: u32, line: String) -> Result<(), LineError> {
        if self.done.contains(&(id.to_owned(), sample_index)) {
            return Ok(());
        }
        let Some(first) = self.places.get(id) else { return Ok(()) };
        self.waiting.insert(first + sample_index as usize, line);
        while let Some(place) = self.todo.get(self.next)
            && let Some(line) = self.waiting.remove(place)
        {
            self.put(&line)?;
            self.next += 1;
        }
        Ok(())
    }

    /// Writes what still waits (after an interruption: out of turn, but not lost) and syncs the file. Once every line is
    /// there, they stand in the order of the input.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(&mut self) -> Result<(), LineError> {
        for line in std::mem::take(&mut self.waiting).into_values() {
            self.put(&line)?;
            self.unsorted = true;
        }
        if self.unsorted && self.next == self.todo.len() {
            self.sort()?;
        }
        self.file.sync_all().map_err(|source| LineError::Io { path: self.path.clone(), source })
    }

    /// Puts the lines into the order of the input; those of requests that are not in it come last.
    fn sort(&self) -> Result<(), LineError> {
        let io = |source| LineError::Io { path: self.path.clone(), source };
        let text = std::fs::read_to_string(&self.path).map_err(io)?;
        let place = |line: &str| {
            let key: LineKey = serde_json::from_str(line).ok()?;
            Some(self.places.get(&key.id)? + key.sample_index as usize)
        };
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        lines.sort_by_cached_key(|line| place(line).unwrap_or(usize::MAX));
        write_atomic(&self.path, lines.concat().as_bytes()).map_err(|error| io(std::io::Error::other(error)))
    }

    fn put(&mut self, line: &str) -> Result<(), LineError> {
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|source| LineError::Io { path: self.path.clone(), source })
    }
}

fn lock_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.lock", path.display()))
}

fn check_lock(path: &Path, lock: &Path, parameters: &Value) -> Result<(), LineError> {
    let not_ours = |why: &str| LineError::NotOurs { path: path.to_owned(), why: why.to_owned() };
    let text = std::fs::read_to_string(lock).map_err(|_| not_ours("has no lock file beside it"))?;
    match serde_json::from_str::<Value>(&text) {
        Ok(found) => {
            let mut names = Vec::new();
            collect_differing("", Some(&found), Some(parameters), &mut names);
            match names.is_empty() {
                true => Ok(()),
                false => Err(not_ours(&format!("was made with another {}", names.join(", ")))),
            }
        }
        Err(_) => Err(not_ours("has a damaged lock file beside it")),
    }
}

/// Names of the fields that differ, `generate.top_k`.
fn collect_differing(name: &str, old: Option<&Value>, new: Option<&Value>, names: &mut Vec<String>) {
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (old, new) {
        let fields: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for field in fields {
            let full = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
            collect_differing(&full, old.get(field), new.get(field), names);
        }
    } else if old != new {
        names.push(name.to_owned());
    }
}

/// The keys of the complete lines in their order; the file is cut after them and positioned at its end.
fn read_done(file: &mut File, path: &Path) -> Result<Vec<(String, u32)>, LineError> {
    use std::io::Seek;
    let io = |source| LineError::Io { path: path.to_owned(), source };
    let mut done = Vec::new();
    let mut good = 0u64;
    let mut reader = BufReader::new(&*file);
    let mut text = Vec::new();
    while reader.read_until(b'\n', &mut text).map_err(io)? > 0 {
        let Ok(key) = serde_json::from_slice::<LineKey>(&text) else { break };
        if text.last() != Some(&b'\n') {
            break;
        }
        good += text.len() as u64;
        done.push((key.id, key.sample_index));
        text.clear();
    }
    file.set_len(good).map_err(io)?;
    file.seek(std::io::SeekFrom::End(0)).map_err(io)?;
    Ok(done)
}

fn line(answer: Answer, with_sample: bool, with_logprobs: bool) -> String {
    #[derive(Serialize)]
    struct Line {
        id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        sample_index: Option<u32>,
        #[serde(flatten)]
        rest: Value,
    }
    let rest = match answer.result {
        Err(failure) => json!({"error": {"reason": failure.reason, "detail": failure.detail}}),
        Ok(generated) => {
            let ids: Vec<u32> = generated.tokens.iter().map(|chosen| chosen.token).collect();
            let reason = match generated.finish_reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
            };
            let mut rest = json!({"text": generated.text, "token_ids": ids, "finish_reason": reason});
            if let Some(thinking) = generated.thinking {
                rest["thinking"] = thinking.into();
            }
            if with_logprobs {
                let entry = |chosen: &crate::engine::TokenLogprobs| {
                    let top: Vec<Value> =
                        chosen.top.iter().map(|(id, logprob)| json!({"token_id": id, "logprob": logprob})).collect();
                    json!({"token_id": chosen.token, "logprob": chosen.logprob, "top": top})
                };
                rest["logprobs"] = generated.tokens.iter().map(entry).collect();
            }
            if !generated.prompt_logprobs.is_empty() {
                rest["prompt_logprobs"] = json!(generated.prompt_logprobs);
            }
            rest
        }
    };
    let line = Line { id: answer.id, sample_index: with_sample.then_some(answer.sample_index), rest };
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

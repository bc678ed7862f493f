//! What ends a long command early: a signal, or the end of the time that it has. Knows signals, clocks and Slurm's word for a job's end;
//! nothing of what is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use super::exit::{STOPPED_AT_ONCE, UsageError};
use crate::cli::tell;
use crate::config;

/// Flags of commands that may have to end before they are done.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Time")]
pub(super) struct TimeArgs {
    /// Stop in time to be over within this, such as 3h50m, counted from the start: rows that would not be done are not begun, what
    /// is done is kept, the exit code is 75, and the same command goes on from there
    #[arg(long, value_name = "DURATION", value_parser = parse_budget)]
    time_budget: Option<SignedDuration>,
    /// The same by the clock: 2026-11-27T06:00, with an offset such as +01:00 or Z, or 06:00 for the next such time. In a Slurm job its
    /// end is a deadline too, unless this is `none`
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
}

/// A duration above zero.
fn parse_budget(text: &str) -> Result<SignedDuration, String> {
    match text.parse::<SignedDuration>() {
        Ok(duration) if duration > SignedDuration::ZERO => Ok(duration),
        Ok(_) => Err("want a duration above zero".to_owned()),
        Err(_) => Err("want a duration such as 3h50m, 90m or 45s".to_owned()),
    }
}

impl TimeArgs {
    /// Hours that the flags leave a process that starts now, if they say so. Asks no cluster: who plans a job is rarely in it.
    pub(super) fn hours(&self) -> Result<Option<f64>, UsageError> {
        let left = self.left(&Timestamp::now().to_zoned(TimeZone::system()), None)?;
        Ok(left.map(|(left, _)| left.as_secs_f64() / 3600.0))
    }

    /// How long from `now` until the nearest of all ends, and whose it is.
    fn left(&self, now: &Zoned, job_end: Option<i64>) -> Result<Option<(SignedDuration, &'static str)>, UsageError> {
        let until = |end: Timestamp| end.duration_since(now.timestamp());
        let mut ends = Vec::new();
        ends.extend(self.time_budget.map(|budget| (budget, "--time-budget")));
        match self.deadline.as_deref() {
            Some("none") => return Ok(ends.pop()),
            Some(text) => {
                let end = parse_deadline(text, now).ok_or_else(|| {
                    UsageError(format!(
                        "--deadline {text} is no time\nhint: such as 2026-11-27T06:00, 2026-11-27T06:00+01:00, 06:00, or none"
                    ))
                })?;
                if until(end) <= SignedDuration::ZERO {
                    return Err(UsageError(format!("--deadline {text} is over\nhint: it is {now:.0} here")));
                }
                ends.push((until(end), "--deadline"));
            }
            None => {}
        }
        let job_end = job_end.and_then(|seconds| Timestamp::from_second(seconds).ok());
        ends.extend(job_end.map(|end| (until(end), "the job's end, by Slurm")));
        Ok(ends.into_iter().min_by_key(|(left, _)| *left))
    }
}

/// A time as people write it; without an offset it is this machine's.
fn parse_deadline(text: &str, now: &Zoned) -> Option<Timestamp> {
    let here = |time: DateTime| Some(time.to_zoned(now.time_zone().clone()).ok()?.timestamp());
    if let Ok(end) = text.parse::<Timestamp>() {
        return Some(end);
    }
    // A time of day parses as no date; a date with a time as no bare time.
    if let Ok(time) = text.parse::<Time>()
        && !text.contains('-')
    {
        let today = here(now.date().to_datetime(time))?;
        let tomorrow = || here(now.date().checked_add(1.day()).ok()?.to_datetime(time));
        return if today > now.timestamp() { Some(today) } else { tomorrow() };
    }
    here(text.parse::<DateTime>().ok()?)
}

/// See the module's text.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    is_asked: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Stop {
    /// Listens to signals from now on, and looks at the clock; once per process.
    pub(super) fn install(time: &TimeArgs) -> anyhow::Result<Self> {
        let left = time.left(&Timestamp::now().to_zoned(TimeZone::system()), config::slurm_end_time())?;
        let deadline = left.map(|(left, _)| Instant::now() + Duration::try_from(left).unwrap_or_default());
        let is_asked = Arc::new(AtomicBool::new(false));
        listen(Arc::clone(&is_asked))?;
        Ok(Self { is_asked, deadline })
    }

    /// Whether a signal has come.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }

    /// When all must be over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// What the first signal says; clusters send several, so that only a second Ctrl-C ends at once.
fn asked(flag: &AtomicBool, name: &str, is_impatient: bool) {
    if !flag.swap(true, Ordering::SeqCst) {
        let at_once = if is_impatient { "; once more ends at once" } else { "" };
        tell(&format!("\n{name}: stopping after the present step{at_once}"));
    } else if is_impatient {
        std::process::exit(STOPPED_AT_ONCE.into());
    }
}

/// SIGINT, SIGTERM, SIGHUP, and SIGUSR1, which clusters send some time before the end (Slurm's `--signal`).
#[cfg(unix)]
fn listen(flag: Arc<AtomicBool>) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let name = match signal {
                SIGINT => "Ctrl-C",
                SIGTERM => "SIGTERM",
                SIGHUP => "SIGHUP",
                _ => "SIGUSR1",
            };
            asked(&flag, name, signal == SIGINT);
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn listen(flag: Arc<AtomicBool>) -> anyhow::Result<()> {
    ctrlc::set_handler(move || asked(&flag, "Ctrl-C", true))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse().unwrap()
    }

    fn left(budget: Option<&str>, deadline: Option<&str>, job_end: Option<i64>) -> Option<(i64, &'static str)> {
        let time_budget = budget.map(|text| parse_budget(text).unwrap());
        let time = TimeArgs { time_budget, deadline: deadline.map(str::to_owned) };
        let now = at("2026-11-26T20:00:00+01:00[+01:00]");
        time.left(&now, job_end).unwrap().map(|(left, whose)| (left.as_secs(), whose))
    }

    #[test]
    fn the_nearest_end_counts() {
        let end = at("2026-11-26T22:00:00+01:00[+01:00]").timestamp().as_second();
        assert_eq!(left(None, None, None), None);
        assert_eq!(left(Some("3h50m"), None, None), Some((13_800, "--time-budget")));
        assert_eq!(left(Some("3h50m"), Some("23:00"), None), Some((10_800, "--deadline")));
        assert_eq!(left(Some("3h50m"), Some("23:00"), Some(end)), Some((7_200, "the job's end, by Slurm")));
        assert_eq!(left(Some("3h"), Some("none"), Some(end)), Some((10_800, "--time-budget")));
        assert_eq!(left(None, Some("none"), Some(end)), None);
    }

    #[test]
    fn times_are_this_machines_unless_they_say_otherwise() {
        assert_eq!(left(None, Some("2026-11-26T21:00"), None), Some((3_600, "--deadline")));
        assert_eq!(left(None, Some("2026-11-26T20:00:30Z"), None), Some((3_630, "--deadline")));
        assert_eq!(left(None, Some("2026-11-26T21:00-05:00"), None), Some((7 * 3_600, "--deadline")));
        assert_eq!(left(None, Some("06:00"), None), Some((10 * 3_600, "--deadline")));
        let now = at("2026-11-26T20:00:00+01:00[+01:00]");
        for wrong in ["tomorrow", "25:00", "", "2026-11-26T19:00"] {
            let time = TimeArgs { time_budget: None, deadline: Some(wrong.to_owned()) };
            assert!(time.left(&now, None).is_err(), "{wrong}");
        }
        assert!(parse_budget("0s").is_err() && parse_budget("-3h").is_err() && parse_budget("soon").is_err());
    }
}

//! Progress for people, on stderr: one bar on a terminal, a plain line every 30 seconds elsewhere; and Ctrl-C.
//! Knows the terminal and the clock; knows nothing of what the rows are.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::stop::Stop;
use crate::cli::tell;
use crate::engine::EngineStats;
use crate::generate::Observer;

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Style {
    /// A bar on a terminal, plain lines elsewhere
    Auto,
    /// One bar, redrawn
    Bar,
    /// A line every 30 seconds
    Plain,
    /// Nothing
    None,
}

/// Flags of every command that takes long.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// How to show progress on stderr
    #[arg(long, value_enum, default_value = "auto")]
    progress: Style,
    /// Say nothing but errors
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// End with one JSON object on stdout
    #[arg(long)]
    pub(super) json: bool,
}

impl OutputArgs {
    /// How to show progress where the terminal decides.
    fn style(&self) -> Style {
        match self.progress {
            _ if self.quiet => Style::None,
            Style::Auto if std::io::stderr().is_terminal() => Style::Bar,
            Style::Auto => Style::Plain,
            given => given,
        }
    }

    /// A line for people.
    pub(super) fn say(&self, line: &str) {
        if !self.quiet {
            tell(line);
        }
    }
}

/// Seconds between plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(30);

/// Progress of a stage, or of several in one queue.
pub(super) struct Progress {
    stop: Stop,
    stages: Vec<Stage>,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
    plain: bool,
    is_quiet: bool,
    /// What a step took at most when last heard of; 0 before.
    step_tokens: usize,
    /// What the stages' engine had done when last heard of.
    stats: EngineStats,
}

struct Stage {
    name: &'static str,
    /// At most; what an earlier stage fails at, a later one need not do.
    num_rows: u64,
    num_done: u64,
    /// Rows that an earlier run had done.
    num_before: u64,
}

impl Progress {
    /// Progress over stages, each with its name and number of rows.
    pub(super) fn new(output: &OutputArgs, stop: &Stop, stages: &[(&'static str, u64)]) -> Self {
        let style = output.style();
        let stage = |&(name, num_rows)| Stage { name, num_rows, num_done: 0, num_before: 0 };
        let stages: Vec<Stage> = stages.iter().map(stage).collect();
        let total = stages.iter().map(|stage| stage.num_rows).sum();
        let name = if let [stage] = &stages[..] { stage.name } else { "rows" };
        let bar = (style == Style::Bar).then(|| bar(name, total));
        let now = Instant::now();
        Self {
            stop: stop.clone(),
            stages,
            started: now,
            last_line: now,
            bar,
            plain: style == Style::Plain,
            is_quiet: output.quiet,
            step_tokens: 0,
            stats: EngineStats::default(),
        }
    }

    /// The stage at `index` turned out to have so many rows.
    pub(super) fn settle(&mut self, index: usize, num_rows: usize) {
        if let Some(stage) = self.stages.get_mut(index) {
            stage.num_rows = num_rows as u64;
        }
    }

    fn total(&self, count: impl Fn(&Stage) -> u64) -> u64 {
        self.stages.iter().map(count).sum()
    }

    fn line(&self) -> String {
        let stats = &self.stats;
        let elapsed_s = self.started.elapsed().as_secs_f64();
        let per_s = |tokens: u64| tokens as f64 / elapsed_s.max(1e-9);
        let prompt = per_s(stats.num_prefill_tokens + stats.num_reused_tokens);
        let mut text = format!("{prompt:.0} prompt tok/s");
        if stats.num_output_tokens > 0 {
            text += &format!(" · {:.0} output tok/s", per_s(stats.num_output_tokens));
        }
        let (num_rows, num_done) = (self.total(|stage| stage.num_rows), self.total(|stage| stage.num_done));
        let fresh = num_done.saturating_sub(self.total(|stage| stage.num_before));
        if fresh > 0 && num_done < num_rows {
            let left_s = elapsed_s / fresh as f64 * (num_rows - num_done) as f64;
            text += &format!(" · ETA {}", clock(left_s));
        }
        text
    }

    /// How far each stage is: `generate 12/48`.
    fn counts(&self) -> String {
        let counts = self.stages.iter().map(|stage| format!("{} {}/{}", stage.name, stage.num_done, stage.num_rows));
        counts.collect::<Vec<_>>().join(" · ")
    }

    /// Ends the bar and leaves a line per stage that says what was done, the last one with the speed of all.
    pub(super) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        } else if !self.plain {
            return;
        }
        let elapsed = clock(self.started.elapsed().as_secs_f64());
        for Stage { name, num_done, num_rows, .. } in self.stages.split_last().map_or(&[][..], |(_, before)| before) {
            tell(&format!("{name}: {num_done} of {num_rows} rows"));
        }
        if let Some(Stage { name, num_done, num_rows, .. }) = self.stages.last() {
            tell(&format!("{name}: {num_done} of {num_rows} rows in {elapsed} · {}", self.line()));
        }
    }
}

fn bar(name: &'static str, num_rows: u64) -> ProgressBar {
    let template = if crate::config::no_color() {
        "{prefix:>9} {bar:30} {pos}/{len} {percent}% {wide_msg}"
    } else {
        "{prefix:>9.bold} {bar:30.cyan/dim} {pos}/{len} {percent}% {wide_msg}"
    };
    let bar = ProgressBar::with_draw_target(Some(num_rows), ProgressDrawTarget::stderr_with_hz(8));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(name);
    bar
}

/// Progress of a reading, in bytes.
pub(super) struct Bytes {
    name: &'static str,
    num_bytes: u64,
    num_done: u64,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
    plain: bool,
}

impl Bytes {
    /// Progress over `num_bytes` bytes of `name`.
    pub(super) fn new(output: &OutputArgs, name: &'static str, num_bytes: u64) -> Self {
        let style = output.style();
        let bar = (style == Style::Bar).then(|| bar(name, num_bytes));
        let now = Instant::now();
        Self { name, num_bytes, num_done: 0, started: now, last_line: now, bar, plain: style == Style::Plain }
    }

    /// `read` more bytes are done.
    pub(super) fn add(&mut self, read: u64) {
        self.set(self.num_done + read);
    }

    /// So many bytes are done in all.
    pub(super) fn set(&mut self, num_done: u64) {
        self.num_done = num_done;
        if let Some(bar) = &self.bar {
            bar.set_position(self.num_done);
            bar.set_message(self.rate());
        }
        if self.plain && self.last_line.elapsed() >= PLAIN_EVERY {
            self.last_line = Instant::now();
            let share = 100.0 * self.num_done as f64 / self.num_bytes.max(1) as f64;
            tell(&format!("{}: {share:.0}% · {}", self.name, self.rate()));
        }
    }

    fn rate(&self) -> String {
        let rate = self.num_done as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        if rate < 1e8 { format!("{:.2} MB/s", rate / 1e6) } else { format!("{:.2} GB/s", rate / 1e9) }
    }

    /// Ends the bar and leaves one line that says what was read.
    pub(super) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.plain || self.bar.is_some() {
            let elapsed = clock(self.started.elapsed().as_secs_f64());
            let num_bytes = match self.num_done as f64 {
                few if few < 1e9 => format!("{:.1} MB", few / 1e6),
                many => format!("{:.1} GB", many / 1e9),
            };
            tell(&format!("{}: {num_bytes} in {elapsed} · {}", self.name, self.rate()));
        }
    }
}

/// h:mm:ss, or m:ss under an hour.
fn clock(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

impl Observer for Progress {
    fn progress(&mut self, num_rows: &[u64], stats: &EngineStats) {
        if stats.num_steps > 0 && stats.max_step_tokens < self.step_tokens {
            self.note(&format!("the device ran out of memory: steps of {} tokens from here on", stats.max_step_tokens));
        }
        self.step_tokens = if stats.num_steps > 0 { stats.max_step_tokens } else { 0 };
        self.stats = *stats;
        for (stage, num_rows) in self.stages.iter_mut().zip(num_rows) {
            if stats.num_steps == 0 {
                stage.num_before += num_rows;
            }
            stage.num_done += num_rows;
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.total(|stage| stage.num_done));
            let counts = if self.stages.len() > 1 { self.counts() + " · " } else { String::new() };
            bar.set_message(counts + &self.line());
        }
        if self.plain && self.last_line.elapsed() >= PLAIN_EVERY {
            self.last_line = Instant::now();
            tell(&format!("{} · {}", self.counts(), self.line()));
        }
    }

    fn note(&mut self, line: &str) {
        if !self.is_quiet {
            tell(line);
        }
    }

    fn should_stop(&mut self) -> bool {
        self.stop.is_asked()
    }

    fn deadline(&self) -> Option<Instant> {
        self.stop.deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::clock;

    #[test]
    fn durations_read_as_clocks() {
        assert_eq!(clock(59.6), "1:00");
        assert_eq!(clock(3_725.0), "1:02:05");
        assert_eq!(clock(-1.0), "0:00");
    }
}

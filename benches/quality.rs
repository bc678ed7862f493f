//! How fast texts are checked, on one core: the language of a text, the whole verdict of an answer, the other checks of an answer, and
//! near-duplicates of prompts. `cargo bench --bench quality -- [FILE]`: a text, a line at a time (paragraphs of the fixtures, again and again).
//! A JSON line at the end. Knows the checks; knows no run.

use std::time::Instant;

use pairwright::quality::{check_language, default_profile, is_echo, is_repetitive, near_duplicates};

/// Megabytes of a round, and rounds; the median counts.
const TEXT_BYTES: usize = 2_000_000;
const NUM_ROUNDS: usize = 5;

fn lines() -> Vec<String> {
    let file = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let text = match file {
        Some(path) => std::fs::read_to_string(path).expect("a text"),
        None => ["nld", "swa", "rus", "hin", "tha"]
            .map(|code| std::fs::read_to_string(format!("tests/fixtures/udhr/{code}.txt")).expect("a fixture"))
            .concat(),
    };
    let mut size = 0;
    let all = text.lines().cycle().take_while(|line| {
        size += line.len();
        size < TEXT_BYTES
    });
    all.map(str::to_owned).collect()
}

/// Median megabytes per second of a check over all lines.
fn rate(lines: &[String], mut check: impl FnMut(&str)) -> f64 {
    let size: usize = lines.iter().map(String::len).sum();
    let mut rates: Vec<f64> = (0..NUM_ROUNDS)
        .map(|_| {
            let started = Instant::now();
            lines.iter().for_each(|line| check(line));
            size as f64 / 1e6 / started.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[NUM_ROUNDS / 2]
}

fn main() {
    let lines = lines();
    let started = Instant::now();
    let profile = default_profile();
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let identify = rate(&lines, |line| _ = std::hint::black_box(profile.identify(line)));
    let verdict = rate(&lines, |line| _ = std::hint::black_box(check_language(profile, line, &["nld"])));
    let loops = rate(&lines, |line| _ = std::hint::black_box(is_repetitive(line)));
    let echo = rate(&lines, |line| _ = std::hint::black_box(is_echo(&lines[0], line, None)));
    // Each prompt once, or the groups would be all there is to do; Rayon's threads share it.
    let distinct: std::collections::BTreeSet<&str> = lines.iter().map(String::as_str).collect();
    let prompts: Vec<String> = (0..20_000 / distinct.len().max(1))
        .flat_map(|round| distinct.iter().map(move |line| format!("{round} {line} {round}")))
        .collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let started = Instant::now();
    let groups = near_duplicates(&prompts).into_iter().flatten().count();
    let per_second = prompts.len() as f64 / started.elapsed().as_secs_f64();
    println!(
        "profile read in {load_ms:.1} ms; identify {identify:.2} MB/s, verdict {verdict:.2} MB/s, loops {loops:.2} MB/s, echo {echo:.2} MB/s"
    );
    println!("near-duplicates: {} prompts, {per_second:.0} a second, {groups} in groups", prompts.len());
    println!(
        "{}",
        serde_json::json!({"bench": "quality", "load_ms": load_ms, "identify_mb_s": identify, "verdict_mb_s": verdict, "loops_mb_s": loops,
            "echo_mb_s": echo, "near_duplicates_per_s": per_second})
    );
}

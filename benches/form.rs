//! What it costs to hold answers to a form: the form itself, an answer's beginning, and per token the mask and the step of the parser.
//! Knows the form of rationales over a vocabulary of made-up words; no model, no engine, one thread.

use std::time::Instant;

use pairwright::engine::{AnswerForm, Standing, TokenSet};
use pairwright::judge::rationale_form;
use pairwright::prompt::Vocabulary;
use serde_json::json;

/// Tokens of the vocabulary, answers, tokens and characters of each.
const VOCABULARIES: [usize; 2] = [32_000, 151_936];
const NUM_ANSWERS: u64 = 100;
const MAX_TOKENS: usize = 256;
const MAX_CHARS: usize = 1200;

fn random(state: &mut u64) -> u64 {
    *state = xxhash_rust::xxh3::xxh3_64(&state.to_le_bytes());
    *state
}

/// All bytes, then words of 2 to 9 letters of three scripts, every other one behind a space, some with a quotation mark or a comma.
fn vocabulary(size: usize) -> Vocabulary {
    const LETTERS: [&str; 3] = ["etaoinshrdlucmfwyp", "оеаинтсрвлкмдпу", "的一是不了在人有我他这中大来上"];
    let (mut words, mut state): (Vec<Vec<u8>>, u64) = ((0..=255).map(|byte| vec![byte]).collect(), 7);
    while words.len() < size {
        let letters: Vec<char> = LETTERS[random(&mut state) as usize % 3].chars().collect();
        let mut word = if random(&mut state).is_multiple_of(2) { " ".to_owned() } else { String::new() };
        let len = 2 + random(&mut state) as usize % 8;
        word.extend((0..len).map(|_| letters[random(&mut state) as usize % letters.len()]));
        match random(&mut state) % 40 {
            0 => word.push('"'),
            1 => word.push(','),
            2 => word.insert(0, '"'),
            _ => {}
        }
        words.push(word.into_bytes());
    }
    Vocabulary::of(words)
}

fn main() {
    for size in VOCABULARIES {
        let vocabulary = vocabulary(size);
        let started = Instant::now();
        let form = rationale_form(&vocabulary, MAX_CHARS).expect("a form");
        let form_s = started.elapsed().as_secs_f64();
        let (mut starts_us, mut masks_us, mut takes_us) = (Vec::new(), Vec::new(), Vec::new());
        let since = |started: Instant| started.elapsed().as_secs_f64() * 1e6;
        for answer in 0..NUM_ANSWERS {
            let (mut allowed, mut state) = (TokenSet::empty(size), answer);
            let started = Instant::now();
            let mut place = form.start().expect("a beginning");
            starts_us.push(since(started));
            for room in (1..=MAX_TOKENS).rev() {
                let started = Instant::now();
                allowed.clear(size);
                place.allow(room, &mut allowed).expect("tokens");
                masks_us.push(since(started));
                // Any allowed token, the first one from a random place on.
                let first = random(&mut state) as u32 % size as u32;
                let token =
                    (first..size as u32).chain(0..first).find(|&token| allowed.contains(token)).expect("a token");
                let started = Instant::now();
                let standing = place.take(token).expect("a step");
                takes_us.push(since(started));
                if standing == Standing::Closed {
                    break;
                }
            }
        }
        let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
        let rounded = |us: f64| (us * 10.0).round() / 10.0;
        let mut sorted = masks_us.clone();
        sorted.sort_by(f64::total_cmp);
        let share = |share: f64| rounded(sorted[((sorted.len() - 1) as f64 * share) as usize]);
        let line = json!({
            "bench": "form", "vocab_size": size, "num_answers": NUM_ANSWERS, "num_tokens": masks_us.len(), "form_s": form_s,
            "start_us": rounded(mean(&starts_us)), "mask_us": rounded(mean(&masks_us)), "mask_median_us": share(0.5),
            "mask_p99_us": share(0.99), "mask_max_us": share(1.0), "take_us": rounded(mean(&takes_us)),
        });
        println!("{line}");
    }
}

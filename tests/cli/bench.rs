//! `bench`: what its JSON line says of a small model, in counts; and the rule of ragged lengths. No time is asserted.

use serde_json::Value;

use pairwright::bench::lengths;

use super::program::{fixture_model, run, text};

/// The last line on stdout, and that a table stands on stderr.
fn report(arguments: &[&str]) -> Value {
    let model = fixture_model("llama");
    let outcome = run(&[&["bench", arguments[0], "--model", text(&model)], &arguments[1..]].concat());
    assert_eq!(outcome.code, Some(0), "{arguments:?}\n{}", outcome.stderr);
    assert!(outcome.stderr.lines().count() > 4, "a table: {}", outcome.stderr);
    assert_eq!(outcome.stdout.lines().count(), 1, "one line: {}", outcome.stdout);
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

#[test]
fn engine_reports_counts_rates_and_times() {
    let shape = ["--sequences", "12", "--max-batch", "4", "--prompt-len", "8", "--output-len", "16", "--runs", "1"];
    let report = report(&[&["engine"], &shape[..], &["--ragged"]].concat());
    assert_eq!(report["bench"], "engine");
    for figures in [&report, &report["ragged"]] {
        assert_eq!(count(&figures["output_tokens"]), 12 * 16, "both jobs have the same total");
        assert_eq!(count(&figures["prefill_tokens"]), 12 * 8);
        assert_eq!((count(&figures["reused_tokens"]), count(&figures["preemptions"])), (0, 0));
        let most = figures["steps"].as_f64().unwrap() * 4.0;
        let filled = figures["mean_batch"].as_f64().unwrap() * figures["steps"].as_f64().unwrap();
        assert!((filled / most - figures["batch_occupancy"].as_f64().unwrap()).abs() < 1e-9);
        let rates = ["output_tokens_per_s", "prefill_tokens_per_s", "decode_tokens_per_s", "elapsed_s"];
        let shares = ["prefill_share_of_gemm", "decode_share_of_gemm", "decode_share_of_bandwidth", "prefill_gflop_s"];
        for field in rates.iter().chain(&shares) {
            assert!(figures[field].as_f64().unwrap() > 0.0, "{field}");
        }
        for part in ["scheduler", "sampler", "products", "attention", "other"] {
            assert!(figures["seconds"][part].is_f64() && figures["shares_of_time"][part].is_f64(), "{part}");
        }
    }
    // Four at a time, three times: one step for the prompts, fifteen for the other tokens.
    assert_eq!(count(&report["steps"]), 48);
    assert_eq!((count(&report["ragged"]["least_output_len"]), count(&report["ragged"]["most_output_len"])), (2, 56));
    for field in ["ragged_share_of_uniform", "peak_rss_mib"] {
        assert!(report[field].as_f64().unwrap_or(1.0) > 0.0, "{field}");
    }
    assert!(report["machine"]["gemm_gflop_s"].as_f64().unwrap() > 0.0);
    let until = ["load_s", "ready_s", "first_step_s"].map(|field| report[field].as_f64().unwrap());
    assert!(0.0 < until[0] && until.is_sorted(), "{until:?}");
}

#[test]
fn engine_times_prefill_alone_and_shared_beginnings() {
    let shape = ["--sequences", "5", "--max-batch", "4", "--prompt-len", "64", "--output-len", "1", "--runs", "2"];
    let alone = report(&[&["engine"], &shape[..]].concat());
    assert_eq!(count(&alone["prefill_tokens"]), 5 * 64);
    assert_eq!(alone["decode_tokens_per_s"], 0.0, "no step only decodes");
    assert!(alone["ragged"].is_null(), "not asked for");
    let shared = report(&[&["engine"], &shape[..], &["--shared-prefix", "40"]].concat());
    assert_eq!(count(&shared["reused_tokens"]), 4 * 32, "a block of 32 for each but the first");
    assert_eq!(count(&shared["prefill_tokens"]), 5 * 64 - 4 * 32);
}

#[test]
fn engine_feeds_a_steady_job() {
    let shape = ["--sequences", "12", "--max-batch", "4", "--prompt-len", "8", "--output-len", "16"];
    let report = report(&[&["engine"], &shape[..], &["--ragged", "--minutes", "0.002"]].concat());
    assert_eq!(report["bench"], "engine-steady");
    assert_eq!(report["tenths_tokens_per_s"].as_array().unwrap().len(), 10);
    assert!(count(&report["output_tokens"]) > 0 && report["last_share_of_first"].is_f64());
    assert!(report["minutes"].as_f64().unwrap() >= 0.0019);
}

#[test]
fn judge_reuses_everything_and_decodes_nothing() {
    let lengths = ["--rubric-len", "64", "--prompt-len", "32", "--answer-len", "32", "--question-len", "5"];
    let counts = ["--pairs", "3", "--aspects", "2", "--rating-tokens", "4", "--baseline-pairs", "2", "--runs", "1"];
    let report = report(&[&["judge"], &lengths[..], &counts[..]].concat());
    // Once the rubric, once each prompt and answer, and every question: all lengths but the last are whole blocks.
    assert_eq!(count(&report["ours"]["prefill_tokens"]), 64 + 3 * (32 + 2 * (32 + 2 * 5)));
    assert_eq!(count(&report["ours"]["decode_tokens"]), 0);
    assert_eq!(report["ours_decoded"], false);
    let asked = 2 * 2 * 2 * (64 + 32 + 32 + 5);
    for (way, decoded) in
        [("decoded_without_reuse", 2 * 2 * 2 * 3), ("one_token_without_reuse", 0), ("scores_without_reuse", 0)]
    {
        assert_eq!(count(&report[way]["prefill_tokens"]), asked, "{way}");
        assert_eq!(count(&report[way]["reused_tokens"]), 0, "{way}");
        assert_eq!(count(&report[way]["decode_tokens"]), decoded, "{way}");
        assert_eq!(count(&report[way]["pairs"]), 2, "{way}");
    }
    for ratio in ["ratio_to_decoded", "ratio_to_one_token", "ratio_to_scores"] {
        assert!(report[ratio].as_f64().unwrap() > 0.0, "{ratio}");
    }
}

#[test]
fn ragged_lengths_have_the_uniform_total_and_are_mostly_short() {
    for count in [2, 3, 7, 32, 100, 256, 1000] {
        for mean in [8, 16, 48, 128, 200] {
            let lengths = lengths::ragged(count, mean);
            assert_eq!((lengths.len(), lengths.iter().sum::<usize>()), (count, count * mean));
            let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
            assert!(*least >= mean / 8 && *most <= 4 * mean, "{least} … {most} around {mean}");
        }
    }
    let mut lengths = lengths::ragged(256, 128);
    assert_eq!(lengths, lengths::ragged(256, 128), "no chance in it");
    assert!(!lengths.is_sorted(), "long ones come anywhere");
    lengths.sort_unstable();
    assert_eq!(lengths[0], 16);
    assert!((500..=512).contains(&lengths[255]), "{}", lengths[255]);
    assert!((56..=68).contains(&lengths[128]), "half are shorter than half the mean: {}", lengths[128]);
    assert_eq!(lengths::ragged(3, 1), [1, 1, 1], "nothing is shorter than one token");
    assert!(lengths::ragged(0, 128).is_empty());
}

#[test]
fn several_devices_are_not_measured_together() {
    let model = fixture_model("llama");
    let outcome = run(&["bench", "engine", "--model", text(&model), "--device", "cpu,cpu"]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("one device") && outcome.stderr.contains("hint: "), "{}", outcome.stderr);
}

#[test]
fn a_model_whose_layers_share_a_cache_is_not_cut() {
    let model = fixture_model("gemma4_text");
    let outcome = run(&["bench", "engine", "--model", text(&model), "--device", "cpu+cpu"]);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cannot be cut over 2 devices\nhint: "), "{}", outcome.stderr);
}

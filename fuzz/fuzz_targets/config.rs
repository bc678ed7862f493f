//! config.json: whatever it says, a spec or an error that names the field, and arithmetic on the spec that does not overflow.
//! Knows the text alone; no file of weights stands beside it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pairwright::model::{HfConfig, arch};

fuzz_target!(|text: &str| {
    let Ok(config) = HfConfig::parse(text) else { return };
    let _ = config.eos_token_ids();
    if let Ok(spec) = arch::spec(&config) {
        assert!(spec.num_layers() > 0);
        assert!(spec.max_len(None) <= spec.max_len(Some(usize::MAX)));
        assert!(spec.num_product_parameters() > 0);
    }
});

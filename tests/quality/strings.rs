//! Any string is fine: no check panics, and none depends on how often it is asked. Knows that there is text; not which.

use pairwright::quality::{
    HeldOutTexts, Profile, are_near_identical, check_language, default_profile, has_leaked_markers, has_markdown,
    has_odd_length, has_preamble, is_echo, is_repetitive, near_duplicates, prose,
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_check_takes_every_string(a in "\\PC*", b in ".*", c in "[a-zñ日本語ไทยعربי`\"<>|\\-#. \n]{0,300}") {
        for (one, other) in [(&a, &b), (&b, &c), (&c, &a)] {
            let report = check_language(default_profile(), one, &["nld", "zho"]);
            prop_assert_eq!(&report, &check_language(default_profile(), one, &["nld", "zho"]));
            prop_assert!((0.0..=1.0).contains(&report.posterior));
            prop_assert!(prose(one).len() <= 2 * one.len() + 1);
            prop_assert_eq!(are_near_identical(one, other), are_near_identical(other, one));
            let _ = (is_repetitive(one), is_echo(one, other, Some(&c)), has_leaked_markers(one));
            let _ = (has_markdown(one, Some(other)), has_odd_length(one, other), has_preamble(one, other));
            let _ = HeldOutTexts::new([one.as_str()].into_iter()).overlaps(other);
        }
        prop_assert!(near_duplicates(&[&a, &b, &c]).len() == 3);
    }

    #[test]
    fn no_bytes_make_a_profile_panic(rest in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = b"PWLID02\n".to_vec();
        bytes.extend(rest);
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes);
        bytes.extend(sum.to_le_bytes());
        prop_assert!(Profile::decode(&bytes, "bytes").is_err());
    }
}

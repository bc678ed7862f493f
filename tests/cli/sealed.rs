//! A build without the feature `hub`: its commands stand in the help and say which build has them.
#![cfg(not(feature = "hub"))]

use super::program::{done, run, text, tree};

#[test]
fn a_build_without_the_feature_says_which_build_has_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    let run_folder = dir.path().join("run");
    let made = run(&["make", "--demo", "--out", text(&run_folder), "-q"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let before = tree(dir.path());
    let publish = ["publish", text(&run_folder), "--repo", "a/b", "--yes"];
    let push = ["push-argilla", text(&run_folder), "--url", "http://127.0.0.1:1", "--dataset", "a"];
    for arguments in [&["pull", "a/b", "--accept-licence"][..], &["pull", "aya", "--dataset"], &publish, &push] {
        let outcome = run(arguments);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("cannot open a connection") && outcome.stderr.contains("\nhint: "));
        assert!(outcome.stderr.contains("--features hub"), "{}", outcome.stderr);
    }
    assert_eq!(tree(dir.path()).len(), before.len());
    let help = done(&["--help"]);
    for command in ["pull", "publish", "push-argilla"] {
        let is_own = |line: &&str| line.split_whitespace().next() == Some(command);
        let line = help.split("\n  ").find(is_own).expect("the command stands in --help");
        assert!(line.contains("needs a build with the feature"), "{line}");
    }
}

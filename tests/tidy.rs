//! The rules of the house as tests: what the source tree may not say, each with a message that tells how to mend it.
//! Knows the text of the sources alone; behaviour is tested elsewhere, and nothing here needs network, GPU or weights.
//!
//! Numbers are those of the invariants in ARCHITECTURE.md. Each rule lives in a module under `tests/tidy/`, beside tests
//! that show it finds a breach; here it is held against the tree.

#[path = "tidy/homes.rs"]
mod homes;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/scan.rs"]
mod scan;
#[path = "tidy/sealed.rs"]
mod sealed;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/words.rs"]
mod words;

use tree::{Tree, hold};

#[test]
fn invariant_1_engine_model_and_ops_see_no_text() {
    hold(layers::engine_side_sees_no_text(&Tree::read()));
}

#[test]
fn invariant_1_engine_model_and_ops_have_no_hidden_state() {
    hold(layers::engine_side_has_no_hidden_state(&Tree::read()));
}

#[test]
fn invariant_2_scheduler_and_block_manager_are_integers() {
    hold(layers::scheduling_is_integers(&Tree::read()));
}

#[test]
fn left_never_imports_right() {
    hold(layers::imports_point_left(&Tree::read()));
}

#[test]
fn invariant_6_features_are_switched_in_two_places() {
    hold(homes::features_have_two_switches(&Tree::read()));
}

#[test]
fn invariant_7_one_operation_one_name_four_places() {
    hold(homes::operations_have_their_places(&Tree::read()));
}

#[test]
fn invariant_8_files_fit() {
    hold(shape::files_fit(&Tree::read()));
}

#[test]
fn invariant_8_functions_fit() {
    hold(shape::functions_fit(&Tree::read()));
}

#[test]
fn invariant_8_files_open_with_their_reason() {
    hold(shape::files_open_with_their_reason(&Tree::read()));
}

#[test]
fn invariant_9_the_newcomers_path_is_short() {
    hold(shape::newcomers_path_is_short(&Tree::read()));
}

#[test]
fn invariant_11_no_http_client_in_the_default_build() {
    hold(sealed::default_build_has_no_http_client(include_str!("../Cargo.toml"), &Tree::read().lock));
}

#[test]
fn invariant_12_clap_sockets_and_anyhow_stay_at_home() {
    hold(homes::names_stay_at_home(&Tree::read()));
}

#[test]
fn invariant_12_environment_is_read_in_config() {
    hold(homes::environment_is_read_once(&Tree::read()));
}

#[test]
fn invariant_12_columns_are_spelt_once() {
    hold(homes::columns_are_spelt_once(&Tree::read()));
}

#[test]
fn only_the_command_line_prints() {
    hold(homes::only_the_command_line_prints(&Tree::read()));
}

#[test]
fn nothing_is_left_undone() {
    hold(words::nothing_is_left_undone(&Tree::read()));
}

#[test]
fn no_test_is_skipped() {
    hold(words::no_test_is_skipped(&Tree::read()));
}

#[test]
fn panics_have_a_reason() {
    hold(words::panics_have_a_reason(&Tree::read()));
}

#[test]
fn unsafe_says_why() {
    hold(words::unsafe_says_why(&Tree::read()));
}

#[test]
fn no_lint_is_silenced() {
    hold(words::no_lint_is_silenced(&Tree::read()));
}

#[test]
fn names_say_something() {
    hold(words::names_say_something(&Tree::read()));
}

//! `pull`, `publish` and `push-argilla` as the real binary does them, against a small Hub and Argilla on 127.0.0.1. No test opens a connection to another
//! machine. What a build without the feature `hub` says in their place is in `cli/sealed.rs`.
#![cfg(feature = "hub")]

#[path = "hub/argilla.rs"]
mod argilla;
#[path = "hub/faults.rs"]
mod faults;
#[path = "hub/home.rs"]
mod home;
#[path = "hub/interface.rs"]
mod interface;
#[path = "support/program.rs"]
mod program;
#[path = "hub/publish.rs"]
mod publish;
#[path = "hub/pull.rs"]
mod pull;
#[path = "hub/push.rs"]
mod push;
#[path = "hub/refusals.rs"]
mod refusals;
#[path = "hub/server.rs"]
mod server;

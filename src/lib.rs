//! Pairwright: prompts with human answers in, a preference dataset out, everything on local hardware.
//!
//! The modules follow the data: [`data`] and [`prompt`] read and encode, [`ops`], [`model`] and [`engine`] compute on token
//! ids alone, [`generate`] and [`judge`] bring the two together, [`dataset`] writes what comes out, [`report`] shows it, [`annotate`] asks people,
//! [`registry`] lists models
//! that one may get, [`hub`] gets them and publishes datasets, [`cli`] is the only place that knows the command line. ARCHITECTURE.md says who may import whom;
//! `tests/tidy.rs` checks it.

pub mod annotate;
pub mod bench;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod coverage;
pub mod data;
pub mod dataset;
pub mod demo;
pub mod doctor;
pub mod engine;
pub mod generate;
pub mod gguf;
pub mod hub;
pub mod journal;
pub mod judge;
pub mod model;
pub mod ops;
pub mod plan;
pub mod prompt;
pub mod provenance;
pub mod quality;
pub mod registry;
pub mod report;
pub mod run;
pub mod shard;

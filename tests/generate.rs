//! `generate` alone, by the real binary and by the library: every form of prompt, what a line holds, where an answer stops,
//! how an output is continued. Batch independence of whole jobs is in `pipeline.rs`.

#[path = "generate/lines.rs"]
mod lines;
#[path = "support/loaded.rs"]
mod loaded;
#[path = "support/program.rs"]
mod program;
#[path = "generate/rows.rs"]
mod rows;
#[path = "generate/thinking.rs"]
mod thinking;
#[path = "support/workshop.rs"]
mod workshop;

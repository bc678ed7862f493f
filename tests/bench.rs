//! Models in languages: metrics against the programs that define them, whole benches by the real binary, kills, and the page.
//! The engine's and judging's benches are in `cli.rs`; no time is asserted anywhere.

#[path = "report/html.rs"]
mod html;
#[path = "bench/metrics.rs"]
mod metrics;
#[path = "bench/page.rs"]
mod page;
#[path = "support/program.rs"]
mod program;
#[path = "bench/whole.rs"]
mod whole;
#[path = "support/workshop.rs"]
mod workshop;

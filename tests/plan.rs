//! What a plan says before a run: the engine's own counts, the arithmetic of cards, what is suggested for a language, and the overview of
//! languages. Seconds are never asserted.

#[path = "plan/cli.rs"]
mod cli;
#[path = "plan/coverage.rs"]
mod coverage;
#[path = "report/html.rs"]
mod html;
#[path = "support/program.rs"]
mod program;
#[path = "plan/room.rs"]
mod room;
#[path = "plan/suggest.rs"]
mod suggest;
#[path = "plan/written.rs"]
mod written;

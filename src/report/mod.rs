//! The report of a run for a browser: one HTML file that needs nothing else, and the same numbers as JSON.
//! Knows judged prompts and the lock; writes no file, and knows nothing of folders, clocks or the machine.
//!
//! [`ReportData::of`] counts, [`ReportData::findings`] says what follows from the numbers, [`ReportData::to_html`] shows both.
//! What another part of the program finds out later goes into one of the `Option`s of [`ReportData`]; the page has a place for each
//! and shows nothing where there is none. The same run gives the same bytes.

pub(crate) mod chart;
mod count;
mod data;
mod examples;
mod figures;
mod findings;
mod page;
mod predicted;
pub(crate) mod words;

pub use data::{
    AspectRow, Couples, DropRow, Funnel, JudgeAgreement, Judges, KnownAnswer, KnownTotal, LanguageCheck, LanguageRow,
    Lengths, Made, MadeModel, MarginBin, Margins, OrderConsistency, RatingBins, ReportData, Unfinished,
};
pub use examples::{Example, ExampleAnswer, ExampleGroup, Excerpt};
pub use findings::{Finding, Weight};
pub use page::ReportError;
pub use predicted::{Predicted, predicted};
pub use words::{number, visible_name};

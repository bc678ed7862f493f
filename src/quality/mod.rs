//! Checks of answers and prompts that flag and never delete: language, repetition, refusals, copies and the like.
//! Works from texts alone; deliberately knows no model, no file of a run and not what is dropped for a flag.
//!
//! [`assess`] runs all of them over a run; [`Flag`] lists what may be found, and each check's file says how and from when on.

mod answer;
mod assess;
mod chrf;
mod confusion;
mod duplicates;
mod identify;
mod language;
mod openings;
mod text;

pub use self::answer::{
    are_near_identical, has_leaked_markers, has_markdown, has_odd_length, has_preamble, is_echo, is_repetitive,
    repeated_share,
};
pub use self::assess::{
    AnswerQuality, Flag, QualitySummary, Requirements, Row, RowQuality, UnknownRequirement, assess,
};
pub use self::chrf::ChrfCounts;
pub use self::confusion::{EnglishWords, LineCheck, check_lines, has_foreign_script};
pub use self::duplicates::{HeldOutTexts, near_duplicates};
pub use self::identify::{
    Identification, Labelled, Measured, MeasuredLanguage, Profile, ProfileError, ProfileHeader, ProfileLanguage,
    ProfileScript, cross_validate, default_profile, hold_out, measure, train,
};
pub use self::language::{LanguageReport, LanguageVerdict, MIN_LETTERS, check_language, prose, verdict_of};
pub use self::openings::{CommonOpening, Opening, mine};

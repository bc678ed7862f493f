//! Checks of answers and prompts that flag and never delete: language, repetition, refusals, copies and the like.
//! Works from texts alone; deliberately knows no model, no file of a run and not what is dropped for a flag.

mod identify;
mod language;

pub use self::identify::{
    Identification, Labelled, Measured, MeasuredLanguage, Profile, ProfileError, ProfileHeader, ProfileLanguage,
    cross_validate, default_profile, hold_out, measure, train,
};
pub use self::language::{LanguageReport, LanguageVerdict, MIN_LETTERS, check_language, prose, verdict_of};

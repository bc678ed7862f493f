//! The environment, read in this one place. Every variable that changes what Pairwright does is documented here and in
//! README.md; the command line wins over the environment. Knows no command.

/// `NO_COLOR` (<https://no-color.org>): progress is drawn without colour.
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// `PAIRWRIGHT_DATE`, a date such as `2026-11-22`: what a new run pins as its date, in place of today's (UTC). Templates that
/// print a date use it, so pinning it makes two runs on two days equal.
pub fn pinned_date() -> Option<String> {
    std::env::var("PAIRWRIGHT_DATE").ok().filter(|value| !value.is_empty())
}

/// `SLURM_JOB_END_TIME`, set by Slurm in a job: when the job is ended, in seconds since 1970.
pub fn slurm_end_time() -> Option<i64> {
    std::env::var("SLURM_JOB_END_TIME").ok()?.parse().ok()
}

/// `PATH`: where NVIDIA's libraries of pip lie, beside a `python3`.
pub fn search_path() -> impl Iterator<Item = std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

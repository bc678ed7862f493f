//! The environment, read in this one place. Every variable that changes what Pairwright does is documented here and in
//! README.md; the command line wins over the environment. Knows no command. (The HTTP client of a build with `hub` looks up
//! `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` by itself.)

use std::path::PathBuf;

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
pub fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// `HF_ENDPOINT`: the Hub's address in place of `https://huggingface.co`, for a mirror or an own server.
pub fn hub_endpoint() -> String {
    text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned())
}

/// `HF_TOKEN`: the token for gated and private repositories and for publishing; without it the first line of the file
/// `HF_TOKEN_PATH`, or of `token` in `HF_HOME`, where `hf auth login` leaves it.
pub fn hub_token() -> Option<String> {
    let kept = || {
        let path = text("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(hub_home()?.join("token")))?;
        std::fs::read_to_string(path).ok()
    };
    let token = text("HF_TOKEN").or_else(kept)?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// `HF_HUB_CACHE`: the folder of fetched models and datasets, in place of `hub` in `HF_HOME`. `None` where there is no home.
pub fn hub_cache() -> Option<PathBuf> {
    text("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(hub_home()?.join("hub")))
}

/// `HF_HUB_OFFLINE`: `1`, `true`, `yes` or `on` forbid `pull` and `publish` to open a connection.
pub fn hub_is_offline() -> bool {
    text("HF_HUB_OFFLINE").is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()))
}

/// `HF_HUB_DOWNLOAD_TIMEOUT`: seconds without an answer, or a further byte of one, after which a connection counts as broken.
pub fn hub_silence_s() -> u64 {
    text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|value| value.trim().parse().ok()).filter(|&s| s > 0).unwrap_or(60)
}

/// `HF_HOME`, in place of `huggingface` in `XDG_CACHE_HOME` or in `.cache` of the home: as Python's huggingface_hub has it.
fn hub_home() -> Option<PathBuf> {
    let cache = || text("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cache")));
    text("HF_HOME").map(PathBuf::from).or_else(|| Some(cache()?.join("huggingface")))
}

/// `LC_ALL`, `LC_CTYPE`, `LANG`: whether the first that is set says that texts are UTF-8.
pub fn speaks_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(text).unwrap_or_default().to_lowercase();
    cfg!(windows) || locale.contains("utf-8") || locale.contains("utf8")
}

/// A variable that is set to something.
fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

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

/// `ARGILLA_API_KEY`: who pushes to an Argilla server, as Argilla's own package has it. Sent to that server alone.
pub fn argilla_api_key() -> Option<String> {
    text("ARGILLA_API_KEY").map(|key| key.trim().to_owned())
}

/// `HF_HUB_OFFLINE`: `1`, `true`, `yes` or `on` forbid `pull`, `publish` and `push-argilla` to open a connection.
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

/// Where this process stands among those that share a job, `(index, count)` with an index from 0; `None` if nobody says. A launcher of
/// single processes inside a job multiplies the job's own places: task 2 of 4 with ranks 0 and 1 has places 4 and 5 of 8.
///
/// Jobs: Slurm's array (`SLURM_ARRAY_TASK_ID`, `_MIN`, `_MAX`, `_STEP`, `_COUNT`), else an Indexed Job of Kubernetes
/// (`JOB_COMPLETION_INDEX`; `JOB_COMPLETIONS`, which its manifest must set, since Kubernetes does not). Launchers: Open MPI
/// (`OMPI_COMM_WORLD_RANK`, `_SIZE`), else Slurm's `srun` (`SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`; not `SLURM_NTASKS`, which a job's own
/// shell has too, where one process stands for all).
///
/// # Errors
/// A sentence on what does not fit, with a hint.
pub fn place_in_job() -> Result<Option<(u64, u64)>, String> {
    place(&text)
}

fn place(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<(u64, u64)>, String> {
    let number = |name: &str| match variable(name) {
        None => Ok(None),
        Some(text) => {
            text.parse::<u32>().map(|n| Some(u64::from(n))).map_err(|_| format!("{name} is {text}, want a number"))
        }
    };
    let pair = |index: &str, count: &str| -> Result<Option<(u64, u64)>, String> {
        match (number(index)?, number(count)?) {
            (None, _) => Ok(None),
            (Some(_), None) => Err(format!("{index} is there, and {count} is not\nhint: set it, or give --shard I/N")),
            (Some(at), Some(of)) if at < of => Ok(Some((at, of))),
            (Some(at), Some(of)) => Err(format!("{index} is {at} and {count} is {of}\nhint: give --shard I/N")),
        }
    };
    let array = || -> Result<Option<(u64, u64)>, String> {
        let [id, min, max, step, count] =
            ["ID", "MIN", "MAX", "STEP", "COUNT"].map(|part| number(&format!("SLURM_ARRAY_TASK_{part}")));
        let (Some(id), Some(count)) = (id?, count?) else { return Ok(None) };
        let (min, max, step) = (min?.unwrap_or(0), max?.unwrap_or(id), step?.unwrap_or(1).max(1));
        // Of `--array=3` or `1,4,5`, which send some tasks of a larger array again, nobody could tell how many shards there are.
        let is_whole = min <= 1 && id >= min && max >= id && (max - min) / step + 1 == count && (id - min) % step == 0;
        match is_whole {
            true => Ok(Some(((id - min) / step, count))),
            false => Err(format!(
                "the job array has {count} tasks, from {min} to {max}, which is no whole one\n\
                 hint: give --shard I/N with the N that the other shards have"
            )),
        }
    };
    let job = match array()? {
        None => pair("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS")?,
        found => found,
    };
    let rank = match pair("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")? {
        // A batch script has a rank too, but is no step of several.
        None if variable("SLURM_STEP_NUM_TASKS").is_some() => pair("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")?,
        found => found,
    };
    Ok(match (job, rank) {
        (Some((outer, jobs)), Some((inner, ranks))) => Some((outer * ranks + inner, jobs * ranks)),
        (job, rank) => job.or(rank),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<(u64, u64)>, String> {
        place(&|name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned()))
    }

    fn array<'v>(
        id: &'v str,
        min: &'v str,
        max: &'v str,
        step: &'v str,
        count: &'v str,
    ) -> [(&'static str, &'v str); 5] {
        [
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_MIN", min),
            ("SLURM_ARRAY_TASK_MAX", max),
            ("SLURM_ARRAY_TASK_STEP", step),
            ("SLURM_ARRAY_TASK_COUNT", count),
        ]
    }

    #[test]
    fn launchers_say_where_a_process_stands() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&array("3", "0", "15", "1", "16")), Ok(Some((3, 16))));
        assert_eq!(of(&array("16", "1", "16", "1", "16")), Ok(Some((15, 16))));
        assert_eq!(of(&array("8", "0", "12", "4", "4")), Ok(Some((2, 4))));
        assert_eq!(
            of(&[("SLURM_PROCID", "2"), ("SLURM_STEP_NUM_TASKS", "3"), ("SLURM_NTASKS", "3")]),
            Ok(Some((2, 3)))
        );
        assert_eq!(of(&[("JOB_COMPLETION_INDEX", "0"), ("JOB_COMPLETIONS", "5")]), Ok(Some((0, 5))));
        assert_eq!(of(&[("OMPI_COMM_WORLD_RANK", "7"), ("OMPI_COMM_WORLD_SIZE", "8")]), Ok(Some((7, 8))));
        let both =
            [&array("2", "0", "3", "1", "4")[..], &[("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")]].concat();
        assert_eq!(of(&both), Ok(Some((5, 8))));
    }

    #[test]
    fn a_jobs_own_shell_is_no_place() {
        // sbatch --ntasks=4, or salloc: one shell, which nobody counted.
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "9")]), Ok(None));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for part in [array("3", "3", "3", "1", "1"), array("4", "1", "5", "1", "3"), array("2", "2", "5", "1", "4")] {
            assert!(of(&part).unwrap_err().contains("--shard"), "{part:?}");
        }
        assert!(of(&[("JOB_COMPLETION_INDEX", "0")]).unwrap_err().contains("JOB_COMPLETIONS"));
        assert!(of(&[("OMPI_COMM_WORLD_RANK", "8"), ("OMPI_COMM_WORLD_SIZE", "8")]).is_err());
        assert!(of(&[("SLURM_ARRAY_TASK_ID", "x"), ("SLURM_ARRAY_TASK_COUNT", "4")]).is_err());
    }
}

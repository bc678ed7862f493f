//! Which paths a bundle may hold: plain relative ones that mean the same file on every system.
//! Knows spellings; never touches a disk.

use std::collections::HashMap;

/// Bytes of the longest path: what a tar header of 1988 holds, its two fields taken together.
pub const MAX_PATH_BYTES: usize = 240;

/// What is wrong with `path`; `None` for one such as `models/a/config.json`.
pub fn fault(path: &str) -> Option<String> {
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return Some(format!("a path of {} bytes, want 1 to {MAX_PATH_BYTES}", path.len()));
    }
    if path.starts_with('/') {
        return Some(format!("the absolute path {path:?}"));
    }
    if let Some(c) = path.chars().find(|c| c.is_control() || r#"\:*?"<>|"#.contains(*c)) {
        return Some(format!("the path {path:?} with the character {c:?}"));
    }
    for part in path.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return Some(format!("the path {path:?}, which leads elsewhere"));
        }
        if part.ends_with(['.', ' ']) || is_device(part) {
            return Some(format!("the path {path:?}, which other systems read as another one"));
        }
    }
    None
}

/// Names that are devices on Windows, with any extension.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).to_ascii_lowercase();
    let numbered = |name: &str| {
        let digit = stem.strip_prefix(name).filter(|rest| rest.len() == 1);
        digit.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    ["con", "prn", "aux", "nul"].contains(&stem.as_str()) || numbered("com") || numbered("lpt")
}

/// Finds names that are one and the same where case does not count, and files that would have to be folders.
#[derive(Debug, Default)]
pub struct Names {
    /// Folded path of each file and folder, with its spelling and whether it is a file.
    seen: HashMap<String, (String, bool)>,
}

impl Names {
    /// Takes the next file's path; says what it collides with.
    pub fn add(&mut self, path: &str) -> Option<String> {
        let ends = path.match_indices('/').map(|(at, _)| (at, false)).chain([(path.len(), true)]);
        for (end, is_file) in ends {
            let prefix = path.get(..end).unwrap_or(path);
            let here = (prefix.to_owned(), is_file);
            match self.seen.get(&prefix.to_lowercase()) {
                Some((other, was_file)) if is_file || *was_file || other != prefix => {
                    return Some(format!("{path:?} and {other:?}, which are one name on some systems"));
                }
                Some(_) => {}
                None => {
                    self.seen.insert(prefix.to_lowercase(), here);
                }
            }
        }
        None
    }
}

/// Whether `id` is `OWNER/NAME` of the hub, safe as part of a folder's name.
pub fn is_repo(id: &str) -> bool {
    let is_half = |half: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !half.is_empty()
            && half.len() <= 96
            && !half.starts_with('.')
            && half.chars().all(plain)
            && !half.contains("--")
    };
    id.split_once('/').is_some_and(|(owner, name)| is_half(owner) && is_half(name))
}

/// Whether `text` has `count` lower-case hexadecimal digits and nothing else.
pub fn is_hex(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_pass() {
        for good in ["a", "models/o--n@0123456789ab/config.json", ".gitattributes", "a b/ü.txt", "comet/nullable.json"]
        {
            assert_eq!(fault(good), None, "{good}");
        }
        let long = "a/".repeat(200) + "b";
        let bad = [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            "C:/x",
            "a\\b",
            "a\nb",
            "a\0",
            "x.",
            "x ",
            "nul",
            "a/Aux.json",
            "com1",
            "lpt9.txt",
            &long,
        ];
        for bad in bad {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn twins_are_found() {
        let collision = |paths: &[&str]| {
            let mut names = Names::default();
            paths.iter().any(|path| names.add(path).is_some())
        };
        assert!(!collision(&["a/b", "a/c", "b/a", "c"]));
        for twins in
            [["a/b", "a/b"], ["a/b", "a/B"], ["a/b", "A/c"], ["a", "a/b"], ["a/b", "a"], ["ß", "ß"], ["É", "é"]]
        {
            assert!(collision(&twins), "{twins:?}");
        }
    }

    #[test]
    fn hub_ids_are_told_from_paths() {
        assert!(is_repo("org/name-1.5_x") && is_repo("o/n"));
        for bad in ["name", "a/b/c", "../b", "a/..", "a/", "/b", "a--b/c", "a/b c", "a/.b"] {
            assert!(!is_repo(bad), "{bad}");
        }
    }
}

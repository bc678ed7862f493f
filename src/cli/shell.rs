//! Words for a shell: quoted so that it reads back exactly what was meant, whatever they hold.
//! Knows POSIX quoting; nothing of commands.

use crate::shard::Shard;

/// A word as a POSIX shell reads it back.
pub(super) fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Words as one line.
pub(super) fn join<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The command line of this process, with the shard that it turned out to be at its end.
pub(super) fn own_command(shard: Shard) -> String {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut kept = vec!["pairwright".to_owned()];
    let mut rest = words.into_iter().skip(1);
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--shard" => _ = rest.next(),
            _ if word.starts_with("--shard=") => {}
            _ => kept.push(word),
        }
    }
    kept.extend(["--shard".to_owned(), shard.to_string()]);
    join(kept.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        assert_eq!(join(["make", "--out", "runs/nl"]), "make --out runs/nl");
        let hostile = [
            "",
            " ",
            "it's",
            "$HOME `id` $(id)",
            "a\nb\tc",
            "*?[x]",
            "\\",
            "\"",
            "~",
            "#",
            "!x",
            "日本",
            "''",
            "-n",
            "a;b&c|d>e",
        ];
        let line = format!("printf '%s\\0' {}", join(hostile));
        let shells = ["sh", "bash"];
        for shell in shells {
            let Ok(output) = std::process::Command::new(shell).args(["-c", &line]).output() else { continue };
            let read = String::from_utf8(output.stdout).unwrap();
            assert_eq!(read.split_terminator('\0').collect::<Vec<_>>(), hostile, "{shell}");
        }
    }
}

//! Which of a repository's files are fetched: what a run reads, its terms and its card, and never a file that can run code.
//! Knows names of files; deliberately does not look into any.

use super::listing::RemoteFile;
use super::{HubError, RepoId, RepoKind};

/// Formats that run code when they are loaded, or may.
const PICKLES: [&str; 9] = [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".py"];
/// Small files that belong to a model, at the head of its repository.
const COMPANIONS: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "tokenizer*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
    "*.jinja",
    "additional_chat_templates/*.jinja",
];
/// Card, terms, and what Git needs to know large files: small, and Python's huggingface_hub misses them where they are not there.
const PAPERS: [&str; 8] =
    [".gitattributes", "README*", "LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*", "*LICENSE.txt"];
/// Formats of rows that are read here.
const ROWS: [&str; 4] = ["*.parquet", "*.jsonl", "*.csv", "*.json"];
/// How many names an error lists.
const NUM_NAMED: usize = 6;

/// The files to fetch, in order of path. `patterns` replace what is usual of weights or rows; companions and papers come along.
///
/// # Errors
/// [`HubError::Unusable`] if nothing would be left to work with, with what there is instead.
pub(super) fn choose(repo: &RepoId, files: &[RemoteFile], patterns: &[String]) -> Result<Vec<RemoteFile>, HubError> {
    let at_head = |file: &RemoteFile| !file.path.contains('/');
    let is_code = |file: &RemoteFile| PICKLES.iter().any(|end| file.path.to_ascii_lowercase().ends_with(end));
    let usual = |file: &RemoteFile| match repo.kind {
        // Mistral publishes the same weights a second time under the name `consolidated`.
        RepoKind::Model => {
            let path = file.path.as_str();
            at_head(file) && path.ends_with(".safetensors") && !path.starts_with("consolidated")
        }
        RepoKind::Dataset => matches_any(&ROWS, file) && !file.path.starts_with('.'),
    };
    let named = |file: &RemoteFile| patterns.iter().any(|pattern| matches(pattern, &file.path));
    let is_substance =
        |file: &RemoteFile| !is_code(file) && if patterns.is_empty() { usual(file) } else { named(file) };
    let comes_along = |file: &RemoteFile| {
        let companion = repo.kind == RepoKind::Model
            && (matches_any(&COMPANIONS, file) || (at_head(file) && file.path.ends_with(".safetensors.index.json")));
        !is_code(file) && (companion || (at_head(file) && matches_any(&PAPERS, file)))
    };
    if !files.iter().any(is_substance) {
        return Err(nothing(repo, files, patterns, is_code));
    }
    Ok(files.iter().filter(|file| is_substance(file) || comes_along(file)).cloned().collect())
}

/// Why nothing is left, and what to ask for instead.
fn nothing(
    repo: &RepoId,
    files: &[RemoteFile],
    patterns: &[String],
    is_code: impl Fn(&RemoteFile) -> bool,
) -> HubError {
    let list = |wanted: &dyn Fn(&RemoteFile) -> bool| {
        let names: Vec<&str> = files.iter().filter(|file| wanted(file)).map(|file| file.path.as_str()).collect();
        let more = names.len().saturating_sub(NUM_NAMED);
        let named = names.iter().take(NUM_NAMED).copied().collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{named} and {more} more") } else { named }
    };
    let gguf = list(&|file| file.path.ends_with(".gguf"));
    let code = list(&|file| is_code(file));
    let (what, hint) = match repo.kind {
        _ if !patterns.is_empty() => {
            let found = list(&|_| true);
            let what = format!("no file that may be fetched matches {}", patterns.join(", "));
            (what, format!("it has {found}; files that run code when they are loaded are never fetched"))
        }
        RepoKind::Model if !gguf.is_empty() => (
            format!("no safetensors, but GGUF files: {gguf}"),
            "name one of them, for example --file '*Q4_K_M.gguf'".to_owned(),
        ),
        RepoKind::Model if !code.is_empty() => (
            format!("no safetensors, but files that run code when they are loaded: {code}"),
            "look for the same model in safetensors; `pairwright models list` names models that have them".to_owned(),
        ),
        RepoKind::Model => {
            ("no weights in safetensors".to_owned(), "a dataset wants --dataset; see the repository's page".to_owned())
        }
        RepoKind::Dataset => (
            "no Parquet, JSONL, JSON or CSV file".to_owned(),
            "see the repository's page; --file PATTERN names other files".to_owned(),
        ),
    };
    HubError::Unusable { repo: repo.id.clone(), what, hint }
}

fn matches_any(patterns: &[&str], file: &RemoteFile) -> bool {
    patterns.iter().any(|pattern| {
        // A pattern without a folder means files at the head, but rows lie in folders.
        let anywhere = ROWS.contains(pattern);
        let same_depth = pattern.matches('/').count() == file.path.matches('/').count();
        (anywhere || same_depth) && matches(pattern, &file.path)
    })
}

/// Does `path`, or its last part, fit `pattern`? `*` stands for any text, `?` for any character.
fn matches(pattern: &str, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let pattern: Vec<char> = pattern.chars().collect();
    [path, name].iter().any(|text| fits(&pattern, &text.chars().collect::<Vec<_>>()))
}

/// The usual matching with one point to come back to: the last star, and how much it has swallowed.
fn fits(pattern: &[char], text: &[char]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star = None;
    while read < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(given) if *given == '?' || *given == text[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((place, swallowed)) => {
                    star = Some((place, swallowed + 1));
                    at = place + 1;
                    read = swallowed + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|left| *left == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(kind: RepoKind) -> RepoId {
        RepoId { kind, id: "a/b".to_owned() }
    }

    fn files(names: &[&str]) -> Vec<RemoteFile> {
        let one = |name: &&str| RemoteFile {
            path: (*name).to_owned(),
            size_bytes: 1,
            blob_id: "0".repeat(40),
            sha256: None,
            xet_hash: None,
        };
        names.iter().map(one).collect()
    }

    fn chosen(kind: RepoKind, names: &[&str], patterns: &[&str]) -> Vec<String> {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let found = choose(&repo(kind), &files(names), &patterns).unwrap();
        found.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn a_model_comes_with_its_papers_and_without_what_runs_code() {
        let kept = [
            ".gitattributes",
            "LICENSE",
            "README.md",
            "USE_POLICY.md",
            "additional_chat_templates/tools.jinja",
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
        ];
        let left = [
            "consolidated.safetensors",
            "model.py",
            "onnx/model.onnx",
            "original/consolidated.00.pth",
            "original/README.md",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "flax_model.msgpack",
            "tf_model.h5",
            "sub/model.safetensors",
            "picture.png",
            "x.gguf",
        ];
        assert_eq!(chosen(RepoKind::Model, &[&kept[..], &left].concat(), &[]), kept);
        let gguf = ["README.md", "w-Q4_K_M.gguf", "w-Q8_0.gguf", "w.bin", "tokenizer.json"];
        assert_eq!(
            chosen(RepoKind::Model, &gguf, &["*q4*", "*Q4_K_M.gguf"]),
            ["README.md", "w-Q4_K_M.gguf", "tokenizer.json"]
        );
        let rows = ["README.md", "data/train-0.parquet", "data/load.py", "x.jsonl", ".argilla/settings.json", "a.pkl"];
        assert_eq!(chosen(RepoKind::Dataset, &rows, &[]), ["README.md", "data/train-0.parquet", "x.jsonl"]);
        assert_eq!(chosen(RepoKind::Dataset, &rows, &["data/*"]), ["README.md", "data/train-0.parquet"]);
    }

    #[test]
    fn what_lacks_usable_weights_says_what_it_has() {
        let said = |names: &[&str], patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            choose(&repo(RepoKind::Model), &files(names), &patterns).unwrap_err().to_string()
        };
        assert!(said(&["a.gguf", "config.json"], &[]).contains("GGUF files: a.gguf"));
        assert!(said(&["pytorch_model.bin"], &[]).contains("pytorch_model.bin"));
        assert!(said(&["README.md"], &[]).contains("no weights in safetensors"));
        // What is named is not fetched either if it runs code.
        assert!(said(&["pytorch_model.bin"], &["*.bin"]).contains("never fetched"));
    }

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, path) in
            [("*", "a/b"), ("a?c", "abc"), ("*Q4*.gguf", "x/y-Q4_K.gguf"), ("a*b*c", "aXbbXc"), ("", "")]
        {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [("a?c", "ac"), ("*.gguf", "a.ggu"), ("a", "b/ab"), ("a*b", "abc")] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
        // Many stars are no trap.
        assert!(!matches(&"*a".repeat(40), &"a".repeat(30)));
    }
}

//! Bundles that somebody made to do harm, or that a bad copy spoilt: each is refused, and nothing is left of it.

use std::path::Path;

use pairwright::bundle::Bundle;

use super::program::{text, tree};
use super::workshop::Workshop;
use super::{refused, replace, small_bundle};

/// Whether every byte of it is right.
fn is_whole(path: &Path) -> bool {
    Bundle::open(path).is_ok_and(|mut bundle| bundle.check(&mut |_| ()).is_ok())
}

#[test]
fn no_byte_of_a_tar_can_change_be_missing_or_be_added() {
    let workshop = Workshop::new();
    let good = std::fs::read(small_bundle(&workshop, "a.tar")).unwrap();
    let path = workshop.path("bad.tar");
    std::fs::write(&path, &good).unwrap();
    assert!(is_whole(&path));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        assert!(!is_whole(&path), "byte {at} of {} may change", good.len());
    }
    for length in (0..good.len()).step_by(7).chain([good.len() - 1, good.len() - 512, good.len() - 1024]) {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(!is_whole(&path), "it may be cut to {length}");
    }
    for more in [&b"\0"[..], &[0; 512], &[0; 10240], b"trailing garbage"] {
        std::fs::write(&path, [&good, more].concat()).unwrap();
        assert!(!is_whole(&path), "{} bytes may follow", more.len());
    }
}

/// A header of ustar with a right checksum.
fn header(name: &str, kind: u8, link: &str, size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
    put(0, name.as_bytes());
    put(100, b"0000644\x000000000\x000000000\0");
    put(124, format!("{size:011o}\x0000000000000\0        ").as_bytes());
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000000\x000000000\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn entries_that_lead_elsewhere_are_refused_by_name() {
    let workshop = Workshop::new();
    let good = std::fs::read(small_bundle(&workshop, "a.tar")).unwrap();
    // Where the third entry begins, behind the manifest and the sums.
    let third =
        good.windows(512).step_by(512).position(|block| block.starts_with(b"bundle/LICENCES.md")).unwrap() * 512;
    let evil: [(&str, u8, &str, &str); 7] = [
        ("bundle/../../escape", b'0', "", "the file \"bundle/../../escape\""),
        ("/etc/cron.d/x", b'0', "", "the file \"/etc/cron.d/x\""),
        ("bundle/LICENCES.md", b'2', "/etc/passwd", "a symbolic link"),
        ("bundle/LICENCES.md", b'1', "../x", "a hard link"),
        ("bundle/LICENCES.md", b'3', "", "a device"),
        ("bundle/LICENCES.md", b'6', "", "a pipe"),
        ("bundle/LICENCES.md", b'x', "", "an extension"),
    ];
    for (name, kind, link, said) in evil {
        let mut bad = good.clone();
        bad.splice(third..third, header(name, kind, link, 0));
        workshop.write("bad.tar", &bad);
        for command in [&["bundle", "verify", "bad.tar"][..], &["bundle", "install", "bad.tar", "--to", "t"]] {
            refused(&workshop, 3, command, &[said, "LICENCES.md"]);
        }
    }
    // A second file of a name that is there, behind the last one.
    let end = good.len() - 1024;
    let mut bad = good.clone();
    bad.splice(end..end, header("bundle/LICENCES.md", b'0', "", 0));
    workshop.write("bad.tar", &bad);
    refused(&workshop, 3, &["bundle", "install", "bad.tar", "--to", "t"], &["is refused"]);
    workshop.write("bad.tar", b"PK\x03\x04 something else that is long enough".repeat(30));
    refused(&workshop, 3, &["bundle", "verify", "bad.tar"], &["not a bundle", "no tar header"]);
    workshop.write("bad.tar", header("x", b'0', "", 0).repeat(2));
    refused(&workshop, 3, &["bundle", "verify", "bad.tar"], &["not a bundle", "the file \"x\""]);
    refused(&workshop, 3, &["bundle", "verify", "nowhere.tar"], &["no such file"]);
}

#[test]
fn manifests_with_paths_sizes_and_sums_that_are_none_are_refused() {
    let workshop = Workshop::new();
    let folder = small_bundle(&workshop, "b");
    let manifest = folder.join("BUNDLE.json");
    let good = std::fs::read_to_string(&manifest).unwrap();
    let path = "\"datasets/p/p.jsonl\"";
    let size = format!("\"size_bytes\": {}", std::fs::metadata(folder.join("datasets/p/p.jsonl")).unwrap().len());
    let edits: [(&str, &str, &str); 13] = [
        (path, "\"../p.jsonl\"", "leads elsewhere"),
        (path, "\"/p.jsonl\"", "absolute"),
        (path, "\"datasets/p/../p.jsonl\"", "leads elsewhere"),
        (path, "\"datasets\\\\p\\\\p.jsonl\"", "character"),
        (path, "\"C:p.jsonl\"", "character"),
        (path, "\"datasets/p/p.jsonl\\u0000x\"", "character"),
        (path, "\"run.MD\"", "one name"),
        (path, "\"RUN.md\"", "one name"),
        (path, "\"RUN.md/x\"", "one name"),
        (path, "\"bundle.json\"", "one name"),
        (&size, "\"size_bytes\": 18446744073709551615", "larger than any disk"),
        ("\"folder\": \"datasets/p\"", "\"folder\": \"../p\"", "leads elsewhere"),
        ("\"repo\": null", "\"repo\": \"../../x\"", "no OWNER/NAME"),
    ];
    for (from, to, said) in edits {
        replace(&manifest, from, to);
        for command in [&["bundle", "verify", "b"][..], &["bundle", "install", "b", "--to", "t"]] {
            refused(&workshop, 3, command, &[said]);
        }
        std::fs::write(&manifest, &good).unwrap();
    }
    replace(&manifest, "\"format_version\": 1", "\"format_version\": 2");
    refused(&workshop, 3, &["bundle", "verify", "b"], &["bundle format 2", "newer version"]);
    std::fs::write(&manifest, "{").unwrap();
    refused(&workshop, 3, &["bundle", "verify", "b"], &["BUNDLE.json cannot be read"]);
}

#[test]
fn folders_with_links_strays_losses_and_changes_are_refused() {
    let workshop = Workshop::new();
    let folder = small_bundle(&workshop, "b");
    let file = folder.join("datasets/p/p.jsonl");
    let good = std::fs::read(&file).unwrap();
    let refuse = |said: &[&str]| {
        refused(&workshop, 3, &["bundle", "verify", "b"], said);
        refused(&workshop, 3, &["bundle", "install", "b", "--to", "t"], said);
    };
    let mut changed = good.clone();
    changed[3] ^= 1;
    std::fs::write(&file, changed).unwrap();
    refuse(&["datasets/p/p.jsonl has the SHA-256"]);
    std::fs::write(&file, &good[1..]).unwrap();
    refuse(&["datasets/p/p.jsonl has", "bytes, want"]);
    let run = std::fs::read(folder.join("RUN.md")).unwrap();
    std::fs::write(&file, &good).unwrap();
    std::fs::write(folder.join("RUN.md"), vec![b'x'; run.len()]).unwrap();
    refuse(&["RUN.md has the SHA-256"]);
    std::fs::write(folder.join("RUN.md"), run).unwrap();
    std::fs::remove_file(&file).unwrap();
    refuse(&["missing: datasets/p/p.jsonl"]);
    workshop.write("outside.jsonl", &good);
    std::os::unix::fs::symlink("../../../outside.jsonl", &file).unwrap();
    refuse(&["symbolic link"]);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &good).unwrap();
    workshop.write("b/datasets/p/tokenizer_config.json", "{}");
    refuse(&["does not name: datasets/p/tokenizer_config.json"]);
    std::fs::remove_file(folder.join("datasets/p/tokenizer_config.json")).unwrap();
    workshop.write("b/.DS_Store", "x");
    assert!(is_whole(&folder), "what file managers leave does not matter");
    replace(&folder.join("SHA256SUMS"), "RUN.md", "RAN.md");
    refuse(&["SHA256SUMS does not fit"]);
}

#[test]
fn parts_that_are_lost_cut_swapped_or_of_another_set_are_refused() {
    let workshop = Workshop::new();
    super::model(&workshop, "writer", "llama");
    let create = ["bundle", "create", "--models", "writer", "-o", "a.tar", "--split", "100KiB", "-q"];
    super::done(&workshop, &create);
    let part = |index: usize| workshop.path(&format!("a.tar.{index:03}"));
    let count = (0..).take_while(|index| part(*index).exists()).count();
    assert!(count >= 4);
    let refuse = |said: &[&str]| {
        refused(&workshop, 3, &["bundle", "verify", "a.tar.000"], said);
        refused(&workshop, 3, &["bundle", "install", text(&part(0)), "--to", "t"], said);
    };
    let swap = |a: usize, b: usize| {
        std::fs::rename(part(a), workshop.path("aside")).unwrap();
        std::fs::rename(part(b), part(a)).unwrap();
        std::fs::rename(workshop.path("aside"), part(b)).unwrap();
    };
    swap(1, 2);
    refuse(&["a.tar.001", "in their order?"]);
    swap(1, 2);
    swap(0, 1);
    refuse(&["not a bundle"]);
    swap(0, 1);
    std::fs::rename(part(count - 1), workshop.path("aside")).unwrap();
    refuse(&["cut short, or a part of it is missing"]);
    std::fs::rename(workshop.path("aside"), part(count - 1)).unwrap();
    let good = std::fs::read(part(1)).unwrap();
    std::fs::write(part(1), &good[1..]).unwrap();
    refuse(&["cut short"]);
    std::fs::write(part(1), &good).unwrap();
    std::fs::copy(part(0), part(count)).unwrap();
    refuse(&["bytes stand behind its end"]);
    std::fs::remove_file(part(count)).unwrap();
    assert!(is_whole(&part(0)));
    assert!(tree(&workshop.path(".")).keys().all(|path| !text(path).starts_with("t/")));
}

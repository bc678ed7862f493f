//! `bundle install --to`: whole or not at all, on from where it stopped, and a second time nothing.

use super::program::tree;
use super::workshop::{ROWS, Workshop};
use super::{done, model, refused, replace};

fn made(workshop: &Workshop) {
    model(workshop, "writer", "llama");
    workshop.prompts("p.jsonl", &ROWS);
    let create =
        ["bundle", "create", "--models", "writer", "--dataset", "p.jsonl", "--with-binary", "-o", "a.tar", "-q"];
    done(workshop, &create);
}

#[test]
fn what_is_installed_is_what_was_bundled_and_a_second_time_does_nothing() {
    let workshop = Workshop::new();
    made(&workshop);
    let said = done(&workshop, &["bundle", "install", "a.tar", "--to", "t"]);
    assert_eq!(said.matches("installed ").count(), 3, "{said}");
    let mut installed = tree(&workshop.path("t/models/writer"));
    assert!(installed.remove(std::path::Path::new("BUNDLE.json")).is_some());
    assert_eq!(installed, tree(&workshop.path("writer")));
    let before = tree(&workshop.path("t"));
    let said = done(&workshop, &["bundle", "install", "a.tar", "--to", "t"]);
    assert!(said.contains("nothing to do"), "{said}");
    assert_eq!(before, tree(&workshop.path("t")));
    let said = done(&workshop, &["models", "verify", "t/models/writer", "--deep", "-q"]);
    assert!(said.contains("as BUNDLE.json has them, 8 by their hash too"), "{said}");
    let own = std::process::Command::new(workshop.path("t/bin/pairwright")).arg("--version").output().unwrap();
    assert!(own.status.success());
    // Another program of the same name and length gives way, beside what else is there.
    let program = workshop.path("t/bin/pairwright");
    let length = std::fs::metadata(&program).unwrap().len();
    std::fs::remove_file(&program).unwrap();
    std::fs::File::create(&program).unwrap().set_len(length).unwrap();
    workshop.write("t/bin/mine", "stays");
    done(&workshop, &["bundle", "install", "a.tar", "--to", "t"]);
    std::fs::remove_file(workshop.path("t/bin/mine")).unwrap();
    assert!(before == tree(&workshop.path("t")));
    // A damaged file is mended by another install; what somebody else put there is not touched.
    std::fs::write(workshop.path("t/models/writer/config.json"), "{}").unwrap();
    done(&workshop, &["bundle", "install", "a.tar", "--to", "t"]);
    assert_eq!(before, tree(&workshop.path("t")));
    replace(&workshop.path("t/models/writer/BUNDLE.json"), "writer", "another");
    refused(
        &workshop,
        3,
        &["bundle", "install", "a.tar", "--to", "t"],
        &["models/writer exists and is something else"],
    );
}

#[test]
fn an_install_that_was_cut_off_goes_on_with_what_it_had() {
    let workshop = Workshop::new();
    made(&workshop);
    // A file where a folder must be: the copy is made, putting in place fails, and the disk is to blame.
    workshop.write("t/models", "in the way");
    let outcome = super::run(&workshop, &["bundle", "install", "a.tar", "--to", "t"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let waits = tree(&workshop.path("t")).into_keys().find(|path| path.ends_with("models/writer/model.safetensors"));
    let waits = workshop.path("t").join(waits.expect("the copied file waits"));
    // Marks the copy, of the same length, to see that it is not made again.
    let mut bytes = std::fs::read(&waits).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&waits, &bytes).unwrap();
    std::fs::remove_file(workshop.path("t/models")).unwrap();
    done(&workshop, &["bundle", "install", "a.tar", "--to", "t"]);
    assert!(bytes == std::fs::read(workshop.path("t/models/writer/model.safetensors")).unwrap());
    assert!(tree(&workshop.path("t")).keys().all(|path| !path.to_string_lossy().contains("partial")));
}

#[test]
fn of_a_bad_bundle_nothing_is_left_whichever_file_is_bad() {
    let workshop = Workshop::new();
    made(&workshop);
    let good = std::fs::read(workshop.path("a.tar")).unwrap();
    let safetensors = std::fs::read(workshop.path("writer/model.safetensors")).unwrap();
    let at = good.windows(64).position(|window| window == &safetensors[2000..2064]).unwrap();
    let mut bad = good;
    bad[at] ^= 1;
    workshop.write("bad.tar", bad);
    workshop.write("t/mine.txt", "stays");
    for target in [&["--to", "t"][..], &["--to", "new/place"], &["--hf-cache"]] {
        let command = [&["bundle", "install", "bad.tar"], target].concat();
        if target == ["--hf-cache"] {
            let said = done(&workshop, &command);
            assert!(said.contains("nothing to do") && said.contains("not, file by file, of the hub"), "{said}");
        } else {
            refused(&workshop, 3, &command, &["model.safetensors has the SHA-256"]);
        }
    }
}

//! The seal: the demo runs where there is no interface at all. Where the system makes no such place for a user, this says so and proves
//! nothing; `scripts/check_sealed.sh` also looks at every system call.

use std::process::Command;

use super::program::text;
use super::workshop::Workshop;

#[test]
fn the_demo_and_the_page_run_without_any_interface() {
    let is_possible =
        Command::new("unshare").args(["-rn", "true"]).output().is_ok_and(|output| output.status.success());
    if !is_possible {
        println!("skipped: this system lets nobody make a namespace without interfaces (unshare -rn)");
        return;
    }
    let workshop = Workshop::new();
    let sealed = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-rn", env!("CARGO_BIN_EXE_pairwright")]).args(arguments).current_dir(workshop.path("."));
        let output = command.env("HF_HUB_CACHE", workshop.path("hub")).output().expect("unshare starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    sealed(&["make", "--demo", "--out", text(&workshop.path("demo"))]);
    assert!(workshop.path("demo/dataset/README.md").exists());
    let page: serde_json::Value = serde_json::from_str(&sealed(&["doctor", "--json"])).unwrap();
    assert_eq!(page["machine"]["network"]["way"], "no_interface");
}

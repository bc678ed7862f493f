//! The default build cannot open a connection: what it is built from holds no HTTP client and no TLS.
//! Knows Cargo's two files; it deliberately asks no Cargo, so that it needs no network and no cache of packages.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::Breach;

/// The one feature that may bring a client.
const ONLINE: &str = "hub";
/// Packages that can ask for something by HTTP or TLS. `hyper` and `hyper-util` are libraries of a server too, and `annotate` is one: what
/// their clients, and nothing else of them, need is `want`, and a lock file lists what is switched on alone.
const CLIENTS: [&str; 23] = [
    "reqwest",
    "ureq",
    "ureq-proto",
    "want",
    "hyper-rustls",
    "isahc",
    "attohttpc",
    "minreq",
    "awc",
    "surf",
    "hf-hub",
    "hf-xet",
    "curl",
    "curl-sys",
    "rustls",
    "rustls-webpki",
    "tokio-rustls",
    "native-tls",
    "openssl",
    "openssl-sys",
    "h2",
    "h3",
    "tungstenite",
];

/// Everything that the lock file says of the package, its tests and its features but `hub`, whatever the platform: no client.
pub fn default_build_has_no_http_client(manifest: &str, lock: &str) -> Vec<Breach> {
    const MEND: &str = "find who brings it with `cargo tree -i NAME` and turn that off; what talks to other machines is an optional \
                        dependency of the feature `hub` alone";
    let breach = |line: usize, path: &str, what: String| Breach { path: path.to_owned(), line, what, mend: MEND };
    let manifest: toml::Table = manifest.parse().expect("Cargo.toml is TOML");
    let mut breaches = Vec::new();
    let features = manifest.get("features").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let list = |value: &toml::Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let others: Vec<String> =
        features.iter().filter(|(name, _)| *name != ONLINE).flat_map(|(_, switched)| list(switched)).collect();
    if others.iter().any(|switched| switched == ONLINE) {
        breaches.push(breach(1, "Cargo.toml", format!("another feature switches `{ONLINE}` on")));
    }
    let optional = optional_dependencies(&manifest);
    let online: BTreeSet<String> = features
        .get(ONLINE)
        .map(list)
        .unwrap_or_default()
        .iter()
        .filter_map(|switched| switched.strip_prefix("dep:").map(str::to_owned))
        .filter(|name| optional.contains(name))
        .filter(|name| !others.iter().any(|other| other.split(['/', '?']).next() == Some(&format!("dep:{name}"))))
        .filter(|name| !others.iter().any(|other| other.split(['/', '?']).next() == Some(name)))
        .collect();
    let packages = packages(lock);
    let own = manifest["package"]["name"].as_str().expect("the package has a name");
    let mut seen = BTreeSet::new();
    let name_of = |key: &str| key.split(' ').next().unwrap_or_default().to_owned();
    let mut open: Vec<&String> = packages.keys().filter(|key| name_of(key) == own).collect();
    assert!(!open.is_empty(), "Cargo.lock does not know {own}");
    while let Some(key) = open.pop() {
        if !seen.insert(key) {
            continue;
        }
        let name = name_of(key);
        let (line, needs) = &packages[key];
        if CLIENTS.contains(&name.as_str()) {
            breaches.push(breach(*line, "Cargo.lock", format!("`{name}` can open a connection to another machine")));
        }
        for need in needs.iter().filter(|need| name != own || !online.contains(&name_of(need))) {
            open.extend(packages.keys().filter(|key| *key == need || name_of(key) == *need));
        }
    }
    breaches
}

/// Names of `optional = true` dependencies, of all platforms.
fn optional_dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let mut tables: Vec<&toml::Value> = manifest.get("dependencies").into_iter().collect();
    let platforms = manifest.get("target").and_then(toml::Value::as_table);
    tables.extend(platforms.into_iter().flatten().filter_map(|(_, platform)| platform.get("dependencies")));
    let all = tables.into_iter().filter_map(toml::Value::as_table).flatten();
    let is_optional = |value: &toml::Value| value.get("optional").and_then(toml::Value::as_bool) == Some(true);
    all.filter(|(_, value)| is_optional(value)).map(|(name, _)| name.clone()).collect()
}

/// `NAME VERSION` of each package of a lock file, with its line and what it needs: `NAME`, or `NAME VERSION` where there are several.
fn packages(lock: &str) -> BTreeMap<String, (usize, Vec<String>)> {
    let mut found = BTreeMap::new();
    let mut line_of_block = 1;
    for block in lock.split("[[package]]") {
        let field = |name: &str| {
            let rest = block.lines().find_map(|line| line.strip_prefix(name))?;
            rest.strip_prefix(" = \"")?.strip_suffix('"')
        };
        if let (Some(name), Some(version)) = (field("name"), field("version")) {
            let needs = block.lines().filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\","));
            found.insert(format!("{name} {version}"), (line_of_block + 1, needs.map(str::to_owned).collect()));
        }
        line_of_block += block.matches('\n').count();
    }
    found
}

#[test]
fn a_client_that_the_default_build_reaches_is_found() {
    let package = |name: &str, needs: &[&str]| {
        let needs = needs.iter().map(|need| format!(" \"{need}\",\n")).collect::<String>();
        format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\ndependencies = [\n{needs}]\n\n")
    };
    let lock = package("house", &["a", "ureq"])
        + &package("a", &["b 1.0.0"])
        + &package("b", &[])
        + &package("ureq", &["rustls"]);
    let lock = lock + &package("rustls", &[]);
    let places = |features: &str, optional: bool, lock: &str| -> Vec<String> {
        let manifest = format!(
            "[package]\nname = \"house\"\n[features]\n{features}\n[dependencies]\na = \"1\"\n\
             [target.'cfg(unix)'.dependencies]\nureq = {{ version = \"1\", optional = {optional} }}\n"
        );
        let breaches = default_build_has_no_http_client(&manifest, lock);
        breaches.iter().map(|breach| format!("{}:{}", breach.path, breach.line)).collect()
    };
    let hub = "hub = [\"dep:ureq\"]";
    assert_eq!(places(hub, true, &lock), [""; 0]);
    // Not optional; switched on elsewhere too, in both spellings; by default; or needed by something else.
    let both = ["Cargo.lock:23", "Cargo.lock:30"];
    assert_eq!(places(hub, false, &lock), both);
    assert_eq!(places("hub = [\"dep:ureq\"]\ncuda = [\"dep:ureq\"]", true, &lock), both);
    assert_eq!(places("hub = [\"dep:ureq\"]\ncuda = [\"ureq/json\"]", true, &lock), both);
    assert_eq!(places("default = [\"hub\"]\nhub = [\"dep:ureq\"]", true, &lock), ["Cargo.toml:1"]);
    let deeper = lock.replace(
        "name = \"b\"\nversion = \"1.0.0\"\ndependencies = [\n",
        "name = \"b\"\nversion = \"1.0.0\"\ndependencies = [\n \"rustls\",\n",
    );
    assert_eq!(places(hub, true, &deeper), ["Cargo.lock:31"]);
    // A server, and the same library with its client switched on.
    let server = package("house", &["a"]) + &package("a", &["hyper"]) + &package("hyper", &["httparse"]);
    assert_eq!(places("", true, &(server.clone() + &package("httparse", &[]))), [""; 0]);
    let client = server.replace("httparse", "want") + &package("want", &[]);
    assert_eq!(places("", true, &client), ["Cargo.lock:23"]);
}

//! What people who mean harm send: texts that are markup, forms from elsewhere, guessed links, too much of anything, SQL, paths.

use pairwright::annotate::items::{AnswerChoice, Items};
use pairwright::annotate::serve::ServeOptions;
use pairwright::annotate::store::{read_people, read_votes};
use pairwright::dataset::DatasetOptions;

use crate::client::{Client, value_of};
use crate::made::Made;
use crate::server::Server;
use crate::serving::{items, plain, stored};

fn lan() -> ServeOptions {
    ServeOptions { is_lan: true, ..plain() }
}

#[test]
fn texts_stay_texts_wherever_they_are_shown() {
    const HARM: [&str; 5] = [
        "<script>alert(1)</script>",
        "</div></section><img src=x onerror=alert(2)>",
        "\"><svg onload=alert(3)>",
        "</textarea><script>alert(4)</script>",
        "{{ 7 * 7 }} & <b>bold</b> ' \" \u{202e}\u{2067}",
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::empty();
    for text in HARM {
        made.row(text, [&format!("a {text}"), &format!("b {text}")], [3.0, 2.0]);
        made.records.last_mut().unwrap().language = format!("L{text}");
    }
    let items = Items::of(&made.input(), &DatasetOptions::default(), AnswerChoice::Pair, 1);
    let consent = Some("agree <script>alert(5)</script>".to_owned());
    let guidelines = Some("# hi\n<script>alert(6)</script>".to_owned());
    let server = Server::start(folder.path(), items, ServeOptions { consent, guidelines, ..plain() });
    let mut eve = server.client();
    let mut pages = vec![eve.get("/join").body, eve.get("/guidelines").body];
    eve.join("<script>alert(7)</script>");
    for note in HARM {
        let page = eve.get("/");
        let [csrf, item, token] = ["csrf", "item", "token"].map(|name| page.field(name));
        let fields = [
            ("csrf", csrf.as_str()),
            ("item", &item),
            ("token", &token),
            ("choice", "flag"),
            ("flag", "other"),
            ("note", note),
        ];
        assert_eq!(eve.post("/vote", &fields).status, 303);
        pages.push(page.body);
    }
    pages.push(eve.get("/history?q=%3Cscript%3E").body);
    pages.push(eve.get("/history").body);
    let event = stored(folder.path())[0].id.clone();
    pages.push(eve.get(&format!("/history/{event}")).body);
    pages.push(eve.get("/me").body);
    let admin = Server::path(&server.ready.admin);
    eve.get(&admin);
    pages.push(eve.get("/admin").body);
    for page in pages {
        let harmless = page.replace("<script src=\"/page.js\" defer></script>", "");
        for markup in ["<script", "<img", "<svg", "<b>"] {
            assert!(!harmless.contains(markup), "{markup} in {page}");
        }
    }
}

#[test]
fn every_answer_forbids_scripts_frames_and_strangers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(2), plain());
    let mut ann = server.client();
    for path in ["/", "/join", "/style.css", "/admin", "/nowhere"] {
        let answer = ann.get(path);
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'") && policy.contains("frame-ancestors 'none'")
        );
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    let joined = ann.post("/join", &[("name", "Ann")]);
    let cookie = joined.header("set-cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    // A name that somebody else lets point here is not answered.
    ann.headers.push(("Host".into(), "evil.example:80".into()));
    assert_eq!(ann.get("/").status, 421);
    ann.headers.clear();
    assert_eq!(ann.get("/").status, 200);
}

#[test]
fn forms_from_elsewhere_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(3), plain());
    let (mut ann, mut eve) = (server.client(), server.client());
    let (page, other) = (ann.join("Ann"), eve.join("Eve"));
    let [item, token, csrf] = ["item", "token", "csrf"].map(|name| page.field(name));
    let theirs = other.field("csrf");
    for wrong in ["", "0", theirs.as_str()] {
        let fields = [("csrf", wrong), ("item", &item), ("token", &token), ("choice", "same")];
        for path in ["/vote", "/undo", "/change", "/leave"] {
            assert_eq!(ann.post(path, &fields).status, 403, "{path}");
        }
    }
    let fields = [("csrf", csrf.as_str()), ("item", &item), ("token", &token), ("choice", "same")];
    for (name, value) in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site"), ("Origin", "null")] {
        ann.headers = vec![(name.into(), value.into())];
        assert_eq!(ann.post("/vote", &fields).status, 403);
    }
    ann.headers.clear();
    assert!(read_votes(folder.path()).unwrap().is_empty());
    // Another's token, and another's vote.
    assert_eq!(ann.post("/vote", &fields).status, 303);
    let event = stored(folder.path())[0].id.clone();
    let fields = [("csrf", theirs.as_str()), ("item", &item), ("token", &token), ("event", &event), ("choice", "skip")];
    for path in ["/vote", "/undo", "/change"] {
        assert_eq!(eve.post(path, &fields).status, 303);
    }
    assert_eq!(stored(folder.path()).len(), 1);
    // A cookie that was made up, or bent.
    let mut forged = ann.cookies.clone();
    forged.values_mut().for_each(|value| *value = value.replacen("a-", "b-", 1));
    eve.cookies = forged;
    assert_eq!(eve.get("/").header("location"), "/join");
}

#[test]
fn invitations_and_codes_cannot_be_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(2), lan());
    let mut eve = server.client();
    assert!(!eve.get("/join").body.contains("name=\"name\""), "no invitation, no form");
    assert_eq!(eve.post("/join", &[("name", "Eve")]).status, 403);
    let invited = eve.get(&Server::path(&server.ready.invitation));
    assert_eq!(invited.status, 200);
    let invite = value_of(&invited.body, "invite").unwrap();
    let mut last = 0;
    for guess in 0..20 {
        last = match guess % 3 {
            0 => eve.get(&format!("/enter/{guess:08}")).status,
            1 => eve.get(&format!("/join/{guess:032}")).status,
            _ => eve.post("/enter", &[("code", &format!("{guess:08}"))]).status,
        };
    }
    assert_eq!(last, 429);
    assert_eq!(
        eve.get(&Server::path(&server.ready.admin)).status,
        403,
        "who guesses is not let in by the right link either"
    );
    assert!(read_people(folder.path()).unwrap().is_empty());
    // The invitation itself is not a guess.
    assert_eq!(eve.post("/join", &[("name", "Eve"), ("invite", &invite)]).status, 303);
}

#[test]
fn only_the_listed_come_in_where_there_is_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        Server::start(folder.path(), items(2), ServeOptions { names: vec!["Ann".into(), "Bob".into()], ..lan() });
    let mut ann = server.client();
    assert_eq!(ann.post("/join", &[("name", "Eve")]).status, 403);
    assert_eq!(server.ready.codes[0].0, "Ann");
    assert_eq!(ann.get(&Server::path(&server.ready.codes[0].1)).status, 303);
    assert_eq!(ann.get("/").status, 200);
    drop(server);
    let server = Server::start(folder.path(), items(2), ServeOptions { names: vec!["Ann".into()], ..lan() });
    assert_eq!(read_people(folder.path()).unwrap().len(), 2, "nobody is made twice");
    assert_eq!(server.ready.codes.len(), 1);
}

#[test]
fn the_admin_s_pages_are_the_admin_s() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(2), plain());
    let mut ann = server.client();
    ann.join("Ann");
    for path in ["/admin", "/admin/votes.jsonl", "/admin/strings?code=nl", "/admin/0000"] {
        assert_eq!(ann.get(path).status, 403, "{path}");
    }
    assert_eq!(ann.post("/admin/strings", &[("code", "nl"), ("text-skip", "x")]).status, 403);
    let mut admin = server.client();
    assert_eq!(admin.get(&Server::path(&server.ready.admin)).header("location"), "/admin");
    assert!(admin.get("/admin").body.contains("random slice"));
    assert_eq!(admin.get("/admin/votes.jsonl").status, 200);
    let page = admin.get("/admin/strings?code=yo");
    let csrf = page.field("csrf");
    assert_eq!(admin.post("/admin/strings", &[("csrf", "x"), ("code", "yo"), ("text-skip", "Fo")]).status, 403);
    for code in ["../../etc", "yo/../x", "", "YO"] {
        assert_eq!(admin.post("/admin/strings", &[("csrf", &csrf), ("code", code), ("text-skip", "Fo")]).status, 303);
    }
    assert_eq!(admin.post("/admin/strings", &[("csrf", &csrf), ("code", "yo"), ("text-skip", "Fo <b>")]).status, 303);
    ann.get("/language?to=yo");
    assert!(ann.get("/").body.contains("Fo &#60;b&#62;"));
    let files: Vec<String> = std::fs::read_dir(folder.path().join("annotations"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    assert_eq!(files, ["strings-yo.toml"]);
}

#[test]
fn too_much_and_too_strange_is_refused_and_the_server_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(3), plain());
    let mut ann = server.client();
    let page = ann.join("Ann");
    let [item, token, csrf] = ["item", "token", "csrf"].map(|name| page.field(name));
    let vote = |client: &mut Client, more: &[(&str, &str)]| {
        let fields = [&[("csrf", csrf.as_str()), ("item", &item), ("token", &token)], more].concat();
        client.try_post("/vote", &fields).map(|answer| answer.status)
    };
    let huge = "x".repeat(2 << 20);
    // The server may close while the body is still being sent.
    assert!(matches!(vote(&mut ann, &[("choice", "same"), ("note", &huge)]), Ok(413) | Err(_)));
    let long = "é".repeat(3_000);
    assert_eq!(vote(&mut ann, &[("choice", "flag"), ("flag", "other"), ("note", &long)]).unwrap(), 422);
    let sql = "'); DROP TABLE votes; --";
    for fields in [[("choice", sql), ("flag", sql)], [("choice", "flag"), ("flag", sql)]] {
        assert_eq!(vote(&mut ann, &fields).unwrap(), 422);
    }
    let strange = [("csrf", csrf.as_str()), ("item", sql), ("token", sql), ("choice", "same"), ("event", sql)];
    for path in ["/vote", "/undo", "/change"] {
        assert_eq!(ann.post(path, &strange).status, 303, "{path}");
    }
    for path in [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/history/..%2f..%2fsecret.key",
        "/annotations/secret.key",
        "/style.css/../secret.key",
    ] {
        let answer = ann.get(path);
        assert!(answer.status == 404 || answer.status == 303, "{path} {}", answer.status);
    }
    let searched = ann.get("/history?q=%27%20OR%201%3D1%20--%00");
    assert_eq!((searched.status, searched.body.contains("/history/")), (200, false));
    assert_eq!(vote(&mut ann, &[("choice", "flag"), ("flag", "other"), ("note", sql)]).unwrap(), 303);
    assert_eq!(stored(folder.path()).len(), 1);
}

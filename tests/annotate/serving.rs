//! The server as people meet it without JavaScript, and as the page's script and attackers do.

use std::collections::BTreeSet;
use std::path::Path;

use pairwright::annotate::items::{AnswerChoice, Items};
use pairwright::annotate::packed::note;
use pairwright::annotate::queue::QueueOptions;
use pairwright::annotate::serve::ServeOptions;
use pairwright::annotate::store::{read_people, read_votes, seal};
use pairwright::annotate::vote::{Action, Choice, Vote, current_votes};
use pairwright::dataset::DatasetOptions;

use crate::client::{Answer, Client};
use crate::made::Made;
use crate::server::Server;

/// So many prompts with two answers each.
pub fn items(num_rows: usize) -> Items {
    let mut made = Made::empty();
    for n in 0..num_rows {
        let text = |what: &str| format!("{what} {n}");
        made.row(&text("prompt"), [&text("human"), &text("model")], [3.0, 3.0 + n as f64 / 100.0]);
    }
    items_of(&made, AnswerChoice::Pair)
}

fn items_of(made: &Made, choice: AnswerChoice) -> Items {
    Items::of(&made.input(), &DatasetOptions::default(), choice, 1)
}

/// Nothing repeated or planted, so that what comes is what is left.
pub fn plain() -> ServeOptions {
    let queue = QueueOptions { repeat_share: 0.0, gold_share: 0.0, ..QueueOptions::default() };
    ServeOptions { queue, ..ServeOptions::default() }
}

/// Events as they lie on the disk, in order.
pub fn stored(run: &Path) -> Vec<Vote> {
    read_votes(run).unwrap().into_iter().map(|stored| stored.vote).collect()
}

fn say(client: &mut Client, page: &Answer, more: &[(&str, &str)]) -> Answer {
    let [csrf, item, token] = ["csrf", "item", "token"].map(|name| page.field(name));
    let fields = [&[("csrf", csrf.as_str()), ("item", &item), ("token", &token)], more].concat();
    client.post("/vote", &fields)
}

#[test]
fn voting_undoing_and_changing_work_by_forms_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let server = Server::start(run, items(6), plain());
    let mut ann = server.client();
    assert_eq!(ann.get("/").header("location"), "/join");
    let first = ann.join("Ann");
    for model in ["writer", "judge", "human\"", "rating\"", "gold"] {
        assert!(!first.body.contains(&format!(">{model}")) && !first.body.contains(&format!("=\"{model}")), "blind");
    }
    let voted = say(&mut ann, &first, &[("choice", "better-1"), ("rating-0", "2"), ("rating-1", "5")]);
    assert_eq!((voted.status, voted.header("location")), (303, "/"));
    // The same form again, as by "back" and "again": once. With another choice too.
    say(&mut ann, &first, &[("choice", "better-1")]);
    say(&mut ann, &first, &[("choice", "better-0")]);
    let events = stored(run);
    assert_eq!(events.len(), 1);
    let Action::Cast { choice, ratings, .. } = &events[0].action else { panic!("{events:?}") };
    assert_eq!(*choice, Choice::Better { answer: events[0].shown[1].clone() });
    assert_eq!(*ratings, [Some(2), Some(5)]);
    let second = ann.get("/");
    assert_ne!(second.field("item"), first.field("item"));
    // Undo: the item comes back at once, with a new token, and the old form counts no more.
    let [csrf, event] = ["csrf", "event"].map(|name| second.field(name));
    assert_eq!(event, events[0].id);
    for _ in 0..2 {
        assert_eq!(ann.post("/undo", &[("csrf", &csrf), ("event", &event)]).status, 303);
    }
    let again = ann.get("/");
    assert_eq!(again.field("item"), first.field("item"));
    assert_ne!(again.field("token"), first.field("token"));
    assert_eq!(say(&mut ann, &first, &[("choice", "same")]).status, 303);
    assert!(current_votes(&stored(run)).is_empty());
    say(&mut ann, &again, &[("choice", "both_bad")]);
    let events = stored(run);
    assert_eq!(events.len(), 3);
    let current = current_votes(&events);
    assert_eq!((current.len(), current[0].choice), (1, &Choice::BothBad));
    // A change, from the history; sent twice it is one, and the one before is superseded.
    let history = ann.get("/history?q=PROMPT");
    let link = format!("/history/{}", events[2].id);
    assert!(history.body.contains(&link), "{}", history.body);
    assert!(!ann.get("/history?q=nowhere").body.contains("/history/"));
    let form = ann.get(&link);
    assert!(form.body.contains("aria-current"));
    let [csrf, item, token, event] = ["csrf", "item", "token", "event"].map(|name| form.field(name));
    let fields = [("csrf", csrf.as_str()), ("item", &item), ("token", &token), ("event", &event), ("choice", "same")];
    for _ in 0..2 {
        assert_eq!(ann.post("/change", &fields).header("location"), "/history");
    }
    let events = stored(run);
    assert_eq!((events.len(), current_votes(&events)[0].choice), (4, &Choice::Same));
    assert_eq!(events[3].supersedes(), Some(events[2].id.as_str()));
}

#[test]
fn flags_edits_and_skips_are_kept_and_wrong_ones_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(6), plain());
    let mut ann = server.client();
    let page = ann.join("Ann");
    say(
        &mut ann,
        &page,
        &[("choice", "flag"), ("flag", "wrong_language"), ("where", "1"), ("note", " Dansk?\r\nNej ")],
    );
    let page = ann.get("/");
    assert_eq!(say(&mut ann, &page, &[("choice", "edit-0"), ("text", " ")]).status, 422);
    assert_eq!(say(&mut ann, &page, &[("choice", "nonsense")]).status, 422);
    assert_eq!(say(&mut ann, &page, &[("choice", "better-9")]).status, 422);
    say(&mut ann, &page, &[("choice", "edit-0"), ("text", "new\r\ntext")]);
    let page = ann.get("/");
    say(&mut ann, &page, &[("choice", "skip")]);
    let events = stored(folder.path());
    let choices: Vec<Choice> = current_votes(&events).into_iter().map(|current| current.choice.clone()).collect();
    let Choice::Flag { answer, note, .. } = &choices[0] else { panic!("{choices:?}") };
    assert_eq!((answer.as_ref(), note.as_str()), (Some(&events[0].shown[1]), "Dansk?\nNej"));
    assert_eq!(choices[1], Choice::Edit { answer: events[1].shown[0].clone(), text: "new\ntext".into() });
    assert_eq!(choices[2], Choice::Skip);
}

#[test]
fn more_than_two_answers_are_ranked() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::empty();
    made.row("p", ["a", "b"], [3.0, 2.0]);
    let mut third = made.candidates[1].clone();
    (third.sample_index, third.text) = (1, "c".into());
    made.candidates.push(third);
    let server = Server::start(folder.path(), items_of(&made, AnswerChoice::All), plain());
    let mut ann = server.client();
    let page = ann.join("Ann");
    assert!(page.body.contains("All bad") && !page.body.contains("Both bad"));
    assert_eq!(say(&mut ann, &page, &[("choice", "ranking"), ("rank-0", "1"), ("rank-1", "2")]).status, 422);
    say(&mut ann, &page, &[("choice", "ranking"), ("rank-0", "2"), ("rank-1", "1"), ("rank-2", "2")]);
    let events = stored(folder.path());
    let Action::Cast { choice: Choice::Ranking { groups }, .. } = &events[0].action else { panic!("{events:?}") };
    let shown = &events[0].shown;
    assert_eq!(*groups, [vec![shown[1].clone()], vec![shown[0].clone(), shown[2].clone()]]);
    assert!(ann.get("/").body.contains("Thank you"));
}

#[test]
fn what_goes_out_in_a_pack_while_the_server_runs_is_not_shown_here() {
    let folder = tempfile::tempdir().unwrap();
    let all = items(4);
    let ids: Vec<String> = all.items.iter().map(|item| item.id.clone()).collect();
    let server = Server::start(folder.path(), all, plain());
    let mut ann = server.client();
    let shown = ann.join("Ann").field("item");
    let rest: Vec<String> = ids.into_iter().filter(|id| *id != shown).collect();
    note(folder.path(), "pack-1", &rest, i64::MAX / 2).unwrap();
    let page = ann.get("/");
    assert_eq!(page.field("item"), shown, "what somebody has is theirs");
    say(&mut ann, &page, &[("choice", "same")]);
    let page = ann.get("/");
    assert!(page.body.contains("Others are voting on what is left"), "{}", page.body);
}

#[test]
fn general_guidelines_are_in_the_language_of_the_pages_and_a_projects_own_win() {
    for (own, said) in [(None, "<h1>كيف تختار</h1>"), (Some("# Ours"), "<h1>Ours</h1>")] {
        let folder = tempfile::tempdir().unwrap();
        let options = ServeOptions { guidelines: own.map(str::to_owned), ..plain() };
        let server = Server::start(folder.path(), items(2), options);
        let mut ann = server.client();
        ann.get("/language?to=ar");
        let page = ann.get("/guidelines");
        assert!(page.body.contains(said), "{}", page.body);
    }
}

#[test]
fn two_people_never_get_one_place_and_overlap_gives_more_places() {
    for overlap in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let mut options = plain();
        options.queue.overlap = overlap;
        let server = Server::start(folder.path(), items(6), options);
        let mut people: Vec<Client> = (0..3).map(|_| server.client()).collect();
        let mut pages: Vec<Answer> = people.iter_mut().map(|one| one.join("Same Name")).collect();
        let shown: BTreeSet<String> = pages.iter().map(|page| page.field("item")).collect();
        assert_eq!(shown.len(), 4 - overlap, "what is open is not given away; asking again gives the same");
        assert_eq!(people[0].get("/").field("item"), pages[0].field("item"));
        let mut num_votes = 0;
        while pages.iter().any(|page| page.body.contains("name=\"item\"")) {
            for (person, page) in people.iter_mut().zip(&mut pages) {
                if page.body.contains("name=\"item\"") {
                    say(person, page, &[("choice", "same")]);
                    num_votes += 1;
                }
                *page = person.get("/");
            }
        }
        assert_eq!(num_votes, 6 * overlap);
        let events = stored(folder.path());
        let pairs: BTreeSet<(&str, &str)> =
            events.iter().map(|vote| (vote.annotator.as_str(), vote.item.as_str())).collect();
        assert_eq!((events.len(), pairs.len()), (num_votes, num_votes));
    }
}

#[test]
fn scripts_get_tasks_ahead_and_answers_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(6), plain());
    let mut ann = server.client();
    let page = ann.join("Ann");
    ann.headers.push(("X-Pairwright".into(), "1".into()));
    let tasks: serde_json::Value = serde_json::from_str(&ann.get("/tasks?n=4").body).unwrap();
    let tasks = tasks["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 4);
    assert_eq!(tasks[0]["token"], page.field("token"));
    let html = tasks[2]["html"].as_str().unwrap();
    let ahead = Answer { body: html.to_owned(), ..Answer::default() };
    assert_eq!(say(&mut ann, &ahead, &[("choice", "same")]).body, "{\"taken\":\"new\",\"why\":\"\"}");
    assert!(say(&mut ann, &ahead, &[("choice", "same")]).body.contains("\"before\""));
    ann.cookies.clear();
    assert_eq!(ann.get("/tasks").status, 401);
}

#[test]
fn sealed_votes_stay() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(3), plain());
    let mut ann = server.client();
    let page = ann.join("Ann");
    say(&mut ann, &page, &[("choice", "same")]);
    seal(folder.path(), 1, "export", 0).unwrap();
    let event = stored(folder.path())[0].id.clone();
    let undone = ann.post("/undo", &[("csrf", &page.field("csrf")), ("event", &event)]);
    assert_eq!(undone.header("location"), "/?said=sealed");
    assert_eq!(stored(folder.path()).len(), 1);
    assert_eq!(ann.get(&format!("/history/{event}")).header("location"), "/?said=sealed");
}

#[test]
fn votes_and_people_are_there_after_a_restart_and_codes_lead_back() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(4), plain());
    let mut ann = server.client();
    let page = ann.join("Ann\u{7} <b>");
    let code =
        ann.get("/me").body.split_once("class=\"code\" dir=\"ltr\">").unwrap().1.split_once('<').unwrap().0.to_owned();
    drop(server);
    let server = Server::start(folder.path(), items(4), plain());
    let mut again = server.client();
    again.cookies = ann.cookies.clone();
    // The page from before the restart still counts, and so does the session.
    assert_eq!(say(&mut again, &page, &[("choice", "same")]).header("location"), "/");
    let mut phone = server.client();
    let arabic: String =
        code.chars().map(|c| c.to_digit(10).map_or(c, |d| char::from_u32(0x660 + d).unwrap())).collect();
    assert_eq!(phone.post("/enter", &[("code", &arabic)]).header("location"), "/");
    assert!(phone.get("/history").body.contains("/history/"));
    assert_eq!(read_people(folder.path()).unwrap()[0].name, "Ann <b>");
    drop(server);
    let server = Server::start(folder.path(), items(4), ServeOptions { new_links: true, ..plain() });
    let mut old = server.client();
    old.cookies = ann.cookies.clone();
    assert_eq!(old.get("/").header("location"), "/join", "new links end old sessions");
}

/// Whole and not compressed, so that whatever a link does with it no more than this comes: the demand is 60 KB compressed.
#[test]
fn the_first_page_with_all_that_it_names_is_small() {
    const MOST_BYTES: usize = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(4), plain());
    let mut ann = server.client();
    let mut pages = vec![ann.get("/join").body];
    ann.join("Ann");
    pages.push(ann.get("/").body);
    for page in pages {
        let named =
            page.split("href=\"/").skip(1).chain(page.split("src=\"/").skip(1)).map(|rest| rest.split('"').next());
        let files: Vec<&str> = named.flatten().filter(|path| path.contains('.')).collect();
        assert_eq!(files, ["style.css", "page.js"]);
        let mut num_bytes = page.len() + ann.get("/worker.js").body.len();
        num_bytes += files.iter().map(|file| ann.get(&format!("/{file}")).body.len()).sum::<usize>();
        assert!((10_000..MOST_BYTES).contains(&num_bytes), "{num_bytes} bytes");
    }
}

#[test]
fn the_worker_is_a_script_of_this_server_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), items(2), plain());
    let worker = server.client().get("/worker.js");
    assert_eq!((worker.status, worker.header("content-type")), (200, "text/javascript; charset=utf-8"));
    assert!(worker.header("content-security-policy").contains("connect-src 'self'"));
    assert!(!worker.body.contains("http:") && !worker.body.contains("https:"));
}

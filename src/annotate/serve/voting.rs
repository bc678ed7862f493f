//! Pages and forms of voting: the next task, a vote, a change, an undo, one's own history. Each form answers a browser without JavaScript by
//! sending it on, and the page's script in JSON. Knows requests and pages; what counts is the room's to say.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::session::{Session, answer, see_other};
use super::{App, now};
use crate::annotate::forms::Fields;
use crate::annotate::keys::{is_same, random};
use crate::annotate::pages::{EntryView, Fragment, HistoryPage, MessagePage, TaskView, VotePage};
use crate::annotate::queue::Next;
use crate::annotate::room::{Entry, Taken, Task};

/// Tasks that a page may have ahead.
const MOST_AHEAD: usize = 20;
/// Votes on a page of the history.
const PAGE: usize = 30;
/// The script says so with this header, which a form cannot.
const SCRIPT: &str = "x-pairwright";

pub(super) type Sent = Result<Form<Vec<(String, String)>>, FormRejection>;

/// The person, or where they come in.
fn person(app: &App, headers: &HeaderMap) -> Result<Session, Box<Response<Body>>> {
    Session::of(headers, &app.keys).ok_or_else(|| match headers.contains_key(SCRIPT) {
        true => Box::new(answer(StatusCode::UNAUTHORIZED, "application/json", "{\"taken\":\"nobody\"}")),
        false => Box::new(see_other("/join")),
    })
}

/// The fields of a form that this person's own page sent.
pub(super) fn fields(sent: Sent, csrf: &str) -> Result<Fields, Box<Response<Body>>> {
    let refuse = |status, why: String| Box::new(answer(status, "text/plain; charset=utf-8", why));
    let Form(all) = sent.map_err(|rejected| refuse(rejected.status(), format!("{}\n", rejected.body_text())))?;
    let fields = Fields::from(all);
    match is_same(fields.get("csrf"), csrf) {
        true => Ok(fields),
        false => {
            Err(refuse(StatusCode::FORBIDDEN, "This form is not from your own page; load the page anew.\n".to_owned()))
        }
    }
}

#[derive(Deserialize)]
pub(super) struct PageQuery {
    said: Option<String>,
}

pub(super) async fn page(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
) -> Response<Body> {
    let session = match person(&app, &headers) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    let who = session.person.clone();
    let found = app.desk.ask(move |room| (room.next(&who, 1, now()), room.latest(&who))).await;
    let (next, latest) = match found {
        Ok(found) => found,
        Err(error) => return app.failed(&error),
    };
    app.framed(&headers, Some(&session), |mut frame| {
        let said = query.said.as_deref().filter(|said| ["stale", "sealed", "saved"].contains(said));
        frame.notice = said.map(|said| {
            frame
                .say
                .of(if said == "stale" {
                    "stale"
                } else if said == "sealed" {
                    "sealed"
                } else {
                    "saved"
                })
                .to_owned()
        });
        let say = frame.say;
        match next.map(|tasks| tasks.into_iter().next()) {
            Ok(Some(task)) => {
                let task = TaskView::to_vote(task, &session.csrf, latest);
                app.page(StatusCode::OK, &VotePage { frame, say, task })
            }
            Ok(None) | Err(Next::Wait | Next::Turns(_)) => {
                let text = say.of("wait").to_owned();
                app.page(StatusCode::OK, &MessagePage { frame, text, latest })
            }
            Err(Next::Done) => {
                let text = say.of("done").to_owned();
                app.page(StatusCode::OK, &MessagePage { frame, text, latest })
            }
        }
    })
}

#[derive(Deserialize)]
pub(super) struct TasksQuery {
    n: Option<usize>,
}

/// The next tasks, each as the part of the page that shows it.
pub(super) async fn tasks(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(query): Query<TasksQuery>,
) -> Response<Body> {
    let session = match person(&app, &headers) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    let ahead = query.n.unwrap_or(1).clamp(1, MOST_AHEAD);
    let who = session.person.clone();
    let found = app.desk.ask(move |room| (room.next(&who, ahead, now()), room.latest(&who))).await;
    let (next, latest) = match found {
        Ok(found) => found,
        Err(error) => return app.failed(&error),
    };
    let shown = app.framed(&headers, Some(&session), |frame| {
        let show = |task: Task| {
            let token = task.token.clone();
            let task = TaskView::to_vote(task, &session.csrf, latest.clone());
            Fragment { say: frame.say, task }.render().map(|html| json!({ "token": token, "html": html }))
        };
        next.unwrap_or_default().into_iter().map(show).collect::<Result<Vec<Value>, _>>()
    });
    match shown {
        Ok(tasks) => answer(StatusCode::OK, "application/json", json!({ "tasks": tasks }).to_string()),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", error.to_string()),
    }
}

pub(super) async fn vote(State(app): State<Arc<App>>, headers: HeaderMap, sent: Sent) -> Response<Body> {
    let (session, fields) = match ours(&app, &headers, sent) {
        Ok(ours) => ours,
        Err(response) => return *response,
    };
    let who = session.person.clone();
    let taken = app.desk.ask(move |room| {
        let (item, token) = (fields.get("item").to_owned(), fields.get("token").to_owned());
        match room.shown_with(&who, &item, &token).map(|shown| fields.said(&shown)) {
            // Without a token that fits, what it says does not matter.
            None => room.refused(&item, &token),
            Some(None) => nothing_said(),
            Some(Some(said)) => room.cast(&who, &item, &token, said, now()),
        }
    });
    reply(&app, &headers, &session, taken.await, "/")
}

pub(super) async fn change(State(app): State<Arc<App>>, headers: HeaderMap, sent: Sent) -> Response<Body> {
    let (session, fields) = match ours(&app, &headers, sent) {
        Ok(ours) => ours,
        Err(response) => return *response,
    };
    let who = session.person.clone();
    let taken = app.desk.ask(move |room| {
        let event = fields.get("event").to_owned();
        let shown = room.history(&who).into_iter().find(|entry| entry.vote.id == event).map(|entry| entry.vote.shown);
        match shown.map(|shown| fields.said(&shown)) {
            Some(None) => nothing_said(),
            Some(Some(said)) => room.change(&who, &event, fields.get("token"), said, now()),
            // The vote no longer holds: either this very change was made before, or another.
            None => room.refused("", fields.get("token")),
        }
    });
    reply(&app, &headers, &session, taken.await, "/history")
}

pub(super) async fn undo(State(app): State<Arc<App>>, headers: HeaderMap, sent: Sent) -> Response<Body> {
    let (session, fields) = match ours(&app, &headers, sent) {
        Ok(ours) => ours,
        Err(response) => return *response,
    };
    let back = if fields.get("back") == "history" { "/history" } else { "/" };
    let who = session.person.clone();
    let taken = app.desk.ask(move |room| room.undo(&who, fields.get("event"), now()));
    reply(&app, &headers, &session, taken.await, back)
}

fn ours(app: &App, headers: &HeaderMap, sent: Sent) -> Result<(Session, Fields), Box<Response<Body>>> {
    let session = person(app, headers)?;
    let fields = fields(sent, &session.csrf)?;
    Ok((session, fields))
}

fn nothing_said() -> Taken {
    Taken::Wrong(crate::annotate::vote::VoteError {
        field: "choice",
        got: "none that is offered".to_owned(),
        expected: "one of the buttons",
    })
}

/// What became of it: for the script in JSON, for a browser the page that comes next.
fn reply(
    app: &App,
    headers: &HeaderMap,
    session: &Session,
    taken: Result<Taken, super::DeskError>,
    next: &str,
) -> Response<Body> {
    let taken = match taken {
        Ok(taken) => taken,
        Err(error) => return app.failed(&error),
    };
    let (word, why) = match &taken {
        Taken::New => ("new", String::new()),
        Taken::Before => ("before", String::new()),
        Taken::Stale | Taken::Unknown => ("stale", String::new()),
        Taken::Sealed => ("sealed", String::new()),
        Taken::Wrong(error) => ("wrong", error.to_string()),
    };
    if headers.contains_key(SCRIPT) {
        return answer(StatusCode::OK, "application/json", json!({ "taken": word, "why": why }).to_string());
    }
    match taken {
        Taken::New | Taken::Before => see_other(next),
        Taken::Stale | Taken::Unknown => see_other("/?said=stale"),
        Taken::Sealed => see_other("/?said=sealed"),
        Taken::Wrong(_) => app.framed(headers, Some(session), |frame| {
            let text = format!("{} {why}", frame.say.of("not_taken"));
            app.page(StatusCode::UNPROCESSABLE_ENTITY, &MessagePage { frame, text, latest: None })
        }),
    }
}

#[derive(Deserialize)]
pub(super) struct HistoryQuery {
    q: Option<String>,
    page: Option<usize>,
}

pub(super) async fn history(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(query): Query<HistoryQuery>,
) -> Response<Body> {
    let session = match person(&app, &headers) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    let who = session.person.clone();
    let (entries, sealed) = match app.desk.ask(move |room| (room.history(&who), room.sealed_through())).await {
        Ok(found) => found,
        Err(error) => return app.failed(&error),
    };
    app.framed(&headers, Some(&session), |frame| {
        let (sought, page) = (query.q.unwrap_or_default(), query.page.unwrap_or(0));
        let views = entries.iter().map(|entry| EntryView::of(entry, frame.say, sealed));
        let found: Vec<EntryView> = views.filter(|view| view.has(&sought)).collect();
        let is_more = found.len() > (page.saturating_add(1)).saturating_mul(PAGE);
        let entries = found.into_iter().skip(page.saturating_mul(PAGE)).take(PAGE).collect();
        let query_encoded = encoded(&sought);
        let earlier = is_more.then(|| page + 1);
        app.page(StatusCode::OK, &HistoryPage { frame, query: sought, query_encoded, entries, earlier })
    })
}

/// A text as part of an address (RFC 3986: all but unreserved characters in percent).
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// One vote of one's own, to be changed.
pub(super) async fn one(State(app): State<Arc<App>>, headers: HeaderMap, Path(event): Path<String>) -> Response<Body> {
    let session = match person(&app, &headers) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    let who = session.person.clone();
    let found = app.desk.ask(move |room| {
        let entry = room.history(&who).into_iter().find(|entry| entry.vote.id == event)?;
        Some((entry.sequence > room.sealed_through(), entry))
    });
    let entry: Entry = match found.await {
        Ok(Some((true, entry))) => entry,
        Ok(Some((false, _))) => return see_other("/?said=sealed"),
        Ok(None) => return see_other("/history"),
        Err(error) => return app.failed(&error),
    };
    let (Some(task), Ok(id)) = (entry.task.clone(), random(16)) else { return see_other("/history") };
    app.framed(&headers, Some(&session), |frame| {
        let say = frame.say;
        let task = TaskView::to_change(entry, task, &session.csrf, id);
        app.page(StatusCode::OK, &VotePage { frame, say, task })
    })
}

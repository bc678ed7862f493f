//! Pages for whoever leads the work: how it goes, all events, and texts in another language. Behind a link that only they have.
//! Knows requests and numbers; changes no vote.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use serde::Deserialize;

use super::App;
use super::session::{admin_cookie, admin_csrf, answer, see_other};
use super::voting::{Sent, fields};
use crate::annotate::agreement::{DEFAULT_TARGET, Report};
use crate::annotate::keys::is_same;
use crate::annotate::pace::pace_s;
use crate::annotate::pages::{
    AdminPage, PersonView, StringsPage, agreement_in_words, choices_in_words, judge_in_words, stop_in_words,
};
use crate::annotate::store::write_jsonl;
use crate::annotate::strings::is_code;
use crate::annotate::vote::{Vote, current_votes};

/// Comes in by the link.
pub(super) async fn enter(
    State(app): State<Arc<App>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    Path(token): Path<String>,
) -> Response<Body> {
    if !app.limits.may_guess(address.ip()) || !is_same(&token, &app.keys.link(&["admin"])) {
        app.limits.note_guess(address.ip());
        return forbidden();
    }
    let mut response = see_other("/admin");
    if let Ok(cookie) = admin_cookie(&app.keys) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn forbidden() -> Response<Body> {
    answer(
        StatusCode::FORBIDDEN,
        "text/plain; charset=utf-8",
        "This page is for who started the server; use the link that it printed.\n",
    )
}

pub(super) async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    if admin_csrf(&headers, &app.keys).is_none() {
        return forbidden();
    }
    let found = app.desk.ask(|room| {
        let events: Vec<Vote> = room.events().iter().map(|stored| stored.vote.clone()).collect();
        let people: Vec<_> = room.people().values().cloned().collect();
        (Arc::clone(room.items()), events, people, room.progress())
    });
    let (items, events, people, (options, done, all)) = match found.await {
        Ok(found) => found,
        Err(error) => return app.failed(&error),
    };
    let num_events = events.len();
    let votes = current_votes(&events);
    // Whoever leads the work sees each majority, however small.
    let report = Report::of(&items, &votes, 1, DEFAULT_TARGET);
    let view = |person: &crate::annotate::store::Person| {
        let pace = pace_s(votes.iter().filter(|vote| vote.vote.annotator == person.pseudonym));
        let (code, numbers) = (app.keys.code(&person.pseudonym), report.annotators.get(&person.pseudonym));
        PersonView::of(person, code, numbers, pace)
    };
    let people = people.iter().map(view).collect();
    let (stop, judge, agreement) = (stop_in_words(&report), judge_in_words(&report), agreement_in_words(&report));
    let (choices, num_votes) = (choices_in_words(&report), report.num_votes);
    let (overlap, invite) = (options.overlap, app.invitation.clone());
    app.framed(&headers, None, |frame| {
        let page = AdminPage {
            frame,
            done,
            all,
            overlap,
            num_events,
            num_votes,
            people,
            invite,
            stop,
            judge,
            agreement,
            choices,
        };
        app.page(StatusCode::OK, &page)
    })
}

/// All events as they are, for the admin alone.
pub(super) async fn votes(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    if admin_csrf(&headers, &app.keys).is_none() {
        return forbidden();
    }
    let events = match app.desk.ask(|room| room.events().to_vec()).await {
        Ok(events) => events,
        Err(error) => return app.failed(&error),
    };
    let mut lines = Vec::new();
    match write_jsonl(&events, &mut lines) {
        Ok(()) => answer(StatusCode::OK, "application/x-ndjson; charset=utf-8", lines),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", error.to_string()),
    }
}

#[derive(Deserialize)]
pub(super) struct StringsQuery {
    code: Option<String>,
}

pub(super) async fn strings_page(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(query): Query<StringsQuery>,
) -> Response<Body> {
    let Some(csrf) = admin_csrf(&headers, &app.keys) else { return forbidden() };
    let code = query.code.unwrap_or_default();
    if !is_code(&code) {
        return see_other("/admin");
    }
    let strings = app.strings.read().unwrap_or_else(PoisonError::into_inner).clone();
    let own = strings.tongue(&code);
    let is_there = own.code == code;
    let text = |key, english| match is_there {
        // What falls back to English is shown as missing.
        true if own.of(key) != english || code == crate::annotate::strings::ENGLISH => own.of(key),
        _ => "",
    };
    let texts = strings.keys().map(|(key, english)| (key, english, text(key, english))).collect();
    app.framed(&headers, None, |mut frame| {
        frame.csrf = csrf;
        app.page(StatusCode::OK, &StringsPage { frame, code: code.clone(), texts })
    })
}

pub(super) async fn translate(State(app): State<Arc<App>>, headers: HeaderMap, sent: Sent) -> Response<Body> {
    let Some(csrf) = admin_csrf(&headers, &app.keys) else { return forbidden() };
    let fields = match fields(sent, &csrf) {
        Ok(fields) => fields,
        Err(response) => return *response,
    };
    let code = fields.get("code");
    if !is_code(code) {
        return see_other("/admin");
    }
    let own = |(name, value): (&str, &str)| Some((name.strip_prefix("text-")?.to_owned(), value.trim().to_owned()));
    let texts = fields.iter().filter_map(own).collect();
    let mut strings = app.strings.write().unwrap_or_else(PoisonError::into_inner);
    match strings.translate(code, texts) {
        Ok(()) => see_other("/admin"),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", format!("{error}\n")),
    }
}

//! How people come in and go, their own page, guidelines, languages, and the two files of every page.
//! Knows requests and people; knows nothing of votes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Form, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Deserialize;

use super::session::{Session, answer, language_cookie, see_other};
use super::voting::{Sent, fields};
use super::{App, new_person};
use crate::annotate::forms::Fields;
use crate::annotate::guidelines::{DEFAULT_KEY, to_html};
use crate::annotate::keys::{CODE_DIGITS, is_same};
use crate::annotate::pace::pace_s;
use crate::annotate::pages::{GuidelinesPage, JoinPage, MePage};
use crate::annotate::store::Person;
use crate::annotate::vote::current_votes;
use crate::annotate::vote::text_hash;

/// Most characters of a name.
const MAX_NAME: usize = 80;

fn join_form(app: &App, headers: &HeaderMap, invite: &str, wrong: bool) -> Response<Body> {
    let is_invited = is_same(invite, &app.keys.link(&["invitation"]));
    app.framed(headers, None, |mut frame| {
        frame.notice = wrong.then(|| frame.say.of("wrong_code").to_owned());
        let page = JoinPage {
            frame,
            is_open: !app.is_listed && (is_invited || !app.is_lan),
            invite: if is_invited { invite.to_owned() } else { String::new() },
            languages: app.languages.clone(),
            consent: app.consent.clone(),
        };
        app.page(if wrong { StatusCode::FORBIDDEN } else { StatusCode::OK }, &page)
    })
}

pub(super) async fn join_page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    match Session::of(&headers, &app.keys) {
        Some(_) => see_other("/"),
        None => join_form(&app, &headers, "", false),
    }
}

pub(super) async fn join_by_link(
    State(app): State<Arc<App>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(invitation): Path<String>,
) -> Response<Body> {
    if Session::of(&headers, &app.keys).is_some() {
        return see_other("/");
    }
    if !app.limits.may_guess(address.ip()) {
        return too_many();
    }
    let is_wrong = !is_same(&invitation, &app.keys.link(&["invitation"]));
    if is_wrong {
        app.limits.note_guess(address.ip());
    }
    join_form(&app, &headers, &invitation, is_wrong)
}

fn too_many() -> Response<Body> {
    answer(
        StatusCode::TOO_MANY_REQUESTS,
        "text/plain; charset=utf-8",
        "Too many wrong codes; try again in some minutes.\n",
    )
}

/// Somebody new. Needs no token: there is no session yet that another page could use, and cookies are never sent across sites.
pub(super) async fn join(
    State(app): State<Arc<App>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    sent: Sent,
) -> Response<Body> {
    let Ok(Form(sent)) = sent else {
        return answer(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", "This form cannot be read.\n");
    };
    let fields = Fields::from(sent);
    let invite = fields.get("invite");
    if app.is_lan && !is_same(invite, &app.keys.link(&["invitation"])) {
        if !app.limits.may_guess(address.ip()) {
            return too_many();
        }
        app.limits.note_guess(address.ip());
        return join_form(&app, &headers, invite, true);
    }
    let name: String = fields.get("name").trim().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    let is_agreed = app.consent.is_none() || fields.get("consent") == "yes";
    if app.is_listed || name.is_empty() || !is_agreed {
        return join_form(&app, &headers, invite, false);
    }
    let languages = fields.all("language").filter(|language| app.languages.iter().any(|known| known == language));
    let languages = languages.map(str::to_owned).collect();
    let credit = fields.get("credit").trim().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    let consent = app.consent.as_deref().map(text_hash).unwrap_or_default();
    let person = match new_person(&name) {
        Ok(person) => Person { credit, languages, consent, ..person },
        Err(error) => return app.failed(&error.into()),
    };
    let pseudonym = person.pseudonym.clone();
    match app.desk.note(person).await {
        Ok(()) => with_session(&app, &pseudonym),
        Err(error) => app.failed(&error),
    }
}

fn with_session(app: &App, person: &str) -> Response<Body> {
    match Session::cookie(person, &app.keys) {
        Ok(cookie) => {
            let mut response = see_other("/");
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            response
        }
        Err(error) => app.failed(&error.into()),
    }
}

pub(super) async fn enter(
    State(app): State<Arc<App>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    sent: Sent,
) -> Response<Body> {
    let code = sent.map(|Form(all)| Fields::from(all).get("code").to_owned()).unwrap_or_default();
    enter_with(&app, address, &headers, &code).await
}

pub(super) async fn enter_by_link(
    State(app): State<Arc<App>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(code): Path<String>,
) -> Response<Body> {
    enter_with(&app, address, &headers, &code).await
}

async fn enter_with(app: &App, address: SocketAddr, headers: &HeaderMap, code: &str) -> Response<Body> {
    if !app.limits.may_guess(address.ip()) {
        return too_many();
    }
    // People type digits of their own script, and spaces between them.
    let digits: String =
        code.chars().filter_map(|c| c.to_digit(10).or_else(|| digit(c))).map(|d| d.to_string()).collect();
    let keys = app.keys.clone();
    let found = app.desk.ask(move |room| {
        let is_theirs = |person: &&String| digits.len() == CODE_DIGITS && is_same(&digits, &keys.code(person));
        room.people().keys().find(is_theirs).cloned()
    });
    match found.await {
        Ok(Some(person)) => with_session(app, &person),
        Ok(None) => {
            app.limits.note_guess(address.ip());
            join_form(app, headers, "", true)
        }
        Err(error) => app.failed(&error),
    }
}

/// Decimal digits of Arabic, Persian, Devanagari, Bengali, Thai and Burmese: each script has its ten in a row.
fn digit(c: char) -> Option<u32> {
    const ZEROS: [char; 6] = ['\u{660}', '\u{6f0}', '\u{966}', '\u{9e6}', '\u{e50}', '\u{1040}'];
    ZEROS.into_iter().filter_map(|zero| u32::from(c).checked_sub(u32::from(zero))).find(|digit| *digit < 10)
}

pub(super) async fn me(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    let Some(session) = Session::of(&headers, &app.keys) else { return see_other("/join") };
    let who = session.person.clone();
    let found = app.desk.ask(move |room| {
        let own: Vec<_> =
            room.events().iter().filter(|stored| stored.vote.annotator == who).map(|s| s.vote.clone()).collect();
        let pace = pace_s(current_votes(&own).iter());
        let name = room.people().get(&who).map(|person| person.name.clone()).unwrap_or_default();
        (name, room.num_votes(&who), room.progress(), pace)
    });
    let (name, num_votes, (_, done, all), pace) = match found.await {
        Ok(found) => found,
        Err(error) => return app.failed(&error),
    };
    let code = app.keys.code(&session.person);
    let code = match code.split_at_checked(CODE_DIGITS / 2) {
        Some((left, right)) => format!("{left} {right}"),
        None => code,
    };
    app.framed(&headers, Some(&session), |frame| {
        app.page(StatusCode::OK, &MePage { frame, name, code, num_votes, done, all, pace })
    })
}

pub(super) async fn leave(State(app): State<Arc<App>>, headers: HeaderMap, sent: Sent) -> Response<Body> {
    let Some(session) = Session::of(&headers, &app.keys) else { return see_other("/join") };
    if let Err(response) = fields(sent, &session.csrf) {
        return *response;
    }
    let mut response = see_other("/join");
    if let Ok(cookie) = Session::no_cookie() {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[derive(Deserialize)]
pub(super) struct LanguageQuery {
    to: Option<String>,
}

pub(super) async fn language(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(query): Query<LanguageQuery>,
) -> Response<Body> {
    // Back to the page of ours that it was chosen on.
    let referer = headers.get(header::REFERER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = referer.splitn(4, '/').nth(3).map(|path| format!("/{}", path.trim_start_matches(['/', '\\'])));
    let mut response = see_other(path.as_deref().unwrap_or("/"));
    let to = query.to.unwrap_or_default();
    let is_known = app.strings.read().unwrap_or_else(std::sync::PoisonError::into_inner).has(&to);
    if let Some(cookie) = is_known.then(|| language_cookie(&to).ok()).flatten() {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

pub(super) async fn guidelines(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    let session = Session::of(&headers, &app.keys);
    app.framed(&headers, session.as_ref(), |frame| {
        let own = app.guidelines.clone();
        let html = own.unwrap_or_else(|| to_html(frame.say.of(DEFAULT_KEY)));
        app.page(StatusCode::OK, &GuidelinesPage { frame, html })
    })
}

pub(super) async fn style() -> Response<Body> {
    file("text/css; charset=utf-8", include_str!("../../../templates/annotate/style.css"))
}

pub(super) async fn script() -> Response<Body> {
    file(
        "text/javascript; charset=utf-8",
        concat!(
            include_str!("../../../templates/annotate/kept.js"),
            include_str!("../../../templates/annotate/page.js")
        ),
    )
}

pub(super) async fn worker() -> Response<Body> {
    file("text/javascript; charset=utf-8", include_str!("../../../templates/annotate/worker.js"))
}

fn file(kind: &'static str, text: &'static str) -> Response<Body> {
    let mut response = answer(StatusCode::OK, kind, text);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=300"));
    response
}

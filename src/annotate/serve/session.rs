//! Who asks: cookies, tokens of forms, and the headers that every answer has. A cookie is signed, so the server keeps no list of sessions.
//! Knows HTTP headers and the secret; knows nothing of votes or pages.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::annotate::keys::{Keys, is_same, random};
use crate::annotate::vote::is_id;

/// A person's cookie.
const COOKIE: &str = "pairwright";
/// The admin's cookie.
const ADMIN_COOKIE: &str = "pairwright-admin";
/// The language's cookie, which is no secret.
const LANGUAGE_COOKIE: &str = "pairwright-language";
/// Seconds that a cookie stays: 60 days.
const MAX_AGE_S: u32 = 5_184_000;

/// A person who came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who.
    pub person: String,
    /// What their forms must send.
    pub csrf: String,
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(other, _)| *other == name).map(|(_, value)| value)
}

impl Session {
    /// The person whose cookie this is, if it is one of ours.
    pub fn of(headers: &HeaderMap, keys: &Keys) -> Option<Self> {
        let value = cookie(headers, COOKIE)?;
        let mut parts = value.splitn(3, '.');
        let (person, nonce, mac) = (parts.next()?, parts.next()?, parts.next()?);
        let is_ours = is_id(person) && is_same(mac, &keys.link(&["session", person, nonce]));
        is_ours.then(|| Self { person: person.to_owned(), csrf: keys.link(&["csrf", value]) })
    }

    /// A cookie for a person.
    ///
    /// # Errors
    /// A system without a source of random numbers.
    pub fn cookie(person: &str, keys: &Keys) -> std::io::Result<HeaderValue> {
        let nonce = random(16)?;
        let mac = keys.link(&["session", person, &nonce]);
        set_cookie(COOKIE, &format!("{person}.{nonce}.{mac}"), "/", MAX_AGE_S)
    }

    /// What takes the cookie back.
    ///
    /// # Errors
    /// None that can come, as the text is fixed.
    pub fn no_cookie() -> std::io::Result<HeaderValue> {
        set_cookie(COOKIE, "", "/", 0)
    }
}

/// The admin's token for forms, if this is the admin.
pub fn admin_csrf(headers: &HeaderMap, keys: &Keys) -> Option<String> {
    let value = cookie(headers, ADMIN_COOKIE)?;
    let (nonce, mac) = value.split_once('.')?;
    is_same(mac, &keys.link(&["admin session", nonce])).then(|| keys.link(&["admin csrf", value]))
}

/// The admin's cookie.
///
/// # Errors
/// A system without a source of random numbers.
pub fn admin_cookie(keys: &Keys) -> std::io::Result<HeaderValue> {
    let nonce = random(16)?;
    let mac = keys.link(&["admin session", &nonce]);
    set_cookie(ADMIN_COOKIE, &format!("{nonce}.{mac}"), "/admin", MAX_AGE_S)
}

/// The language that somebody chose.
pub fn chosen_language(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, LANGUAGE_COOKIE)
}

/// Remembers a language.
///
/// # Errors
/// A code that is none.
pub fn language_cookie(code: &str) -> std::io::Result<HeaderValue> {
    set_cookie(LANGUAGE_COOKIE, code, "/", MAX_AGE_S)
}

fn set_cookie(name: &str, value: &str, path: &str, max_age_s: u32) -> std::io::Result<HeaderValue> {
    let text = format!("{name}={value}; Path={path}; Max-Age={max_age_s}; HttpOnly; SameSite=Strict");
    HeaderValue::from_str(&text).map_err(std::io::Error::other)
}

/// An answer with a body of this type.
pub fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Sends a browser to a page of ours by GET, so that neither "back" nor "again" sends a form a second time.
pub fn see_other(path: &str) -> Response<Body> {
    let mut response = answer(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    response
}

/// What every answer tells the browser: nothing from elsewhere, no scripts but our file, in no frame, not to be kept.
pub fn protect(response: &mut Response<Body>) {
    const HEADERS: [(HeaderName, &str); 6] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

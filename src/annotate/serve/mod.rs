//! The server: one thread for all connections, pages that work without JavaScript, and every vote through the desk.
//! Knows HTTP and, alone with its neighbours, async; what a vote means is the room's to know.

mod admin;
mod connections;
mod people;
pub mod session;
mod voting;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use askama::Template;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use thiserror::Error;
use tokio::net::TcpListener;

pub use self::connections::Connections;
use self::connections::Limited;
use self::session::{Session, answer, protect};
use super::desk::{Desk, DeskError, Setting};
use super::guidelines;
use super::items::Items;
use super::keys::{Keys, random};
use super::limits::{Kind, Limits};
use super::pages::Frame;
use super::queue::QueueOptions;
use super::store::{Person, StoreError};
use super::strings::Strings;

/// Most bytes of what somebody sends.
const MAX_BODY_BYTES: usize = 512 << 10;
/// How long open connections may take when the server stops.
const GRACE: Duration = Duration::from_secs(3);
/// How often the server looks whether it should stop.
const LOOK: Duration = Duration::from_millis(100);

/// How to serve.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// 0: any free one.
    pub port: u16,
    /// For the whole network, and then for invited people alone.
    pub is_lan: bool,
    /// Names of people who get a code each; if there are any, nobody else comes in.
    pub names: Vec<String>,
    /// All links, codes and sessions given out so far end.
    pub new_links: bool,
    /// Markdown; the program's own, in the reader's language, if `None`.
    pub guidelines: Option<String>,
    /// What people must agree to before they vote.
    pub consent: Option<String>,
    /// The queue.
    pub queue: QueueOptions,
    /// How many connections, and for how long.
    pub connections: Connections,
}

/// Why it does not serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The votes.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be had, or the runtime not be started.
    #[error(
        "cannot serve on {address}: {source}\nhint: another program may use that port; give another with --port, or 0 for any"
    )]
    Io {
        /// Where.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// A person of the list cannot be noted.
    #[error("cannot note the people of the list: {0}")]
    Desk(#[from] DeskError),
    /// A run without two different answers to any prompt.
    #[error("the run has no item to vote on: none of its {num_rows} rows has two different answers\nhint: {why}")]
    NoItems {
        /// Rows of the run.
        num_rows: u64,
        /// Reasons with counts.
        why: String,
    },
}

/// What a server that is ready says of itself.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// The address for people, on this machine or in the network.
    pub people: String,
    /// The same with an invitation.
    pub invitation: String,
    /// The admin's.
    pub admin: String,
    /// Names of the list with their links.
    pub codes: Vec<(String, String)>,
}

/// Everything that requests share.
pub(in crate::annotate) struct App {
    desk: Desk,
    keys: Keys,
    strings: RwLock<Strings>,
    limits: Limits,
    languages: Vec<String>,
    guidelines: Option<String>,
    consent: Option<String>,
    is_lan: bool,
    is_listed: bool,
    invitation: String,
}

/// Serves a run's items until `should_stop` says so, then finishes what is asked and closes the store.
///
/// # Errors
/// A store that another process writes, an address that is taken, a run without items.
pub fn serve(
    run: PathBuf,
    items: Items,
    options: ServeOptions,
    ready: impl FnOnce(&Ready),
    should_stop: impl Fn() -> bool + Send + 'static,
) -> Result<(), ServeError> {
    if items.items.is_empty() {
        let reasons = items.left_out.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " ")));
        let why = reasons.collect::<Vec<_>>().join(", ");
        return Err(ServeError::NoItems { num_rows: items.num_rows, why });
    }
    let mut keys = Keys::open(&run)?;
    if options.new_links {
        keys.renew_links(&run)?;
    }
    let strings = Strings::open(&run)?;
    let items = Arc::new(items);
    let setting = Setting { run, items: Arc::clone(&items), keys: keys.clone(), options: options.queue };
    let (desk, thread) = Desk::open(setting)?;
    let host = if options.is_lan { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from([127, 0, 0, 1]) };
    let address = SocketAddr::new(host, options.port);
    let failed = |source| ServeError::Io { address, source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(failed)?;
    let served = runtime.block_on(async {
        let codes = note_listed(&desk, &keys, &options.names).await?;
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let told = told(bound, &options, &keys, codes);
        let mut languages: Vec<String> = items.items.iter().map(|item| item.language.clone()).collect();
        languages.sort();
        languages.dedup();
        let app = Arc::new(App {
            desk,
            strings: RwLock::new(strings),
            limits: Limits::default(),
            languages,
            guidelines: options.guidelines.as_deref().map(guidelines::to_html),
            consent: options.consent.clone(),
            is_lan: options.is_lan,
            is_listed: !options.names.is_empty(),
            invitation: told.invitation.clone(),
            keys,
        });
        ready(&told);
        listen(Limited::new(listener, options.connections), app, should_stop).await.map_err(failed)
    });
    // Connections that are still open go with the runtime, and with them the last ways to the desk's thread.
    drop(runtime);
    // A thread that panicked has said so; what was answered is on the disk.
    drop(thread.join());
    served
}

async fn listen(listener: Limited, app: Arc<App>, should_stop: impl Fn() -> bool) -> std::io::Result<()> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut stopping = stopped.clone();
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    // A tap that does nothing makes the address of a listener of our own known to requests.
    let server = axum::serve(listener.tap_io(|_| {}), service).with_graceful_shutdown(async move {
        // An error says that the other end is gone, which is a reason to stop too.
        drop(stopping.wait_for(|stop| *stop).await);
    });
    let watch = async {
        while !should_stop() {
            tokio::time::sleep(LOOK).await;
        }
        stop.send_replace(true);
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = std::future::IntoFuture::into_future(server) => served,
        () = watch => Ok(()),
    }
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(voting::page))
        .route("/tasks", get(voting::tasks))
        .route("/vote", post(voting::vote))
        .route("/change", post(voting::change))
        .route("/undo", post(voting::undo))
        .route("/history", get(voting::history))
        .route("/history/{event}", get(voting::one))
        .route("/join", get(people::join_page).post(people::join))
        .route("/join/{invitation}", get(people::join_by_link))
        .route("/enter", post(people::enter))
        .route("/enter/{code}", get(people::enter_by_link))
        .route("/me", get(people::me))
        .route("/leave", post(people::leave))
        .route("/language", get(people::language))
        .route("/guidelines", get(people::guidelines))
        .route("/admin", get(admin::page))
        .route("/admin/{token}", get(admin::enter))
        .route("/admin/votes.jsonl", get(admin::votes))
        .route("/admin/strings", get(admin::strings_page).post(admin::translate))
        .route("/style.css", get(people::style))
        .route("/page.js", get(people::script))
        .route("/worker.js", get(people::worker))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// Before and after every request: is it meant for us, may this person ask so often, and what the browser is told.
async fn guard(
    State(app): State<Arc<App>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let session = Session::of(request.headers(), &app.keys);
    let may = match &session {
        Some(session) => app.limits.take(Kind::Session, &session.person),
        None => app.limits.take(Kind::Stranger, &address.ip().to_string()),
    };
    let is_write = request.method() != Method::GET && request.method() != Method::HEAD;
    let mut response = if !is_own_host(request.headers(), app.is_lan) {
        answer(
            StatusCode::MISDIRECTED_REQUEST,
            "text/plain; charset=utf-8",
            "This server is asked by its address alone.\n",
        )
    } else if is_write && is_from_elsewhere(request.headers()) {
        answer(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", "Another page sent this.\n")
    } else if !may {
        let mut slow =
            answer(StatusCode::TOO_MANY_REQUESTS, "text/plain; charset=utf-8", "Too many requests; wait a little.\n");
        slow.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("2"));
        slow
    } else {
        next.run(request).await
    };
    protect(&mut response);
    response
}

/// A page of another site may let its name point to this address and so ask in its own name; ours is asked by number, or as localhost.
fn is_own_host(headers: &HeaderMap, is_lan: bool) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let is_port = |text: &str| text.is_empty() || text.parse::<u16>().is_ok();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && !name.ends_with(':') => name,
        _ => host,
    };
    let number = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match number {
        Ok(number) => is_lan || number.is_loopback(),
        Err(_) => name == "localhost" || is_lan && name.ends_with(".local"),
    }
}

/// What browsers say of a form that another site's page sends.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return !["same-origin", "none"].contains(&site);
    }
    let host = text("host").unwrap_or_default();
    text("origin").is_some_and(|origin| origin.strip_prefix("http://") != Some(host))
}

/// People of the list who are new get a pseudonym; all get the link with their code.
async fn note_listed(desk: &Desk, keys: &Keys, names: &[String]) -> Result<Vec<(String, String)>, DeskError> {
    let mut codes = Vec::new();
    for name in names {
        let wanted = name.clone();
        let known = desk
            .ask(move |room| {
                room.people().values().find(|person| person.name == wanted).map(|one| one.pseudonym.clone())
            })
            .await?;
        let pseudonym = match known {
            Some(pseudonym) => pseudonym,
            None => {
                let person = new_person(name).map_err(DeskError::from)?;
                desk.note(person.clone()).await?;
                person.pseudonym
            }
        };
        codes.push((name.clone(), keys.code(&pseudonym)));
    }
    Ok(codes)
}

/// Somebody with a pseudonym that says nothing.
fn new_person(name: &str) -> std::io::Result<Person> {
    let pseudonym = format!("a-{}", random(5)?);
    let name = name.to_owned();
    Ok(Person { pseudonym, name, credit: String::new(), languages: Vec::new(), consent: String::new(), at: now() })
}

fn told(bound: SocketAddr, options: &ServeOptions, keys: &Keys, codes: Vec<(String, String)>) -> Ready {
    let host = if options.is_lan {
        super::address::own().map_or_else(|| "THIS-MACHINE".to_owned(), |ip| ip.to_string())
    } else {
        "127.0.0.1".to_owned()
    };
    let people = format!("http://{host}:{}/", bound.port());
    let link = |path: &str, token: &str| format!("{people}{path}/{token}");
    Ready {
        address: bound,
        invitation: link("join", &keys.link(&["invitation"])),
        admin: link("admin", &keys.link(&["admin"])),
        codes: codes.into_iter().map(|(name, code)| (name, link("enter", &code))).collect(),
        people,
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl App {
    /// Fills in a page; `status` is what it comes with.
    fn page<T: Template>(&self, status: StatusCode, page: &T) -> Response<Body> {
        match page.render() {
            Ok(html) => answer(status, "text/html; charset=utf-8", html),
            Err(error) => {
                let why = format!("The page could not be filled in: {error}\n");
                answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", why)
            }
        }
    }

    /// Calls `make` with what is around every page, in the language of who asks.
    fn framed<R>(&self, headers: &HeaderMap, session: Option<&Session>, make: impl FnOnce(Frame<'_>) -> R) -> R {
        let strings = self.strings.read().unwrap_or_else(PoisonError::into_inner);
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let chosen = session::chosen_language(headers).filter(|code| strings.has(code));
        let code = chosen.unwrap_or_else(|| strings.choose(accepted)).to_owned();
        make(Frame {
            say: strings.tongue(&code),
            who: session.map(|session| session.person.clone()).unwrap_or_default(),
            csrf: session.map(|session| session.csrf.clone()).unwrap_or_default(),
            languages: strings.languages().collect(),
            notice: None,
        })
    }

    /// A disk that refused, or a server that stops: nothing counts, and it can be sent again.
    fn failed(&self, error: &DeskError) -> Response<Body> {
        answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", format!("Not saved: {error}\n"))
    }
}

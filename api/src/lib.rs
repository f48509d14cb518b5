//! The HTTP API. [`app`] is its table of contents.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use shared::changes::Changes;
use shared::config::{Model, Secret};
use shared::database::Database;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub mod address;
pub mod auth;
pub mod body;
mod cached;
pub mod client;
pub mod commands;
pub mod config;
pub mod connections;
pub mod error;
pub mod guard;
pub mod idempotency;
pub mod metrics;
pub mod negotiate;
pub mod observe;
pub mod openapi;
pub mod options;
pub mod page;
pub mod password;
pub mod places;
pub mod prune;
pub mod query;
mod quota;
pub mod rate_limit;
pub mod render;
pub mod routes;
pub mod search;
pub mod serve;
pub mod token;
pub mod wait;

use crate::cached::Cached;
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::password::Passwords;
use crate::places::{Places, UserPlaces};
use crate::rate_limit::RateLimit;
use crate::routes::{admin, blogs, health, jobs, models, scrape, sessions, sign_in, users};
use crate::token::Keys;
use crate::wait::Waits;

/// What all handlers share.
#[derive(Clone, Debug)]
pub struct AppState {
    /// Where everything is kept.
    pub db: Database,
    /// What tokens and cursors are signed with.
    pub keys: Arc<Keys>,
    /// Hashes and verifies passwords.
    pub passwords: Passwords,
    /// What clients may choose from; the first is the default.
    pub models: Arc<[Model]>,
    /// Places for searches, which are the only slow queries.
    pub searches: UserPlaces,
    /// Places for posts that are rendered, which takes a core.
    pub renders: Places,
    /// What the service lacks to work.
    pub(crate) readiness: Cached<Vec<String>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Places for those who wait for a job.
    pub waits: Waits,
    /// How often one may ask; without it, as often as one likes.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// The settings.
    pub config: Arc<Config>,
    /// Canceled when the API is to stop: nobody waits any longer then.
    pub stop: CancellationToken,
}

impl AppState {
    /// The state of an API on `db`, which signs with `secret` and ends when `stop`
    /// is canceled.
    ///
    /// # Errors
    /// When a setting is bad.
    pub fn new(
        config: Config,
        db: Database,
        secret: &Secret,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let changes = Changes::watch(&db);
        Ok(AppState {
            waits: Waits::new(db.clone(), changes, stop.clone()),
            db,
            keys: Arc::new(Keys::new(secret)),
            passwords: Passwords::new()?,
            models: config.agent.models()?.into(),
            searches: UserPlaces::new(MAX_SEARCHES),
            renders: Places::of_cores(),
            readiness: Cached::new(health::READY_MAX_AGE),
            metrics: Arc::new(Metrics::new()?),
            rate_limit: NonZeroU32::new(config.rate_limit_per_minute)
                .map(|per_minute| Arc::new(RateLimit::new(per_minute))),
            config: Arc::new(config),
            stop,
        })
    }
}

/// How many searches an API makes at once, which leaves a connection to other
/// queries even on SQLite.
const MAX_SEARCHES: usize = 3;

const LARGEST_BODY: usize = 1024 * 1024;

/// Every route on one page; the OpenAPI document is made of the same list.
pub fn app(state: AppState) -> Router {
    let v1 = OpenApiRouter::new()
        .routes(routes!(sign_in::register))
        .routes(routes!(sign_in::login))
        .routes(routes!(sign_in::refresh))
        .routes(routes!(sign_in::logout))
        .routes(routes!(users::me, users::delete_me))
        .routes(routes!(users::change_password))
        .routes(routes!(sessions::list, sessions::revoke_others))
        .routes(routes!(sessions::revoke))
        .routes(routes!(blogs::list, blogs::create))
        .routes(routes!(blogs::get, blogs::update, blogs::delete))
        .routes(routes!(blogs::status))
        .routes(routes!(blogs::regenerate))
        .routes(routes!(models::list))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::get))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(admin::users::list))
        .routes(routes!(admin::users::update))
        .routes(routes!(admin::jobs::list))
        .routes(routes!(admin::jobs::bulk::change))
        .routes(routes!(admin::jobs::get))
        .routes(routes!(admin::jobs::cancel))
        .routes(routes!(admin::jobs::retry))
        .routes(routes!(admin::workers::list))
        .routes(routes!(admin::queue::get))
        .routes(routes!(admin::queue::pause))
        .routes(routes!(admin::queue::resume))
        .routes(routes!(admin::audit::list));

    let (router, document) = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(scrape::metrics))
        .nest("/api/v1", v1)
        .split_for_parts();

    router
        .merge(openapi::docs(document))
        .fallback(|| async { Error::NotFound })
        .method_not_allowed_fallback(|| async { Error::MethodNotAllowed })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(from_fn_with_state(state.clone(), rate_limit::limit))
        .layer(from_fn_with_state(state.clone(), address::note))
        .layer(map_response(for_the_client_alone))
        .layer(from_fn(observe::observe))
        .layer(from_fn_with_state(state.metrics.clone(), metrics::count))
        .with_state(state)
}

/// Answers are one user's own: caches on the way keep none of them, and a
/// client's own cache asks before it uses one. Browsers don't guess that
/// something is a page.
async fn for_the_client_alone(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let caching = match headers.contains_key(header::ETAG) {
        true => "private, no-cache",
        false => "no-store",
    };
    let caching = HeaderValue::from_static(caching);
    headers.entry(header::CACHE_CONTROL).or_insert(caching);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let what = text.unwrap_or("a panic without words");
    Error::Internal(format!("a handler panicked: {what}")).into_response()
}

//! Every route on one page.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::Error;
use crate::middleware::rate_limit::RateLimit;
use crate::middleware::{client_ip, panic, rate_limit, request_context, security_headers};
use crate::openapi;
use crate::routes::{admin, auth, health, jobs, metrics, models, posts, sessions, users};
use crate::state::AppState;

const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The API's routes; the OpenAPI document is made of the same list.
pub fn app(state: AppState) -> Router {
    let v1 = OpenApiRouter::new()
        .routes(routes!(auth::register))
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(users::me, users::delete_me))
        .routes(routes!(users::change_password))
        .routes(routes!(sessions::list, sessions::revoke_others))
        .routes(routes!(sessions::revoke))
        .routes(routes!(posts::list, posts::create))
        .routes(routes!(posts::get, posts::update, posts::delete))
        .routes(routes!(posts::status))
        .routes(routes!(posts::regenerate))
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

    let (router, document) = OpenApiRouter::with_openapi(openapi::base_document())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .nest("/api/v1", v1)
        .split_for_parts();

    let limit = NonZeroU32::new(state.config.rate_limit_per_minute)
        .map(|per_minute| Arc::new(RateLimit::new(per_minute, state.keys.clone())));
    router
        .merge(openapi::docs(document))
        .fallback(|| async { Error::NotFound })
        .method_not_allowed_fallback(|| async { Error::MethodNotAllowed })
        .layer(CatchPanicLayer::custom(panic::panic_response))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(limit, rate_limit::rate_limit))
        .layer(from_fn_with_state(state.clone(), client_ip::client_ip))
        .layer(map_response(security_headers::set_security_headers))
        .layer(from_fn(request_context::request_context))
        .layer(from_fn_with_state(
            state.metrics.clone(),
            crate::metrics::track_metrics,
        ))
        .with_state(state)
}

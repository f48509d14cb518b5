//! Every route.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::error::Error;
use crate::middleware::rate_limit::RateLimit;
use crate::middleware::{client_ip, panic, rate_limit, request_context, security_headers};
use crate::openapi;
use crate::page;
use crate::routes::{
    account, admin, api_keys, auth, health, jobs, metrics, models, posts, sessions,
};
use crate::state::AppState;

const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The same where sources come along: 20 texts of 200,000 bytes, of which JSON may make twice as many.
const MAX_BODY_BYTES_WITH_SOURCES: usize = 8 * 1024 * 1024;

/// The API with its middleware. The OpenAPI document is generated from the same routes.
pub fn app(state: AppState) -> Router {
    let v1 = OpenApiRouter::new()
        .routes(routes!(auth::register))
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(account::get_me, account::delete_me))
        .routes(routes!(account::change_password))
        .routes(routes!(
            sessions::list_sessions,
            sessions::revoke_other_sessions
        ))
        .routes(routes!(sessions::revoke_session))
        .routes(routes!(api_keys::list_api_keys, api_keys::create_api_key))
        .routes(routes!(api_keys::revoke_api_key))
        .routes(
            routes!(posts::list::list_posts, posts::create::create_post)
                .layer(DefaultBodyLimit::max(MAX_BODY_BYTES_WITH_SOURCES)),
        )
        .routes(routes!(
            posts::read::get_post,
            posts::update::update_post,
            posts::update::patch_post,
            posts::delete::delete_post
        ))
        .routes(routes!(posts::read::get_post_status))
        .routes(
            routes!(posts::regenerate::regenerate_post)
                .layer(DefaultBodyLimit::max(MAX_BODY_BYTES_WITH_SOURCES)),
        )
        .routes(routes!(
            posts::outline::get_outline,
            posts::outline::update_outline
        ))
        .routes(routes!(posts::outline::approve_outline))
        .routes(routes!(posts::sections::list_sections))
        .routes(routes!(posts::sections::regenerate_section))
        .routes(routes!(posts::revisions::list_revisions))
        .routes(routes!(posts::revisions::get_revision))
        .routes(routes!(posts::revisions::restore_revision))
        .routes(routes!(posts::revision_diff::diff_revisions))
        .routes(routes!(posts::sources::get_source))
        .routes(routes!(models::list_models))
        .routes(routes!(jobs::list::list_jobs))
        .routes(routes!(jobs::read::get_job))
        .routes(routes!(jobs::events::get_job_events))
        .routes(routes!(jobs::cancel::cancel_job))
        .routes(routes!(jobs::retry::retry_job))
        .routes(routes!(admin::users::list_users))
        .routes(routes!(admin::users::update_user))
        .routes(routes!(admin::jobs::list_all_jobs))
        .routes(routes!(admin::jobs::bulk::change_jobs))
        .routes(routes!(admin::jobs::get_any_job))
        .routes(routes!(admin::jobs::cancel_any_job))
        .routes(routes!(admin::jobs::retry_any_job))
        .routes(routes!(admin::workers::list_workers))
        .routes(routes!(admin::queue::get_queue))
        .routes(routes!(admin::queue::get_queue_history))
        .routes(routes!(admin::queue::pause_queue))
        .routes(routes!(admin::queue::resume_queue))
        .routes(routes!(admin::audit::list_audit_events));

    let (router, document) = OpenApiRouter::with_openapi(openapi::base_document())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .nest("/api/v1", v1)
        .split_for_parts();

    let limit = NonZeroU32::new(state.config.rate_limit_per_minute).map(|per_minute| {
        Arc::new(RateLimit::new(
            per_minute,
            state.keys.clone(),
            state.refused_keys.clone(),
        ))
    });
    router
        .merge(openapi::docs(document))
        .merge(page::routes())
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

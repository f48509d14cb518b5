//! The OpenAPI document, made of the routes, and the page that shows it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, KnownFormat, Object, OpenApi, Ref, RefOr, Schema, SchemaFormat, Type, response,
};
use utoipa::{OpenApi as _, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::error::{Error, FieldError, Problem};
use crate::extract::idempotency;
use crate::extract::text_rules::blank_class;
use crate::middleware::rate_limit::LIMITED_PREFIX;
use crate::state::AppState;

mod links;

/// Where the document is served.
pub(crate) const PATH: &str = "/api/v1/openapi.json";

/// The fields that tell of the limit on requests.
const LIMIT_FIELDS: [(&str, &str, &str); 2] = [
    (
        "RateLimit-Policy",
        "How many requests one may make in a window of so many seconds.",
        "\"default\";q=600;w=60",
    ),
    (
        "RateLimit",
        "How many requests are left, and in how many seconds there is one more.",
        "\"default\";r=599;t=1",
    ),
];

/// What the document says besides the routes.
pub(crate) fn base_document() -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        info(
            title = "Blog Post Generation API",
            description = "Give a topic, get a blog post written by an AI agent. A request is \
                           stored and answered at once with 202; poll its job, or wait for it.",
            license(name = "MIT", identifier = "MIT"),
        ),
        servers((url = "/", description = "The server that this document is from.")),
        components(schemas(Problem, FieldError)),
        security(("bearer" = [])),
        tags(
            (name = "users", description = "Accounts and sessions"),
            (name = "blogs", description = "Blog posts"),
            (name = "jobs", description = "The jobs that write them"),
            (name = "admin", description = "For admins only"),
            (name = "operation", description = "For those who run the service"),
        ),
    )]
    struct Base;

    let mut document = Base::openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "An access token, from register, login or refresh: a JWT that is made and checked \
             as RFC8725 recommends.",
        ))
        .build();
    if let Some(components) = &mut document.components {
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        for (name, description, example) in LIMIT_FIELDS {
            let header = Header::builder()
                .schema(Some(Object::with_type(Type::String)))
                .description(Some(description))
                .example(Some(example.into()))
                .build();
            components.headers.insert(name.to_owned(), header.into());
        }
    }
    document
}

/// Serves the document, and a page for it that needs nothing from elsewhere.
pub(crate) fn docs(mut document: OpenApi) -> Router<AppState> {
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            mark_open(operation);
            forbid_null(operation);
            complete_responses(operation);
            add_replays(operation);
            add_problems(operation);
            links::add(operation);
            if path.starts_with(LIMITED_PREFIX) {
                add_limit(operation);
            }
        }
    }
    let document = expand_shorthands(&document);
    let config = Config::from(PATH).persist_authorization(true);
    // By default it has a validator on the internet read the document.
    let page = SwaggerUi::new("/docs").config(config.validator_url("none"));
    Router::from(page)
        .layer(map_response(as_problem))
        .layer(map_response(in_utf_8))
        .route(PATH, get(|| async { Json(document) }))
}

/// The document with its patterns as they are meant: the attributes write `\\s` for
/// all that leaves nothing to see.
fn expand_shorthands(document: &OpenApi) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let visible = format!("[^{}]", blank_class());
    expand_shorthand(&mut document, &visible);
    document
}

fn expand_shorthand(value: &mut Value, visible: &str) {
    match value {
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| expand_shorthand(item, visible)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(pattern) if name == "pattern" => {
                        *pattern = pattern.replace(VISIBLE, visible);
                    }
                    other => expand_shorthand(other, visible),
                }
            }
        }
        _ => {}
    }
}

/// A character that is seen, as the attributes write it.
const VISIBLE: &str = r"[^\s\x00]";

/// A file that the page does not have is not found as anything else is.
async fn as_problem(response: Response) -> Response {
    match response.status() {
        StatusCode::NOT_FOUND => Error::NotFound.into_response(),
        _ => response,
    }
}

/// The page is text, and says how it is to be read.
async fn in_utf_8(mut response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok());
    let text = kind.filter(|kind| kind.starts_with("text/") && !kind.contains(';'));
    let value = text.and_then(|text| HeaderValue::try_from(format!("{text}; charset=utf-8")).ok());
    if let Some(value) = value {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
    ]
    .into_iter()
    .flatten()
}

/// What anyone may do needs no kind of proof, which is an empty list; utoipa has a
/// list of one kind that asks for nothing.
fn mark_open(operation: &mut Operation) {
    let nothing = [SecurityRequirement::default()];
    if operation.security.as_deref() == Some(&nothing) {
        operation.security = Some(Vec::new());
    }
}

/// A body that may be left out may not be null, which to utoipa are the same.
fn forbid_null(operation: &mut Operation) {
    let Some(RefOr::T(body)) = &mut operation.request_body else {
        return;
    };
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(RefOr::T(Schema::OneOf(choice))) = &content.schema
        {
            let is_named = |item: &&RefOr<Schema>| matches!(item, RefOr::Ref(_));
            content.schema = choice.items.iter().find(is_named).cloned();
        }
    }
}

/// Describes the responses whose status says it all: OpenAPI 3.1 wants each described.
/// Gives those of errors their content.
fn complete_responses(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else {
            continue;
        };
        if response.description.is_empty() {
            let status = status.parse::<StatusCode>().ok();
            let reason = status.and_then(|status| status.canonical_reason());
            response.description = reason.unwrap_or_default().to_owned();
        }
        if status.starts_with(['4', '5']) && response.content.is_empty() {
            *response = problem(&response.description);
        }
    }
}

/// Adds the header that tells a replay, where there are replays.
fn add_replays(operation: &mut Operation) {
    if !takes_key(operation) {
        return;
    }
    let responses = operation.responses.responses.iter_mut();
    for (_, response) in responses.filter(|(status, _)| status.starts_with('2')) {
        let RefOr::T(response) = response else {
            continue;
        };
        let replayed = Header::builder()
            .schema(Some(Object::with_type(Type::Boolean)))
            .description(Some("True where it answers an earlier request."))
            .build();
        let name = idempotency::REPLAYED.to_owned();
        response.headers.insert(name, replayed.into());
    }
}

fn takes_key(operation: &Operation) -> bool {
    let mut parameters = operation.parameters.iter().flatten();
    parameters.any(|p| matches!(p, RefOr::T(p) if p.name == idempotency::HEADER))
}

/// Adds the errors that an operation may answer with by its nature, so that no
/// handler has to repeat them.
fn add_problems(operation: &mut Operation) {
    let parameters = operation.parameters.iter().flatten();
    let has = |wanted: ParameterIn| {
        let mut parameters = parameters.clone();
        parameters.any(|p| matches!(p, RefOr::T(p) if p.parameter_in == wanted))
    };
    let in_query = has(ParameterIn::Query);
    let mut problems = Vec::new();
    if operation.security.is_none() {
        problems.push(("401", "Not signed in, or no longer."));
        problems.push(("403", "Signed in, but not allowed."));
    }
    if has(ParameterIn::Path) {
        problems.push(("404", "There is no such thing, or it is someone else's."));
    }
    if takes_key(operation) {
        problems.push((
            "409",
            "The first request with this Idempotency-Key is under way.",
        ));
        problems.push((
            "422",
            "Some fields are not valid, or the Idempotency-Key is another request's.",
        ));
    }
    if operation.request_body.is_some() || in_query {
        problems.push(("400", "The request can't be read."));
        problems.push(("422", "Some fields are not valid."));
    }
    if operation.request_body.is_some() {
        problems.push(("413", "The body is larger than 1 MiB."));
        problems.push(("415", "The body is not application/json."));
    }
    problems.push(("500", "Something went wrong on our side."));
    problems.push((
        "503",
        "The database can't be reached, or there is too much to do.",
    ));
    for (status, description) in problems {
        let responses = &mut operation.responses.responses;
        let problem = RefOr::T(problem(description));
        responses.entry(status.to_owned()).or_insert(problem);
    }
}

/// Adds what responses tell of the limit on requests, and the one that refuses.
fn add_limit(operation: &mut Operation) {
    let mut refused =
        problem("Too many requests, or more unfinished jobs, posts or text than one may have.");
    let seconds = Header::builder()
        .schema(Some(seconds()))
        .description(Some("After how many seconds to ask again."));
    let seconds = seconds.build().into();
    refused.headers.insert("Retry-After".to_owned(), seconds);
    let responses = &mut operation.responses.responses;
    responses.insert("429".to_owned(), RefOr::T(refused));
    for response in responses.values_mut() {
        let RefOr::T(response) = response else {
            continue;
        };
        for (name, ..) in LIMIT_FIELDS {
            let header = Ref::new(format!("#/components/headers/{name}"));
            response.headers.insert(name.to_owned(), RefOr::Ref(header));
        }
    }
}

fn seconds() -> Object {
    let mut seconds = Object::with_type(Type::Integer);
    seconds.format = Some(SchemaFormat::KnownFormat(KnownFormat::Int32));
    seconds.minimum = Some(1.into());
    seconds
}

fn problem(description: &str) -> response::Response {
    let schema = Ref::from_schema_name(Problem::name());
    response::Response::builder()
        .description(description)
        .content("application/problem+json", Content::new(Some(schema)))
        .build()
}

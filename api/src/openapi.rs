//! The OpenAPI document, generated from the routes, and its page.

use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, KnownFormat, Object, OpenApi, Ref, RefOr, Schema, SchemaFormat, Type, response,
};
use utoipa::{OpenApi as _, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::error::{Error, FieldError, Problem};
use crate::events::EndLinks;
use crate::extract::idempotency;
use crate::extract::text_rules::blank_class;
use crate::middleware::rate_limit::LIMITED_PREFIX;
use crate::state::AppState;

mod links;

pub(crate) const PATH: &str = "/api/v1/openapi.json";

/// The rate limit's headers.
const LIMIT_FIELDS: [(&str, &str, &str); 2] = [
    (
        "RateLimit-Policy",
        "The quota of requests, and its window in seconds.",
        "\"default\";q=600;w=60",
    ),
    (
        "RateLimit",
        "How many requests are left, and in how many seconds there is one more.",
        "\"default\";r=599;t=1",
    ),
];

/// The document without the routes.
pub(crate) fn base_document() -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        info(
            title = "Blog Post Generation API",
            description = "Blog posts on given topics, written by an AI agent. A request is \
                           stored and answered at once with 202; poll its job, or wait for it.",
            license(name = "MIT", identifier = "MIT"),
        ),
        servers((url = "/", description = "The server of this document.")),
        components(schemas(Problem, FieldError, EndLinks)),
        security(("bearer" = [])),
        tags(
            (name = "users", description = "Accounts and sessions"),
            (name = "blogs", description = "Blog posts"),
            (name = "jobs", description = "Generation jobs"),
            (name = "admin", description = "Administration"),
            (name = "operation", description = "Operation"),
        ),
    )]
    struct Base;

    let mut document = Base::openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "An access token, from register, login or refresh: a JWT that is signed and verified \
             as RFC8725 recommends. Or an API key, except for accounts, sessions and keys.",
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

/// Serves the document, and a page for it that loads nothing from elsewhere.
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
    let mut document = expand_shorthands(&document);
    complete_events(&mut document);
    let config = Config::from(PATH).persist_authorization(true);
    // The default is a validator on the internet.
    let page = SwaggerUi::new("/docs").config(config.validator_url("none"));
    Router::from(page)
        .layer(map_response(as_problem))
        .layer(map_response(in_utf_8))
        .route(PATH, get(|| async { Json(document) }))
}

/// Makes a schema of its own for each event and its data, with what they are sent with besides:
/// generators can't name those that stand within others.
fn complete_events(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    let number =
        json!({ "type": "integer", "format": "int32", "description": "The event's number." });
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let mut events = Vec::new();
    let mut mapping = Map::new();
    for mut event in schemas["JobEvent"]["oneOf"]
        .take()
        .as_array()
        .cloned()
        .unwrap_or_default()
    {
        let kind = event["properties"]["event"]["enum"][0]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let words = kind
            .split('.')
            .map(|word| word[..1].to_uppercase() + &word[1..]);
        let name = format!("JobEvent{}", words.collect::<String>());
        let (mut data_name, mut data) = (format!("{name}Data"), event["properties"]["data"].take());
        if kind == "snapshot" {
            data_name = "JobSnapshot".to_owned();
            data = schemas[&data_name].take();
        }
        // One that snapshots have, too, and there without what is added here.
        let shared = data["$ref"].as_str().unwrap_or_default().to_owned();
        if let Some(shared) = shared.strip_prefix("#/components/schemas/") {
            data = schemas[shared].clone();
        }
        let mut added = vec![("seq", number.clone())];
        if kind == "end" {
            added.push(("links", reference("EndLinks")));
        }
        for (field, schema) in added {
            data["properties"][field] = schema;
            if let Some(required) = data["required"].as_array_mut() {
                required.push(field.into());
            }
        }
        event["properties"]["id"] = number.clone();
        event["properties"]["data"] = reference(&data_name);
        event["required"] = json!(["id", "event", "data"]);
        schemas[&data_name] = data;
        schemas[&name] = event;
        events.push(reference(&name));
        mapping.insert(kind, format!("#/components/schemas/{name}").into());
    }
    schemas["JobEvent"]["oneOf"] = events.into();
    schemas["JobEvent"]["discriminator"] = json!({ "propertyName": "event", "mapping": mapping });
}

/// Expands [`VISIBLE`] in patterns to exclude all invisible characters.
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

/// A visible character, as attributes write it.
const VISIBLE: &str = r"[^\s\x00]";

/// A missing file of the page is answered like any other missing path.
async fn as_problem(response: Response) -> Response {
    match response.status() {
        StatusCode::NOT_FOUND => Error::NotFound.into_response(),
        _ => response,
    }
}

/// Adds the charset to text.
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

/// Public operations have an empty list; utoipa makes a list of one empty requirement.
fn mark_open(operation: &mut Operation) {
    let nothing = [SecurityRequirement::default()];
    if operation.security.as_deref() == Some(&nothing) {
        operation.security = Some(Vec::new());
    }
}

/// An optional body must not be null, which utoipa does not distinguish.
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

/// Adds the missing descriptions, which OpenAPI 3.1 requires, and the content of errors.
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

/// Adds the header of replays to operations with an `Idempotency-Key`.
fn add_replays(operation: &mut Operation) {
    if !takes_key(operation) {
        return;
    }
    let replayed = Header::builder()
        .schema(Some(Object::with_type(Type::Boolean)))
        .description(Some("True if it is a replay of the first response."))
        .build();
    for (status, response) in &mut operation.responses.responses {
        if status.starts_with('2')
            && let RefOr::T(response) = response
        {
            let name = idempotency::REPLAYED.to_owned();
            response.headers.insert(name, replayed.clone().into());
        }
    }
}

fn takes_key(operation: &Operation) -> bool {
    let mut parameters = operation.parameters.iter().flatten();
    parameters.any(|p| matches!(p, RefOr::T(p) if p.name == idempotency::HEADER))
}

/// Adds the errors that follow from an operation's parameters, body and security.
fn add_problems(operation: &mut Operation) {
    let has = |wanted: ParameterIn| {
        let mut parameters = operation.parameters.iter().flatten();
        parameters.any(|p| matches!(p, RefOr::T(p) if p.parameter_in == wanted))
    };
    let needs_token = operation.security.is_none();
    let takes_key = takes_key(operation);
    let has_body = operation.request_body.is_some();
    let has_input = has_body || has(ParameterIn::Query);
    let problems = [
        (needs_token, "401", "No valid access token."),
        (needs_token, "403", "Not allowed."),
        (has(ParameterIn::Path), "404", "Not found."),
        (
            takes_key,
            "409",
            "The first request with this Idempotency-Key is in progress.",
        ),
        (
            takes_key,
            "422",
            "Some fields are invalid, or the Idempotency-Key is not a new one.",
        ),
        (has_input, "400", "The request is malformed."),
        (has_input, "422", "Some fields are invalid."),
        (
            has_body,
            "413",
            "The body is larger than 1 MiB, or with sources 8 MiB.",
        ),
        (has_body, "415", "The body is not application/json."),
        (true, "500", "Internal error."),
        (
            true,
            "503",
            "The database is unavailable, or the service is overloaded.",
        ),
    ];
    let responses = &mut operation.responses.responses;
    for (_, status, description) in problems.into_iter().filter(|(applies, ..)| *applies) {
        let problem = RefOr::T(problem(description));
        responses.entry(status.to_owned()).or_insert(problem);
    }
}

/// Adds the rate limit's headers, and the response beyond it.
fn add_limit(operation: &mut Operation) {
    let mut refused = problem("Too many requests, unfinished jobs or posts, or too much text.");
    let seconds = Object::builder()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(1));
    let retry_after = Header::builder()
        .schema(Some(seconds))
        .description(Some("After how many seconds to retry."));
    let retry_after = retry_after.build().into();
    refused
        .headers
        .insert("Retry-After".to_owned(), retry_after);
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

fn problem(description: &str) -> response::Response {
    let schema = Ref::from_schema_name(Problem::name());
    response::Response::builder()
        .description(description)
        .content("application/problem+json", Content::new(Some(schema)))
        .build()
}

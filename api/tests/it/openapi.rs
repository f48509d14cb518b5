//! The OpenAPI document, and the page that shows it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use testing::{TestResponse, text};

use crate::support::TestApp;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The document as clients get it.
async fn document(app: &TestApp) -> Value {
    let answer = app.anonymous().get("/openapi.json").await;
    answer.assert_status(200);
    assert_eq!(answer.header("content-type"), "application/json");
    answer.body
}

/// The operations with their names, such as `POST /api/v1/blogs`.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                let name = format!("{} {path}", method.to_uppercase());
                operations.push((name, operation));
            }
        }
    }
    operations
}

/// All values under `name`, however deep.
fn all<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == name {
                    found.push(value);
                }
                all(value, name, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| all(item, name, found)),
        _ => {}
    }
}

/// What clients rely on does not change by accident. If it is to change,
/// `INSTA_UPDATE=always` accepts it.
#[tokio::test]
async fn the_document_is_the_one_that_was_agreed_on() {
    let app = TestApp::new().await;
    let mut document = document(&app).await;
    document["info"]["version"] = json!("any");
    insta::with_settings!({ sort_maps => true, omit_expression => true }, {
        insta::assert_json_snapshot!(document);
    });
}

#[tokio::test]
async fn every_route_of_the_contract_is_in_the_document() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let documented = operations(&document);
    let documented: BTreeSet<&str> = documented.iter().map(|(name, _)| name.as_str()).collect();
    let expected = BTreeSet::from([
        "POST /api/v1/users/register",
        "POST /api/v1/users/login",
        "POST /api/v1/users/refresh",
        "POST /api/v1/users/logout",
        "GET /api/v1/users/me",
        "PUT /api/v1/users/me/password",
        "DELETE /api/v1/users/me",
        "GET /api/v1/users/me/sessions",
        "DELETE /api/v1/users/me/sessions",
        "DELETE /api/v1/users/me/sessions/{id}",
        "POST /api/v1/blogs",
        "GET /api/v1/blogs",
        "GET /api/v1/blogs/{id}",
        "GET /api/v1/blogs/{id}/status",
        "PUT /api/v1/blogs/{id}",
        "DELETE /api/v1/blogs/{id}",
        "POST /api/v1/blogs/{id}/regenerate",
        "GET /api/v1/models",
        "GET /api/v1/jobs/{id}",
        "GET /api/v1/jobs",
        "POST /api/v1/jobs/{id}/cancel",
        "POST /api/v1/jobs/{id}/retry",
        "GET /api/v1/admin/users",
        "PATCH /api/v1/admin/users/{id}",
        "GET /api/v1/admin/audit",
        "GET /health",
        "GET /ready",
        "GET /metrics",
    ]);
    let missing: Vec<_> = expected.difference(&documented).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn every_operation_has_a_name_of_its_own_a_summary_and_a_success() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let mut ids = BTreeSet::new();
    let mut faults = Vec::new();
    for (name, operation) in operations(&document) {
        match operation["operationId"].as_str() {
            Some(id) if ids.insert(id) => {}
            id => faults.push(format!("{name} is called {id:?}")),
        }
        if operation["summary"].as_str().is_none_or(str::is_empty) {
            faults.push(format!("{name} has no summary"));
        }
        let responses = operation["responses"].as_object().unwrap();
        if !responses.keys().any(|status| status.starts_with('2')) {
            faults.push(format!("{name} has no success"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let mut references = Vec::new();
    all(&document, "$ref", &mut references);
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        let pointer = text(reference);
        let pointer = pointer.strip_prefix('#').expect(&pointer);
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["bearer"]["scheme"], "bearer");
}

#[tokio::test]
async fn every_link_leads_to_an_operation_with_what_it_takes() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let operations = operations(&document);
    let mut links = Vec::new();
    all(&document["paths"], "links", &mut links);
    let links = links.iter().flat_map(|links| links.as_object().unwrap());
    let mut followed = 0;
    for (name, link) in links {
        let mut named = operations.iter();
        let target = named.find(|(_, operation)| operation["operationId"] == link["operationId"]);
        let (_, target) = target.expect(name);
        for parameter in link["parameters"].as_object().into_iter().flatten() {
            let mut parameters = target["parameters"].as_array().unwrap().iter();
            assert!(parameters.any(|p| p["name"] == *parameter.0), "{name}");
        }
        assert_eq!(
            link["requestBody"].is_object(),
            link["parameters"].is_null(),
            "{name}"
        );
        followed += 1;
    }
    assert!(followed > 20, "{followed}");
}

/// The service refuses fields that it does not know.
#[tokio::test]
async fn every_body_names_all_of_its_fields() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let mut bodies = Vec::new();
    all(&document["paths"], "requestBody", &mut bodies);
    let mut references = Vec::new();
    for body in bodies {
        all(body, "$ref", &mut references);
    }
    assert!(references.len() > 5, "{references:?}");
    // Those within them, too.
    while let Some(reference) = references.pop() {
        let pointer = text(reference);
        let schema = document.pointer(pointer.trim_start_matches('#')).unwrap();
        all(schema, "$ref", &mut references);
        if schema["type"] == "object" {
            assert_eq!(schema["additionalProperties"], false, "{pointer}");
        }
    }
}

/// The document's own rules ask for it: <https://spec.openapis.org/oas/v3.1.0#response-object>.
#[tokio::test]
async fn every_response_is_described() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    assert_eq!(document["openapi"], "3.1.0");
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let description = response["description"].as_str();
            assert!(
                description.is_some_and(|d| !d.is_empty()),
                "{name} {status}"
            );
        }
    }
}

/// A path outside of the API's base.
async fn follow(app: &TestApp, path: &str) -> TestResponse {
    let client = app.anonymous();
    let request = client.request(Method::GET, &format!("/{path}"));
    client.send(request).await
}

/// What stands between `before` and `after`, wherever it does.
fn between<'a>(text: &'a str, before: &str, after: char) -> Vec<&'a str> {
    let rest = text.split(before).skip(1);
    rest.map(|rest| rest.split(after).next().unwrap()).collect()
}

#[tokio::test]
async fn the_page_and_all_that_it_loads_come_from_here() {
    let app = TestApp::new().await;
    let page = follow(&app, "/docs").await;
    page.assert_status(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let links = between(&page.text, "href=\"", '"');
    let scripts = between(&page.text, "src=\"", '"');
    assert!(links.len() > 2 && scripts.len() > 2, "{}", page.text);

    for link in links.into_iter().chain(scripts) {
        let name = link.trim_start_matches("./");
        assert!(!name.contains("//") && !name.starts_with('/'), "{link}");
        let asset = follow(&app, &format!("/docs/{name}")).await;
        asset.assert_status(200);
        let kind = match name.rsplit('.').next() {
            Some("css") => "text/css",
            Some("js") => "text/javascript",
            Some("png") => "image/png",
            _ => panic!("what is {link}?"),
        };
        let sent = asset.header("content-type");
        let sent = sent.replace("application/javascript", "text/javascript");
        assert!(sent.starts_with(kind), "{link}: {sent}");
        let is_text = kind.starts_with("text/");
        assert_eq!(sent.ends_with("; charset=utf-8"), is_text, "{link}: {sent}");
        if kind == "text/css" {
            let loaded = between(&asset.text, "url(", ')');
            let inline = |url: &&str| url.trim_start_matches('"').starts_with("data:");
            assert!(loaded.iter().all(inline), "{link}: {loaded:?}");
            assert!(!asset.text.contains("@import"), "{link}");
        }
    }
}

#[tokio::test]
async fn a_file_that_the_page_does_not_have_is_not_found() {
    let app = TestApp::new().await;
    let answer = follow(&app, "/docs/nothing.js").await;
    answer.assert_error(404, "not_found");
}

#[tokio::test]
async fn the_page_shows_our_document_and_sends_it_to_nobody() {
    let app = TestApp::new().await;
    let script = follow(&app, "/docs/swagger-initializer.js").await.text;
    assert!(
        script.contains(r#""url": "/api/v1/openapi.json""#),
        "{script}"
    );
    // Without this, it asks a validator on the internet.
    assert!(script.contains(r#""validatorUrl": "none""#), "{script}");
    assert!(!script.contains("://"), "{script}");
}

//! The routes of the OpenAPI document, so that new ones are tried as well.

use reqwest::Method;
use serde_json::{Value, json};
use testing::text;

use super::test_app::TestApp;

/// A route of the OpenAPI document.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) is_public: bool,
    /// The names of a JSON body's fields, if it takes one.
    pub(crate) fields: Option<Vec<String>>,
    /// Whether it is a list that comes in pages.
    pub(crate) is_paged: bool,
}

impl Route {
    /// The path below the API's base, or as `TestClient::request` wants one
    /// outside of it.
    pub(crate) fn path(&self, id: &str) -> String {
        let mut path = self.path.replace("{id}", id);
        for number in ["{version}", "{from}", "{to}", "{number}"] {
            path = path.replace(number, "1");
        }
        match path.strip_prefix("/api/v1") {
            Some(inside) => inside.to_owned(),
            None => format!("/{path}"),
        }
    }

    /// A body that changes something of the user's own.
    pub(crate) fn some_body(&self) -> Value {
        if self.path.ends_with("/outline") {
            json!({ "title": "Mine now", "sections": [{ "heading": "Mine now" }] })
        } else {
            json!({ "content": "Mine now." })
        }
    }

    /// Whether only admins may use it.
    pub(crate) fn is_for_admins(&self) -> bool {
        self.path.starts_with("/api/v1/admin/")
    }
}

pub(crate) async fn documented_routes(app: &TestApp) -> Vec<Route> {
    let document = app.anonymous().get("/openapi.json").await.expect(200);
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase();
            routes.push(Route {
                method: Method::from_bytes(method.as_bytes()).unwrap(),
                path: path.clone(),
                is_public: operation["security"] == json!([]),
                fields: fields(&document, operation),
                is_paged: operation["parameters"].to_string().contains("\"cursor\""),
            });
        }
    }
    assert!(routes.len() > 20, "{routes:?}");
    routes
}

fn fields(document: &Value, operation: &Value) -> Option<Vec<String>> {
    let body = operation.get("requestBody")?;
    let schema = &body["content"]["application/json"]["schema"];
    // One that may be left out is one of two.
    let schema = schema.pointer("/oneOf/0").unwrap_or(schema);
    let schema = text(&schema["$ref"]);
    let schema = document.pointer(schema.strip_prefix('#')?)?;
    let fields = schema["properties"].as_object()?;
    Some(fields.keys().cloned().collect())
}

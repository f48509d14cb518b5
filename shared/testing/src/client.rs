//! A client of the API, and what it is answered.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::TIMEOUT;
use crate::json::{has_fields, is_finished, text};

/// A password that is good, and that nothing else looks like.
pub const PASSWORD: &str = "correct horse battery staple";

/// Somebody with a session, or without one.
#[derive(Clone)]
pub struct TestClient {
    http: reqwest::Client,
    url: String,
    /// The access token; empty without a session.
    pub token: String,
    /// Empty without a session.
    pub refresh_token: String,
    /// The username; empty without a session.
    pub name: String,
}

/// A response, read to its end.
#[derive(Debug)]
pub struct TestResponse {
    /// What it answers, for messages.
    request: String,
    /// Its status code.
    pub status: u16,
    /// All of its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub text: String,
    /// Null where the body is not JSON.
    pub body: Value,
    /// How long it took.
    pub took: Duration,
}

impl TestClient {
    /// Without a session, and with connections of its own.
    pub fn anonymous(url: &str) -> Self {
        // No test needs TLS, but the library wants a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        TestClient {
            http: reqwest::Client::new(),
            url: url.to_owned(),
            token: String::new(),
            refresh_token: String::new(),
            name: String::new(),
        }
    }

    /// The same client at another API.
    pub fn at(&self, url: &str) -> Self {
        TestClient {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    /// The same client with connections of its own.
    pub fn with_new_connection(&self) -> Self {
        TestClient {
            http: reqwest::Client::new(),
            ..self.clone()
        }
    }

    /// The same client at another address: the last number is that of 127.0.0.
    pub fn from_ip(&self, number: u8) -> Self {
        let address = std::net::Ipv4Addr::new(127, 0, 0, number);
        let http = reqwest::Client::builder().local_address(Some(address.into()));
        TestClient {
            http: http.build().unwrap(),
            ..self.clone()
        }
    }

    /// The same client with this access token, whatever it is worth.
    pub fn with_token(&self, token: &str) -> Self {
        TestClient {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// The same client in the session that a sign-up, a login or a refresh has given it.
    pub fn with_session(&self, pair: &Value) -> Self {
        TestClient {
            token: text(&pair["access_token"]),
            refresh_token: text(&pair["refresh_token"]),
            name: text(&pair["user"]["username"]),
            ..self.clone()
        }
    }

    /// Signs up, with [`PASSWORD`].
    pub async fn sign_up(&self, name: &str) -> Self {
        self.with_session(&self.register(name, PASSWORD).await.expect(201))
    }

    /// Signs in, with [`PASSWORD`].
    pub async fn sign_in(&self, name: &str) -> Self {
        self.with_session(&self.login(name, PASSWORD).await.expect(200))
    }

    /// The API's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A request to a path of the API, or to one outside of it if it begins
    /// with `//`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let path = match path.strip_prefix("//") {
            Some(outside) => format!("/{outside}"),
            None => format!("/api/v1{path}"),
        };
        let request = self.http.request(method, format!("{}{path}", self.url));
        match self.token.as_str() {
            "" => request,
            token => request.bearer_auth(token),
        }
    }

    /// Sends a request.
    pub async fn send(&self, request: RequestBuilder) -> TestResponse {
        self.try_send(request).await.unwrap()
    }

    /// An error if the API goes before it has answered.
    pub async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<TestResponse> {
        let (http, request) = request.build_split();
        let request = request?;
        let body = request.body().and_then(reqwest::Body::as_bytes);
        let body = String::from_utf8_lossy(body.unwrap_or_default()).into_owned();
        let shown = format!("{} {} {body:.500}", request.method(), request.url());
        let begun = Instant::now();
        let response = async {
            let response = http.execute(request).await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let text = response.text().await?;
            Ok(TestResponse {
                request: shown,
                status,
                headers,
                body: serde_json::from_str(&text).unwrap_or(Value::Null),
                text,
                took: begun.elapsed(),
            })
        };
        let response = timeout(TIMEOUT * 3, response).await.expect("no answer")?;
        response.assert_common_headers();
        Ok(response)
    }

    /// A GET of a path, as [`TestClient::request`] takes it.
    pub async fn get(&self, path: &str) -> TestResponse {
        self.send(self.request(Method::GET, path)).await
    }

    /// A DELETE without a body.
    pub async fn delete(&self, path: &str) -> TestResponse {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// A POST of JSON.
    pub async fn post(&self, path: &str, body: Value) -> TestResponse {
        self.send(self.request(Method::POST, path).json(&body))
            .await
    }

    /// A POST without a body.
    pub async fn post_empty(&self, path: &str) -> TestResponse {
        self.send(self.request(Method::POST, path)).await
    }

    /// A PUT of JSON.
    pub async fn put(&self, path: &str, body: Value) -> TestResponse {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    /// A PATCH with JSON.
    pub async fn patch(&self, path: &str, body: Value) -> TestResponse {
        self.send(self.request(Method::PATCH, path).json(&body))
            .await
    }

    /// Asks for an account.
    pub async fn register(&self, name: &str, password: &str) -> TestResponse {
        let body = json!({ "username": name, "password": password });
        self.post("/users/register", body).await
    }

    /// Asks for a session.
    pub async fn login(&self, name: &str, password: &str) -> TestResponse {
        let body = json!({ "username": name, "password": password });
        self.post("/users/login", body).await
    }

    /// Asks for a new pair of tokens.
    pub async fn refresh(&self, token: &str) -> TestResponse {
        let body = json!({ "refresh_token": token });
        self.post("/users/refresh", body).await
    }

    /// Sets a new password, after which other sessions are over.
    pub async fn change_password(&self, current: &str, new: &str) -> TestResponse {
        let body = json!({ "current_password": current, "new_password": new });
        self.put("/users/me/password", body).await
    }

    /// Deletes the account and all that is its own.
    pub async fn delete_account(&self, password: &str) -> TestResponse {
        let request = self.request(Method::DELETE, "/users/me");
        self.send(request.json(&json!({ "password": password })))
            .await
    }

    /// Asks for a post; the answer is its JSON, with the job.
    pub async fn create_post(&self, topic: &str) -> Value {
        let response = self.post("/blogs", json!({ "topic": topic })).await;
        response.expect(202)
    }

    /// A post as it is now.
    pub async fn get_post(&self, post: &Value) -> Value {
        self.get(&post_path(post)).await.expect(200)
    }

    /// A post's job as it is now.
    pub async fn get_job(&self, post: &Value) -> Value {
        self.get(&job_path(post)).await.expect(200)
    }

    /// Changes a post if it still has this ETag.
    pub async fn put_if_match(&self, post: &Value, tag: &str, body: Value) -> TestResponse {
        let request = self.request(Method::PUT, &post_path(post));
        self.send(request.header("if-match", tag).json(&body)).await
    }

    /// Cancels a post's job.
    pub async fn cancel(&self, post: &Value) -> TestResponse {
        self.post_empty(&format!("{}/cancel", job_path(post))).await
    }

    /// Has a post's job tried again.
    pub async fn retry(&self, post: &Value) -> TestResponse {
        self.post_empty(&format!("{}/retry", job_path(post))).await
    }

    /// Has a post written anew.
    pub async fn regenerate(&self, post: &Value) -> TestResponse {
        let path = format!("{}/regenerate", post_path(post));
        self.post_empty(&path).await
    }

    /// The items of all pages of a list, by `Link` from page to page.
    pub async fn list_all(&self, path: &str) -> Vec<Value> {
        self.list_all_with(path, async || {}).await
    }

    /// The same, but something happens between the pages.
    pub async fn list_all_with(&self, path: &str, between: impl AsyncFn()) -> Vec<Value> {
        let mut found = Vec::new();
        let mut next = path.to_owned();
        loop {
            let page = self.get(&next).await;
            let link = page.header("link").to_owned();
            let cursor = page.body["next_cursor"].clone();
            found.extend(page.items());
            if cursor.is_null() {
                assert_eq!(link, "");
                return found;
            }
            let target = link.strip_prefix("</api/v1").unwrap();
            let target = target.strip_suffix(">; rel=\"next\"").unwrap();
            assert!(target.contains(&text(&cursor)), "{link} is not {cursor}");
            next = target.to_owned();
            between().await;
        }
    }

    /// Waits until the API says that it is ready, which it looks up once a second.
    pub async fn wait_until_ready(&self) {
        let is_ready = async {
            while self.get("//ready").await.status != 200 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let ready = timeout(TIMEOUT, is_ready).await;
        ready.expect("it is never ready");
    }

    /// Waits until a post's latest job is `status`, and returns the job.
    pub async fn wait_for_status(&self, post: &Value, status: &str) -> Value {
        let mut job = self.get_post(post).await["job"].clone();
        let path = format!("/jobs/{}?wait=60", text(&post["job"]["id"]));
        let moves = async {
            while job["status"] != status {
                assert!(!is_finished(&job), "not {status}, but {job:#}");
                job = self.get(&path).await.expect(200);
            }
        };
        let moved = timeout(TIMEOUT, moves).await;
        moved.unwrap_or_else(|_| panic!("the job does not become {status}: {job:#}"));
        job
    }
}

/// The path of a post.
pub fn post_path(post: &Value) -> String {
    format!("/blogs/{}", text(&post["id"]))
}

/// The path of a post's job.
pub fn job_path(post: &Value) -> String {
    format!("/jobs/{}", text(&post["job"]["id"]))
}

impl TestResponse {
    /// The body, if this is the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        self.assert_status(status);
        self.body
    }

    /// Asserts the status alone, where more than the body is looked at.
    #[track_caller]
    pub fn assert_status(&self, status: u16) {
        assert!(self.status == status, "{self}\nexpected: {status}");
    }

    /// Asserts the status, and that the body has these fields, among others.
    #[track_caller]
    pub fn assert_fields(&self, status: u16, fields: Value) {
        let has = self.status == status && has_fields(&self.body, &fields);
        assert!(has, "{self}\nexpected: {status} {fields:#}");
    }

    /// Asserts that it is an error of this status and code.
    #[track_caller]
    pub fn assert_error(&self, status: u16, code: &str) {
        let is_it = (self.status, self.code()) == (status, code);
        assert!(is_it, "{self}\nexpected: {status} {code}");
    }

    /// Asserts that a field of the request is at fault, or several, each as
    /// `field: code`.
    #[track_caller]
    pub fn assert_field_errors(&self, faults: &[&str]) {
        self.assert_error(422, "validation_failed");
        let is_so = self.field_errors() == faults;
        assert!(is_so, "{self}\nexpected: {faults:?}");
    }

    /// What is true of every response.
    #[track_caller]
    fn assert_common_headers(&self) {
        assert!(self.headers.contains_key("x-request-id"), "{self}");
        // Nobody's answer may be kept for somebody else.
        let caching = match self.headers.contains_key("etag") {
            true => "private, no-cache",
            false => "no-store",
        };
        assert_eq!(self.header("cache-control"), caching, "{self}");
        if matches!(self.status, 204 | 304) {
            assert_eq!(self.text, "", "{self}");
        }
        let is_problem = self.header("content-type") == "application/problem+json";
        let is_health = self.body["missing"].is_array();
        assert_eq!(is_problem, self.status >= 400 && !is_health, "{self}");
        if is_problem {
            assert_eq!(self.body["status"], self.status);
            assert_eq!(self.body["request_id"], self.header("x-request-id"));
            let challenge = self.headers.contains_key("www-authenticate");
            assert_eq!(challenge, self.status == 401, "{self}");
        }
    }

    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The contract's code of an error.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Fields at fault with their codes, as `field: code`.
    pub fn field_errors(&self) -> Vec<String> {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let fault = |e: &Value| format!("{}: {}", text(&e["field"]), text(&e["code"]));
        errors.iter().map(fault).collect()
    }

    /// The items of a list.
    #[track_caller]
    pub fn items(self) -> Vec<Value> {
        let page = self.expect(200);
        page["items"].as_array().expect("it is no list").clone()
    }
}

impl std::fmt::Display for TestResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TestResponse {
            request,
            status,
            headers,
            text,
            ..
        } = self;
        write!(f, "{request}\n\nis answered {status} {headers:#?}\n{text}")
    }
}

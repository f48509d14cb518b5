//! Clients of the real API.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::process::PATIENCE;

/// A password that is good, and that nothing else looks like.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// Somebody with a session.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    pub(crate) token: String,
    pub(crate) refresh_token: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Client {
    pub(crate) fn anonymous(url: &str) -> Client {
        // No test needs TLS, but the library wants a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client {
            http: reqwest::Client::new(),
            url: url.to_owned(),
            token: String::new(),
            refresh_token: String::new(),
        }
    }

    /// Signs up.
    pub(crate) async fn register(url: &str, name: &str) -> Client {
        let anonymous = Client::anonymous(url);
        let body = json!({ "username": name, "password": PASSWORD });
        let pair = anonymous.post("/users/register", body).await;
        assert_eq!(pair.status, 201, "{pair:?}");
        anonymous.with(&pair.body)
    }

    /// The same client with other tokens.
    pub(crate) fn with(self, pair: &Value) -> Client {
        Client {
            token: text(&pair["access_token"]),
            refresh_token: text(&pair["refresh_token"]),
            ..self
        }
    }

    /// The API's address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The same client at another API.
    pub(crate) fn at(&self, url: &str) -> Client {
        Client {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    /// A client with a connection of its own.
    pub(crate) fn connected_anew(&self) -> Client {
        Client {
            http: reqwest::Client::new(),
            ..self.clone()
        }
    }

    /// A request to a path of the API, or to one outside of it if it begins
    /// with `//`.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
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

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap()
    }

    /// An error if the API goes before it has answered.
    pub(crate) async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        let begun = Instant::now();
        let answer = async {
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = serde_json::from_slice(&response.bytes().await?).unwrap_or_default();
            Ok(Answer {
                status,
                headers,
                body,
                took: begun.elapsed(),
            })
        };
        timeout(PATIENCE * 3, answer).await.expect("no answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body))
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    /// Asks for a post; the answer is its JSON, with the job.
    pub(crate) async fn ask(&self, topic: &str) -> Value {
        let answer = self.post("/blogs", json!({ "topic": topic })).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.body
    }

    /// A post as it is now.
    pub(crate) async fn reread(&self, post: &Value) -> Value {
        let answer = self.get(&format!("/blogs/{}", text(&post["id"]))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// A post's job as it is now.
    pub(crate) async fn job(&self, post: &Value) -> Value {
        self.reread(post).await["job"].clone()
    }

    /// Waits until the API says that it is ready, which it looks up once a second.
    pub(crate) async fn sees_it_ready(&self) {
        let is_ready = async {
            while self.get("//ready").await.status != 200 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, is_ready)
            .await
            .expect("it is never ready");
    }

    /// Waits until a post's job is `status`, and returns the job.
    pub(crate) async fn until(&self, post: &Value, status: &str) -> Value {
        let path = format!("/jobs/{}?wait=60", text(&post["job"]["id"]));
        let mut job = self.job(post).await;
        let moves = async {
            while job["status"] != status {
                assert!(!is_over(&job), "not {status}, but {job:#}");
                let answer = self.get(&path).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                job = answer.body;
            }
        };
        let moved = timeout(PATIENCE, moves).await;
        moved.unwrap_or_else(|_| panic!("the job does not become {status}: {job:#}"));
        job
    }
}

pub(crate) fn is_over(job: &Value) -> bool {
    ["succeeded", "failed", "canceled"].contains(&job["status"].as_str().unwrap())
}

/// How a job's attempts ended, in their order.
pub(crate) fn outcomes(job: &Value) -> Vec<&str> {
    let attempts = job["attempts"].as_array().unwrap().iter();
    attempts
        .map(|attempt| attempt["outcome"].as_str().unwrap_or("none"))
        .collect()
}

/// The text of a JSON string.
pub(crate) fn text(value: &Value) -> String {
    let text = value.as_str();
    text.unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

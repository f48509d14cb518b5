//! Clients that ask as fast as they are answered.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::results::Row;

/// Somebody with a session.
#[derive(Clone)]
pub(crate) struct User {
    http: Client,
    url: String,
    token: String,
}

impl User {
    /// Signs somebody up.
    pub(crate) async fn register(url: &str, name: &str) -> Result<User> {
        let http = Client::new();
        let body = json!({ "username": name, "password": "correct horse battery staple" });
        let pair = http.post(format!("{url}/api/v1/users/register"));
        let pair: Value = pair.json(&body).send().await?.json().await?;
        let token = pair["access_token"].as_str();
        ensure!(token.is_some(), "no tokens: {pair}");
        Ok(User {
            http,
            url: url.to_owned(),
            token: token.unwrap_or_default().to_owned(),
        })
    }

    /// The same user on a connection of their own.
    fn connected_anew(&self) -> User {
        User {
            http: Client::new(),
            ..self.clone()
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/api/v1{path}", self.url);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    fn question(&self) -> RequestBuilder {
        let body = json!({ "topic": "Benchmarks", "options": { "words": 100 } });
        self.request(Method::POST, "/blogs").json(&body)
    }

    /// Asks for a post, as short as can be.
    pub(crate) async fn ask(&self) -> Result<Value> {
        let answer = self.question().send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// The same, for the time that it takes: nothing is made of the answer.
    pub(crate) async fn post_topic(&self) -> Result<()> {
        drain(self.question()).await
    }

    /// Gets something, for the time that it takes.
    pub(crate) async fn read(&self, path: &str) -> Result<()> {
        drain(self.request(Method::GET, path)).await
    }

    /// Gets something.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.request(Method::GET, path).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }
}

async fn drain(request: RequestBuilder) -> Result<()> {
    request.send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

/// How fast answers came.
pub(crate) struct Rate {
    per_second: f64,
    latencies: Spread,
}

impl Rate {
    pub(crate) fn row(&self, what: String) -> Row {
        Row::new(what, self.per_second, "/s").with_detail(self.latencies.described())
    }
}

/// Durations in their order.
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    pub(crate) fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort();
        Spread(durations)
    }

    /// The one that so many of a hundred do not exceed, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let found = self.0.get((self.0.len() * percent / 100).min(last));
        found.map_or(f64::NAN, |duration| duration.as_secs_f64() * 1000.0)
    }

    pub(crate) fn described(&self) -> String {
        let [p50, p95, p99] = [50, 95, 99].map(|percent| self.percentile(percent));
        format!("p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms")
    }
}

/// Has each of `clients` do something again and again for so long.
pub(crate) async fn for_a_while<F>(
    clients: &[User],
    time: Duration,
    what: impl Fn(User) -> F + Clone + Send + 'static,
) -> Result<Rate>
where
    F: Future<Output = Result<()>> + Send,
{
    let begun = Instant::now();
    let clients = clients.iter().map(|user| {
        let (user, what) = (user.connected_anew(), what.clone());
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while begun.elapsed() < time {
                let asked = Instant::now();
                what(user.clone()).await?;
                latencies.push(asked.elapsed());
            }
            anyhow::Ok(latencies)
        })
    });
    let mut all = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        all.extend(client.await??);
    }
    Ok(Rate {
        per_second: all.len() as f64 / begun.elapsed().as_secs_f64(),
        latencies: Spread::new(all),
    })
}

//! Many at once.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testing::{TestClient, TestResponse, is_finished, outcomes, text};

use crate::support::{OUTLINE, ScriptedAgent, Service};

const USERS: usize = 8;
const CONNECTIONS: usize = 64;
const POSTS_EACH: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_concurrent_clients_lose_no_post_and_get_no_lock_error() {
    let writer = ScriptedAgent::new().await;
    let service = Service::of(&writer)
        .set("WORKER_CONCURRENCY", "8")
        // Both cores have more to do than they can.
        .set("JOB_LEASE_SECS", "15");
    let api = service.api().await;
    let workers = [service.worker().await, service.worker().await];
    let mut users = Vec::new();
    for n in 0..USERS {
        users.push(api.user(&format!("user-{n}")).await);
    }

    let begun = Instant::now();
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            let mut connection = Connection::of(&users[n % USERS]);
            tokio::spawn(async move {
                for turn in 0..POSTS_EACH {
                    connection.ask(&format!("Topic {turn} of {n}")).await;
                }
                connection.wait_and_edit().await;
                connection
            })
        })
        .collect();
    let mut ended = Vec::new();
    for connection in connections {
        ended.push(connection.await.unwrap());
    }
    let took = begun.elapsed();

    for (n, user) in users.iter().enumerate() {
        let mine = ended.iter().skip(n).step_by(USERS);
        let mut accepted: Vec<String> = mine.flat_map(|c| c.posts.clone()).collect();
        let mut stored = posts_of(user).await;
        accepted.sort();
        stored.sort();
        assert_eq!(stored, accepted);
    }
    // Whatever is written twice is asked for twice.
    let written: usize = ended.iter().map(|c| c.written).sum();
    let canceled: usize = ended.iter().map(|c| c.canceled.len()).sum();
    assert_eq!(written + canceled, CONNECTIONS * POSTS_EACH);
    let asked = writer.asked();
    let begun = asked.iter().filter(|asked| *asked == OUTLINE).count();
    assert!((written..=written + canceled).contains(&begun), "{begun}");

    let mut times: Vec<Duration> = ended.iter().flat_map(|c| c.times.clone()).collect();
    times.sort();
    let requests: usize = ended.iter().map(|c| c.requests).sum();
    eprintln!(
        "POST /blogs from {CONNECTIONS} connections: p50 {:?}, p99 {:?}, longest {:?}; \
         {requests} requests and {written} posts in {took:?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times[times.len() - 1],
    );
    api.stop().await.assert_no_warnings();
    for worker in workers {
        worker.stop().await.assert_no_warnings();
    }
    service.assert_at_rest().await;
}

/// One of many clients, and what it has seen.
struct Connection {
    client: TestClient,
    posts: Vec<String>,
    /// Those that it has canceled.
    canceled: Vec<String>,
    /// Posts that were stored.
    written: usize,
    requests: usize,
    /// How long asking for a post took.
    times: Vec<Duration>,
}

impl Connection {
    fn of(user: &TestClient) -> Connection {
        Connection {
            client: user.with_new_connection(),
            posts: Vec::new(),
            canceled: Vec::new(),
            written: 0,
            requests: 0,
            times: Vec::new(),
        }
    }

    /// Makes a request, which must be answered with one of these.
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Value,
        good: &[u16],
    ) -> TestResponse {
        let request = self.client.request(method, path);
        let request = match body {
            Value::Null => request,
            body => request.json(&body),
        };
        let answer = self.client.send(request).await;
        assert!(good.contains(&answer.status), "{path}: {answer:?}");
        self.requests += 1;
        answer
    }

    /// Asks for a post, looks around, and calls off one in three.
    async fn ask(&mut self, topic: &str) {
        let body = json!({ "topic": topic, "options": { "words": 100 } });
        let asked = self.send(Method::POST, "/blogs", body, &[202]).await;
        self.times.push(asked.took);
        let id = text(&asked.body["id"]);
        let path = format!("/blogs/{id}");
        self.send(Method::GET, &path, Value::Null, &[200]).await;
        let list = "/blogs?q=topic&limit=10";
        self.send(Method::GET, list, Value::Null, &[200]).await;
        // Read, and found to be changed, in a transaction that could write.
        let edit = self.client.request(Method::PUT, &path);
        let edit = edit.header("if-match", "\"99\"");
        let edit = edit.json(&json!({ "content": "Never." }));
        let edited = self.client.send(edit).await;
        assert_eq!(edited.status, 412, "{edited:?}");
        self.requests += 1;
        if self.posts.len() == 2 {
            let cancel = format!("/jobs/{}/cancel", text(&asked.body["job"]["id"]));
            let canceled = self.send(Method::POST, &cancel, Value::Null, &[202, 409]);
            if canceled.await.status == 202 {
                self.canceled.push(id.clone());
            }
        }
        self.posts.push(id);
    }

    /// Waits for the posts, and changes each that was written.
    async fn wait_and_edit(&mut self) {
        for id in self.posts.clone() {
            let path = format!("/blogs/{id}");
            let status = format!("{path}/status");
            let mut job = self.send(Method::GET, &status, Value::Null, &[200]).await;
            while !is_finished(&job.body) {
                let path = format!("/jobs/{}?wait=60", text(&job.body["id"]));
                job = self.send(Method::GET, &path, Value::Null, &[200]).await;
            }
            let post = self.send(Method::GET, &path, Value::Null, &[200]).await;
            let was_canceled = self.canceled.contains(&id);
            assert_eq!(job.body["status"] == "canceled", was_canceled);
            if was_canceled {
                assert_eq!(post.body["status"], "canceled");
                assert!(post.body["content"].is_null(), "{post:?}");
                continue;
            }
            assert_eq!(outcomes(&job.body), ["succeeded"]);
            // Stored once: every change would raise the version again.
            assert_eq!(post.body["version"], 2, "{post:?}");
            self.written += 1;
            let edit = json!({ "content": format!("Mine is {id}.") });
            let edited = self.send(Method::PUT, &path, edit, &[200]).await;
            assert_eq!(edited.body["version"], 3);
        }
    }
}

/// The ids of all posts that a user has, page by page.
async fn posts_of(user: &TestClient) -> Vec<String> {
    let mut posts = Vec::new();
    let mut path = "/blogs?limit=10".to_owned();
    loop {
        let page = user.get(&path).await.body;
        let items = page["items"].as_array().unwrap().iter();
        posts.extend(items.map(|post| text(&post["id"])));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/blogs?limit=10&cursor={cursor}"),
            None => return posts,
        }
    }
}

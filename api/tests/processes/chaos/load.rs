//! Users who ask for posts and don't give up until they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt;
use reqwest::Method;
use serde_json::{Value, json};
use testing::{EventReader, TIMEOUT, TestClient, TestResponse, is_finished, text};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::is_unavailable;
use crate::support::Api;

const USERS: usize = 3;
const CONNECTIONS: usize = 6;

/// How many posts a connection asks for before it waits for them.
const AT_ONCE: usize = 4;

/// One in so many is called off; of every second one what was written is kept.
const CANCELS: usize = 8;

/// One in so many has its outline reviewed.
const REVIEWS: usize = 5;

/// What a request may be told that came too early, or whose first answer was lost.
const REFUSALS: [&str; 2] = ["job_finished", "generation_in_progress"];

const PAUSE: Duration = Duration::from_millis(50);

/// The marks that a topic's number stands between.
pub(super) const MARK: char = '~';

pub(super) struct Load {
    members: JoinSet<Vec<String>>,
    api: watch::Sender<String>,
    refused: Arc<AtomicUsize>,
    stop: CancellationToken,
}

/// What came of all that they asked for.
pub(super) struct Asked {
    /// The ids of the posts.
    pub(super) posts: Vec<String>,
    /// How often they were told to ask again.
    pub(super) refused: usize,
}

impl Load {
    /// They sign up and begin.
    pub(super) async fn at(api: &Api) -> Load {
        let mut users = Vec::new();
        for n in 0..USERS {
            users.push(api.user(&format!("user-{n}")).await);
        }
        let stop = CancellationToken::new();
        let (api, url) = watch::channel(api.url.clone());
        let topics = Arc::<AtomicUsize>::default();
        let refused = Arc::<AtomicUsize>::default();
        let members = (0..CONNECTIONS)
            .map(|n| {
                Member {
                    client: users[n % USERS].with_new_connection(),
                    api: url.clone(),
                    topics: Arc::clone(&topics),
                    refused: Arc::clone(&refused),
                    stop: stop.clone(),
                }
                .run()
            })
            .collect();
        Load {
            members,
            api,
            refused,
            stop,
        }
    }

    /// From now on they ask there.
    pub(super) fn turn_to(&self, api: &Api) {
        self.api.send_replace(api.url.clone());
    }

    /// Lets them ask for no more, and waits until they have all that they
    /// asked for.
    pub(super) async fn content(self) -> Asked {
        self.stop.cancel();
        let posts = self.members.join_all().await.concat();
        assert!(!posts.is_empty());
        let refused = self.refused.load(Ordering::Relaxed);
        eprintln!("{} posts, {refused} requests refused", posts.len());
        Asked { posts, refused }
    }
}

struct Member {
    client: TestClient,
    api: watch::Receiver<String>,
    topics: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Member {
    async fn run(self) -> Vec<String> {
        let mut posts = Vec::new();
        while !self.stop.is_cancelled() {
            let mut asked = Vec::new();
            let count = rand::rng().random_range(1..=AT_ONCE);
            for _ in 0..count {
                let (number, post) = self.ask().await;
                posts.push(text(&post["id"]));
                asked.push((number, post));
            }
            for (number, post) in &asked {
                let job = text(&post["job"]["id"]);
                if number.is_multiple_of(REVIEWS) {
                    self.approve(&text(&post["id"])).await;
                }
                self.watch(&job, *number).await;
                self.wait(&job).await;
            }
        }
        posts
    }

    /// Asks for a post, with the same key until it is accepted.
    async fn ask(&self) -> (usize, Value) {
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        let mut body = json!({ "topic": format!("Growing tomatoes {MARK}{number}{MARK}") });
        if number.is_multiple_of(REVIEWS) {
            body["outline"] = json!("review");
        }
        let key = format!("post-{number}");
        let accepted = self
            .insist(Method::POST, "/blogs", Some((&key, &body)))
            .await;
        let job = &accepted.body["job"];
        if number.is_multiple_of(CANCELS) {
            let keep = number.is_multiple_of(2 * CANCELS);
            let cancel = format!("/jobs/{}/cancel?keep={keep}", text(&job["id"]));
            self.insist(Method::POST, &cancel, None).await;
        }
        (number, accepted.body)
    }

    /// Approves the outline of a post as soon as it is there.
    async fn approve(&self, post: &str) {
        let path = format!("/blogs/{post}/outline/approve");
        let approved = async {
            while self.insist(Method::POST, &path, None).await.code() == "generation_in_progress" {
                sleep(PAUSE).await;
            }
        };
        let approved = timeout(TIMEOUT, approved).await;
        approved.unwrap_or_else(|_| panic!("the outline of {post} is not written"));
    }

    /// Waits until a job is over.
    async fn wait(&self, job: &str) {
        let path = format!("/jobs/{job}?wait=5");
        let mut present = Value::Null;
        let over = async {
            while present.is_null() || !is_finished(&present) {
                present = self.insist(Method::GET, &path, None).await.body;
            }
        };
        let over = timeout(TIMEOUT, over).await;
        over.unwrap_or_else(|_| panic!("the job does not end: {present:#}"));
        assert_ne!(present["status"], "failed", "{present:#}");
    }

    /// Reads a job's events to the end, which tell of the very text that is stored. Some readers
    /// begin with a snapshot, and some come back after each event.
    async fn watch(&self, job: &str, number: usize) {
        let mut reader = EventReader::of_job(&self.client, &format!("/jobs/{job}"));
        reader.after = number.is_multiple_of(2).then_some(0);
        let is_cut = number.is_multiple_of(3);
        let ended = async {
            while reader.end.is_none() {
                let url = self.api.borrow().clone();
                match reader.try_connect(&url).await {
                    Ok(200) if is_cut => {
                        reader.next().await;
                        continue;
                    }
                    Ok(200) => reader.read_until(|reader| reader.end.is_some()).await,
                    Ok(503) => {}
                    Ok(status) => panic!("{job}: {status}"),
                    // The API has gone.
                    Err(_) => {}
                }
                sleep(PAUSE).await;
            }
        };
        let ended = timeout(TIMEOUT, ended).await;
        ended.unwrap_or_else(|_| panic!("the events of {job} do not end"));
        let end = reader.end.as_ref().unwrap();
        if !end["version"].is_null() {
            let job = self
                .insist(Method::GET, &format!("/jobs/{job}"), None)
                .await;
            let path = format!("/blogs/{}", text(&job.body["blog_id"]));
            let post = self.insist(Method::GET, &path, None).await.body;
            assert_eq!(reader.content(), text(&post["content"]));
            assert_eq!(json!(reader.title), post["title"]);
        }
    }

    /// Sends a request until it is answered for good.
    async fn insist(
        &self,
        method: Method,
        path: &str,
        keyed: Option<(&str, &Value)>,
    ) -> TestResponse {
        loop {
            let client = self.client.at(&self.api.borrow());
            let request = client.request(method.clone(), path);
            let request = match keyed {
                Some((key, body)) => request.header("idempotency-key", key).json(body),
                None => request,
            };
            match client.try_send(request).await {
                Ok(answer) if answer.status == 503 => {
                    is_unavailable(&answer);
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) if REFUSALS.contains(&answer.code()) => return answer,
                Ok(answer) => {
                    assert!([200, 202].contains(&answer.status), "{path}: {answer:?}");
                    return answer;
                }
                // The API has gone.
                Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }
}

//! The last release beside this one: as while a service is brought up to date with no
//! break, and while that is undone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use entity::{job, post};
use reqwest::Method;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::{Value, json};
use testing::stub::Act;
use testing::{HEADINGS, PASSWORD, TIMEOUT, TestClient, TestResponse, outcomes, text};
use tokio::sync::{Notify, RwLock, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Api, Exit, OUTLINE, Process, ScriptedAgent, Service, binary, write};

/// More than the places of two workers, so that some jobs always wait for one.
const CLIENTS: usize = 6;
const PLACES: &str = "2";

/// How often each worker has to write for each API before a test goes on.
const OFTEN: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_release_serves_on_while_this_one_starts_beside_it_and_takes_over() {
    let Some(last) = last_release() else { return };
    let (gate, second) = (Arc::new(Notify::new()), HEADINGS[1]);
    let until = gate.clone();
    let writer = ScriptedAgent::scripted(move |asked, before| {
        let mut acts = write(asked);
        acts.insert(1, Act::Gate(until.clone()));
        (asked == second && before == 0).then_some(acts)
    })
    .await;
    let service = Service::of(&writer)
        .set("WORKER_CONCURRENCY", PLACES)
        // Jobs outlive a migration.
        .set("JOB_LEASE_SECS", "15");
    let old = Release::start(&last, &service).await;
    let ann = old.api.user("ann").await;
    let begun = ann.create_post("Growing potatoes").await;
    writer.wait_for_request(second).await;
    let mut load = Load::at(&old).await;
    let watch = Watch::on(&old.api);
    load.spreads_over(&[&old]).await;

    let new = Release::start(&present(), &service).await;
    load.spreads_over(&[&old]).await;
    load.turn_to(&[&old, &new]).await;
    load.spreads_over(&[&old, &new]).await;
    accounts_are_good_at_both("ann", &old.api, &new.api).await;
    // It was begun before the tables changed, and is stored after that.
    gate.notify_one();
    let job = ann
        .at(&new.api.url)
        .wait_for_status(&begun, "succeeded")
        .await;
    assert_eq!(outcomes(&job), ["succeeded"]);
    assert_eq!(job["attempts"][0]["worker"], old.writes_as);

    load.turn_to(&[&new]).await;
    watch.end().await;
    old.stop("old").await;
    load.spreads_over(&[&new]).await;
    let written = load.end().await;
    new.stop("new").await;
    adds_up(&service, &writer, &written.and(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_release_may_come_back_after_this_one_has_changed_the_tables() {
    let Some(last) = last_release() else { return };
    let writer = ScriptedAgent::new().await;
    let service = Service::of(&writer)
        .set("WORKER_CONCURRENCY", PLACES)
        // Jobs outlive a migration.
        .set("JOB_LEASE_SECS", "15");
    let old = Release::start(&last, &service).await;
    let ann = old.api.user("ann").await;
    let of_old = ann.create_post("Growing potatoes").await;
    ann.wait_for_status(&of_old, "succeeded").await;
    old.stop("old, at first").await;
    let new = Release::start(&present(), &service).await;
    let bob = new.api.user("bob").await;
    let of_new = bob.create_post("Growing carrots").await;
    let mut load = Load::at(&new).await;
    load.spreads_over(&[&new]).await;

    let back = Release::start(&last, &service).await;
    let watch = Watch::on(&back.api);
    load.turn_to(&[&new, &back]).await;
    load.spreads_over(&[&new, &back]).await;
    for name in ["ann", "bob"] {
        accounts_are_good_at_both(name, &new.api, &back.api).await;
    }

    load.turn_to(&[&back]).await;
    new.stop("new").await;
    load.spreads_over(&[&back]).await;
    for (name, post) in [("ann", &of_old), ("bob", &of_new)] {
        let client = sign_in(&back.api, name).await;
        assert_eq!(
            client.wait_for_status(post, "succeeded").await["attempt"],
            1
        );
        assert_eq!(client.get_post(post).await["version"], 2);
    }
    let written = load.end().await;
    watch.end().await;
    back.stop("old, come back").await;
    adds_up(&service, &writer, &written.and(2)).await;
}

#[tokio::test]
async fn this_release_finishes_what_a_worker_of_the_last_one_has_begun() {
    let Some(last) = last_release() else { return };
    finishes_what_was_begun(&last, &present()).await;
}

#[tokio::test]
async fn the_last_release_finishes_what_a_worker_of_this_one_has_begun() {
    let Some(last) = last_release() else { return };
    finishes_what_was_begun(&present(), &last).await;
}

/// Goes on with the sections that are written already.
async fn finishes_what_was_begun(first: &Path, other: &Path) {
    let third = HEADINGS[2];
    let writer = ScriptedAgent::scripted(move |asked, before| {
        let first_time = asked == third && before == 0;
        first_time.then(|| vec![Act::Hold])
    })
    .await;
    let service = Service::of(&writer).set("SHUTDOWN_GRACE_SECS", "0");
    let begins = Release::start(first, &service).await;
    let ann = begins.api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    writer.wait_for_request(third).await;

    let ends = Release::start(other, &service).await;
    begins.stop("the one that begins").await;
    let ann = ann.at(&ends.api.url);
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["released", "succeeded"]);
    assert_eq!(ann.get_post(&post).await["version"], 2);
    let [first, second, _, fourth] = HEADINGS;
    let expected = [OUTLINE, first, second, third, third, fourth];
    assert_eq!(writer.asked(), expected);
    ends.stop("the one that ends").await;
    service.assert_at_rest().await;
}

/// Where the last release's programs are. None where they were not built, of which
/// `scripts/test.sh` tells.
fn last_release() -> Option<PathBuf> {
    let folder = std::env::var_os("LAST_RELEASE").filter(|folder| !folder.is_empty());
    if folder.is_none() {
        eprintln!("LEFT OUT: LAST_RELEASE is not set; see scripts/setup-last-release.sh");
    }
    folder.map(PathBuf::from)
}

/// Where this release's programs are.
fn present() -> PathBuf {
    binary("api").parent().unwrap().to_owned()
}

/// An API and a worker of one release.
struct Release {
    api: Api,
    worker: Process,
    /// The worker's name.
    writes_as: String,
}

impl Release {
    /// Starts both at once, and waits until they are ready.
    async fn start(programs: &Path, service: &Service) -> Release {
        let start = |name| {
            let program = programs.join(name);
            Process::start_program(&program, &[], service.path(), &service.settings)
        };
        let (api, worker) = (start("api"), start("worker"));
        let ready = worker.wait_for_message("the worker is ready").await;
        Release {
            api: Api::ready(api).await,
            worker,
            writes_as: text(&ready["worker"]),
        }
    }

    async fn stop(self, which: &str) {
        is_without_errors(&self.worker.stop().await, &format!("worker ({which})"));
        is_without_errors(&self.api.stop().await, &format!("API ({which})"));
    }
}

/// A release may well warn of the other, but nothing fails.
fn is_without_errors(exit: &Exit, which: &str) {
    // So a panic tells of itself.
    let strange = exit.output.iter().filter(|line| !line.starts_with('{'));
    let strange: Vec<_> = strange.collect();
    assert!(strange.is_empty(), "{which}: {strange:#?}");
    let log = exit.log();
    let at = |level| log.iter().filter(move |line| line["level"] == level);
    for line in at("WARN") {
        eprintln!("{which}: {line}");
    }
    let errors: Vec<_> = at("ERROR").collect();
    assert!(errors.is_empty(), "{which}: {errors:#?}");
}

/// Somebody signs in at one API, and what they get there counts at the other.
async fn accounts_are_good_at_both(name: &str, one: &Api, other: &Api) {
    for (here, there) in [(one, other), (other, one)] {
        let client = sign_in(here, name).await.at(&there.url);
        let me = client.get("/users/me").await;
        assert_eq!((me.status, &me.body["username"]), (200, &json!(name)));
        let refresh = json!({ "refresh_token": client.refresh_token });
        let pair = client.post("/users/refresh", refresh).await;
        assert_eq!(pair.status, 200, "{pair:?}");
        let client = client.at(&here.url).with_session(&pair.body);
        assert_eq!(client.get("/users/me").await.status, 200);
    }
}

async fn sign_in(api: &Api, name: &str) -> TestClient {
    let anonymous = TestClient::anonymous(&api.url);
    let body = json!({ "username": name, "password": PASSWORD });
    let pair = anonymous.post("/users/login", body).await;
    assert_eq!(pair.status, 200, "{pair:?}");
    anonymous.with_session(&pair.body)
}

/// Nothing is lost, and nothing was done twice.
async fn adds_up(service: &Service, writer: &ScriptedAgent, written: &Written) {
    service.assert_at_rest().await;
    let db = service.database().await;
    let posts = post::Entity::find().count(db.read()).await.unwrap();
    let jobs = job::Entity::find().all(db.read()).await.unwrap();
    db.close().await;
    assert_eq!(posts, u64::try_from(written.posts).unwrap());
    let succeeded = |job: &job::Model| job.status == job::Status::Succeeded;
    assert!(jobs.iter().all(succeeded), "{jobs:#?}");
    // Whatever is written twice is asked for twice.
    let calls = written.times * (1 + HEADINGS.len());
    assert_eq!(writer.asked().len(), calls);
}

/// Looks again and again whether an API is ready, as whoever shares requests out among
/// several does.
struct Watch {
    stop: CancellationToken,
    looking: JoinHandle<usize>,
}

impl Watch {
    fn on(api: &Api) -> Watch {
        let (client, stop) = (TestClient::anonymous(&api.url), CancellationToken::new());
        let until = stop.clone();
        let looking = tokio::spawn(async move {
            let mut looks = 0;
            while !until.is_cancelled() {
                let ready = client.get("//ready").await;
                assert_eq!(ready.status, 200, "{ready:?}");
                looks += 1;
                sleep(Duration::from_millis(20)).await;
            }
            looks
        });
        Watch { stop, looking }
    }

    /// Ends it. The API must have been ready whenever it looked.
    async fn end(self) {
        self.stop.cancel();
        assert!(self.looking.await.unwrap() > 0);
    }
}

/// Clients who ask for posts, read and change them, and must always get what they want.
struct Load {
    clients: JoinSet<Written>,
    apis: Arc<RwLock<Vec<String>>>,
    done: watch::Sender<Vec<Done>>,
    stop: CancellationToken,
}

/// A job that was done: the API where it was asked for, and who wrote.
#[derive(Clone, Debug, PartialEq)]
struct Done {
    api: String,
    worker: String,
}

/// What clients got.
#[derive(Debug, Default)]
struct Written {
    posts: usize,
    /// More than the posts, for some were written anew.
    times: usize,
}

impl Written {
    /// With so many more posts, each written once.
    fn and(mut self, posts: usize) -> Written {
        self.posts += posts;
        self.times += posts;
        self
    }
}

impl Load {
    /// They sign up and begin.
    async fn at(release: &Release) -> Load {
        let mut load = Load {
            clients: JoinSet::new(),
            apis: Arc::new(RwLock::new(vec![release.api.url.clone()])),
            done: watch::Sender::new(Vec::new()),
            stop: CancellationToken::new(),
        };
        let topics = Arc::<AtomicUsize>::default();
        for number in 0..CLIENTS {
            let member = Member {
                number,
                client: release.api.user(&format!("user-{number}")).await,
                apis: load.apis.clone(),
                topics: topics.clone(),
                done: load.done.clone(),
                stop: load.stop.clone(),
            };
            load.clients.spawn(member.run());
        }
        load
    }

    /// From now on they ask at these, and at no other any more: what they were at there
    /// is over.
    async fn turn_to(&self, releases: &[&Release]) {
        let turned = timeout(TIMEOUT, self.apis.write()).await;
        let urls = releases.iter().map(|release| release.api.url.clone());
        *turned.expect("some clients don't get what they asked for") = urls.collect();
    }

    /// Waits until jobs that were asked for at each of these were done by each, from now
    /// on.
    async fn spreads_over(&mut self, releases: &[&Release]) {
        let pairs: Vec<Done> = releases
            .iter()
            .flat_map(|asked| releases.iter().map(move |writes| (asked, writes)))
            .map(|(asked, writes)| Done {
                api: asked.api.url.clone(),
                worker: writes.writes_as.clone(),
            })
            .collect();
        let mut done = self.done.subscribe();
        let before = done.borrow().len();
        let often = |all: &[Done], pair| all.iter().filter(|done| *done == pair).count();
        let spread = done.wait_for(|all| {
            let all = &all[before..];
            pairs.iter().all(|pair| often(all, pair) >= OFTEN)
        });
        tokio::select! {
            spread = timeout(TIMEOUT, spread) => {
                let all = self.done.borrow();
                assert!(spread.is_ok(), "{pairs:#?} in {:#?}", &all[before..]);
            }
            ended = self.clients.join_next() => panic!("a client has ended: {ended:?}"),
        }
    }

    /// Ends it once all have what they asked for.
    async fn end(self) -> Written {
        self.stop.cancel();
        let mut all = Written::default();
        for written in self.clients.join_all().await {
            all.posts += written.posts;
            all.times += written.times;
        }
        eprintln!("{} posts, written {} times", all.posts, all.times);
        all
    }
}

/// One of them.
struct Member {
    number: usize,
    client: TestClient,
    apis: Arc<RwLock<Vec<String>>>,
    topics: Arc<AtomicUsize>,
    done: watch::Sender<Vec<Done>>,
    stop: CancellationToken,
}

impl Member {
    async fn run(self) -> Written {
        let mut written = Written::default();
        while !self.stop.is_cancelled() {
            // Held until all is over, see `Load::turn_to`.
            let apis = self.apis.read().await;
            let at = |n: usize| self.client.at(&apis[n % apis.len()]);
            let (here, there) = (at(self.number), at(self.number + 1));
            let post = self.ask(&here, &there).await;
            self.wait(&here, &there, &post).await;
            change(&here, &there, &post).await;
            written = written.and(1);
            // Not all, for some are to stay as they were changed.
            if written.posts.is_multiple_of(2) {
                let anew = format!("/blogs/{}/regenerate", text(&post["id"]));
                let anew = there.send(there.request(Method::POST, &anew)).await;
                assert_eq!(anew.status, 202, "{anew:?}");
                self.wait(&there, &here, &anew.body).await;
                written.times += 1;
            }
        }
        written
    }

    /// Asks for a post, at both APIs, which must not make two of it.
    async fn ask(&self, here: &TestClient, there: &TestClient) -> Value {
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        let body = json!({ "topic": format!("Growing tomatoes, part {number}") });
        let ask = async |client: &TestClient| {
            let request = client.request(Method::POST, "/blogs");
            let request = request.header("idempotency-key", format!("post-{number}"));
            let answer = client.send(request.json(&body)).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            answer.body
        };
        let (post, same) = (ask(here).await, ask(there).await);
        assert_eq!(post["id"], same["id"]);
        post
    }

    /// Waits at one API until a post is written that was asked for at the other.
    async fn wait(&self, asked_at: &TestClient, there: &TestClient, post: &Value) {
        let job = there.wait_for_status(post, "succeeded").await;
        assert_eq!(outcomes(&job), ["succeeded"]);
        let done = Done {
            api: asked_at.url().to_owned(),
            worker: text(&job["attempts"][0]["worker"]),
        };
        self.done.send_modify(|all| all.push(done));
        for client in [asked_at, there] {
            let post = client.get_post(post).await;
            assert_eq!(post["status"], "ready", "{post:#}");
            let content = text(&post["content"]);
            for heading in HEADINGS {
                assert_eq!(content.matches(heading).count(), 1, "{content}");
            }
        }
    }
}

/// Changes a post at one API, which the other then knows.
async fn change(here: &TestClient, there: &TestClient, post: &Value) {
    let id = text(&post["id"]);
    let path = format!("/blogs/{id}");
    let edit = |version: &str| {
        let request = there.request(Method::PUT, &path);
        let request = request.header("if-match", format!("\"{version}\""));
        request.json(&json!({ "content": format!("Mine is {id}.") }))
    };
    let refused: TestResponse = there.send(edit("1")).await;
    assert_eq!(refused.status, 412, "{refused:?}");
    let edited = there.send(edit("2")).await;
    assert_eq!(edited.status, 200, "{edited:?}");
    let known = here.get_post(post).await;
    assert_eq!(known["version"], 3, "{known:#}");
    assert_eq!(known["content"], format!("Mine is {id}."));
    let listed = here.get("/blogs?q=tomatoes&limit=1").await;
    assert_eq!(listed.status, 200, "{listed:?}");
    assert_eq!(listed.body["items"][0]["id"], id.as_str());
}

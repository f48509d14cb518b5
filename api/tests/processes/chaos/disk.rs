//! A disk that is full. On SQLite only: Postgres has its own.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use testing::stub::Act;
use testing::{HEADINGS, TIMEOUT, TestClient, text};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::load::{Load, MARK};
use super::worker_pool::is_faultless;
use super::{invariants, is_unavailable, length, service};
use crate::support::{ScriptedAgent, write};

#[tokio::test]
async fn a_full_disk_costs_nothing_but_time() {
    let Some(disk) = Disk::of("chaos::disk::a_full_disk_costs_nothing_but_time") else {
        return;
    };
    let gate = Arc::new(Notify::new());
    let (until, third) = (Mutex::new(Some(gate.clone())), HEADINGS[2]);
    let writer = ScriptedAgent::told(move |prompt, asked| {
        let held = prompt.contains("slowly") && asked == third;
        let until = until.lock().unwrap().take_if(|_| held)?;
        let mut acts = write(asked);
        acts.insert(1, Act::Gate(until));
        Some(acts)
    })
    .await;
    let service = service(&writer).set("DATA_DIR", disk.path().to_str().unwrap());
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let topic = format!("Growing tomatoes {MARK}slowly{MARK}");
    let slow = ann.create_post(&topic).await;
    writer.wait_for_request(third).await;

    let crowd = Load::at(&api).await;
    let (mut posts, end) = (vec![slow.clone()], Instant::now() + length());
    while Instant::now() < end {
        disk.fill();
        asks_until(503, &ann, &mut posts).await;
        // What is there can be read; and what the agent brings is not lost.
        assert_eq!(ann.get("/blogs").await.status, 200);
        gate.notify_one();
        sleep(Duration::from_secs(1)).await;
        disk.clear();
        asks_until(202, &ann, &mut posts).await;
        ann.wait_for_status(posts.last().unwrap(), "succeeded")
            .await;
    }
    let mut asked = crowd.content().await;
    for post in &posts {
        ann.wait_for_status(post, "succeeded").await;
        asked.posts.push(text(&post["id"]));
    }
    is_faultless(&worker.stop().await);
    is_faultless(&api.stop().await);
    invariants::balance(&service, &writer, &asked).await;
}

/// Asks for posts, each just once, until the answer is `wanted`. There may be
/// room left on the disk, and it may be in use at the moment.
async fn asks_until(wanted: u16, ann: &TestClient, posts: &mut Vec<Value>) {
    let asking = async {
        loop {
            let number = posts.len();
            let topic = format!("Growing tomatoes {MARK}ann-{number}{MARK}");
            let answer = ann.post("/blogs", json!({ "topic": topic })).await;
            let status = answer.status;
            match status {
                202 => posts.push(answer.body),
                _ => is_unavailable(&answer),
            }
            if status == wanted {
                return;
            }
        }
    };
    let asked = timeout(TIMEOUT, asking).await;
    asked.unwrap_or_else(|_| panic!("it is never answered {wanted}"));
}

/// A small disk, mounted for a run of a test alone.
struct Disk(PathBuf);

/// Where it is, for that run.
const PLACE: &str = "CHAOS_DISK";

/// Larger than what the crowd writes in a minute: with less, nothing but the database fills it.
const MOUNT: &str = "mount -t tmpfs -o size=64m chaos \"$CHAOS_DISK\" && exec \"$@\"";

impl Disk {
    /// Runs a test once more, by its name, on a disk that nobody else sees and
    /// that is gone with the run. In that run, this is the disk.
    fn of(test: &str) -> Option<Disk> {
        if let Some(place) = std::env::var_os(PLACE) {
            return Some(Disk(place.into()));
        }
        if std::env::var("TEST_POSTGRES_URL").is_ok_and(|url| !url.is_empty()) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let Some(mut run) = may_mount(folder.path()) else {
            let is_wanted = std::env::var_os("CI").is_some();
            assert!(!is_wanted, "nothing may be mounted here");
            eprintln!("NOT TESTED, for nothing may be mounted here: {test}");
            return None;
        };
        run.arg(std::env::current_exe().unwrap());
        let status = run.args([test, "--exact", "--nocapture"]).status();
        assert!(status.unwrap().success());
        None
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        let mut options = File::options();
        let filler = options.create(true).append(true).open(self.filler());
        let mut filler = filler.unwrap();
        for size in [65536, 4096] {
            while filler
                .write(&vec![1; size])
                .is_ok_and(|written| written > 0)
            {}
        }
    }

    fn clear(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

/// What runs a command with a disk in `folder`, as root or as someone who is
/// root there.
fn may_mount(folder: &Path) -> Option<Command> {
    let users: [&[&str]; 2] = [&[], &["--map-root-user"]];
    users.into_iter().find_map(|user| {
        let run = || {
            let mut run = Command::new("unshare");
            run.args(user).args(["--mount", "sh", "-c", MOUNT, "sh"]);
            run.env(PLACE, folder);
            run
        };
        let works = run().arg("true").output().is_ok_and(|o| o.status.success());
        works.then(run)
    })
}

//! A worker as process 1 of a PID namespace, as it is in a container.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use testing::{TIMEOUT, outcomes, text};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::script::{LIVES_ON, service};
use crate::support::{Exit, Process, Service, binary, send};

/// How `unshare` starts a program as process 1, which is killed with it.
const AS_PROCESS_1: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];

/// What users without privileges have to add to it.
const AS_NOBODY: [&str; 2] = ["--user", "--map-root-user"];

/// A program that waits for two children. The second leaves the process group,
/// and is not killed with the script.
const HAS_CHILDREN: &str = "
    sleep 1000 &
    setsid sleep 1000 &
    wait
";

/// A worker, and `unshare`, whose child it is.
struct Container {
    unshare: Process,
}

impl Container {
    /// None where that is not permitted.
    fn start(service: &Service) -> Option<Container> {
        let ways = [
            AS_PROCESS_1.to_vec(),
            [&AS_NOBODY[..], &AS_PROCESS_1].concat(),
        ];
        let permitted = |way: &Vec<&str>| {
            let tried = Command::new("unshare").args(way).arg("true").output();
            match tried {
                Ok(tried) if tried.status.success() => true,
                tried => {
                    eprintln!("can't start a process 1 by unshare {way:?}: {tried:?}");
                    false
                }
            }
        };
        let Some(way) = ways.into_iter().find(permitted) else {
            eprintln!("this test is LEFT OUT");
            return None;
        };
        let worker = binary("worker");
        let arguments = [&way[..], &[worker.to_str().unwrap()]].concat();
        let unshare = Path::new("unshare");
        let unshare =
            Process::start_program(unshare, &arguments, service.path(), &service.settings);
        Some(Container { unshare })
    }

    /// The same, at work.
    async fn ready(service: &Service) -> Option<Container> {
        let container = Container::start(service)?;
        container
            .unshare
            .wait_for_message("the worker is ready")
            .await;
        Some(container)
    }

    /// The number that process 1 has outside.
    async fn process_1(&self) -> u32 {
        let unshare = self.unshare.id();
        descendants_once(unshare, |all| !all.is_empty()).await[0].id
    }

    async fn signal(&self, signal: Signal) {
        send(signal, self.process_1().await);
    }

    /// `unshare` ends as process 1 does.
    async fn wait_for_exit(self) -> Exit {
        self.unshare.wait_for_exit().await
    }
}

/// A process, as /proc shows it.
#[derive(Debug)]
struct Seen {
    id: u32,
    #[allow(dead_code, reason = "told when a test fails")]
    name: String,
    /// Z is a zombie.
    #[allow(dead_code, reason = "told when a test fails")]
    state: String,
    parent: u32,
    session: u32,
}

/// None if it is gone.
fn see(id: u32) -> Option<Seen> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (name, rest) = stat.rsplit_once(") ")?;
    let rest: Vec<&str> = rest.split(' ').collect();
    Some(Seen {
        id,
        name: name.split_once('(')?.1.to_owned(),
        state: rest[0].to_owned(),
        parent: rest[1].parse().ok()?,
        session: rest[3].parse().ok()?,
    })
}

/// Its children first, then theirs.
fn descendants(of: u32) -> Vec<Seen> {
    let ids = std::fs::read_dir("/proc").unwrap();
    let ids = ids.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let mut others: Vec<Seen> = ids.filter_map(see).collect();
    let (mut found, mut parents) = (Vec::new(), HashSet::from([of]));
    while !parents.is_empty() {
        let (theirs, rest) = others
            .into_iter()
            .partition::<Vec<_>, _>(|seen| parents.contains(&seen.parent));
        parents = theirs.iter().map(|seen| seen.id).collect();
        found.extend(theirs);
        others = rest;
    }
    found
}

/// Waits until a process's descendants are as wanted.
async fn descendants_once(of: u32, wanted: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    let end = Instant::now() + TIMEOUT;
    loop {
        let seen = descendants(of);
        if wanted(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "it stays at {seen:#?}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn ids(processes: &[Seen]) -> HashSet<u32> {
    processes.iter().map(|seen| seen.id).collect()
}

#[tokio::test]
async fn a_worker_that_is_process_1_leaves_no_zombies() {
    const JOBS: usize = 4;
    let service = service(HAS_CHILDREN).set("WORKER_CONCURRENCY", JOBS.to_string());
    let Some(container) = Container::ready(&service).await else {
        return;
    };
    let api = service.api().await;
    let ann = api.user("ann").await;
    let process_1 = container.process_1().await;
    let before = ids(&descendants(process_1));
    let mut posts = Vec::new();
    for _ in 0..JOBS {
        posts.push(ann.create_post("A cup of tea").await);
    }
    // Each job has a supervisor, a script and its two children.
    let escaped = |seen: &&Seen| seen.session == seen.id;
    let running = descendants_once(process_1, |all| {
        all.len() == before.len() + 4 * JOBS && all.iter().filter(escaped).count() == JOBS
    });
    let running = running.await;
    let escaped: HashSet<u32> = running.iter().filter(escaped).map(|seen| seen.id).collect();

    for post in &posts {
        let cancel = format!("/jobs/{}/cancel", text(&post["job"]["id"]));
        ann.post(&cancel, json!({})).await;
    }
    for post in &posts {
        ann.wait_for_status(post, "canceled").await;
    }
    let spared = &before | &escaped;
    descendants_once(process_1, |all| ids(all) == spared).await;
    // Process 1 is now the parent of those that have left their group.
    for id in escaped {
        send(Signal::KILL, id);
    }
    descendants_once(process_1, |all| ids(all) == before).await;

    container.signal(Signal::TERM).await;
    let exit = container.wait_for_exit().await;
    assert_eq!(exit.code, Some(0), "{}", exit.text());
    exit.assert_no_warnings();
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_worker_that_is_process_1_stops_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let service = service(LIVES_ON).set("SHUTDOWN_GRACE_SECS", "0");
        let Some(container) = Container::ready(&service).await else {
            return;
        };
        let api = service.api().await;
        let ann = api.user("ann").await;
        let post = ann.create_post("A cup of tea").await;
        crate::script::processes(service.path()).await;
        container.signal(signal).await;
        let exit = container.wait_for_exit().await;
        assert_eq!(exit.code, Some(0), "{}", exit.text());
        exit.assert_no_warnings();
        let job = ann.get_job(&post).await;
        assert_eq!(job["status"], "queued", "{job:#}");
        assert_eq!(outcomes(&job), ["released"]);
    }
}

#[tokio::test]
async fn a_signal_to_process_1_during_its_start_is_not_lost() {
    let service = Service::new();
    let Some(container) = Container::start(&service) else {
        return;
    };
    let process_1 = container.process_1().await;
    let end = Instant::now() + TIMEOUT;
    while !catches(Signal::TERM, process_1) {
        assert!(Instant::now() < end, "it does not begin");
        yield_now().await;
    }
    send(Signal::TERM, process_1);
    let exit = container.wait_for_exit().await;
    // It has stopped in order only if it had begun to work.
    let killed = 128 + Signal::TERM.as_raw();
    let as_expected = exit.code == Some(0) || exit.code == Some(killed);
    assert!(as_expected, "{:?}: {}", exit.code, exit.text());
}

/// Whether a process has a handler for a signal.
fn catches(signal: Signal, id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
    caught >> (signal.as_raw() - 1) & 1 == 1
}

#[tokio::test]
async fn process_1_forwards_each_signal_and_not_just_the_first() {
    let service = service(LIVES_ON).set("SHUTDOWN_GRACE_SECS", "60");
    let Some(container) = Container::ready(&service).await else {
        return;
    };
    let api = service.api().await;
    let ann = api.user("ann").await;
    ann.create_post("A cup of tea").await;
    crate::script::processes(service.path()).await;
    container.signal(Signal::TERM).await;
    let stopping = "stopping: starting no new work, finishing what runs";
    container.unshare.wait_for_message(stopping).await;
    // The worker has no handler for this one, which therefore kills it.
    container.signal(Signal::USR1).await;
    let exit = container.wait_for_exit().await;
    let killed = 128 + Signal::USR1.as_raw();
    assert_eq!(exit.code, Some(killed), "{}", exit.text());
}

#[tokio::test]
async fn process_1_has_the_exit_status_of_the_worker_that_failed() {
    let service = Service::new().set("AGENT", "script");
    let Some(container) = Container::start(&service) else {
        return;
    };
    let alone = service.start("worker").wait_for_exit().await;
    assert_eq!(alone.code, Some(1));
    assert!(alone.text().contains("AGENT_SCRIPT"), "{}", alone.text());
    let exit = container.wait_for_exit().await;
    assert_eq!((exit.code, exit.text()), (alone.code, alone.text()));
}

#[tokio::test]
async fn process_1_has_the_exit_status_of_the_worker_that_was_killed() {
    let service = Service::new();
    let Some(container) = Container::ready(&service).await else {
        return;
    };
    let process_1 = container.process_1().await;
    let workers = descendants_once(process_1, |all| all.len() == 1).await;
    send(Signal::KILL, workers[0].id);
    let exit = container.wait_for_exit().await;
    let killed = 128 + Signal::KILL.as_raw();
    assert_eq!(exit.code, Some(killed), "{}", exit.text());
}

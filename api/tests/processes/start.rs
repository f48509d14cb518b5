//! Starting, on nothing and at the same moment.

use std::fs::{DirEntry, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use testing::outcomes;
use tokio::time::sleep;

use crate::support::{Api, ScriptedAgent, Service};

#[tokio::test]
async fn an_api_and_a_worker_may_start_at_once_on_an_empty_database() {
    let writer = ScriptedAgent::new().await;
    let mut service = Service::of(&writer);
    let data = service.path().join("not/there/yet");
    service = service.set("DATA_DIR", data.to_str().unwrap());

    let (worker, api) = (service.start("worker"), service.start("api"));
    worker.wait_for_message("the worker is ready").await;
    let api = Api::ready(api).await;

    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["succeeded"]);
    assert_eq!(data.join("blog.db").exists(), service.is_on_sqlite());
    api.stop().await.assert_no_warnings();
    worker.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}

#[tokio::test]
async fn the_data_may_be_in_a_folder_with_any_name() {
    let service = Service::new();
    let data = service.path().join("100%25 sure? #1 \"é\"");
    let service = service
        .set("DATABASE_URL", "")
        .set("DATA_DIR", data.to_str().unwrap());
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    ann.create_post("Growing tomatoes").await;
    assert!(data.join("blog.db").exists());
    assert_eq!(std::fs::read_dir(service.path()).unwrap().count(), 1);
    worker.kill().await;
}

#[tokio::test]
async fn two_apis_and_three_workers_may_start_at_once_on_an_empty_database() {
    let writer = ScriptedAgent::new().await;
    let service = Service::of(&writer);

    let start = |name: &&str| service.start(name);
    let workers: Vec<_> = ["worker"; 3].iter().map(start).collect();
    let apis: Vec<_> = ["api"; 2].iter().map(start).collect();
    for worker in &workers {
        worker.wait_for_message("the worker is ready").await;
    }
    let mut ready = Vec::new();
    for api in apis {
        ready.push(Api::ready(api).await);
    }

    // They share the secret: each takes the tokens of the other.
    let ann = ready[0].user("ann").await;
    let there = ann.at(&ready[1].url);
    let bob = ready[1].user("bob").await;
    assert_eq!(bob.at(&ready[0].url).get("/users/me").await.status, 200);
    for topic in ["Tea", "Coffee", "Cocoa"].map(|of| format!("{of} in winter")) {
        let post = ann.create_post(&topic).await;
        there.wait_for_status(&post, "succeeded").await;
    }
    assert_eq!(secrets(&service.data()), ["jwt-secret"]);
    for api in ready {
        api.stop().await.assert_no_warnings();
    }
    for worker in workers {
        worker.stop().await.assert_no_warnings();
    }
    service.assert_at_rest().await;
}

#[tokio::test]
async fn the_secret_is_created_once_and_private() {
    let service = Service::new();
    let api = service.api().await;
    let ann = api.user("ann").await;
    let kept = service.data().join("jwt-secret");
    let secret = std::fs::read_to_string(&kept).unwrap();
    let mode = std::fs::metadata(&kept).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The database is not private by itself, so its folder is.
    let mode = std::fs::metadata(service.data()).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
    api.stop().await.assert_no_warnings();

    let api = service.api().await;
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), secret);
    assert_eq!(ann.at(&api.url).get("/users/me").await.status, 200);
    api.stop().await.assert_no_warnings();

    std::fs::remove_file(&kept).unwrap();
    let api = service.api().await;
    assert_eq!(ann.at(&api.url).get("/users/me").await.status, 401);
}

#[tokio::test]
async fn a_configured_secret_is_used_and_none_is_stored() {
    let service = Service::new().set("JWT_SECRET", "s".repeat(32));
    let api = service.api().await;
    let ann = api.user("ann").await;
    assert_eq!(secrets(&service.data()), [""; 0]);
    api.stop().await.assert_no_warnings();

    let other = service.set("JWT_SECRET", "t".repeat(32));
    let api = other.api().await;
    assert_eq!(ann.at(&api.url).get("/users/me").await.status, 401);
}

/// The files in a folder that may hold a secret.
fn secrets(data: &Path) -> Vec<String> {
    let files = std::fs::read_dir(data).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("secret")).collect()
}

/// The files of the service, with their permissions.
fn modes(data: &Path) -> Vec<(String, u32)> {
    let files = std::fs::read_dir(data).unwrap().map(Result::unwrap);
    let mode = |file: DirEntry| {
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        (file.file_name().into_string().unwrap(), mode)
    };
    files.map(mode).collect()
}

#[tokio::test]
async fn the_files_are_private_in_a_folder_that_is_open_to_others() {
    let service = Service::new();
    if !service.is_on_sqlite() {
        return;
    }
    std::fs::create_dir(service.data()).unwrap();
    std::fs::set_permissions(service.data(), Permissions::from_mode(0o755)).unwrap();
    let (api, worker) = (service.api().await, service.worker().await);
    api.user("ann").await;
    let files = modes(&service.data());
    for name in ["blog.db", "blog.db-wal", "blog.db-shm", "jwt-secret"] {
        assert!(files.iter().any(|(file, _)| file == name), "{files:?}");
    }
    for (file, mode) in files {
        assert_eq!(mode, 0o600, "{file}");
    }
    api.stop().await.assert_no_warnings();
    worker.stop().await.assert_no_warnings();
}

#[tokio::test]
async fn files_that_are_open_to_others_are_made_private_and_that_is_logged() {
    let service = Service::new();
    if !service.is_on_sqlite() {
        return;
    }
    let api = service.api().await;
    // So that the log stays.
    api.user("ann").await;
    api.kill().await;
    let files = modes(&service.data());
    for (file, _) in &files {
        let path = service.data().join(file);
        std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }
    let api = service.api().await;
    for (file, mode) in modes(&service.data()) {
        assert_eq!(mode, 0o600, "{file}");
    }
    let log = api.stop().await.text();
    for (file, _) in files {
        assert!(log.contains(&format!("/{file}\"")), "{file}: {log}");
    }
}

#[tokio::test]
async fn the_log_says_how_many_connections_to_postgres_a_process_may_open() {
    let service = Service::new().set("DATABASE_MAX_CONNECTIONS", "5");
    if service.is_on_sqlite() {
        return;
    }
    let (api, worker) = (service.api().await, service.worker().await);
    let connections = "connections to Postgres";
    assert_eq!(api.wait_for_message(connections).await["wanted"], 6);
    let told = worker.wait_for_message(connections).await;
    assert_eq!(told["wanted"], 8);
    assert!(told["free"].as_i64() <= told["allowed"].as_i64(), "{told}");
    api.stop().await.assert_no_warnings();
    worker.stop().await.assert_no_warnings();

    let api = service.set("DATABASE_MAX_CONNECTIONS", "1000").api().await;
    let log = api.stop().await.text();
    assert!(
        log.contains("may want more connections than Postgres has left"),
        "{log}"
    );
}

/// Whatever a start is in the middle of.
#[tokio::test]
async fn a_killed_first_start_is_completed_by_the_next() {
    for millis in (0..160).step_by(16) {
        let service = Service::new();
        let api = service.start("api");
        sleep(Duration::from_millis(millis)).await;
        api.signal(Signal::KILL);
        api.wait_for_exit().await;
        service.api().await.stop().await.assert_no_warnings();
    }
}

//! Backups of the database.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use testing::TIMEOUT;
use tokio::time::{sleep, timeout};

use crate::support::{Exit, Process, Service};

/// Runs a command of the API's.
async fn run(service: &Service, arguments: &[&str]) -> Exit {
    let command = Process::start_with("api", arguments, service.path(), &service.settings);
    command.wait_for_exit().await
}

/// The same, which must succeed. Returns what it says.
#[track_caller]
fn succeeded(exit: &Exit) -> String {
    assert_eq!(exit.code, Some(0), "{}", exit.text());
    exit.text()
}

/// The same, which must fail, for this reason.
#[track_caller]
fn refused(exit: &Exit, why: &str) {
    assert_eq!(exit.code, Some(1), "{}", exit.text());
    assert!(exit.text().contains(why), "{}", exit.text());
}

/// None in a run on Postgres.
fn sqlite(service: Service) -> Option<Service> {
    service.is_on_sqlite().then_some(service)
}

fn database_file(service: &Service) -> PathBuf {
    service.data().join("blog.db")
}

/// The names of a folder's files, without those of locks.
fn files(folder: &Path) -> BTreeSet<String> {
    let files = folder.read_dir().unwrap().map(|file| file.unwrap());
    let names = files.map(|file| file.file_name().into_string().unwrap());
    names.filter(|name| !name.contains("-l")).collect()
}

/// Waits until a folder has a file whose name contains this.
async fn wait_for_file(folder: &Path, name: &str) {
    let appears = async {
        while !files(folder).iter().any(|file| file.contains(name)) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, appears).await.expect("no such file");
}

/// A connection as another program's, which knows nothing of our locks.
async fn connect(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file);
    options.connect().await.unwrap()
}

#[tokio::test]
async fn a_backup_is_a_private_copy_of_a_database_that_is_in_use() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    let api = service.api().await;
    api.user("ann").await;
    let said = succeeded(&run(&service, &["backup", "backup.db"]).await);
    let backup = service.path().join("backup.db");
    let file = backup.metadata().unwrap();
    let size = file.len();
    assert_eq!(said, format!("backup.db has the backup, {size} bytes."));
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    api.stop().await.assert_no_warnings();
    let mut copy = connect(&backup).await;
    let name = sqlx::query_scalar::<_, String>("SELECT username FROM users");
    assert_eq!(name.fetch_all(&mut copy).await.unwrap(), ["ann"]);
    copy.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_replaces_no_file_and_leaves_nothing_behind_when_it_fails() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    refused(
        &run(&service, &["backup", "new.db"]).await,
        "there is no database",
    );
    assert_eq!(files(service.path()), BTreeSet::new());

    let api = service.api().await;
    api.user("marked").await;
    api.stop().await;
    std::fs::write(service.path().join("mine"), "mine").unwrap();
    refused(&run(&service, &["backup", "mine"]).await, "exists");
    let mine = std::fs::read_to_string(service.path().join("mine")).unwrap();
    assert_eq!(mine, "mine");
    let nowhere = run(&service, &["backup", "missing/new.db"]).await;
    refused(&nowhere, "can't write to");

    damage(&database_file(&service), "marked");
    let damaged = run(&service, &["backup", "new.db"]).await;
    refused(&damaged, "can't copy");
    let expected = ["data", "mine"].map(str::to_owned);
    assert_eq!(files(service.path()), BTreeSet::from(expected));
}

#[tokio::test]
async fn a_backup_that_is_stopped_leaves_nothing_behind() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    service.api().await.stop().await;
    // It waits for this one, as if that migrated the database.
    let lock = File::open(service.data().join("blog.migration-lock")).unwrap();
    lock.lock().unwrap();
    let arguments = ["backup", "new.db"];
    let backup = Process::start_with("api", &arguments, service.path(), &service.settings);
    wait_for_file(service.path(), ".blog-draft-").await;
    backup.signal(Signal::TERM);
    refused(&backup.wait_for_exit().await, "it was stopped");
    assert_eq!(files(service.path()), BTreeSet::from(["data".to_owned()]));
}

/// Overwrites the pages of a database that have this text.
fn damage(file: &Path, text: &str) {
    const PAGE: usize = 4096;
    let mut bytes = std::fs::read(file).unwrap();
    let has_text = |page: &&mut [u8]| page.windows(text.len()).any(|part| part == text.as_bytes());
    let pages: Vec<&mut [u8]> = bytes.chunks_mut(PAGE).filter(has_text).collect();
    assert!(!pages.is_empty(), "{text} is not stored");
    for page in pages {
        page.fill(0xa5);
    }
    std::fs::write(file, bytes).unwrap();
}

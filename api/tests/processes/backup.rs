//! Backups of the database, and what goes on from them.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use entity::{job, post};
use reqwest::Method;
use rustix::process::Signal;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use testing::stub::Act;
use testing::{EventReader, HEADINGS, PASSWORD, TIMEOUT, TestClient, outcomes, text};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::support::{Cluster, Exit, Process, ScriptedAgent, Service, write};

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

/// What a restore has kept of the database that was there.
fn kept(service: &Service) -> PathBuf {
    let kept: Vec<String> = files(&service.data())
        .into_iter()
        .filter(|name| name.contains("before-restore"))
        .collect();
    let [kept] = &kept[..] else {
        panic!("not one file: {kept:?}");
    };
    service.data().join(kept)
}

/// A connection as another program's, which knows nothing of our locks.
async fn connect(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file);
    options.connect().await.unwrap()
}

/// Writes well, but holds up the third section of posts about tomatoes until it is told to go on.
async fn held_up_by_tomatoes() -> (ScriptedAgent, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let until = gate.clone();
    let writer = ScriptedAgent::told(move |prompt, asked| {
        let is_held_up = asked == HEADINGS[2] && prompt.contains("tomatoes");
        is_held_up.then(|| {
            let mut acts = write(asked);
            acts.insert(1, Act::Gate(until.clone()));
            acts
        })
    });
    (writer.await, gate)
}

async fn create_once(client: &TestClient, key: &str, topic: &str) -> testing::TestResponse {
    let request = client.request(Method::POST, "/blogs");
    let request = request.header("idempotency-key", key);
    client.send(request.json(&json!({ "topic": topic }))).await
}

/// A backup is made in the middle of a job, which then ends, and after which more happens. All that
/// is lost, and the backup restored. The two ways to do so depend on the database.
async fn goes_on(
    service: Service,
    (writer, gate): (ScriptedAgent, Arc<Notify>),
    backup: impl AsyncFn(&Service),
    restore: impl AsyncFn(Service) -> Service,
) {
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let (signs_out, stays) = (ann.sign_in("ann").await, ann.sign_in("ann").await);
    let key = json!({ "name": "a program", "scopes": ["read"] });
    let key = ann.post("/users/me/keys", key).await.expect(201);
    let program = ann.with_token(&text(&key["key"]));
    let before = create_once(&ann, "before", "Growing carrots").await.body;
    ann.wait_for_status(&before, "succeeded").await;
    let amid = ann.create_post("Growing tomatoes").await;
    writer.wait_for_requests(HEADINGS[2], 2).await;

    backup(&service).await;

    gate.notify_one();
    ann.wait_for_status(&amid, "succeeded").await;
    let mut seen = EventReader::of(&ann, &amid);
    seen.read_to_end().await;
    let after = create_once(&ann, "after", "Growing onions").await.body;
    ann.wait_for_status(&after, "succeeded").await;
    api.user("bob").await;
    let out = signs_out.post_empty("/users/logout").await;
    assert_eq!(out.status, 204);
    worker.kill().await;
    api.kill().await;

    let service = restore(service).await;
    let asked = writer.asked().len();
    let (api, worker) = (service.api().await, service.worker().await);
    for client in [&ann, &signs_out, &stays] {
        let client = client.at(&api.url);
        let answer = client.get("/users/me").await;
        assert_eq!(answer.body["code"], "session_revoked", "{answer:?}");
        let answer = client.refresh(&client.refresh_token).await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    let program = program.at(&api.url);
    assert_eq!(program.get("/blogs").await.status, 200);
    let ann = TestClient::anonymous(&api.url).sign_in("ann").await;
    assert_eq!(ann.login("bob", PASSWORD).await.status, 401);

    // The job that ran is rescued, and goes on where it was.
    writer.wait_for_requests(HEADINGS[2], 4).await;
    // Numbers that were given before are of other events than those that follow now.
    let last = seen.after.unwrap();
    for number in 1..=last {
        let path = format!("{}/events?after={number}", testing::job_path(&amid));
        let request = ann.request(Method::GET, &path);
        let request = request.header("accept", "application/json");
        let follows = ann.send(request).await.expect(200);
        assert_eq!(follows["events"][0]["event"], "snapshot", "after {number}");
    }
    let mut reader = EventReader::of(&ann, &amid).after(last);
    assert_eq!(reader.connect().await, 200);
    gate.notify_one();
    let job = ann.wait_for_status(&amid, "succeeded").await;
    assert_eq!(outcomes(&job), ["lost", "succeeded"]);
    assert_eq!(writer.asked()[asked..], HEADINGS[2..]);
    assert_eq!(job["usage"]["output_tokens"], 5 * 20);
    let rewritten = ann.get_post(&amid).await;
    assert_eq!(rewritten["version"], 2);
    reader.read_to_end().await;
    assert_eq!(reader.snapshots, 1);
    assert_eq!(reader.content(), text(&rewritten["content"]));

    // What is in the backup is there, and what is not was never done.
    let old = ann.get_post(&before).await;
    assert_eq!(
        (&old["status"], &old["version"]),
        (&json!("ready"), &json!(2))
    );
    let again = create_once(&ann, "before", "Growing carrots").await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let gone = ann.get(&testing::post_path(&after)).await;
    assert_eq!(gone.status, 404, "{gone:?}");
    let anew = create_once(&ann, "after", "Growing onions").await;
    assert_eq!(anew.status, 202, "{anew:?}");
    assert!(!anew.headers.contains_key("idempotency-replayed"));
    ann.wait_for_status(&anew.body, "succeeded").await;
    worker.stop().await;
    api.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_restored_database_goes_on_with_what_its_backup_had_begun() {
    let writer = held_up_by_tomatoes().await;
    let Some(service) = sqlite(Service::of(&writer.0)) else {
        return;
    };
    let backup = async |service: &Service| {
        let said = succeeded(&run(service, &["backup", "backup.db"]).await);
        let file = service.path().join("backup.db").metadata().unwrap();
        let size = file.len();
        assert_eq!(said, format!("backup.db has the backup, {size} bytes."));
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    };
    let restore = async |service: Service| {
        // What was killed has left its WAL, which must not be applied to another database.
        let wal = service.data().join("blog.db-wal");
        assert!(wal.metadata().unwrap().len() > 0);
        let backup = std::fs::read(service.path().join("backup.db")).unwrap();
        let said = succeeded(&run(&service, &["restore", "backup.db"]).await);
        assert!(said.contains("Sessions ended: 3."), "{said}");
        let kept = kept(&service);
        assert!(said.contains(kept.to_str().unwrap()), "{said}");
        let kept = kept.file_name().unwrap().to_str().unwrap();
        let expected = ["blog.db", kept, "jwt-secret"].map(str::to_owned);
        assert_eq!(files(&service.data()), BTreeSet::from(expected));
        let mode = database_file(&service).metadata().unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let untouched = std::fs::read(service.path().join("backup.db")).unwrap();
        assert!(backup == untouched, "the backup was changed");
        service
    };
    goes_on(service, writer, backup, restore).await;
}

/// As docs/operations.md says.
#[tokio::test]
async fn a_postgres_database_that_was_dumped_and_restored_goes_on_likewise() {
    let Some(cluster) = Cluster::start_new().await else {
        return;
    };
    let writer = held_up_by_tomatoes().await;
    let service = Service::of(&writer.0).set("DATABASE_URL", cluster.url());
    let dump = service.path().join("blog.dump");
    let dump = dump.to_str().unwrap();
    let backup = async |service: &Service| {
        let url = service.setting("DATABASE_URL");
        let file = format!("--file={dump}");
        cluster
            .run("pg_dump", &["--format=custom", &file, url])
            .await;
    };
    let restore = async |service: Service| {
        let new = cluster.url_of("restored");
        let at = format!("--maintenance-db={}", cluster.url());
        cluster.run("createdb", &[&at, "restored"]).await;
        let into = format!("--dbname={new}");
        let restore = ["--exit-on-error", "--no-owner", &into, dump];
        cluster.run("pg_restore", &restore).await;
        let service = service.set("DATABASE_URL", new);
        let said = succeeded(&run(&service, &["after-restore"]).await);
        assert!(said.contains("Sessions ended: 3."), "{said}");
        service
    };
    goes_on(service, writer, backup, restore).await;
}

#[tokio::test]
async fn on_postgres_the_commands_name_the_programs_to_use() {
    let service = Service::new();
    if service.is_on_sqlite() {
        return;
    }
    for (command, program) in [("backup", "use pg_dump"), ("restore", "use pg_restore")] {
        let exit = run(&service, &[command, "backup.db"]).await;
        refused(&exit, program);
        assert!(
            exit.text().contains("docs/operations.md"),
            "{}",
            exit.text()
        );
    }
    assert_eq!(files(service.path()), BTreeSet::new());
    let empty = run(&service, &["after-restore"]).await;
    refused(&empty, "it is not a database of this service");
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
async fn a_backup_under_load_is_the_database_at_one_moment() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    let api = service.api().await;
    let ann = api.user("ann").await;
    let first = ann.create_post("Growing tomatoes").await;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let ann = ann.with_new_connection();
            tokio::spawn(async move {
                let body = json!({ "topic": "Growing potatoes" });
                let ask = || ann.request(Method::POST, "/blogs").json(&body);
                while ann.try_send(ask()).await.is_ok() {}
            })
        })
        .collect();
    for number in 0..3 {
        let name = format!("backup-{number}.db");
        succeeded(&run(&service, &["backup", &name]).await);
    }
    api.kill().await;
    for client in clients {
        client.await.unwrap();
    }
    for number in 0..3 {
        let name = format!("backup-{number}.db");
        succeeded(&run(&service, &["restore", &name]).await);
        let db = service.database().await;
        let posts = post::Entity::find().count(db.read()).await.unwrap();
        let jobs = job::Entity::find().count(db.read()).await.unwrap();
        let deliveries = shared::queue::count_deliveries(db.read()).await.unwrap();
        assert_eq!((posts, posts), (jobs, u64::try_from(deliveries).unwrap()));
        let id = text(&first["id"]).parse().unwrap();
        let found = post::Entity::find_by_id::<uuid::Uuid>(id).one(db.read());
        assert!(found.await.unwrap().is_some());
        db.close().await;
        std::fs::remove_file(kept(&service)).unwrap();
    }
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

#[tokio::test]
async fn nothing_is_restored_while_anyone_has_the_database_open() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    let api = service.api().await;
    api.user("ann").await;
    succeeded(&run(&service, &["backup", "backup.db"]).await);
    let ready = files(&service.data());
    let restore = async || run(&service, &["restore", "backup.db"]).await;
    refused(&restore().await, "stop all APIs and workers");
    let worker = service.worker().await;
    api.kill().await;
    refused(&restore().await, "stop all APIs and workers");
    worker.kill().await;
    // The open file of any program, which takes no lock of ours.
    let mut other = connect(&database_file(&service)).await;
    sqlx::query("SELECT * FROM users")
        .fetch_all(&mut other)
        .await
        .unwrap();
    refused(&restore().await, "is in use by another program");
    assert_eq!(files(&service.data()), ready);
    other.close().await.unwrap();
    succeeded(&restore().await);
}

#[tokio::test]
async fn what_is_no_sound_database_of_the_service_is_not_restored() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    let api = service.api().await;
    let ann = api.user("marked").await;
    succeeded(&run(&service, &["backup", "backup.db"]).await);
    let path = |name: &str| service.path().join(name);
    let copy = |name: &str| {
        std::fs::copy(path("backup.db"), path(name)).unwrap();
        path(name)
    };
    std::fs::write(path("text"), "no database").unwrap();
    std::fs::write(path("empty"), "").unwrap();
    damage(&copy("damaged"), "marked");
    let mut newer = connect(&copy("newer")).await;
    let newest = "INSERT INTO schema_migrations VALUES ('m20990101_000099_breaking_news', 0)";
    sqlx::query(newest).execute(&mut newer).await.unwrap();
    newer.close().await.unwrap();
    let mut others = connect(&copy("others")).await;
    for sql in [
        "DROP TABLE seaql_migrations",
        "DROP TABLE schema_migrations",
    ] {
        sqlx::query(sql).execute(&mut others).await.unwrap();
    }
    others.close().await.unwrap();
    // A copy of the files of a database that is in use.
    std::fs::copy(database_file(&service), path("open")).unwrap();
    std::fs::copy(service.data().join("blog.db-wal"), path("open-wal")).unwrap();
    api.stop().await;
    let present = std::fs::read(database_file(&service)).unwrap();
    let ready = files(&service.data());

    for (file, why) in [
        ("missing", "No such file"),
        ("data", "it is not a file"),
        ("data/blog.db", "it is the database itself"),
        ("text", "it is not an SQLite database"),
        ("empty", "it is not a database of this service"),
        ("others", "it is not a database of this service"),
        ("damaged", "it is damaged"),
        ("newer", "has applied m20990101_000099_breaking_news"),
        ("open", "its last changes are in open-wal"),
    ] {
        let exit = run(&service, &["restore", file]).await;
        refused(&exit, why);
        refused(&exit, &format!("can't restore {file}"));
        assert_eq!(files(&service.data()), ready, "{file}");
    }
    assert!(present == std::fs::read(database_file(&service)).unwrap());
    let api = service.api().await;
    assert_eq!(ann.at(&api.url).get("/users/me").await.status, 200);
}

/// As a program may go on with the database of a newer one.
#[tokio::test]
async fn a_backup_of_a_newer_version_is_restored_if_this_one_can_work_with_it() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    service.api().await.stop().await;
    succeeded(&run(&service, &["backup", "backup.db"]).await);
    let mut newer = connect(&service.path().join("backup.db")).await;
    let newest = "INSERT INTO schema_migrations VALUES ('m20990101_000099_more', 0)";
    sqlx::query(newest).execute(&mut newer).await.unwrap();
    newer.close().await.unwrap();
    let said = succeeded(&run(&service, &["restore", "backup.db"]).await);
    assert!(said.contains("m20990101_000099_more"), "{said}");
    service.api().await.stop().await;
}

#[tokio::test]
async fn a_restore_tells_what_it_undoes_and_may_itself_be_undone() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    let api = service.api().await;
    let ann = api.user("ann").await;
    let key = json!({ "name": "a program", "scopes": ["read"] });
    let key = ann.post("/users/me/keys", key).await.expect(201);
    succeeded(&run(&service, &["backup", "backup.db"]).await);
    let key_path = format!("/users/me/keys/{}", text(&key["id"]));
    assert_eq!(ann.delete(&key_path).await.status, 204);
    let post = ann.create_post("Growing tomatoes").await;
    api.kill().await;

    let said = succeeded(&run(&service, &["restore", "backup.db"]).await);
    assert!(said.contains("api_key_revoked 1"), "{said}");
    let kept = kept(&service);
    let api = service.api().await;
    let program = ann.at(&api.url).with_token(&text(&key["key"]));
    assert_eq!(program.get("/blogs").await.body["items"], json!([]));
    api.stop().await;

    let kept = kept.to_str().unwrap();
    let again = ["restore", "--revoke-api-keys", "backup.db"];
    let said = succeeded(&run(&service, &again).await);
    assert!(said.contains("API keys revoked: 1."), "{said}");
    let api = service.api().await;
    assert_eq!(program.at(&api.url).get("/blogs").await.status, 401);
    api.stop().await;

    succeeded(&run(&service, &["restore", kept]).await);
    let api = service.api().await;
    let ann = TestClient::anonymous(&api.url).sign_in("ann").await;
    assert_eq!(ann.get_post(&post).await["topic"], "Growing tomatoes");
    assert_eq!(program.at(&api.url).get("/blogs").await.status, 401);
    api.stop().await.assert_no_warnings();
}

/// A client may have those of every past that there was.
#[tokio::test]
async fn no_event_gets_a_number_again_however_often_a_database_is_restored() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    let api = service.api().await;
    let ann = api.user("ann").await;
    ann.create_post("Growing tomatoes").await;
    succeeded(&run(&service, &["backup", "backup.db"]).await);
    api.stop().await;

    let mut highest = highest_event(&service).await;
    assert!(highest > 0);
    succeeded(&run(&service, &["restore", "backup.db"]).await);
    let first = kept(&service);
    for restored in ["backup.db", "backup.db", first.to_str().unwrap()] {
        let number = highest_event(&service).await;
        assert!(number > highest, "{number}");
        highest = number;
        succeeded(&run(&service, &["restore", restored]).await);
    }
    assert!(highest_event(&service).await > highest);
}

/// The number of the last event of any job.
async fn highest_event(service: &Service) -> i32 {
    let mut connection = connect(&database_file(service)).await;
    let highest = "SELECT MAX(last_event) FROM generation_jobs";
    let highest = sqlx::query_scalar(highest).fetch_one(&mut connection).await;
    connection.close().await.unwrap();
    highest.unwrap()
}

/// SQLite would apply it to whatever file has its name.
#[tokio::test]
async fn a_wal_that_was_left_behind_does_not_reach_a_restored_database() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    let api = service.api().await;
    let ann = api.user("ann").await;
    succeeded(&run(&service, &["backup", "backup.db"]).await);
    ann.create_post("Growing tomatoes").await;
    api.kill().await;
    std::fs::remove_file(database_file(&service)).unwrap();
    assert!(service.data().join("blog.db-wal").exists());

    let said = succeeded(&run(&service, &["restore", "backup.db"]).await);
    assert!(!said.contains("kept as"), "{said}");
    let api = service.api().await;
    let ann = TestClient::anonymous(&api.url).sign_in("ann").await;
    assert_eq!(ann.get("/blogs").await.body["items"], json!([]));
    api.stop().await.assert_no_warnings();
    service.assert_at_rest().await;
}

#[tokio::test]
async fn a_restore_that_is_killed_has_done_all_or_nothing() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    let api = service.api().await;
    let ann = api.user("ann").await;
    ann.create_post("Growing tomatoes").await;
    succeeded(&run(&service, &["backup", "backup.db"]).await);
    ann.create_post("Growing potatoes").await;
    api.kill().await;
    for moment in [".blog-draft-", "before-restore"] {
        let arguments = ["restore", "backup.db"];
        let restore = Process::start_with("api", &arguments, service.path(), &service.settings);
        wait_for_file(&service.data(), moment).await;
        restore.signal(Signal::KILL);
        restore.wait_for_exit().await;
        let api = service.api().await;
        let ann = TestClient::anonymous(&api.url).sign_in("ann").await;
        let posts = ann.list_all("/blogs").await.len();
        assert!([1, 2].contains(&posts), "{posts} posts");
        api.stop().await.assert_no_warnings();
    }
    succeeded(&run(&service, &["restore", "backup.db"]).await);
    let api = service.api().await;
    let ann = TestClient::anonymous(&api.url).sign_in("ann").await;
    assert_eq!(ann.list_all("/blogs").await.len(), 1);
    api.stop().await.assert_no_warnings();
}

#[tokio::test]
async fn a_damaged_database_is_replaced_and_kept() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    let api = service.api().await;
    api.user("ann").await;
    succeeded(&run(&service, &["backup", "backup.db"]).await);
    api.kill().await;
    // The WAL has all pages that were written since the start.
    for name in ["blog.db", "blog.db-wal"] {
        std::fs::write(service.data().join(name), "rubbish").unwrap();
    }
    succeeded(&run(&service, &["restore", "backup.db"]).await);
    assert_eq!(std::fs::read(kept(&service)).unwrap(), b"rubbish");
    let api = service.api().await;
    TestClient::anonymous(&api.url).sign_in("ann").await;
    api.stop().await.assert_no_warnings();
}

#[tokio::test]
async fn a_backup_is_restored_where_there_was_no_database() {
    let Some(service) = sqlite(Service::new()) else {
        return;
    };
    let api = service.api().await;
    api.user("ann").await;
    succeeded(&run(&service, &["backup", "backup.db"]).await);
    api.stop().await;
    let new = service.path().join("elsewhere");
    let service = service.set("DATA_DIR", new.to_str().unwrap());
    let said = succeeded(&run(&service, &["restore", "backup.db"]).await);
    assert!(!said.contains("kept as"), "{said}");
    let api = service.api().await;
    TestClient::anonymous(&api.url).sign_in("ann").await;
    api.stop().await.assert_no_warnings();
}

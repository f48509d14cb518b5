//! The file called by each of its names.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use testing::{TIMEOUT, TestClient, TestDatabase, outcomes, text};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const WRITES: &str = r#"
    echo '{"type": "post", "title": "On Tea", "content": "Tea is a drink that is made of leaves. One pours hot water over them, waits, and drinks what has become of it."}'
"#;

/// A command that calls the file by this name.
fn called(name: &str, folder: &Path) -> Command {
    let link = folder.join(name);
    symlink(env!("CARGO_BIN_EXE_multicall"), &link).unwrap();
    let mut command = Command::new(link);
    command.current_dir(folder).env_clear().kill_on_drop(true);
    command
}

/// Starts a program and returns what it logs once it is ready.
async fn ready(mut command: Command, says: &str) -> (Child, Value) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it has ended");
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["message"] == says {
                return line;
            }
        }
    };
    let line = timeout(TIMEOUT, line).await.expect("it is not ready");
    // Whoever logs needs a reader.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, line)
}

#[tokio::test]
async fn each_name_starts_its_program_and_together_they_write_a_post() {
    let folder = tempfile::tempdir().unwrap();
    let database = TestDatabase::empty();
    let script = folder.path().join("agent.sh");
    std::fs::write(&script, WRITES).unwrap();
    let settings = [
        ("DATA_DIR", "data".to_owned()),
        (
            "DATABASE_URL",
            database.as_ref().map(TestDatabase::url).unwrap_or_default(),
        ),
        ("LISTEN_ADDR", "127.0.0.1:0".to_owned()),
        ("METRICS_ADDR", "off".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
        ("AGENT", "script".to_owned()),
        ("AGENT_SCRIPT", format!("/bin/sh {}", script.display())),
    ];
    let start = async |name, says| {
        let mut command = called(name, folder.path());
        command.envs(settings.clone());
        ready(command, says).await
    };
    let (_api, line) = start("api", "the API is ready").await;
    // It calls itself to run the script.
    let (_worker, _) = start("worker", "the worker is ready").await;
    let api = TestClient::anonymous(&format!("http://{}", text(&line["address"])));
    let ann = api.sign_up("ann").await;
    let post = ann.create_post("A cup of tea").await;
    let job = ann.wait_for_status(&post, "succeeded").await;
    assert_eq!(outcomes(&job), ["succeeded"]);
    assert_eq!(ann.get_post(&post).await["title"], "On Tea");
}

#[tokio::test]
async fn another_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = called("neither", folder.path()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("the name api or worker"), "{told}");
}

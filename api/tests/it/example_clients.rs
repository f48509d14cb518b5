//! The clients in `docs/examples`, over connections that break again and again.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use testing::stub_openai::StubBehavior;
use testing::{TestClient, job_path, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::support::TestApp;

/// So many bytes of an answer come through the proxy.
const CUT_AFTER: u64 = 1200;

/// A proxy before the API which breaks each connection, and counts them.
async fn breaking_proxy(api: &str) -> (String, Arc<AtomicUsize>) {
    let api = api.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let mut server = TcpStream::connect(&api).await.unwrap();
            tokio::spawn(async move {
                let (mut requests, mut answers) = client.split();
                let (from_server, mut to_server) = server.split();
                let mut answer = from_server.take(CUT_AFTER);
                tokio::select! {
                    _ = copy(&mut requests, &mut to_server) => {}
                    _ = copy(&mut answer, &mut answers) => {}
                }
                let _ = answers.shutdown().await;
            });
        }
    });
    (url, connections)
}

/// Runs a client while a post is written, and checks that it prints that.
async fn assert_prints_post(client: impl AsyncFn(String, String) -> Output) {
    let app = TestApp::new().await;
    let ann: TestClient = app.user("ann").await;
    app.agent.set(StubBehavior::Slow(Duration::from_millis(8)));
    let post: Value = ann.create_post("Tomatoes").await;
    let (proxy, connections) = breaking_proxy(ann.url()).await;
    let job = format!("{proxy}/api/v1{}", job_path(&post));
    let worker = app.worker().await;
    let printed = client(job, ann.token.clone()).await;
    app.wait_until_jobs_finished().await;
    worker.stop().await;
    let errors = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "{errors}");
    let content = text(&ann.get_post(&post).await["content"]);
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), content);
    assert!(connections.load(Ordering::Relaxed) > 1);
}

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples")
}

#[tokio::test]
async fn the_python_client_goes_on_where_it_was() {
    assert_prints_post(async |job, token| {
        let program = examples().join("watch.py");
        let mut python = Command::new("python3");
        python
            .arg(program)
            .args([job, token])
            .output()
            .await
            .unwrap()
    })
    .await;
}

#[tokio::test]
async fn the_javascript_client_goes_on_where_it_was() {
    let Some(folder) = std::env::var_os("EVENTSOURCE").filter(|folder| !folder.is_empty()) else {
        eprintln!("LEFT OUT: EVENTSOURCE is not set; see scripts/setup-eventsource.sh");
        return;
    };
    // Where the package is found from.
    let program = Path::new(&folder).join("watch.mjs");
    std::fs::copy(examples().join("watch.mjs"), &program).unwrap();
    assert_prints_post(async |job, token| {
        let mut node = Command::new("node");
        node.arg(&program)
            .args([job, token])
            .output()
            .await
            .unwrap()
    })
    .await;
}

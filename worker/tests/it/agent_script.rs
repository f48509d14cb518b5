//! Scripts here are written for `sh`, which starts fastest.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testing::stub_openai::{StubBehavior, StubOpenAi};
use tokio::sync::Notify;
use worker::agent::{
    Agent, AgentError, AgentErrorKind, CallScope, Completion, Event, Limits, Script,
};

use super::agent_provider::{assert_fatal, assert_retry, limits, request};

/// A script agent in a directory of its own, which is its first argument.
struct Case {
    directory: TempDir,
    agent: Script,
}

impl Case {
    fn new(script: &str) -> Case {
        Case::within(limits(), script)
    }

    fn within(limits: Limits, script: &str) -> Case {
        let directory = tempfile::tempdir().unwrap();
        let agent = agent(directory.path(), script, limits);
        Case { directory, agent }
    }

    async fn call(&self) -> Result<Completion, AgentError> {
        self.agent.call(&request(), &|_| {}).await
    }

    async fn fails(&self) -> AgentError {
        self.call().await.unwrap_err()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(file)).unwrap()
    }

    /// The processes whose numbers the script left in a file.
    fn processes(&self) -> Vec<u32> {
        self.read("processes")
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect()
    }
}

fn agent(directory: &Path, script: &str, limits: Limits) -> Script {
    let file = directory.join("script.sh");
    std::fs::write(&file, script).unwrap();
    let command = format!("sh {} {}", file.display(), directory.display());
    Script::new(&command, std::env::vars_os(), supervisor(), limits).unwrap()
}

fn supervisor() -> &'static str {
    env!("CARGO_BIN_EXE_worker")
}

/// Wait until a process is dead; it may be left unreaped by whoever
/// inherited it.
async fn dead(process: u32) {
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    for _ in 0..4000 {
        if matches!(state(), None | Some('Z' | 'X')) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("process {process} lives");
}

/// Two lives that no SIGTERM ends: the script's own, and that of a child which
/// holds all of its pipes open.
const LIVES_ON: &str = r#"
    trap '' TERM
    sleep 1000 &
    echo $$ $! > $1/processes
    echo '{"type": "delta", "text": "Tea"}'
    wait
"#;

#[tokio::test]
async fn every_line_of_the_protocol_is_understood() {
    let case = Case::new(
        r#"
        echo '{"type": "progress", "percent": 12.5, "message": "thinking"}'
        echo '{"type": "progress", "percent": 200}'
        echo '{"type": "progress", "percent": -1, "message": null}'
        echo '{"type": "delta", "text": "Tea", "more": [1, 2]}'
        echo '{"type": "weather", "sun": true}'
        echo
        echo '{"type": "delta", "text": " is"}'
        printf '{"type": "post", "title": "Tea", "content": "Tea \\u00e9"}'
        "#,
    );
    let heard = Mutex::new(Vec::new());
    let reply = case
        .agent
        .call(&request(), &|event| heard.lock().unwrap().push(event))
        .await
        .unwrap();
    let expected = Completion {
        title: Some("Tea".into()),
        text: "Tea é".into(),
        ..Completion::default()
    };
    assert_eq!(reply, expected);
    let progress = |percent, message: Option<&str>| Event::Progress {
        percent,
        message: message.map(Into::into),
    };
    let expected = [
        progress(12, Some("thinking")),
        progress(100, None),
        progress(0, None),
        Event::Text("Tea".into()),
        Event::Text(" is".into()),
    ];
    assert_eq!(heard.into_inner().unwrap(), expected);
    assert_eq!(case.agent.scope(), CallScope::WholePost);
}

#[tokio::test]
async fn without_a_post_the_pieces_are_the_text() {
    let case = Case::new(
        r#"
        echo '{"type": "delta", "text": "Tea"}'
        echo '{"type": "delta", "text": " is good."}'
        "#,
    );
    assert_eq!(
        case.call().await.unwrap(),
        Completion {
            text: "Tea is good.".into(),
            ..Completion::default()
        }
    );
}

#[tokio::test]
async fn the_request_is_one_line_and_then_the_end() {
    let case = Case::new(
        r#"
        cat > $1/input
        echo '{"type": "delta", "text": "Tea"}'
        "#,
    );
    case.call().await.unwrap();
    let input = case.read("input");
    assert_eq!(input.matches('\n').count(), 1);
    let expected =
        json!({ "protocol": 1, "job_id": request().job_id, "topic": "Tea", "options": {} });
    assert_eq!(serde_json::from_str::<Value>(&input).unwrap(), expected);
}

#[tokio::test]
async fn a_script_need_not_read_its_input() {
    let case = Case::new(r#"exec <&-; echo '{"type": "delta", "text": "Tea"}'"#);
    let mut request = request();
    // More than a pipe holds.
    request.options = json!({ "instructions": "x".repeat(200_000) });
    assert_eq!(
        case.agent.call(&request, &|_| {}).await.unwrap().text,
        "Tea"
    );
}

#[tokio::test]
async fn text_is_heard_as_it_comes() {
    let case = Case::new(
        r#"
        echo '{"type": "delta", "text": "first "}'
        until [ -e $1/heard ]; do sleep 0.01; done
        echo '{"type": "delta", "text": "second"}'
        "#,
    );
    // The script goes on only when its first piece has been heard.
    let listen = |_| std::fs::write(case.directory.path().join("heard"), "").unwrap();
    assert_eq!(
        case.agent.call(&request(), &listen).await.unwrap().text,
        "first second"
    );
}

#[tokio::test]
async fn exit_status_75_may_be_tried_again() {
    let case = Case::new("echo 'no network' >&2; exit 75");
    let error = case.fails().await;
    assert_eq!(assert_retry(&error, AgentErrorKind::Unavailable), None);
    assert!(error.to_string().contains("no network"), "{error}");
}

#[tokio::test]
async fn any_other_exit_status_is_not_tried_again() {
    for status in [1, 2, 74, 76, 255] {
        let case = Case::new(&format!(
            r#"echo '{{"type": "delta", "text": "Tea"}}'; exit {status}"#
        ));
        assert_fatal(&case.fails().await, AgentErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn a_script_that_is_killed_is_not_tried_again() {
    let error = Case::new("kill -9 $$").fails().await;
    assert_fatal(&error, AgentErrorKind::Unavailable);
    assert!(error.to_string().contains("signal 9"), "{error}");
}

#[tokio::test]
async fn an_error_line_is_not_tried_again() {
    let case = Case::new(r#"echo '{"type": "error", "message": "no such topic"}'; exit 75"#);
    let error = case.fails().await;
    assert_fatal(&error, AgentErrorKind::Rejected);
    assert!(error.to_string().contains("no such topic"), "{error}");
}

#[tokio::test]
async fn an_error_line_may_ask_to_be_tried_again() {
    let case =
        Case::new(r#"echo '{"type": "error", "message": "busy", "retry": true}'; sleep 1000"#);
    assert_eq!(
        assert_retry(&case.fails().await, AgentErrorKind::Unavailable),
        None
    );
}

#[tokio::test]
async fn an_error_line_may_tell_after_how_many_seconds() {
    let case = Case::new(
        r#"echo '{"type": "error", "message": "busy", "retry": true, "retry_after_s": 1.5}'"#,
    );
    let after = assert_retry(&case.fails().await, AgentErrorKind::Unavailable);
    assert_eq!(after, Some(Duration::from_millis(1500)));
}

#[tokio::test]
async fn a_script_that_writes_nothing_may_be_tried_again() {
    assert_retry(
        &Case::new("exit 0").fails().await,
        AgentErrorKind::BadOutput,
    );
    let blank = Case::new(r#"echo '{"type": "post", "title": "Tea", "content": " "}'"#);
    assert_retry(&blank.fails().await, AgentErrorKind::BadOutput);
}

#[tokio::test]
async fn a_line_that_is_not_of_the_protocol_is_not_tried_again() {
    for line in [
        "Tea is good.",
        "42",
        "{}",
        r#"{"type": "delta"}"#,
        r#"{"type": "post", "title": "Tea"}"#,
    ] {
        let error = Case::new(&format!("echo '{line}'; sleep 1000"))
            .fails()
            .await;
        assert_fatal(&error, AgentErrorKind::BadOutput);
        assert!(error.to_string().contains(line), "{error}");
    }
}

#[tokio::test]
async fn an_endless_line_is_stopped() {
    let error = Case::new(r"tr '\0' x < /dev/zero").fails().await;
    assert_fatal(&error, AgentErrorKind::BadOutput);
}

#[tokio::test]
async fn an_endless_text_is_stopped() {
    let case = Case::new(r#"yes '{"type": "delta", "text": "and so on "}'"#);
    assert_retry(&case.fails().await, AgentErrorKind::BadOutput);
}

#[tokio::test]
async fn a_post_that_is_too_long_is_stopped() {
    let post = format!(
        r#"{{"type": "post", "title": "Tea", "content": "{}"}}"#,
        "x".repeat(limits().max_bytes + 1)
    );
    assert_retry(
        &Case::new(&format!("echo '{post}'")).fails().await,
        AgentErrorKind::BadOutput,
    );
}

#[tokio::test]
async fn endless_output_without_text_is_stopped() {
    let case = Case::new(r#"yes '{"type": "progress", "percent": 1}'"#);
    assert_retry(&case.fails().await, AgentErrorKind::BadOutput);
}

#[tokio::test]
async fn of_endless_standard_error_the_end_is_kept() {
    let case = Case::new(
        r"
        yes 'a warning' | head -n 100000 >&2
        echo 'the cause' >&2
        exit 1
        ",
    );
    let error = case.fails().await.to_string();
    assert!(error.ends_with("a warning the cause"), "{error}");
    assert!(error.len() < 5000);
}

#[tokio::test]
async fn standard_error_alone_is_no_fault() {
    let case = Case::new(r#"echo 'a warning' >&2; echo '{"type": "delta", "text": "Tea"}'"#);
    assert_eq!(case.call().await.unwrap().text, "Tea");
}

#[tokio::test]
async fn a_slow_beginning_is_a_timeout() {
    let limits = Limits {
        first_token_timeout: Duration::from_millis(50),
        ..limits()
    };
    assert_retry(
        &Case::within(limits, "sleep 1000").fails().await,
        AgentErrorKind::Timeout,
    );
}

#[tokio::test]
async fn silence_after_text_is_a_timeout_and_kills_all() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(50),
        ..limits()
    };
    let case = Case::within(limits, LIVES_ON);
    assert_retry(&case.fails().await, AgentErrorKind::Timeout);
    for process in case.processes() {
        dead(process).await;
    }
}

#[tokio::test]
async fn talk_does_not_prolong_the_whole_call() {
    let limits = Limits {
        total_timeout: Duration::from_millis(200),
        ..limits()
    };
    let script = r#"while :; do echo '{"type": "progress", "percent": 1}'; sleep 0.01; done"#;
    assert_retry(
        &Case::within(limits, script).fails().await,
        AgentErrorKind::Timeout,
    );
}

#[tokio::test]
async fn a_dropped_call_kills_the_script_and_its_children() {
    let case = Case::new(LIVES_ON);
    let heard = Notify::new();
    let (request, listen) = (request(), |_| heard.notify_one());
    tokio::select! {
        reply = case.agent.call(&request, &listen) => panic!("{reply:?}"),
        () = heard.notified() => {}
    }
    for process in case.processes() {
        dead(process).await;
    }
}

/// Neither does a call whose supervisor takes longer to die than the call waits:
/// that, too, drops a child which is not reaped.
#[tokio::test]
async fn a_dropped_call_leaves_no_zombie() {
    let case = Case::new(&format!("echo $PPID > $1/supervisor\n{LIVES_ON}"));
    let heard = Notify::new();
    let (request, listen) = (request(), |_| heard.notify_one());
    tokio::select! {
        reply = case.agent.call(&request, &listen) => panic!("{reply:?}"),
        () = heard.notified() => {}
    }
    let supervisor = format!("/proc/{}", case.read("supervisor").trim());
    for _ in 0..4000 {
        if !Path::new(&supervisor).exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = std::fs::read_to_string(format!("{supervisor}/status")).unwrap();
    panic!("it is not reaped: {status}");
}

#[tokio::test]
async fn a_panic_kills_the_script_and_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let agent = agent(directory.path(), LIVES_ON, limits());
    let attempt = tokio::spawn(async move {
        agent
            .call(&request(), &|_| panic!("as the test wants"))
            .await
    });
    assert!(attempt.await.unwrap_err().is_panic());
    let processes = std::fs::read_to_string(directory.path().join("processes")).unwrap();
    for process in processes.split_whitespace() {
        dead(process.parse().unwrap()).await;
    }
}

#[tokio::test]
async fn success_does_not_wait_for_children_and_kills_them() {
    let case = Case::new(&LIVES_ON.replace("wait", "exit 0"));
    assert_eq!(case.call().await.unwrap().text, "Tea");
    for process in case.processes() {
        dead(process).await;
    }
}

#[tokio::test]
async fn all_that_was_written_before_the_end_is_read() {
    let limits = Limits {
        max_bytes: 1_000_000,
        ..limits()
    };
    let case = Case::within(
        limits,
        r#"yes '{"type": "delta", "text": "Tea"}' | head -n 10000"#,
    );
    assert_eq!(case.call().await.unwrap().text.len(), 30_000);
}

#[tokio::test]
async fn a_child_that_left_the_group_and_holds_the_pipes_does_not_keep_us() {
    let case = Case::new(
        r#"
        setsid sleep 1000 &
        echo $! > $1/processes
        # It is in a session of its own once the sixth field is its own number.
        until [ "$(cut -d' ' -f6 /proc/$!/stat)" = $! ]; do sleep 0.01; done
        echo '{"type": "delta", "text": "Tea"}'
        "#,
    );
    assert_eq!(case.call().await.unwrap().text, "Tea");
    let process = case.processes()[0];
    Command::new("kill")
        .arg(process.to_string())
        .status()
        .unwrap();
    dead(process).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_not_tried_again() {
    let agent = Script::new("/no/such/program", [], supervisor(), limits()).unwrap();
    let error = agent.call(&request(), &|_| {}).await.unwrap_err();
    assert_fatal(&error, AgentErrorKind::Unavailable);
    assert!(
        error.to_string().contains("/no/such/program: No such file"),
        "{error}"
    );
}

#[tokio::test]
async fn a_supervisor_that_is_not_there_is_not_tried_again() {
    let agent = Script::new("true", [], "/no/such/worker", limits()).unwrap();
    assert_fatal(
        &agent.call(&request(), &|_| {}).await.unwrap_err(),
        AgentErrorKind::Unavailable,
    );
}

#[tokio::test]
async fn a_supervisor_that_is_killed_may_be_tried_again() {
    let case = Case::new("kill -9 $PPID; sleep 1000");
    assert_retry(&case.fails().await, AgentErrorKind::Unavailable);
}

#[test]
fn the_environment_is_not_in_the_debug_output() {
    let debug = format!("{:?}", example("http://localhost"));
    assert!(
        debug.contains("python3") && !debug.contains("a-key"),
        "{debug}"
    );
}

#[test]
fn an_empty_command_is_refused() {
    assert!(Script::new(" ", [], supervisor(), limits()).is_err());
}

#[tokio::test]
async fn of_the_environment_only_what_is_meant_for_the_script_gets_through() {
    let variables = [
        ("PATH", "/usr/bin:/bin"),
        ("LC_CTYPE", "C.UTF-8"),
        ("DATABASE_URL", "postgres://user:secret@host"),
        ("AGENT_SCRIPT", "sh"),
        ("AGENT_SCRIPT_ENV_TOKEN", "mine"),
        ("AGENT_SCRIPT_ENV_", "x"),
    ];
    let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("environment");
    let script = directory.path().join("script.sh");
    let line = r#"{"type": "delta", "text": "Tea"}"#;
    std::fs::write(&script, format!("env > {}; echo '{line}'", file.display())).unwrap();
    let command = format!("sh {}", script.display());
    let agent = Script::new(&command, variables, supervisor(), limits()).unwrap();
    agent.call(&request(), &|_| {}).await.unwrap();

    let told = std::fs::read_to_string(file).unwrap();
    // The shell sets these by itself.
    let set = |line: &&str| {
        !["PWD=", "OLDPWD=", "SHLVL=", "_="]
            .iter()
            .any(|name| line.starts_with(name))
    };
    let mut told: Vec<_> = told.lines().filter(set).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        ["LC_CTYPE=C.UTF-8", "PATH=/usr/bin:/bin", "TOKEN=mine"]
    );
}

/// A worker is a process of this test binary here, which runs the helper below.
#[tokio::test]
async fn nothing_survives_a_worker_that_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "agent_script::a_worker_at_work", "--ignored"])
        .env("SCRIPT_DIRECTORY", directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let heard = directory.path().join("heard");
    for _ in 0..4000 {
        if heard.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let processes = std::fs::read_to_string(directory.path().join("processes")).unwrap();
    assert_eq!(processes.split_whitespace().count(), 2);
    worker.kill().unwrap();
    worker.wait().unwrap();
    for process in processes.split_whitespace() {
        dead(process.parse().unwrap()).await;
    }
}

#[tokio::test]
#[ignore = "a helper of the test above, which kills it"]
async fn a_worker_at_work() {
    let Some(directory) = std::env::var_os("SCRIPT_DIRECTORY") else {
        return;
    };
    let directory = PathBuf::from(directory);
    let agent = agent(&directory, LIVES_ON, limits());
    let listen = |_| std::fs::write(directory.join("heard"), "").unwrap();
    agent.call(&request(), &listen).await.unwrap_err();
}

/// The example agent, which asks the model at this URL.
fn example(url: &str) -> Script {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/example_script.py");
    let command = format!("python3 {} {url}", program.display());
    let key = [("AGENT_SCRIPT_ENV_API_KEY".into(), "a-key".into())];
    Script::new(
        &command,
        std::env::vars_os().chain(key),
        supervisor(),
        limits(),
    )
    .unwrap()
}

#[tokio::test]
async fn the_example_script_hands_on_what_a_model_writes() {
    let stub = StubOpenAi::writing(|_| "# On Tea\n\nTea is **good**.".into()).await;
    let heard = Mutex::new(Vec::new());
    let listen = |event| heard.lock().unwrap().push(event);
    let reply = example(&stub.url())
        .call(&request(), &listen)
        .await
        .unwrap();
    assert_eq!(
        (reply.title.as_deref(), &*reply.text),
        (Some("On Tea"), "Tea is **good**.")
    );
    let heard = heard.into_inner().unwrap();
    assert!(heard.contains(&Event::Text("is ".into())), "{heard:?}");
    assert!(
        heard.contains(&Event::Progress {
            percent: 1,
            message: None
        }),
        "{heard:?}"
    );
    assert_eq!(stub.calls()[0].headers["authorization"], "Bearer a-key");
}

#[tokio::test]
async fn the_example_script_tells_what_may_be_tried_again() {
    let stub = StubOpenAi::writing(|_| "Tea.".into()).await;
    let url = stub.url();
    stub.set(StubBehavior::Fail(503, "overloaded"));
    assert_retry(
        &example(&url).call(&request(), &|_| {}).await.unwrap_err(),
        AgentErrorKind::Unavailable,
    );
    stub.set(StubBehavior::Fail(401, "invalid_api_key"));
    assert_fatal(
        &example(&url).call(&request(), &|_| {}).await.unwrap_err(),
        AgentErrorKind::Rejected,
    );
    let nobody = "http://127.0.0.1:9/v1";
    assert_retry(
        &example(nobody).call(&request(), &|_| {}).await.unwrap_err(),
        AgentErrorKind::Unavailable,
    );
}

#[test]
fn the_supervisor_is_not_for_use_by_hand() {
    // Its group would be that of this test.
    let output = Command::new(supervisor())
        .args(["supervise", "--", "true"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("only for the worker"));
}

//! What can be set, and what is said of a bad setting.

use std::net::TcpListener;
use testing::PASSWORD;

use crate::support::{Api, Exit, Process, Service, binary};

const BOTH: &str = "api and worker";

/// Who reads a setting, its name, and its default as `--help` shows it.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("api", "LISTEN_ADDR", "[default: 127.0.0.1:8000]"),
    ("api", "JWT_SECRET", ""),
    ("api", "ACCESS_TOKEN_TTL_SECS", "[default: 900]"),
    ("api", "REFRESH_TOKEN_TTL_SECS", "[default: 2592000]"),
    ("api", "SESSION_TTL_SECS", "[default: 7776000]"),
    ("api", "JOB_MAX_ATTEMPTS", "[default: 5]"),
    ("api", "USER_MAX_ACTIVE_JOBS", "[default: 100]"),
    ("api", "RATE_LIMIT_PER_MINUTE", "[default: 600]"),
    ("api", "MAX_CONNECTIONS_PER_ADDRESS", "[default: 512]"),
    ("api", "TRUSTED_PROXIES", ""),
    ("worker", "AGENT_URL", "[default: that of the provider]"),
    ("worker", "AGENT_API_KEY", ""),
    ("worker", "AGENT_HEADERS", ""),
    ("worker", "AGENT_EXTRA_BODY", ""),
    ("worker", "AGENT_THINKING_TOKENS", "[default: enough for"),
    ("worker", "AGENT_SCRIPT", ""),
    ("worker", "AGENT_TIMEOUT_SECS", "[default: 300]"),
    ("worker", "WORKER_CONCURRENCY", "[default: 4]"),
    ("worker", "JOB_BACKOFF_BASE_MS", "[default: 5000]"),
    ("api", "USER_MAX_POSTS", "[default: 10000]"),
    ("api", "USER_MAX_BYTES", "[default: 104857600]"),
    ("worker", "JOB_LEASE_SECS", "[default: 15]"),
    ("worker", "FINISHED_JOBS_KEEP_DAYS", "[default: 30]"),
    ("worker", "METRICS_ADDR", "[default: 127.0.0.1:9090,"),
    (BOTH, "DATABASE_URL", "[default: blog.db in DATA_DIR]"),
    (BOTH, "DATA_DIR", "[default: data]"),
    (BOTH, "DATABASE_MAX_CONNECTIONS", "[default: 8]"),
    (BOTH, "AGENT", ""),
    (BOTH, "AGENT_MODEL", ""),
    ("worker", "AGENT_WRITING", ""),
    ("worker", "SOURCE_PRIVATE_HOSTS", ""),
    ("worker", "SOURCE_TIMEOUT_SECS", "[default: 120]"),
    ("worker", "SOURCE_MAX_BYTES", "[default: 40000000]"),
    ("worker", "JUDGE_CITATIONS", "[default: false]"),
    (BOTH, "SEARCH", "[default: searxng if SEARCH_URL is set]"),
    (BOTH, "SEARCH_URL", "[default: that of the provider]"),
    ("worker", "SEARCH_API_KEY", ""),
    ("worker", "SEARCH_MAX_QUERIES", "[default: 3]"),
    ("worker", "SEARCH_MAX_PAGES", "[default: 6]"),
    (BOTH, "SHUTDOWN_GRACE_SECS", "[default: 30]"),
    (BOTH, "LOG_FORMAT", "[default: text]"),
    (BOTH, "RUST_LOG", "[default: info]"),
    (BOTH, "OTEL_EXPORTER_OTLP_ENDPOINT", ""),
];

/// Settings whose value may hold a secret.
const PRIVATE: [&str; 10] = [
    "JWT_SECRET",
    "AGENT_API_KEY",
    "AGENT_EXTRA_BODY",
    "AGENT_HEADERS",
    "AGENT_SCRIPT",
    "AGENT_URL",
    "DATABASE_URL",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "SEARCH_API_KEY",
    "SEARCH_URL",
];

#[tokio::test]
async fn help_names_every_setting_with_its_default_and_shows_no_secret() {
    let mut service = Service::new();
    for setting in PRIVATE {
        service = service.set(setting, "hunter2");
    }
    for binary in ["api", "worker"] {
        let help = Process::start_with(binary, &["--help"], service.path(), &service.settings);
        let help = help.wait_for_exit().await;
        assert_eq!(help.code, Some(0), "{}", help.text());
        let help = help.text();
        assert!(!help.contains("hunter2"), "{help}");
        // The description, the variable, the default: from one flag to the next.
        let flags: Vec<&str> = help.split("\n      --").skip(1).collect();
        let mut known = 0;
        for (reader, name, default) in SETTINGS {
            let env = |flag: &&&str| {
                let with_value = flag.contains(&format!("[env: {name}="));
                with_value || flag.contains(&format!("[env: {name}]"))
            };
            let told = flags.iter().find(env);
            assert_eq!(told.is_some(), reader.contains(binary), "{name}:\n{help}");
            let Some(told) = told else { continue };
            known += 1;
            assert!(told.contains(default), "{name}: {told}");
            if default.is_empty() {
                assert!(!told.contains("[default"), "{name}: {told}");
            }
        }
        assert_eq!(known, flags.len(), "a setting is not in the list:\n{help}");
    }
}

#[tokio::test]
async fn a_bad_setting_is_refused_by_its_name() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let missing_database = "postgres://me:hunter2@nowhere.invalid/blog";
    let collector = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let openai = "AGENT=openai AGENT_MODEL=m";
    let anthropic = "AGENT=anthropic AGENT_MODEL=m";
    // Who is started, what is set besides, the setting at fault, and its value.
    let cases: &[(&str, &str, &str, &str)] = &[
        ("api", "", "LISTEN_ADDR", "nonsense"),
        ("api", "", "LISTEN_ADDR", &taken),
        ("api", "", "JWT_SECRET", "hunter2"),
        ("api", "", "ACCESS_TOKEN_TTL_SECS", "0"),
        ("api", "", "REFRESH_TOKEN_TTL_SECS", "soon"),
        ("api", "", "SESSION_TTL_SECS", "0"),
        ("api", "", "JOB_MAX_ATTEMPTS", "0"),
        ("api", "", "USER_MAX_ACTIVE_JOBS", "0"),
        ("api", "", "RATE_LIMIT_PER_MINUTE", "-1"),
        ("api", "", "MAX_CONNECTIONS_PER_ADDRESS", "0"),
        ("api", "", "TRUSTED_PROXIES", "10.0.0.1,proxy"),
        (BOTH, "", "AGENT", "foo"),
        (BOTH, "AGENT=openai", "AGENT_MODEL", ""),
        (BOTH, "AGENT=openai", "AGENT_MODEL", " , "),
        (BOTH, "AGENT=anthropic", "AGENT_MODEL", ""),
        ("worker", anthropic, "AGENT_API_KEY", ""),
        ("worker", openai, "AGENT_API_KEY", "hunter2\u{7}"),
        ("worker", "", "AGENT_API_KEY", "hunter2\nx"),
        ("worker", anthropic, "AGENT_API_KEY", "hunter2\u{7}"),
        ("worker", "AGENT=script", "AGENT_SCRIPT", ""),
        ("worker", "AGENT=script", "AGENT_SCRIPT", "  "),
        ("worker", "", "AGENT_URL", "nonsense"),
        ("worker", openai, "AGENT_URL", "ftp://127.0.0.1/v1"),
        ("worker", openai, "AGENT_URL", "127.0.0.1:80"),
        ("worker", "", "AGENT_HEADERS", "hunter2"),
        ("worker", openai, "AGENT_HEADERS", "a bad name: hunter2"),
        ("worker", openai, "AGENT_HEADERS", "x-key: hunter2\u{7}"),
        ("worker", openai, "AGENT_HEADERS", ": hunter2"),
        ("worker", "", "AGENT_EXTRA_BODY", "hunter2"),
        ("worker", openai, "AGENT_EXTRA_BODY", "[\"hunter2\"]"),
        ("worker", openai, "AGENT_EXTRA_BODY", "{\"model\": \"m\"}"),
        ("worker", openai, "AGENT_THINKING_TOKENS", "many"),
        ("worker", openai, "AGENT_THINKING_TOKENS", "m=-1"),
        ("worker", "", "AGENT_TIMEOUT_SECS", "0"),
        (BOTH, "", "SEARCH", "foo"),
        ("worker", "SEARCH=searxng", "SEARCH_URL", ""),
        ("worker", "", "SEARCH_URL", "hunter2"),
        ("worker", "SEARCH=brave", "SEARCH_API_KEY", ""),
        ("worker", "SEARCH=tavily", "SEARCH_API_KEY", "hunter2\u{7}"),
        ("worker", "", "SEARCH_MAX_QUERIES", "11"),
        ("worker", "", "SEARCH_MAX_PAGES", "21"),
        ("worker", "", "SOURCE_TIMEOUT_SECS", "0"),
        ("worker", "", "JUDGE_CITATIONS", "maybe"),
        ("worker", "", "WORKER_CONCURRENCY", "0"),
        ("worker", "", "JOB_LEASE_SECS", "2"),
        ("worker", "", "JOB_BACKOFF_BASE_MS", "-1"),
        ("worker", "", "METRICS_ADDR", "127.0.0.1"),
        ("worker", "", "METRICS_ADDR", &taken),
        (BOTH, "", "SHUTDOWN_GRACE_SECS", "-1"),
        (BOTH, "", "DATABASE_URL", "mysql://me:hunter2@x/y"),
        (BOTH, "", "DATABASE_URL", "sqlite::memory:"),
        (BOTH, "", "DATABASE_URL", "sqlite://"),
        (BOTH, "", "DATABASE_URL", "sqlite:///dev/null/blog.db"),
        (BOTH, "", "DATABASE_URL", "sqlite:///dev/null"),
        (BOTH, "", "DATABASE_URL", missing_database),
        (BOTH, "", "DATABASE_URL", "postgres://me:hunter2@x:port/y"),
        (BOTH, "", "DATA_DIR", "/dev/null/data"),
        (BOTH, "", "LOG_FORMAT", "xml"),
        (BOTH, "", "RUST_LOG", "!!!"),
        (BOTH, "", "RUST_LOG", "api=loud"),
        (BOTH, "", collector, "nonsense"),
        (BOTH, "", collector, "127.0.0.1:4318"),
        (BOTH, "", collector, "grpc://me:hunter2@127.0.0.1:4317"),
        (BOTH, "", collector, "http://:hunter2"),
        (BOTH, "", collector, "http://me:hunter2@127.0.0.1:4318"),
    ];
    let mut wrong = Vec::new();
    for (who, besides, name, value) in cases {
        for binary in ["api", "worker"].into_iter().filter(|b| who.contains(b)) {
            let service = Service::new().set("LOG_FORMAT", "text");
            let mut settings = service.settings.clone();
            let besides = besides.split_whitespace().filter_map(|s| s.split_once('='));
            settings.extend(besides.map(|(name, value)| (name, value.to_owned())));
            settings.push((name, (*value).to_owned()));
            let exit = Process::start(binary, service.path(), &settings)
                .wait_for_exit()
                .await;
            let Exit { code, .. } = exit;
            let last = |line: &&String| line.contains("rror:") && line.contains(name);
            let named = exit.output.iter().any(|line| last(&line));
            let hidden = !exit.text().contains("hunter2") && !exit.text().contains("panicked");
            if !matches!(code, Some(1..)) || !named || !hidden {
                let text = exit.text();
                wrong.push(format!("{binary} {name}={value:?}: {code:?}\n{text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn a_setting_that_is_no_text_is_refused_by_its_name() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let output = std::process::Command::new(binary("api"))
        .env_clear()
        .env("JWT_SECRET", OsStr::from_bytes(b"hunter2\xff"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("JWT_SECRET"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn an_empty_setting_is_one_that_is_not_set() {
    let mut service = Service::new();
    for (_, name, _) in SETTINGS {
        // Without these the test would meet others.
        if !["LISTEN_ADDR", "DATA_DIR", "LOG_FORMAT"].contains(name) {
            service = service.set(name, "");
        }
    }
    let (api, worker) = (service.api().await, service.worker().await);
    let ann = api.user("ann").await;
    let models = ann.get("/models").await.body;
    assert_eq!(models["items"][0]["agent"], "local");
    let post = ann.create_post("Growing tomatoes").await;
    assert_eq!(post["job"]["max_attempts"], 5);
    assert!(service.data().join("blog.db").exists());
    worker.kill().await;
}

#[tokio::test]
async fn a_file_env_is_read_and_the_environment_wins_over_it() {
    let mut service = Service::new();
    let lines = "# Ours.\nAGENT=openai\nAGENT_MODEL=\"from the file\"\nJOB_MAX_ATTEMPTS=3\n\
                 export ACCESS_TOKEN_TTL_SECS=77\n";
    std::fs::write(service.path().join(".env"), lines).unwrap();
    service = service.set("JOB_MAX_ATTEMPTS", "4");
    let api = service.api().await;
    let ann = api.user("ann").await;
    let post = ann.create_post("Growing tomatoes").await;
    assert_eq!(post["job"]["model"], "from the file");
    assert_eq!(post["job"]["max_attempts"], 4);
    let login = ann.at(&api.url).login("ann", PASSWORD).await.expect(200);
    assert_eq!(login["expires_in"], 77);
    api.stop().await.assert_no_warnings();

    // What the command line says wins over both.
    let arguments = ["--job-max-attempts=6"];
    let api = Process::start_with("api", &arguments, service.path(), &service.settings);
    let api = Api::ready(api).await;
    let post = ann.at(&api.url).create_post("Growing tomatoes").await;
    assert_eq!(post["job"]["max_attempts"], 6);
}

#[tokio::test]
async fn a_file_env_that_cannot_be_read_is_refused_without_showing_it() {
    let bad = [
        (
            "AGENT=openai\nJWT_SECRET=hunter2 with a space\n",
            "after AGENT",
        ),
        ("# one\nJWT_SECRET=\"hunter2\n", "first"),
        ("\nhunter2\n", "first"),
    ];
    for (lines, place) in bad {
        let service = Service::new();
        std::fs::write(service.path().join(".env"), lines).unwrap();
        for binary in ["api", "worker"] {
            let exit = service.start(binary).wait_for_exit().await;
            let said = exit.text();
            assert_eq!(exit.code, Some(1), "{said}");
            assert!(said.contains(".env"), "{said}");
            assert!(said.contains(place), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

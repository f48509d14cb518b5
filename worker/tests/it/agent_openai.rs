use serde_json::{Value, json};
use testing::stub::{Act, Stub, stream};
use testing::stub_openai::{DONE, StubBehavior, StubOpenAi, delta, error, finish, usage};
use worker::agent::{Agent, AgentErrorKind, Limits, OpenAi};

use super::agent_provider::{KEY, Provider, assert_fatal, assert_retry, call, cases, limits};

struct OpenAiProtocol;

/// <https://platform.openai.com/docs/guides/error-codes>
impl Provider for OpenAiProtocol {
    const STOPPED: &str = "stop";
    const CUT_SHORT: &str = "length";
    const REFUSED: &str = "content_filter";
    const RATE_LIMITED: &str = "rate_limit_exceeded";
    const OVERLOADED: &str = "server_error";

    fn agent(url: &str, limits: Limits) -> Box<dyn Agent> {
        Box::new(agent(url, limits))
    }

    fn debug(url: &str) -> String {
        format!("{:?}", agent(url, limits()))
    }

    fn start() -> String {
        delta("")
    }

    fn text(text: &str) -> String {
        delta(text)
    }

    fn stop(reason: &str) -> String {
        finish(reason) + &usage(10, 5) + DONE
    }

    fn ping() -> String {
        ": still at it\n\n".into()
    }

    fn error(kind: &str, message: &str) -> Value {
        error(kind, message)
    }

    fn error_event(kind: &str) -> String {
        format!("data: {}\n\n", error(kind, "No."))
    }

    fn out_of_money() -> Vec<(u16, Value)> {
        vec![
            (
                429,
                error("insufficient_quota", "You exceeded your current quota."),
            ),
            (402, error("", "Insufficient balance")),
        ]
    }
}

fn agent(url: &str, limits: Limits) -> OpenAi {
    let headers = [("x-title".to_owned(), "a post".to_owned())];
    OpenAi::new(&format!("{url}/v1"), Some(KEY), &headers, limits).unwrap()
}

cases!(OpenAiProtocol);

#[tokio::test]
async fn a_request_has_the_key_the_headers_and_the_whole_prompt() {
    let stub = StubOpenAi::writing(|_| "Tea is good.".into()).await;
    let headers = [("x-title".to_owned(), "a post".to_owned())];
    let agent = OpenAi::new(&stub.url(), Some(KEY), &headers, limits()).unwrap();
    assert_eq!(call(&agent).await.unwrap().text, "Tea is good.");

    let calls = stub.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].line, "POST /v1/chat/completions");
    assert_eq!(calls[0].headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(calls[0].headers["x-title"], "a post");
    assert_eq!(
        calls[0].headers["user-agent"],
        concat!("blog-post-api/", env!("CARGO_PKG_VERSION"))
    );
    let expected = json!({
        "model": "a-model",
        "messages": [
            { "role": "system", "content": "You write." },
            { "role": "user", "content": "Write about tea." },
        ],
        "max_tokens": 100,
        "temperature": 0.4,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    assert_eq!(calls[0].body, expected);
}

#[tokio::test]
async fn without_a_key_none_is_sent() {
    let stub = StubOpenAi::writing(|_| "Tea.".into()).await;
    call(&OpenAi::new(&stub.url(), None, &[], limits()).unwrap())
        .await
        .unwrap();
    assert!(!stub.calls()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_repeat_penalty_is_sent_where_it_is_set() {
    let stub = StubOpenAi::writing(|_| "Tea.".into()).await;
    let agent = OpenAi::new(&stub.url(), None, &[], limits()).unwrap();
    call(&agent.with_repeat_penalty(1.1)).await.unwrap();
    assert_eq!(stub.calls()[0].body["repeat_penalty"], 1.1);
}

#[tokio::test]
async fn a_query_in_the_base_url_is_kept() {
    let stub = StubOpenAi::writing(|_| "Tea.".into()).await;
    let url = format!("{}/?api-version=1", stub.url());
    call(&OpenAi::new(&url, None, &[], limits()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        stub.calls()[0].line,
        "POST /v1/chat/completions?api-version=1"
    );
}

#[tokio::test]
async fn an_error_that_names_a_status_inside_the_stream_counts_as_that() {
    let event = json!({ "error": { "code": 402, "message": "Insufficient credits" } });
    let stub = Stub::answering(stream([Act::Chunk(format!("data: {event}\n\n"))])).await;
    assert_fatal(
        &call(&agent(&stub.url(), limits())).await.unwrap_err(),
        AgentErrorKind::RateLimited,
    );
}

#[tokio::test]
async fn an_unknown_reason_to_stop_may_be_tried_again() {
    let acts = [
        Act::Chunk(delta("Tea")),
        Act::Chunk(finish("insufficient_system_resource")),
        Act::End,
    ];
    let stub = Stub::answering(stream(acts)).await;
    assert_retry(
        &call(&agent(&stub.url(), limits())).await.unwrap_err(),
        AgentErrorKind::BadOutput,
    );
}

#[tokio::test]
async fn the_stub_does_as_it_is_told() {
    let stub = StubOpenAi::writing(|call| format!("I am {}.", call.body["model"])).await;
    let agent = OpenAi::new(&stub.url(), None, &[], limits()).unwrap();
    assert_eq!(call(&agent).await.unwrap().text, "I am \"a-model\".");
    stub.set(StubBehavior::Slow(std::time::Duration::from_millis(1)));
    call(&agent).await.unwrap();
    stub.set(StubBehavior::Fail(429, "insufficient_quota"));
    assert_fatal(
        &call(&agent).await.unwrap_err(),
        AgentErrorKind::RateLimited,
    );
    stub.set(StubBehavior::Hang);
    let hung = tokio::time::timeout(std::time::Duration::from_millis(50), call(&agent)).await;
    assert!(hung.is_err());
    stub.client_gone().await;
    assert_eq!(stub.calls().len(), 4);
}

#[tokio::test]
async fn urls_and_headers_that_can_not_be_used_are_refused_without_telling_the_key() {
    let key = format!("{KEY}\u{7}");
    let faulty = [
        OpenAi::new("localhost:8012/v1", None, &[], limits()),
        OpenAi::new("/v1", None, &[], limits()),
        OpenAi::new("http://localhost/v1", Some(&key), &[], limits()),
        OpenAi::new(
            "http://localhost/v1",
            None,
            &[("x y".into(), key.clone())],
            limits(),
        ),
    ];
    for agent in faulty {
        let error = format!("{:?}", agent.unwrap_err());
        assert!(!error.contains(KEY), "{error}");
    }
}

/// Run the named test again, in a process with a proxy that nobody serves.
#[tokio::test]
async fn a_proxy_is_not_asked_for_loopback() {
    let mut tests = tokio::process::Command::new(std::env::current_exe().unwrap());
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        tests.env(name, "http://127.0.0.1:9");
    }
    tests.env_remove("no_proxy").env_remove("NO_PROXY");
    let output = tests
        .args(["--exact", "agent_openai::without_a_key_none_is_sent"])
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}"
    );
}

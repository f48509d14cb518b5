//! Refusals with a status: which of them may be tried again, and when.

use std::time::Duration;

use worker::agent::AgentErrorKind::{RateLimited, Rejected, Timeout, Unavailable};
use worker::agent::{Agent, AgentError, Anthropic, OpenAi};

use super::agent_provider::{KEY, limits};
use super::agent_rows::Expected::{Fatal, Retry};
use super::agent_rows::{Expected, JSON, Server, http, reply, reply_to};

fn openai(url: &str) -> Box<dyn Agent> {
    Box::new(OpenAi::new(&format!("{url}/v1"), Some(KEY), &[], limits()).unwrap())
}

fn anthropic(url: &str) -> Box<dyn Agent> {
    Box::new(Anthropic::new(url, KEY, &[], limits()).unwrap())
}

#[tokio::test]
async fn statuses_tell_whether_to_try_again() {
    let rows: &[(u16, &str, Expected)] = &[
        (
            400,
            r#"{"error":{"message":"No such thing."}}"#,
            Fatal(Rejected, "No such thing."),
        ),
        (
            401,
            r#"{"error":{"message":"Wrong key.","code":"invalid_api_key"}}"#,
            Fatal(Rejected, "Wrong key."),
        ),
        (
            402,
            r#"{"error":{"message":"Insufficient Balance"}}"#,
            Fatal(RateLimited, "Balance"),
        ),
        (
            403,
            r#"{"error":{"message":"Not in your country."}}"#,
            Fatal(Rejected, "country"),
        ),
        (
            403,
            "<html><head><title>Just a moment...</title></head></html>",
            Fatal(Rejected, "Just a moment..."),
        ),
        (
            404,
            r#"{"error":{"message":"model not found"}}"#,
            Fatal(Rejected, "model not found"),
        ),
        (
            403,
            r#"{"message":"You have exceeded a secondary rate limit."}"#,
            Retry(RateLimited, "secondary"),
        ),
        (404, "404 page not found", Fatal(Rejected, "page not found")),
        (405, "", Fatal(Rejected, "405")),
        (408, "", Retry(Timeout, "408")),
        (409, "", Retry(Unavailable, "409")),
        (413, "", Fatal(Rejected, "413")),
        (
            422,
            r#"{"detail":[{"loc":["body","messages"],"msg":"field required"}]}"#,
            Fatal(Rejected, "field required"),
        ),
        (
            424,
            r#"{"error":"Request failed during generation"}"#,
            Retry(Unavailable, "generation"),
        ),
        (425, "", Retry(Unavailable, "425")),
        (429, "", Retry(RateLimited, "429")),
        (
            429,
            r#"{"error":{"code":"insufficient_quota","message":"Pay."}}"#,
            Fatal(RateLimited, "Pay."),
        ),
        (
            429,
            r#"{"error":{"code":"1113","message":"Insufficient balance or no resource package."}}"#,
            Fatal(RateLimited, "balance"),
        ),
        (
            429,
            r#"{"error":{"type":"exceeded_current_quota_error","message":"Recharge."}}"#,
            Fatal(RateLimited, "Recharge."),
        ),
        (
            429,
            r#"{"error":{"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota. Please retry in 34.07s."}}"#,
            Retry(RateLimited, "retry in"),
        ),
        (498, "", Retry(Unavailable, "498")),
        (499, "", Retry(Unavailable, "499")),
        (
            500,
            r#"{"error":{"message":"Oops.","type":"server_error"}}"#,
            Retry(Unavailable, "Oops."),
        ),
        (
            500,
            "<html><body>Internal Server Error</body></html>",
            Retry(Unavailable, "Internal Server Error"),
        ),
        (501, "", Retry(Unavailable, "501")),
        (
            502,
            "<html><head><title>502 Bad Gateway</title></head></html>",
            Retry(Unavailable, ": 502 Bad Gateway"),
        ),
        (
            503,
            r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
            Retry(Unavailable, "Loading model"),
        ),
        (504, "", Retry(Timeout, "504")),
        (520, "", Retry(Unavailable, "520")),
        (521, "", Retry(Unavailable, "521")),
        (522, "", Retry(Unavailable, "522")),
        (523, "", Retry(Unavailable, "523")),
        (524, "", Retry(Timeout, "524")),
        (
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            Retry(Unavailable, "Overloaded"),
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#,
            Fatal(RateLimited, "credit"),
        ),
        (
            400,
            r#"{"error":{"code":"content_filter","message":"The prompt triggered our content management policy.","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            Fatal(Rejected, "policy"),
        ),
        (
            400,
            r#"[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT"}}]"#,
            Fatal(Rejected, "API key not valid."),
        ),
        (300, "", Fatal(Unavailable, "300")),
    ];
    for agent in [openai, anthropic] {
        for (status, body, expected) in rows {
            let reply = reply_to(http(*status, JSON, body.as_bytes()), agent).await;
            assert!(expected.fits(&reply), "{status} {body}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn the_pause_is_read_in_every_form() {
    let rows: &[(&str, &str, Option<u64>)] = &[
        ("retry-after: 7", "{}", Some(7000)),
        ("retry-after: 1.5", "{}", Some(1500)),
        ("retry-after: 0", "{}", Some(0)),
        ("retry-after: Wed, 21 Oct 2015 07:28:00 GMT", "{}", Some(0)),
        ("retry-after: 1m30s", "{}", Some(90_000)),
        ("retry-after: soon", "{}", None),
        ("retry-after: 99999999", "{}", Some(86_400_000)),
        ("retry-after: 2\r\nretry-after-ms: 1500", "{}", Some(1500)),
        ("x-ratelimit-reset-requests: 1m30s", "{}", Some(90_000)),
        (
            "x-ratelimit-reset-tokens: 6ms\r\nx-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-requests: 8h\r\nx-ratelimit-remaining-requests: 9",
            "{}",
            Some(6),
        ),
        (
            "x: y",
            r#"{"error":{"message":"Please try again in 20s."}}"#,
            Some(20_000),
        ),
        (
            "x: y",
            r#"{"error":{"details":[{"retryDelay":"34s"}],"message":"Quota."}}"#,
            Some(34_000),
        ),
        (
            "x: y",
            r#"{"error":{"message":"Please try again later."}}"#,
            None,
        ),
    ];
    for (headers, body, expected) in rows {
        let answer = http(429, &format!("{headers}\r\n"), body.as_bytes());
        let Err(AgentError::Retry {
            failure: RateLimited,
            after,
            ..
        }) = reply_to(answer, openai).await
        else {
            panic!("{headers} {body}");
        };
        assert_eq!(
            after,
            expected.map(Duration::from_millis),
            "{headers} {body}"
        );
    }
}

#[tokio::test]
async fn a_redirect_within_the_server_is_followed_if_it_keeps_the_method() {
    let whole = http(
        200,
        JSON,
        br#"{"choices":[{"message":{"content":"Tea."}}]}"#,
    );
    for status in [307, 308] {
        let redirect = http(status, "location: /v1/chat/completions/\r\n", b"");
        let server = Server::start(vec![redirect, whole.clone()]).await;
        assert_eq!(reply(&*openai(&server.url)).await.unwrap().text, "Tea.");
        assert_eq!(
            server.paths(),
            ["/v1/chat/completions", "/v1/chat/completions/"]
        );
        assert_eq!(server.bodies()[0], server.bodies()[1]);
    }
    let elsewhere = "location: https://api.example.com/v1?key=x\r\n";
    let expected = Fatal(Unavailable, "has moved to https://api.example.com/v1");
    for status in [301, 302, 303, 307, 308] {
        let reply = reply_to(http(status, elsewhere, b""), openai).await;
        assert!(
            expected.fits(&reply) && !format!("{reply:?}").contains("key="),
            "{reply:?}"
        );
    }
    let around = http(307, "location: /v1/chat/completions\r\n", b"");
    assert!(Fatal(Unavailable, "307").fits(&reply_to(around, openai).await));
}

#[tokio::test]
async fn a_server_without_a_version_is_asked_with_one_and_without() {
    let whole = http(
        200,
        JSON,
        br#"{"choices":[{"message":{"content":"Tea."}}]}"#,
    );
    let missing = http(404, "", b"404 page not found");
    let server = Server::start(vec![missing.clone(), whole.clone()]).await;
    let agent = OpenAi::new(&server.url, None, &[], limits()).unwrap();
    for _ in 0..2 {
        assert_eq!(reply(&agent).await.unwrap().text, "Tea.");
    }
    let (with, without) = ("/v1/chat/completions", "/chat/completions");
    assert_eq!(server.paths(), [with, without, without]);

    let server = Server::start(vec![missing]).await;
    let agent = OpenAi::new(&server.url, None, &[], limits()).unwrap();
    assert!(Fatal(Rejected, "page not found").fits(&reply(&agent).await));
    assert_eq!(server.paths(), [with, without]);
}

//! The streams of OpenAI-compatible endpoints, as bytes and as events.

use worker::agent::AgentErrorKind::{BadOutput, RateLimited, Rejected, Timeout, Unavailable};

use super::agent_openai_rows::{DONE, STOP, agent, before_tea, delta, events, text};
use super::agent_rows::Expected::{Fatal, Retry, Text};
use super::agent_rows::{EVENTS, Expected, JSON, check, http, reply_to};

#[tokio::test]
async fn streams_of_events_are_read_in_every_form() {
    let tea = text("Tea.");
    let plain = |name, body: String| (name, body, Text("Tea."));
    let rows = vec![
        plain("a byte order mark", format!("\u{feff}{tea}")),
        plain("CRLF", tea.replace('\n', "\r\n")),
        plain("CR", tea.replace('\n', "\r")),
        plain("no space after the colon", tea.replace("data: ", "data:")),
        plain("blank lines before it", format!("\n\n\n{tea}")),
        plain(
            "comments",
            format!(": OPENROUTER PROCESSING\n\n: x\n\n{tea}"),
        ),
        plain(
            "ids, retries and names",
            format!("id: 1\nretry: 10\nevent: message\n{tea}"),
        ),
        plain("no blank line at the end", tea.trim_end().to_owned()),
        plain("no blank lines", tea.replace("\n\n", "\n")),
        plain(
            "the field's name twice",
            tea.replace("data: ", "data: data: "),
        ),
        plain("no field names", tea.replace("data: ", "")),
        plain(
            "data over several lines",
            tea.replace(",\"finish", ",\ndata: \"finish"),
        ),
        plain("no end mark", delta("Tea.") + STOP),
        plain("an end mark alone", delta("Tea.") + DONE),
        plain(
            "an end mark in quotes",
            delta("Tea.") + "data: \"[DONE]\"\n\n",
        ),
        plain("a lower case end mark", delta("Tea.") + "data: [done]\n\n"),
        plain(
            "rubbish after the end mark",
            format!("{tea}data: {{\"chunk\n\n<html>"),
        ),
        plain(
            "rubbish after the reason to end",
            delta("Tea.") + STOP + "data: {\"chu\n\n",
        ),
        plain(
            "an error after the reason to end",
            delta("Tea.") + STOP + "data: {\"error\":\"usage\"}\n\n",
        ),
        plain("empty data", format!("data:\n\ndata: \n\n{tea}")),
        plain("null, {} and [] as data", before_tea(["null", "{}", "[]"])),
        plain(
            "ping as data",
            before_tea(["ping", "\"keep-alive\"", "{\"type\":\"ping\"}"]),
        ),
        plain(
            "a ping event",
            format!("event: ping\ndata: {{\"time\":1}}\n\n{tea}"),
        ),
        plain(
            "a heartbeat event",
            format!("event: heartbeat\ndata: still here\n\n{tea}"),
        ),
        plain(
            "a state of a queue",
            before_tea(["{\"status\":\"queued\",\"message\":\"3 before you\"}"]),
        ),
        (
            "letters of several bytes",
            text("Té 茶 🍵"),
            Text("Té 茶 🍵"),
        ),
        (
            "escapes",
            text("A \"cup\" of\n\ttea\\"),
            Text("A \"cup\" of\n\ttea\\"),
        ),
        (
            "a raw line end in a string",
            text("a\tb").replace("\\t", "\t"),
            Text("a\tb"),
        ),
        (
            "half a surrogate pair",
            text("x").replace("\"x\"", "\"Tea \\ud83c\""),
            Text("Tea \u{fffd}"),
        ),
        plain(
            "NaN",
            before_tea(["{\"choices\":[{\"delta\":{\"content\":\"\"},\"logprobs\":NaN}]}"]),
        ),
        (
            "a stream that is cut between events",
            delta("Tea"),
            Retry(Unavailable, "ended before"),
        ),
        (
            "a stream that is cut within an event",
            delta("Tea") + "data: {\"choices\":[{\"del",
            Retry(Unavailable, "ended before"),
        ),
        (
            "an end mark alone, and no text",
            DONE.into(),
            Retry(BadOutput, "no text in the answer: data: [DONE]"),
        ),
        (
            "no events",
            "welcome to\nmy server\n".into(),
            Retry(BadOutput, "welcome to my server"),
        ),
        ("nothing", String::new(), Retry(BadOutput, "no text")),
        (
            "an event that is no JSON",
            "data: {\"cho\n\n".into(),
            Retry(BadOutput, "can't be read: {\"cho"),
        ),
        (
            "an event that is no object",
            "data: 42\n\n".into(),
            Retry(BadOutput, "can't be read: 42"),
        ),
    ];
    check(rows, EVENTS, agent).await;
}

#[tokio::test]
async fn errors_inside_a_stream_are_errors() {
    let error =
        |name, object: &str, expected| (name, delta("Tea is") + &events([object]) + DONE, expected);
    let rows = vec![
        error(
            "an object",
            r#"{"error":{"message":"No.","type":"server_error"}}"#,
            Retry(Unavailable, "No."),
        ),
        error(
            "a string",
            r#"{"error":"CUDA out of memory","error_type":"generation"}"#,
            Retry(Unavailable, "CUDA"),
        ),
        error(
            "a code that is a number",
            r#"{"error":{"code":429,"message":"No."}}"#,
            Retry(RateLimited, "No."),
        ),
        error(
            "a code that is a string",
            r#"{"error":{"code":"429","message":"No."}}"#,
            Retry(RateLimited, "No."),
        ),
        error(
            "a code without words",
            r#"{"error":{"code":401}}"#,
            Fatal(Rejected, "401"),
        ),
        error(
            "with empty choices",
            r#"{"choices":[],"error":{"code":502,"message":"Provider gone"}}"#,
            Retry(Unavailable, "Provider gone"),
        ),
        error(
            "in the choice",
            r#"{"choices":[{"delta":{"content":""},"finish_reason":"error","error":{"code":502,"message":"Provider gone"}}]}"#,
            Retry(Unavailable, "Provider gone"),
        ),
        error(
            "what the provider behind it said",
            r#"{"error":{"code":429,"message":"Provider returned error","metadata":{"raw":"try again in 20s"}}}"#,
            Retry(RateLimited, "20s"),
        ),
        error(
            "by its kind",
            r#"{"object":"error","message":"No.","type":"BadRequestError","code":400}"#,
            Fatal(Rejected, "No."),
        ),
        error(
            "a detail",
            r#"{"detail":"Upstream timeout"}"#,
            Retry(Timeout, "Upstream"),
        ),
        error(
            "no money",
            r#"{"error":{"message":"Insufficient credits","code":402}}"#,
            Fatal(RateLimited, "credits"),
        ),
        (
            "an event of that name",
            delta("Tea is") + "event: error\ndata: {\"message\":\"No.\"}\n\n",
            Retry(Unavailable, "No."),
        ),
        (
            "an event of that name, in words",
            "event: error\ndata: overloaded\n\n".into(),
            Retry(Unavailable, "overloaded"),
        ),
    ];
    check(rows, EVENTS, agent).await;
}

/// One event with "Tea." and the end mark, as gzip.
const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x4b\x49\x2c\x49\xb4\x52\xa8\x56\x4a\xce\xc8\xcf\x4c\
\x4e\x2d\x56\xb2\x8a\xae\x56\x4a\x49\xcd\x29\x49\x54\xb2\x02\x0a\xe6\xe7\x95\xa4\xe6\x95\x28\x59\x29\x85\xa4\x26\xea\
\x29\xd5\xea\x28\xa5\x65\xe6\x65\x16\x67\xc4\x17\xa5\x26\x16\xe7\xe7\x01\xc5\x8b\x4b\xf2\x0b\x94\x6a\x63\x6b\xb9\xb8\
\x52\xc0\x06\x45\xbb\xf8\xfb\xb9\xc6\x72\x71\x01\x00\x42\x9c\x06\x45\x57\x00\x00\x00";

#[tokio::test]
async fn bodies_are_read_in_every_framing() {
    let tea = text("Tea.");
    let old = format!("HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{tea}");
    let cut = format!("HTTP/1.0 200 OK\r\n\r\n{}", delta("Tea"));
    let short = http(200, "", tea.as_bytes());
    let short = short[..short.len() - tea.len() + delta("Tea").len()].to_vec();
    let mut invalid = delta("Tea X").into_bytes();
    let place = invalid.iter().position(|byte| *byte == b'X').unwrap();
    invalid[place] = 0xff;
    invalid.extend_from_slice(STOP.as_bytes());
    let rows: Vec<(&str, Vec<u8>, Expected)> = vec![
        (
            "gzip",
            http(200, "content-encoding: gzip\r\n", GZIP),
            Text("Tea."),
        ),
        (
            "gzip in no stream",
            http(200, &format!("content-encoding: gzip\r\n{JSON}"), GZIP),
            Text("Tea."),
        ),
        (
            "another encoding",
            http(200, "content-encoding: br\r\n", b"x"),
            Retry(BadOutput, "br"),
        ),
        ("HTTP/1.0", old.into_bytes(), Text("Tea.")),
        (
            "HTTP/1.0, cut",
            cut.into_bytes(),
            Retry(Unavailable, "ended before"),
        ),
        (
            "less than was announced",
            short,
            Retry(Unavailable, "broke off"),
        ),
        (
            "invalid UTF-8",
            http(200, EVENTS, &invalid),
            Text("Tea \u{fffd}"),
        ),
        (
            "status 201",
            http(201, EVENTS, tea.as_bytes()),
            Text("Tea."),
        ),
        (
            "status 204",
            b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            Retry(BadOutput, "no text"),
        ),
        (
            "no HTTP",
            b"hello\r\n\r\n".to_vec(),
            Retry(Unavailable, "can't send a request"),
        ),
        (
            "an empty reply",
            Vec::new(),
            Retry(Unavailable, "can't send a request"),
        ),
    ];
    for (name, bytes, expected) in rows {
        let reply = reply_to(bytes, agent).await;
        assert!(expected.fits(&reply), "{name}: {reply:?}");
    }
}

//! What every provider behind HTTP has to live through. `agent_openai` and
//! `agent_anthropic` run each of these cases, in their own protocol.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use testing::stub::{Act, Stub, stream, whole};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use worker::agent::{
    Agent, AgentError, AgentErrorKind, Completion, CompletionRequest, Event, Limits, Usage,
};

pub(crate) const KEY: &str = "sk-a-key-that-nobody-may-read";

/// One provider's protocol.
pub(crate) trait Provider {
    /// The reasons for which a text ends, in the provider's words.
    const STOPPED: &str;
    const CUT_SHORT: &str;
    const REFUSED: &str;

    fn agent(url: &str, limits: Limits) -> Box<dyn Agent>;
    /// The agent as `{:?}` shows it.
    fn debug(url: &str) -> String;
    /// Events before the text; the request had 10 tokens.
    fn start() -> String;
    fn text(text: &str) -> String;
    /// Events after the text, which has 5 tokens.
    fn stop(reason: &str) -> String;
    /// An event by which the provider shows that it still lives.
    fn ping() -> String;
    /// The body of a refusal.
    fn error(kind: &str, message: &str) -> Value;
    /// The same inside a stream.
    fn error_event(kind: &str) -> String;
    /// The kinds for "too many requests" and for "nothing works here".
    const RATE_LIMITED: &str;
    const OVERLOADED: &str;
    /// The ways of saying that no money is left.
    fn out_of_money() -> Vec<(u16, Value)>;
}

/// Every case below, as tests for one provider.
macro_rules! cases {
    ($provider:ty) => {
        $crate::agent_http::cases! { $provider:
            a_reply_holds_the_text_and_the_usage
            text_is_heard_as_it_comes
            a_text_cut_at_the_limit_says_so
            an_answer_is_whole_even_if_its_tail_is_missing
            an_answer_without_text_may_be_tried_again
            too_many_requests_without_a_time_may_be_tried_again
            too_many_requests_tells_after_how_many_seconds
            too_many_requests_tells_after_which_date
            an_empty_account_is_not_asked_again
            a_wrong_key_is_not_tried_again
            an_unknown_model_is_not_tried_again
            a_prompt_that_is_too_long_is_not_tried_again
            content_that_is_refused_is_not_tried_again
            a_page_of_html_with_status_500_leaves_one_short_line
            unavailable_may_be_tried_again
            unavailable_tells_after_how_many_seconds
            overloaded_may_be_tried_again
            rubbish_in_json_may_be_tried_again
            rubbish_in_plain_text_may_be_tried_again
            rubbish_inside_an_event_may_be_tried_again
            an_error_with_status_200_counts_as_one
            a_stream_that_closes_without_a_reason_may_be_tried_again
            a_stream_that_is_cut_may_be_tried_again
            a_stream_that_is_reset_may_be_tried_again
            an_error_inside_the_stream_counts_as_one
            silence_in_mid_stream_is_a_timeout
            a_slow_beginning_is_a_timeout
            a_slow_first_event_is_a_timeout
            pings_do_not_prolong_the_whole_call
            an_endless_text_is_stopped
            an_endless_event_is_stopped
            nobody_listening_may_be_tried_again
            a_connection_that_never_stands_is_a_timeout
            a_dropped_call_closes_the_connection
            a_dropped_call_closes_the_connection_in_mid_stream
            an_echoed_key_is_taken_out
            the_key_is_not_in_the_debug_output
            a_redirect_is_not_followed
        }
    };
    ($provider:ty: $($case:ident)*) => {
        $(#[tokio::test]
        async fn $case() {
            $crate::agent_http::$case::<$provider>().await;
        })*
    };
}
pub(crate) use cases;

pub(crate) fn limits() -> Limits {
    Limits {
        max_bytes: 2000,
        ..Limits::within(Duration::from_secs(10))
    }
}

pub(crate) fn request() -> CompletionRequest {
    CompletionRequest {
        job_id: uuid::Uuid::nil(),
        topic: "Tea".into(),
        options: json!({}),
        model: "a-model".into(),
        system: "You write.".into(),
        prompt: "Write about tea.".into(),
        max_tokens: 100,
    }
}

/// Call an agent, and see to it that no error tells the key.
pub(crate) async fn call(agent: &dyn Agent) -> Result<Completion, AgentError> {
    let reply = agent.call(&request(), &|_| {}).await;
    assert!(!format!("{reply:?}").contains(KEY), "{reply:?}");
    reply
}

async fn answered<P: Provider>(acts: Vec<Act>, limits: Limits) -> Result<Completion, AgentError> {
    let stub = Stub::answering(acts).await;
    call(&*P::agent(&stub.url(), limits)).await
}

async fn streamed<P: Provider>(
    acts: impl IntoIterator<Item = Act>,
) -> Result<Completion, AgentError> {
    answered::<P>(stream(acts), limits()).await
}

async fn refused<P: Provider>(status: u16, headers: &[(&str, &str)], body: &str) -> AgentError {
    answered::<P>(whole(status, headers, body), limits())
        .await
        .unwrap_err()
}

async fn refused_with<P: Provider>(status: u16, kind: &str) -> AgentError {
    refused::<P>(status, &[JSON], &P::error(kind, "No.").to_string()).await
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[track_caller]
pub(crate) fn assert_retry(error: &AgentError, expected: AgentErrorKind) -> Option<Duration> {
    match error {
        AgentError::Retry { failure, after, .. } if *failure == expected => *after,
        other => panic!("{other:?} where {expected:?} was to be tried again"),
    }
}

#[track_caller]
pub(crate) fn assert_fatal(error: &AgentError, expected: AgentErrorKind) {
    assert!(
        matches!(error, AgentError::Fatal { failure, .. } if *failure == expected),
        "{error:?}"
    );
}

pub(crate) async fn a_reply_holds_the_text_and_the_usage<P: Provider>() {
    let acts = [
        P::start(),
        P::text("Tea is "),
        P::ping(),
        P::text("good."),
        P::stop(P::STOPPED),
    ];
    let reply = streamed::<P>(acts.map(Act::Chunk).into_iter().chain([Act::End]))
        .await
        .unwrap();
    let usage = Usage {
        input_tokens: 10,
        output_tokens: 5,
    };
    assert_eq!(
        reply,
        Completion {
            title: None,
            text: "Tea is good.".into(),
            truncated: false,
            usage
        }
    );
}

pub(crate) async fn text_is_heard_as_it_comes<P: Provider>() {
    let gate = Arc::new(Notify::new());
    let acts = [
        Act::Chunk(P::start()),
        Act::Chunk(P::text("first ")),
        Act::Gate(gate.clone()),
        Act::Chunk(P::text("second")),
        Act::Chunk(P::stop(P::STOPPED)),
        Act::End,
    ];
    let stub = Stub::answering(stream(acts)).await;
    let heard = Mutex::new(Vec::new());
    let listen = |event| {
        heard.lock().unwrap().push(event);
        // The stub goes on only when the first piece has been heard.
        gate.notify_one();
    };
    P::agent(&stub.url(), limits())
        .call(&request(), &listen)
        .await
        .unwrap();
    let expected = ["first ", "second"].map(|piece| Event::Text(piece.into()));
    assert_eq!(heard.into_inner().unwrap(), expected);
}

pub(crate) async fn a_text_cut_at_the_limit_says_so<P: Provider>() {
    let acts = [P::start(), P::text("Tea is"), P::stop(P::CUT_SHORT)];
    let reply = streamed::<P>(acts.map(Act::Chunk).into_iter().chain([Act::End]))
        .await
        .unwrap();
    assert!(reply.truncated);
}

pub(crate) async fn an_answer_is_whole_even_if_its_tail_is_missing<P: Provider>() {
    let acts = [P::start(), P::text("Tea."), P::stop(P::STOPPED)].map(Act::Chunk);
    let reply = streamed::<P>(acts.into_iter().chain([Act::Reset]))
        .await
        .unwrap();
    assert_eq!(reply.text, "Tea.");
}

pub(crate) async fn an_answer_without_text_may_be_tried_again<P: Provider>() {
    let acts = [P::start(), P::text(" \n"), P::stop(P::STOPPED)].map(Act::Chunk);
    let error = streamed::<P>(acts.into_iter().chain([Act::End]))
        .await
        .unwrap_err();
    assert_retry(&error, AgentErrorKind::BadOutput);
}

pub(crate) async fn too_many_requests_without_a_time_may_be_tried_again<P: Provider>() {
    let error = refused_with::<P>(429, P::RATE_LIMITED).await;
    assert_eq!(assert_retry(&error, AgentErrorKind::RateLimited), None);
}

pub(crate) async fn too_many_requests_tells_after_how_many_seconds<P: Provider>() {
    let error = refused::<P>(429, &[JSON, ("retry-after", "7")], "{}").await;
    assert_eq!(
        assert_retry(&error, AgentErrorKind::RateLimited),
        Some(Duration::from_secs(7))
    );
}

pub(crate) async fn too_many_requests_tells_after_which_date<P: Provider>() {
    let date = chrono::Utc::now() + Duration::from_secs(100);
    let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let error = refused::<P>(429, &[JSON, ("retry-after", &date)], "{}").await;
    let after = assert_retry(&error, AgentErrorKind::RateLimited).unwrap();
    assert!((80..=100).contains(&after.as_secs()), "{after:?}");
}

pub(crate) async fn an_empty_account_is_not_asked_again<P: Provider>() {
    for (status, body) in P::out_of_money() {
        let error = refused::<P>(status, &[JSON, ("retry-after", "7")], &body.to_string()).await;
        assert_fatal(&error, AgentErrorKind::RateLimited);
    }
}

pub(crate) async fn a_wrong_key_is_not_tried_again<P: Provider>() {
    assert_fatal(
        &refused_with::<P>(401, "authentication_error").await,
        AgentErrorKind::Rejected,
    );
}

pub(crate) async fn an_unknown_model_is_not_tried_again<P: Provider>() {
    let body = P::error("not_found_error", "There is no model a-model.").to_string();
    let error = refused::<P>(404, &[JSON], &body).await;
    assert_fatal(&error, AgentErrorKind::Rejected);
    assert!(
        error.to_string().contains("There is no model a-model."),
        "{error}"
    );
}

pub(crate) async fn a_prompt_that_is_too_long_is_not_tried_again<P: Provider>() {
    assert_fatal(
        &refused_with::<P>(400, "context_length_exceeded").await,
        AgentErrorKind::Rejected,
    );
    assert_fatal(
        &refused_with::<P>(413, "request_too_large").await,
        AgentErrorKind::Rejected,
    );
}

pub(crate) async fn content_that_is_refused_is_not_tried_again<P: Provider>() {
    let acts = [P::start(), P::text("Tea"), P::stop(P::REFUSED)].map(Act::Chunk);
    let error = streamed::<P>(acts.into_iter().chain([Act::End]))
        .await
        .unwrap_err();
    assert_fatal(&error, AgentErrorKind::Rejected);
}

pub(crate) async fn a_page_of_html_with_status_500_leaves_one_short_line<P: Provider>() {
    let page = format!(
        "<html>\n<body>\n{}</body>\n</html>",
        "<p>Oh no!</p>\r\n".repeat(10_000)
    );
    let error = refused::<P>(500, &[("content-type", "text/html")], &page).await;
    assert_retry(&error, AgentErrorKind::Unavailable);
    let message = error.to_string();
    assert!(
        message.len() < 400 && !message.contains(['\n', '\r']),
        "{message}"
    );
}

pub(crate) async fn unavailable_may_be_tried_again<P: Provider>() {
    let error = refused::<P>(503, &[], "").await;
    assert_eq!(assert_retry(&error, AgentErrorKind::Unavailable), None);
}

pub(crate) async fn unavailable_tells_after_how_many_seconds<P: Provider>() {
    let error = refused::<P>(503, &[("retry-after", "30")], "").await;
    assert_eq!(
        assert_retry(&error, AgentErrorKind::Unavailable),
        Some(Duration::from_secs(30))
    );
}

pub(crate) async fn overloaded_may_be_tried_again<P: Provider>() {
    assert_retry(
        &refused_with::<P>(529, P::OVERLOADED).await,
        AgentErrorKind::Unavailable,
    );
}

pub(crate) async fn rubbish_in_json_may_be_tried_again<P: Provider>() {
    let error = refused::<P>(200, &[JSON], r#"{"hello": "there"}"#).await;
    assert_retry(&error, AgentErrorKind::BadOutput);
    assert!(error.to_string().contains("hello"), "{error}");
}

pub(crate) async fn rubbish_in_plain_text_may_be_tried_again<P: Provider>() {
    assert_retry(
        &refused::<P>(200, &[], "welcome\r\n\r\nto: my\n\nserver").await,
        AgentErrorKind::BadOutput,
    );
    assert_retry(&refused::<P>(200, &[], "").await, AgentErrorKind::BadOutput);
}

pub(crate) async fn rubbish_inside_an_event_may_be_tried_again<P: Provider>() {
    for rubbish in ["data: {\"choices\n\n", "data: 42\n\n", "data: \u{0}\n\n"] {
        let acts = [
            P::start(),
            P::text("Tea"),
            rubbish.into(),
            P::stop(P::STOPPED),
        ]
        .map(Act::Chunk);
        let error = streamed::<P>(acts.into_iter().chain([Act::End]))
            .await
            .unwrap_err();
        assert_retry(&error, AgentErrorKind::BadOutput);
    }
}

pub(crate) async fn an_error_with_status_200_counts_as_one<P: Provider>() {
    let error = refused_with::<P>(200, "authentication_error").await;
    assert_fatal(&error, AgentErrorKind::Rejected);
}

pub(crate) async fn a_stream_that_closes_without_a_reason_may_be_tried_again<P: Provider>() {
    let acts = [
        Act::Chunk(P::start()),
        Act::Chunk(P::text("Tea is")),
        Act::End,
    ];
    assert_retry(
        &streamed::<P>(acts).await.unwrap_err(),
        AgentErrorKind::Unavailable,
    );
}

pub(crate) async fn a_stream_that_is_cut_may_be_tried_again<P: Provider>() {
    let acts = [Act::Chunk(P::start()), Act::Chunk(P::text("Tea is"))];
    assert_retry(
        &streamed::<P>(acts).await.unwrap_err(),
        AgentErrorKind::Unavailable,
    );
}

pub(crate) async fn a_stream_that_is_reset_may_be_tried_again<P: Provider>() {
    let acts = [
        Act::Chunk(P::start()),
        Act::Chunk(P::text("Tea is")),
        Act::Reset,
    ];
    assert_retry(
        &streamed::<P>(acts).await.unwrap_err(),
        AgentErrorKind::Unavailable,
    );
}

pub(crate) async fn an_error_inside_the_stream_counts_as_one<P: Provider>() {
    let error_after_text = async |kind| {
        let acts = [P::start(), P::text("Tea is"), P::error_event(kind)].map(Act::Chunk);
        streamed::<P>(acts.into_iter().chain([Act::End]))
            .await
            .unwrap_err()
    };
    assert_retry(
        &error_after_text(P::OVERLOADED).await,
        AgentErrorKind::Unavailable,
    );
    assert_retry(
        &error_after_text(P::RATE_LIMITED).await,
        AgentErrorKind::RateLimited,
    );
    assert_fatal(
        &error_after_text("authentication_error").await,
        AgentErrorKind::Rejected,
    );
}

pub(crate) async fn silence_in_mid_stream_is_a_timeout<P: Provider>() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(50),
        ..limits()
    };
    let acts = [
        Act::Chunk(P::start()),
        Act::Chunk(P::text("Tea is")),
        Act::Hold,
    ];
    let error = answered::<P>(stream(acts), limits).await.unwrap_err();
    assert_retry(&error, AgentErrorKind::Timeout);
    assert!(error.to_string().contains("stopped coming"), "{error}");
}

pub(crate) async fn a_slow_beginning_is_a_timeout<P: Provider>() {
    let limits = Limits {
        first_token_timeout: Duration::from_millis(50),
        ..limits()
    };
    let error = answered::<P>(vec![Act::Hold], limits).await.unwrap_err();
    assert_retry(&error, AgentErrorKind::Timeout);
}

pub(crate) async fn a_slow_first_event_is_a_timeout<P: Provider>() {
    let limits = Limits {
        first_token_timeout: Duration::from_millis(50),
        ..limits()
    };
    let error = answered::<P>(stream([Act::Hold]), limits)
        .await
        .unwrap_err();
    assert_retry(&error, AgentErrorKind::Timeout);
}

pub(crate) async fn pings_do_not_prolong_the_whole_call<P: Provider>() {
    let limits = Limits {
        total_timeout: Duration::from_millis(100),
        ..limits()
    };
    let pings = [Act::Chunk(P::ping()), Act::Wait(Duration::from_millis(5))];
    let acts = std::iter::repeat_n(pings, 1000).flatten();
    let error = answered::<P>(stream(acts), limits).await.unwrap_err();
    assert_retry(&error, AgentErrorKind::Timeout);
}

pub(crate) async fn an_endless_text_is_stopped<P: Provider>() {
    let acts = [Act::Chunk(P::start()), Act::Endless(P::text("and so on "))];
    let stub = Stub::answering(stream(acts)).await;
    let heard = Mutex::new(0);
    let listen = |event| match event {
        Event::Text(piece) => *heard.lock().unwrap() += piece.len(),
        Event::Progress { .. } | Event::Restarted => {}
    };
    let agent = P::agent(&stub.url(), limits());
    let error = agent.call(&request(), &listen).await.unwrap_err();
    assert_retry(&error, AgentErrorKind::BadOutput);
    assert_eq!(*heard.lock().unwrap(), limits().max_bytes);
    stub.client_gone().await;
}

pub(crate) async fn an_endless_event_is_stopped<P: Provider>() {
    let piece = "and so on ".repeat(1000);
    let without_line_end = [Act::Chunk("data: ".into()), Act::Endless(piece)];
    assert_retry(
        &streamed::<P>(without_line_end).await.unwrap_err(),
        AgentErrorKind::BadOutput,
    );
    let comments = [Act::Endless(": and so on\n\n".repeat(1000))];
    assert_retry(
        &streamed::<P>(comments).await.unwrap_err(),
        AgentErrorKind::BadOutput,
    );
}

pub(crate) async fn nobody_listening_may_be_tried_again<P: Provider>() {
    // It keeps the port from others, and does not listen.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let error = call(&*P::agent(&url, limits())).await.unwrap_err();
    assert_retry(&error, AgentErrorKind::Unavailable);
}

pub(crate) async fn a_connection_that_never_stands_is_a_timeout<P: Provider>() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Once its queue is full, the kernel drops whoever else calls.
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address)).await
    {
        queue.push(stream);
    }
    let limits = Limits {
        connect: Duration::from_millis(50),
        ..limits()
    };
    let error = call(&*P::agent(&format!("http://{address}"), limits))
        .await
        .unwrap_err();
    assert_retry(&error, AgentErrorKind::Timeout);
}

pub(crate) async fn a_dropped_call_closes_the_connection<P: Provider>() {
    let asked = Arc::new(Notify::new());
    let ring = asked.clone();
    let stub = Stub::start(move |_| {
        ring.notify_one();
        vec![Act::Hold]
    })
    .await;
    let agent = P::agent(&stub.url(), limits());
    tokio::select! {
        reply = call(&*agent) => panic!("{reply:?}"),
        () = asked.notified() => {}
    }
    stub.client_gone().await;
}

pub(crate) async fn a_dropped_call_closes_the_connection_in_mid_stream<P: Provider>() {
    let stub = Stub::answering(stream([Act::Chunk(P::text("Tea")), Act::Hold])).await;
    let agent = P::agent(&stub.url(), limits());
    let heard = Notify::new();
    let (request, listen) = (request(), |_| heard.notify_one());
    tokio::select! {
        reply = agent.call(&request, &listen) => panic!("{reply:?}"),
        () = heard.notified() => {}
    }
    stub.client_gone().await;
}

pub(crate) async fn an_echoed_key_is_taken_out<P: Provider>() {
    // `refused` looks for the key by itself.
    let told = format!("The key {KEY} is wrong.");
    let error = refused::<P>(
        401,
        &[JSON],
        &P::error("authentication_error", &told).to_string(),
    )
    .await;
    assert!(
        error.to_string().contains("The key *** is wrong."),
        "{error}"
    );
    refused::<P>(500, &[], &told).await;
    refused::<P>(200, &[JSON], &format!("{told:?}")).await;
    let event = format!(
        "event: error\ndata: {}\n\n",
        P::error("authentication_error", &told)
    );
    streamed::<P>([Act::Chunk(event), Act::End])
        .await
        .unwrap_err();
    streamed::<P>([Act::Chunk(format!("data: {told}\n\n")), Act::End])
        .await
        .unwrap_err();
}

pub(crate) async fn the_key_is_not_in_the_debug_output<P: Provider>() {
    let agent = P::debug(&format!("http://user:{KEY}@localhost?key={KEY}"));
    assert!(
        agent.contains("localhost") && !agent.contains(KEY),
        "{agent}"
    );
}

pub(crate) async fn a_redirect_is_not_followed<P: Provider>() {
    let elsewhere = Stub::answering(whole(200, &[], "")).await;
    let error = refused::<P>(307, &[("location", &elsewhere.url())], "").await;
    assert_fatal(&error, AgentErrorKind::Unavailable);
    assert!(elsewhere.calls().is_empty());
}

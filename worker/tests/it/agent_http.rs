//! Cases of every provider behind HTTP: texts, errors, and keys.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use testing::stub::{Act, Stub, stream, whole};
use tokio::sync::Notify;
use worker::agent::{AgentErrorKind, Completion, Event, Usage};

use super::agent_provider::{
    JSON, KEY, Provider, assert_fatal, assert_retry, limits, refused, refused_with, request,
    streamed,
};

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

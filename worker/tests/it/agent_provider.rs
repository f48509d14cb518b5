//! What the tests of both providers behind HTTP share: their protocols, and the
//! cases that each has to pass.

use std::time::Duration;

use serde_json::{Value, json};
use testing::stub::{Act, Stub, stream, whole};
use worker::agent::{Agent, AgentError, AgentErrorKind, Completion, CompletionRequest, Limits};

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

/// Every case, as tests for one provider.
macro_rules! cases {
    ($provider:ty) => {
        $crate::agent_provider::cases! { $provider:
            agent_http:
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
                an_echoed_key_is_taken_out
                the_key_is_not_in_the_debug_output
                a_redirect_is_not_followed
            ;
            agent_http_limits:
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
            ;
        }
    };
    ($provider:ty: $($module:ident: $($case:ident)* ;)*) => {
        $($(#[tokio::test]
        async fn $case() {
            $crate::$module::$case::<$provider>().await;
        })*)*
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
        example: None,
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

pub(crate) async fn answered<P: Provider>(
    acts: Vec<Act>,
    limits: Limits,
) -> Result<Completion, AgentError> {
    let stub = Stub::answering(acts).await;
    call(&*P::agent(&stub.url(), limits)).await
}

pub(crate) async fn streamed<P: Provider>(
    acts: impl IntoIterator<Item = Act>,
) -> Result<Completion, AgentError> {
    answered::<P>(stream(acts), limits()).await
}

pub(crate) async fn refused<P: Provider>(
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) -> AgentError {
    answered::<P>(whole(status, headers, body), limits())
        .await
        .unwrap_err()
}

pub(crate) async fn refused_with<P: Provider>(status: u16, kind: &str) -> AgentError {
    refused::<P>(status, &[JSON], &P::error(kind, "No.").to_string()).await
}

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

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

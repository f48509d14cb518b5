//! The parts that rows of OpenAI-compatible streams are made of.

use worker::agent::{Agent, OpenAi};

use super::agent_provider::{KEY, limits};

pub(crate) fn agent(url: &str) -> Box<dyn Agent> {
    Box::new(OpenAi::new(&format!("{url}/v1"), Some(KEY), &[], limits()).unwrap())
}

pub(crate) const DONE: &str = "data: [DONE]\n\n";
pub(crate) const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

/// An event for each object.
pub(crate) fn events<const N: usize>(objects: [&str; N]) -> String {
    objects
        .iter()
        .map(|object| format!("data: {object}\n\n"))
        .collect()
}

/// An event with a piece of the text.
pub(crate) fn delta(text: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    events([&format!(
        "{{\"choices\":[{{\"delta\":{{\"content\":{text}}},\"finish_reason\":null}}]}}"
    )])
}

/// A stream whose text this is.
pub(crate) fn text(text: &str) -> String {
    delta(text) + STOP + DONE
}

/// A stream of these events, and then "Tea." and its end.
pub(crate) fn before_tea<const N: usize>(objects: [&str; N]) -> String {
    events(objects) + &text("Tea.")
}

/// "Tea.", and then a stream of these events and the end mark.
pub(crate) fn after_tea<const N: usize>(objects: [&str; N]) -> String {
    delta("Tea.") + &events(objects) + DONE
}

pub(crate) fn finish(reason: &str) -> String {
    after_tea([&format!(
        "{{\"choices\":[{{\"delta\":{{}},\"finish_reason\":{reason}}}]}}"
    )])
}

//! The agent: an OpenAI-compatible endpoint that knows what it is asked for, so
//! that tests can tell what was asked twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use testing::stub::{Act, RecordedRequest, Stub, stream};
use testing::stub_openai::{DONE, delta, finish, usage};
use testing::{HEADINGS, TIMEOUT, requested_part, write_part};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// What [`ScriptedAgent`] is asked for first.
pub(crate) const OUTLINE: &str = "the outline";

pub(crate) struct ScriptedAgent {
    stub: Stub,
    asked: watch::Receiver<Vec<String>>,
    written: Arc<Mutex<Vec<String>>>,
}

impl ScriptedAgent {
    /// Writes well.
    pub(crate) async fn new() -> ScriptedAgent {
        ScriptedAgent::scripted(|_, _| None).await
    }

    /// Does what it is told, or writes if that is nothing. `what` is told what
    /// is asked for ([`OUTLINE`] or one of [`HEADINGS`]), and how often it was
    /// before.
    pub(crate) async fn scripted(
        what: impl Fn(&str, usize) -> Option<Vec<Act>> + Send + Sync + 'static,
    ) -> ScriptedAgent {
        let counts = Mutex::new(HashMap::<_, usize>::new());
        ScriptedAgent::told(move |_, asked| {
            let mut counts = counts.lock().unwrap();
            let before = counts.entry(asked.to_owned()).or_default();
            *before += 1;
            what(asked, *before - 1)
        })
        .await
    }

    /// Writes well, but begins with `what` only when the gate that comes with it is
    /// opened. Once: whoever asks for it after that is not held up.
    pub(crate) async fn gated(what: &'static str) -> (ScriptedAgent, Arc<Notify>) {
        let gate = Arc::new(Notify::new());
        let until = gate.clone();
        let writer = ScriptedAgent::scripted(move |asked, before| {
            let is_held_up = asked == what && before == 0;
            is_held_up.then(|| {
                let mut acts = write(asked);
                acts.insert(1, Act::Gate(until.clone()));
                acts
            })
        });
        (writer.await, gate)
    }

    /// The same as [`ScriptedAgent::scripted`], but `what` is told the whole prompt, and then what it asks for.
    pub(crate) async fn told(
        what: impl Fn(&str, &str) -> Option<Vec<Act>> + Send + Sync + 'static,
    ) -> ScriptedAgent {
        let (tell, asked) = watch::channel(Vec::new());
        let written = Arc::<Mutex<Vec<String>>>::default();
        let well = written.clone();
        let stub = Stub::start(move |call| {
            let prompt = call.prompt();
            let asked = match requested_part(call) {
                0 => OUTLINE.to_owned(),
                part => HEADINGS[part - 1].to_owned(),
            };
            tell.send_modify(|all| all.push(asked.clone()));
            what(&prompt, &asked).unwrap_or_else(|| {
                well.lock().unwrap().push(prompt);
                write(&asked)
            })
        });
        ScriptedAgent {
            stub: stub.await,
            asked,
            written,
        }
    }

    /// The base URL, with the version.
    pub(crate) fn url(&self) -> String {
        format!("{}/v1", self.stub.url())
    }

    /// All that it was asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    /// The prompts of all that it wrote without being told what to do.
    pub(crate) fn written(&self) -> Vec<String> {
        self.written.lock().unwrap().clone()
    }

    /// All requests.
    pub(crate) fn calls(&self) -> Vec<RecordedRequest> {
        self.stub.calls()
    }

    /// Waits until it is asked for something.
    pub(crate) async fn wait_for_request(&self, what: &str) {
        self.wait_for_requests(what, 1).await;
    }

    /// Waits until it is asked for something so many times.
    pub(crate) async fn wait_for_requests(&self, what: &str, times: usize) {
        let mut asked = self.asked.clone();
        let often = |all: &Vec<String>| all.iter().filter(|asked| *asked == what).count();
        let told = asked.wait_for(|all| often(all) >= times);
        let told = timeout(TIMEOUT, told).await;
        told.expect("it is not asked").unwrap();
    }

    /// Waits until a client has gone in the middle of an answer.
    pub(crate) async fn client_gone(&self) {
        self.stub.client_gone().await;
    }
}

/// Writes what is asked for.
pub(crate) fn write(asked: &str) -> Vec<Act> {
    let heading = HEADINGS.iter().position(|heading| *heading == asked);
    let text = write_part(heading.map_or(0, |heading| heading + 1));
    stream([
        Act::Chunk(delta(&text)),
        Act::Chunk(finish("stop")),
        Act::Chunk(usage(10, 20)),
        Act::Chunk(DONE.into()),
        Act::End,
    ])
}

//! The agent: an OpenAI-compatible endpoint that knows what it is asked for, so
//! that tests can tell what was asked twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use testing::stub::{Act, RecordedRequest, Stub, stream};
use testing::stub_openai::{DONE, delta, finish, usage};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::process::PATIENCE;

/// What [`Writer`] is asked for first.
pub(crate) const OUTLINE: &str = "the outline";

/// What it is asked for then, one after the other.
pub(crate) const HEADINGS: [&str; 4] = [
    "First Things",
    "Second Thoughts",
    "Third Parts",
    "Last Words",
];

pub(crate) struct Writer {
    stub: Stub,
    asked: watch::Receiver<Vec<String>>,
    written: Arc<Mutex<Vec<String>>>,
}

impl Writer {
    /// Writes well.
    pub(crate) async fn new() -> Writer {
        Writer::doing(|_, _| None).await
    }

    /// Does what it is told, or writes if that is nothing. `what` is told what
    /// is asked for ([`OUTLINE`] or one of [`HEADINGS`]), and how often it was
    /// before.
    pub(crate) async fn doing(
        what: impl Fn(&str, usize) -> Option<Vec<Act>> + Send + Sync + 'static,
    ) -> Writer {
        let counts = Mutex::new(HashMap::<_, usize>::new());
        Writer::told(move |_, asked| {
            let mut counts = counts.lock().unwrap();
            let before = counts.entry(asked.to_owned()).or_default();
            *before += 1;
            what(asked, *before - 1)
        })
        .await
    }

    /// Writes well, but begins with `what` only when the gate that comes with it is
    /// opened. Once: whoever asks for it after that is not held up.
    pub(crate) async fn holding_up(what: &'static str) -> (Writer, Arc<Notify>) {
        let gate = Arc::new(Notify::new());
        let until = gate.clone();
        let writer = Writer::doing(move |asked, before| {
            let is_held_up = asked == what && before == 0;
            is_held_up.then(|| {
                let mut acts = write(asked);
                acts.insert(1, Act::Gate(until.clone()));
                acts
            })
        });
        (writer.await, gate)
    }

    /// The same as [`Writer::doing`], but `what` is told the whole prompt, and then what it asks for.
    pub(crate) async fn told(
        what: impl Fn(&str, &str) -> Option<Vec<Act>> + Send + Sync + 'static,
    ) -> Writer {
        let (tell, asked) = watch::channel(Vec::new());
        let written = Arc::<Mutex<Vec<String>>>::default();
        let well = written.clone();
        let stub = Stub::start(move |call| {
            let prompt = call.body["messages"].to_string();
            let asked = asked_for(&prompt);
            tell.send_modify(|all| all.push(asked.clone()));
            what(&prompt, &asked).unwrap_or_else(|| {
                well.lock().unwrap().push(prompt);
                write(&asked)
            })
        });
        Writer {
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
    pub(crate) async fn is_asked_for(&self, what: &str) {
        self.is_asked_times(what, 1).await;
    }

    /// Waits until it is asked for something so many times.
    pub(crate) async fn is_asked_times(&self, what: &str, times: usize) {
        let mut asked = self.asked.clone();
        let often = |all: &Vec<String>| all.iter().filter(|asked| *asked == what).count();
        let told = asked.wait_for(|all| often(all) >= times);
        let told = timeout(PATIENCE, told).await;
        told.expect("it is not asked").unwrap();
    }

    /// Waits until a client has gone in the middle of an answer.
    pub(crate) async fn client_gone(&self) {
        self.stub.client_gone().await;
    }
}

/// Writes what is asked for.
pub(crate) fn write(asked: &str) -> Vec<Act> {
    let text = match asked {
        OUTLINE => {
            let headings = HEADINGS.map(|heading| format!("## {heading}"));
            format!("# A Good Title\n{}", headings.join("\n"))
        }
        _ => section(),
    };
    stream([
        Act::Chunk(delta(&text)),
        Act::Chunk(finish("stop")),
        Act::Chunk(usage(10, 20)),
        Act::Chunk(DONE.into()),
        Act::End,
    ])
}

/// No other is like it, for what repeats itself is cleaned away.
fn section() -> String {
    static SECTIONS: AtomicUsize = AtomicUsize::new(0);
    let number = SECTIONS.fetch_add(1, Ordering::Relaxed);
    let word = |n: usize| {
        let kind = ["plum", "oak", "fern", "moss", "reed"][n % 5];
        format!("{kind}{}", number + n)
    };
    let words = |from: usize| (from..from + 12).map(word).collect::<Vec<_>>().join(" ");
    format!("Once {}. Then {}.", words(0), words(20))
}

/// All headings are told with every section; the one that is told once more is
/// asked for.
fn asked_for(prompt: &str) -> String {
    if prompt.to_lowercase().contains("section headings") {
        return OUTLINE.to_owned();
    }
    let told = |heading: &&str| prompt.matches(heading).count();
    let most = HEADINGS.into_iter().max_by_key(told).unwrap();
    assert!(told(&most) > 1, "what is asked for? {prompt}");
    most.to_owned()
}

//! The statements that are sent to the database, as sqlx logs them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The name of the variable that tells a test that it has a process of its own.
const ALONE: &str = "RUNS_ALONE";

/// Records the statements of the whole process.
#[derive(Clone, Default)]
pub(crate) struct StatementRecorder(Arc<Mutex<BTreeSet<String>>>);

impl StatementRecorder {
    /// Records from now on. None if other tests may run in this process: then the named
    /// one has been run in a process of its own.
    pub(crate) fn start(test: &str) -> Option<Self> {
        // cargo-nextest gives a process to each test.
        if !["NEXTEST", ALONE]
            .iter()
            .any(|name| std::env::var_os(name).is_some())
        {
            let mut tests = std::process::Command::new(std::env::current_exe().unwrap());
            let alone = tests.env(ALONE, "1").args(["--exact", test, "--nocapture"]);
            assert!(alone.status().unwrap().success(), "{test} fails");
            return None;
        }
        let recorder = StatementRecorder::default();
        let queries = Targets::new().with_target("sqlx::query", Level::DEBUG);
        let log = tracing_subscriber::registry().with(recorder.clone().with_filter(queries));
        tracing::subscriber::set_global_default(log).unwrap();
        Some(recorder)
    }

    /// What has been recorded since this was asked last, each statement once.
    pub(crate) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<S: Subscriber> Layer<S> for StatementRecorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut statement = Statement::default();
        event.record(&mut statement);
        self.0.lock().unwrap().insert(statement.sql());
    }
}

/// As sqlx logs it: whole in the summary if that has room for it.
#[derive(Default)]
struct Statement {
    summary: String,
    whole: String,
}

impl Statement {
    fn sql(self) -> String {
        match self.whole.trim() {
            "" => self.summary,
            whole => whole.to_owned(),
        }
    }
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.whole),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

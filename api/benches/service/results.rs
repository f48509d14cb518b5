//! Results: as a line, beside the last that were kept, and beside those of another checkout.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::binaries::Kind;

/// One number that was measured.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    detail: String,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Row {
            what: what.into(),
            value,
            unit,
            detail: String::new(),
        }
    }

    /// With what belongs to it, for people.
    pub(crate) fn with_detail(self, detail: impl Into<String>) -> Self {
        Row {
            detail: detail.into(),
            ..self
        }
    }

    fn measured(&self) -> String {
        let digits = if self.value < 100.0 { 1 } else { 0 };
        format!("{:.digits$} {}", self.value, self.unit)
    }
}

/// The rows of several rounds as one, with the mean of their values.
pub(crate) fn mean(rounds: Vec<Vec<Row>>) -> Vec<Row> {
    let rounds_made = rounds.len() as f64;
    let mut rounds = rounds.into_iter();
    let mut rows = rounds.next().unwrap_or_default();
    for more in rounds {
        for (row, more) in rows.iter_mut().zip(more) {
            row.value += more.value;
        }
    }
    for row in &mut rows {
        row.value /= rounds_made;
    }
    rows
}

/// A row of another checkout's programs beside ours.
pub(crate) fn compared(theirs: &Row, ours: &Row) -> String {
    format!(
        "  {:<45} {:>14} {:>14}   x {:.2}",
        ours.what,
        theirs.measured(),
        ours.measured(),
        ours.value / theirs.value
    )
}

/// The results in the repository. Those of another machine are shown, and replaced when new ones are
/// kept.
pub(crate) struct Kept {
    before: Results,
    now: Results,
}

#[derive(Clone, Default, Deserialize, Serialize)]
struct Results {
    machine: String,
    rows: BTreeMap<String, KeptRow>,
}

#[derive(Clone, Deserialize, Serialize)]
struct KeptRow {
    date: String,
    value: f64,
    unit: String,
    detail: String,
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results.json")
}

impl Kept {
    pub(crate) fn read(machine: &str) -> Result<Self> {
        let before: Results = match fs::read(file()) {
            Ok(json) => serde_json::from_slice(&json).context("benches/results.json")?,
            Err(_) => Results::default(),
        };
        let mut now = Results::default();
        if before.machine == machine {
            now = before.clone();
        }
        machine.clone_into(&mut now.machine);
        Ok(Kept { before, now })
    }

    /// A row as a line, with what was kept of it.
    pub(crate) fn beside(&self, kind: Kind, row: &Row) -> String {
        let mut line = format!("  {:<45} {:>14}", row.what, row.measured());
        if !row.detail.is_empty() {
            line += &format!("   {}", row.detail);
        }
        if let Some(kept) = self.before.rows.get(&key(kind, row)) {
            let ratio = row.value / kept.value;
            line += &format!("   x {ratio:.2} since {}", kept.date);
            if self.before.machine != self.now.machine {
                line += &format!(" on {}", self.before.machine);
            }
        }
        line
    }

    pub(crate) fn add(&mut self, kind: Kind, row: &Row) {
        let kept = KeptRow {
            date: chrono::Utc::now().date_naive().to_string(),
            value: (row.value * 10.0).round() / 10.0,
            unit: row.unit.to_owned(),
            detail: row.detail.clone(),
        };
        self.now.rows.insert(key(kind, row), kept);
    }

    pub(crate) fn write(&self) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.now)? + "\n";
        Ok(fs::write(file(), json)?)
    }
}

fn key(kind: Kind, row: &Row) -> String {
    format!("{kind:?}: {}", row.what)
}

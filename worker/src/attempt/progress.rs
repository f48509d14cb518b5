//! How far an attempt is.

use std::sync::atomic::{AtomicI32, Ordering};

use entity::job::Phase;
use entity::text::words_begun;
use shared::queue::Progress;

/// How far an attempt is, set by the agent's events and read by the lease's renewal.
pub(crate) struct ProgressTracker {
    phase: Phase,
    percent: AtomicI32,
    words: AtomicI32,
}

impl ProgressTracker {
    /// Of what is done before anything is written.
    pub(crate) fn at_start(phase: Phase) -> Self {
        ProgressTracker::new(Progress {
            phase,
            percent: 0,
            words: 0,
        })
    }

    pub(crate) fn new(start: Progress) -> Self {
        ProgressTracker {
            phase: start.phase,
            percent: start.percent.into(),
            words: start.words.into(),
        }
    }

    pub(crate) fn words(&self) -> i32 {
        self.words.load(Ordering::Relaxed)
    }

    pub(crate) fn add_words(&self, text: &str) {
        self.words.fetch_add(words_begun(text), Ordering::Relaxed);
    }

    pub(crate) fn raise_percent(&self, percent: i32) {
        self.percent.fetch_max(percent, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Progress {
        Progress {
            phase: self.phase,
            percent: self.percent.load(Ordering::Relaxed),
            words: self.words(),
        }
    }

    /// What came after `to` will be written again.
    pub(super) fn reset(&self, to: Progress) {
        self.percent.store(to.percent, Ordering::Relaxed);
        self.words.store(to.words, Ordering::Relaxed);
    }
}

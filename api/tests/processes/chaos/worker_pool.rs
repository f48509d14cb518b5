//! Several workers, of which some come to harm.

use rand::RngExt;

use crate::support::{Exit, Process, Service};

pub(super) struct WorkerPool<'a> {
    service: &'a Service,
    workers: Vec<Process>,
    /// Those that are gone.
    gone: Vec<Exit>,
}

impl<'a> WorkerPool<'a> {
    pub(super) async fn of(count: usize, service: &'a Service) -> Self {
        let mut fleet = WorkerPool {
            service,
            workers: Vec::new(),
            gone: Vec::new(),
        };
        for _ in 0..count {
            fleet.workers.push(service.worker().await);
        }
        fleet
    }

    pub(super) fn add(&mut self, worker: Process) {
        self.workers.push(worker);
    }

    /// Kills one and has another in its place.
    pub(super) async fn lose_one(&mut self) {
        let any = rand::rng().random_range(0..self.workers.len());
        self.gone.push(self.workers.swap_remove(any).kill().await);
        // Not waited for: the next may die as it starts.
        self.workers.push(self.service.start("worker"));
    }

    /// Stops all. None must have met with a fault of ours.
    pub(super) async fn stop(mut self) -> Vec<Exit> {
        for worker in self.workers {
            worker.wait_for_message("the worker is ready").await;
            self.gone.push(worker.stop().await);
        }
        for exit in &self.gone {
            is_faultless(exit);
        }
        self.gone
    }
}

/// A process may well have found others dead, but did nothing wrong itself.
pub(super) fn is_faultless(exit: &Exit) {
    let text = exit.text();
    for fault in ["panicked", "deadlock", "what is not ours"] {
        assert!(!text.contains(fault), "{text}");
    }
}

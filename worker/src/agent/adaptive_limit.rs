//! Adaptive concurrency: how many jobs run and how many calls are made at once.
//!
//! While the queue is paused no job starts; those that run go on.
//!
//! A 429 holds for all callers. So the worker makes no call and starts no job
//! until the agent's pause is over. Then it makes a single call, and with each
//! success more at once: exponentially up to half of the concurrency that was too
//! much, linearly from there, as TCP does after a loss.
//! <https://www.rfc-editor.org/rfc/rfc5681#section-3.1>

use std::time::Duration;

use rand::RngExt;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::agent::{AgentError, Completion};

/// The pause after the first 429 if the agent asks for none, at most; it doubles with each
/// further one until a call succeeds.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The state that all attempts of a worker share.
pub(crate) struct AdaptiveLimit {
    state: watch::Sender<State>,
    /// Held by the call that is next: calls are made in the order of their requests.
    next_call: Mutex<()>,
}

/// A slot for one job, until it is dropped.
pub(crate) struct JobPermit<'a>(&'a AdaptiveLimit);

/// A slot for one call, until it is dropped.
pub(crate) struct CallPermit<'a> {
    limit: &'a AdaptiveLimit,
    started: Instant,
}

impl AdaptiveLimit {
    /// `most` is how many jobs may run at once, and so how many calls.
    pub(crate) fn new(most: usize) -> Self {
        AdaptiveLimit {
            state: watch::Sender::new(State::new(most, Instant::now())),
            next_call: Mutex::new(()),
        }
    }

    /// Waits for a job's slot; there are no more than there may be calls.
    pub(crate) async fn acquire_job(&self) -> JobPermit<'_> {
        self.acquire(State::try_start_job).await;
        JobPermit(self)
    }

    /// Starts no job while the queue is paused. Whether that is a change.
    pub(crate) fn set_paused(&self, paused: bool) -> bool {
        self.state
            .send_if_modified(|state| std::mem::replace(&mut state.paused, paused) != paused)
    }

    /// Waits until a call may be made; None if that is not before `deadline`.
    pub(crate) async fn acquire_call(&self, deadline: Instant) -> Option<CallPermit<'_>> {
        if self.state.borrow().closed_until > deadline {
            return None;
        }
        let permit = async {
            let _next = self.next_call.lock().await;
            self.acquire(State::try_start_call).await;
            CallPermit {
                limit: self,
                started: Instant::now(),
            }
        };
        timeout_at(deadline, permit).await.ok()
    }

    async fn acquire(&self, begin: fn(&mut State, Instant) -> bool) {
        let mut changes = self.state.subscribe();
        loop {
            let closed_until = changes.borrow_and_update().closed_until;
            if Instant::now() < closed_until {
                sleep_until(closed_until).await;
            }
            let started = self
                .state
                .send_if_modified(|state| begin(state, Instant::now()));
            // An error would say that we are gone ourselves.
            if started || changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl CallPermit<'_> {
    /// Adapts the limit to the outcome of the call.
    pub(crate) fn finish(self, reply: &Result<Completion, AgentError>) {
        match reply {
            Ok(_) => self.on_success(),
            Err(error) => {
                if let Some(pause) = error.rate_limit_delay() {
                    self.on_rate_limited(error, pause);
                }
            }
        }
    }

    fn on_success(&self) {
        let mut recovered = false;
        let state = &self.limit.state;
        state.send_modify(|state| recovered = state.on_success(self.started));
        if recovered {
            tracing::info!("agent rate limit over: calls at full concurrency again");
        }
    }

    fn on_rate_limited(&self, error: &AgentError, after: Duration) {
        let mut pause = None;
        let (state, now) = (&self.limit.state, Instant::now());
        state.send_modify(|state| pause = state.on_rate_limited(self.started, now, after));
        if let Some(pause) = pause {
            let seconds = pause.as_secs_f64();
            tracing::warn!(%error, seconds, "agent rate-limited (429): pausing calls and new jobs");
        }
    }
}

impl Drop for JobPermit<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.jobs -= 1);
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        self.limit.state.send_modify(|state| state.calls -= 1);
    }
}

struct State {
    paused: bool,
    most: usize,
    /// How many jobs and how many calls may run at once.
    limit: usize,
    /// Below this the limit grows with each success; above it, by one for as many
    /// successes as the limit is.
    slow_start_threshold: usize,
    /// Since the limit grew.
    successes: usize,
    jobs: usize,
    calls: usize,
    closed_until: Instant,
    /// Since the last success.
    pauses: u32,
}

impl State {
    fn new(most: usize, now: Instant) -> Self {
        State {
            paused: false,
            most,
            limit: most,
            slow_start_threshold: most,
            successes: 0,
            jobs: 0,
            calls: 0,
            closed_until: now,
            pauses: 0,
        }
    }

    /// Takes a job's slot if there is one.
    fn try_start_job(&mut self, now: Instant) -> bool {
        let room = !self.paused && now >= self.closed_until && self.jobs < self.limit;
        self.jobs += usize::from(room);
        room
    }

    /// Takes a call's slot if there is one.
    fn try_start_call(&mut self, now: Instant) -> bool {
        let room = now >= self.closed_until && self.calls < self.limit;
        self.calls += usize::from(room);
        room
    }

    /// Whether that makes the limit the highest again.
    fn on_success(&mut self, started: Instant) -> bool {
        if self.started_before_pause(started) {
            return false;
        }
        let was_slow = self.pauses > 0 || self.limit < self.most;
        self.pauses = 0;
        self.successes += 1;
        let grows = self.limit < self.slow_start_threshold || self.successes >= self.limit;
        if grows && self.limit < self.most {
            self.limit += 1;
            self.successes = 0;
        }
        was_slow && self.limit == self.most
    }

    /// The pause, if one begins with this.
    fn on_rate_limited(
        &mut self,
        started: Instant,
        now: Instant,
        after: Duration,
    ) -> Option<Duration> {
        if self.started_before_pause(started) {
            self.closed_until = self.closed_until.max(now + after);
            return None;
        }
        if self.pauses == 0 {
            self.slow_start_threshold = (self.limit / 2).max(1);
        }
        self.pauses += 1;
        self.limit = 1;
        self.successes = 0;
        let pause = after.max(backoff(self.pauses));
        self.closed_until = now + pause;
        Some(pause)
    }

    /// The results of calls that ran when a pause began don't count: they say nothing
    /// about the limit after it, and several refused at once are one refusal.
    fn started_before_pause(&self, started: Instant) -> bool {
        started < self.closed_until
    }
}

/// Exponential, with jitter over its upper half: it must not be next to zero.
fn backoff(pauses: u32) -> Duration {
    let doublings = pauses.saturating_sub(1).min(20);
    let longest = FIRST_PAUSE.saturating_mul(1 << doublings);
    let share = rand::rng().random_range(0.5..=1.0);
    longest.min(MAX_PAUSE).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many calls find room.
    fn room(state: &mut State, now: Instant) -> usize {
        let room = (0..100).take_while(|_| state.try_start_call(now)).count();
        state.calls = 0;
        room
    }

    #[test]
    fn a_429_pauses_all_calls_until_a_single_one_succeeds() {
        let now = Instant::now();
        let mut state = State::new(8, now);
        assert_eq!(room(&mut state, now), 8);
        let pause = state.on_rate_limited(now, now, 10 * SECOND);
        assert_eq!(pause, Some(10 * SECOND));
        let over = now + 10 * SECOND;
        for early in [now, over - Duration::from_millis(1)] {
            assert_eq!(room(&mut state, early), 0);
            assert!(!state.try_start_job(early));
        }
        assert_eq!(room(&mut state, over), 1);
        assert!(state.try_start_job(over) && !state.try_start_job(over));
    }

    #[test]
    fn the_limit_grows_exponentially_up_to_half_and_linearly_from_there() {
        let now = Instant::now();
        let mut state = State::new(6, now);
        state.on_rate_limited(now, now, SECOND);
        // That was one call alone, and says no more of how many are too much.
        let now = now + SECOND;
        state.on_rate_limited(now, now, 2 * SECOND);
        let now = now + 2 * SECOND;
        let mut rooms = vec![room(&mut state, now)];
        while rooms.last() != Some(&6) {
            let full = state.on_success(now);
            rooms.push(room(&mut state, now));
            assert_eq!(full, rooms.last() == Some(&6));
        }
        assert_eq!(rooms, [1, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6]);
        assert!(!state.on_success(now), "it was full before");
    }

    #[test]
    fn calls_that_were_refused_together_count_once() {
        let now = Instant::now();
        let mut state = State::new(8, now);
        assert!(state.on_rate_limited(now, now, 10 * SECOND).is_some());
        let later = now + SECOND;
        assert_eq!(state.on_rate_limited(now, later, 2 * SECOND), None);
        assert_eq!(state.closed_until, now + 10 * SECOND);
        assert_eq!(state.on_rate_limited(now, later, 20 * SECOND), None);
        assert_eq!(state.closed_until, later + 20 * SECOND);
        // One that is answered after all was made at the old limit.
        assert!(!state.on_success(now));
        assert_eq!((state.slow_start_threshold, state.limit), (4, 1));
    }

    #[test]
    fn pauses_grow_with_each_429_that_follows() {
        let mut now = Instant::now();
        let mut state = State::new(1, now);
        let mut seconds = Vec::new();
        for _ in 0..9 {
            let pause = state.on_rate_limited(now, now, Duration::ZERO).unwrap();
            seconds.push(pause.as_secs_f64());
            now += pause;
        }
        for (pause, longest) in seconds.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
            let longest = f64::from(longest);
            assert!((longest / 2.0..=longest).contains(pause), "{seconds:?}");
        }
        assert!(
            state.on_success(now),
            "with one call at once one answer is enough"
        );
        assert!(state.on_rate_limited(now, now, Duration::ZERO).unwrap() <= SECOND);
        let asked = state.on_rate_limited(now + 2 * SECOND, now + 2 * SECOND, 90 * SECOND);
        assert_eq!(asked, Some(90 * SECOND));
    }
}

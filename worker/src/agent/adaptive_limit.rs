//! How fast the worker takes jobs and calls its agent.
//!
//! While the queue is paused it takes no job; what runs goes on.
//!
//! An agent that answers 429 means all who call it. So the worker makes no call
//! until the agent wants to be asked again, and takes no job meanwhile. Then it
//! makes one call alone, and with each that is answered more at once: quickly
//! up to half of what was too much, and slowly from there, as TCP does after a
//! loss. <https://www.rfc-editor.org/rfc/rfc5681#section-3.1>

use std::time::Duration;

use rand::RngExt;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::agent::{AgentError, Completion};

/// The longest first pause if the agent asks for none; it doubles with each
/// that follows without an answer between.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What all attempts of a worker know together about their agent.
pub(crate) struct AdaptiveLimit {
    state: watch::Sender<State>,
    /// Calls are made in the order in which they were wanted.
    line: Mutex<()>,
}

/// Room for one job, as long as this is kept.
pub(crate) struct JobPermit<'a>(&'a AdaptiveLimit);

/// Room for one call, as long as this is kept.
pub(crate) struct CallPermit<'a> {
    pace: &'a AdaptiveLimit,
    begun: Instant,
}

impl AdaptiveLimit {
    /// `most` is how many jobs may run at once, and so how many calls.
    pub(crate) fn new(most: usize) -> Self {
        AdaptiveLimit {
            state: watch::Sender::new(State::new(most, Instant::now())),
            line: Mutex::new(()),
        }
    }

    /// Waits until there is room for a job, no more than may be called for.
    pub(crate) async fn acquire_job(&self) -> JobPermit<'_> {
        self.acquire(State::try_start_job).await;
        JobPermit(self)
    }

    /// No job finds room while the queue is paused. Whether that is news.
    pub(crate) fn set_paused(&self, paused: bool) -> bool {
        self.state
            .send_if_modified(|state| std::mem::replace(&mut state.paused, paused) != paused)
    }

    /// Waits until a call may be made; None if that is not before `deadline`.
    pub(crate) async fn acquire_call(&self, deadline: Instant) -> Option<CallPermit<'_>> {
        if self.state.borrow().closed_until > deadline {
            return None;
        }
        let turn = async {
            let _first = self.line.lock().await;
            self.acquire(State::try_start_call).await;
            CallPermit {
                pace: self,
                begun: Instant::now(),
            }
        };
        timeout_at(deadline, turn).await.ok()
    }

    async fn acquire(&self, begin: fn(&mut State, Instant) -> bool) {
        let mut changes = self.state.subscribe();
        loop {
            let closed_until = changes.borrow_and_update().closed_until;
            if Instant::now() < closed_until {
                sleep_until(closed_until).await;
            }
            let begun = self
                .state
                .send_if_modified(|state| begin(state, Instant::now()));
            // An error would say that we are gone ourselves.
            if begun || changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl CallPermit<'_> {
    /// Learns from how the agent took the call.
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
        let state = &self.pace.state;
        state.send_modify(|state| recovered = state.on_success(self.begun));
        if recovered {
            tracing::info!("the agent is called at full pace again");
        }
    }

    fn on_rate_limited(&self, error: &AgentError, after: Duration) {
        let mut pause = None;
        let (state, now) = (&self.pace.state, Instant::now());
        state.send_modify(|state| pause = state.on_rate_limited(self.begun, now, after));
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
        self.pace.state.send_modify(|state| state.calls -= 1);
    }
}

struct State {
    paused: bool,
    most: usize,
    /// How many jobs and how many calls may be under way at once.
    limit: usize,
    /// Up to here the limit grows with each answer, beyond with as many answers
    /// as it counts.
    slow_start_threshold: usize,
    /// Answers since the limit grew.
    answers: usize,
    jobs: usize,
    calls: usize,
    closed_until: Instant,
    /// Since the last answer.
    pauses: u32,
}

impl State {
    fn new(most: usize, now: Instant) -> Self {
        State {
            paused: false,
            most,
            limit: most,
            slow_start_threshold: most,
            answers: 0,
            jobs: 0,
            calls: 0,
            closed_until: now,
            pauses: 0,
        }
    }

    /// Whether there is room for a job; then it is taken.
    fn try_start_job(&mut self, now: Instant) -> bool {
        let room = !self.paused && now >= self.closed_until && self.jobs < self.limit;
        self.jobs += usize::from(room);
        room
    }

    /// Whether there is room for a call; then it is taken.
    fn try_start_call(&mut self, now: Instant) -> bool {
        let room = now >= self.closed_until && self.calls < self.limit;
        self.calls += usize::from(room);
        room
    }

    /// Whether that makes the pace full again.
    fn on_success(&mut self, begun: Instant) -> bool {
        if self.started_before_pause(begun) {
            return false;
        }
        let was_slow = self.pauses > 0 || self.limit < self.most;
        self.pauses = 0;
        self.answers += 1;
        let grows = self.limit < self.slow_start_threshold || self.answers >= self.limit;
        if grows && self.limit < self.most {
            self.limit += 1;
            self.answers = 0;
        }
        was_slow && self.limit == self.most
    }

    /// The pause, if one begins with this.
    fn on_rate_limited(
        &mut self,
        begun: Instant,
        now: Instant,
        after: Duration,
    ) -> Option<Duration> {
        if self.started_before_pause(begun) {
            self.closed_until = self.closed_until.max(now + after);
            return None;
        }
        if self.pauses == 0 {
            self.slow_start_threshold = (self.limit / 2).max(1);
        }
        self.pauses += 1;
        self.limit = 1;
        self.answers = 0;
        let pause = after.max(backoff(self.pauses));
        self.closed_until = now + pause;
        Some(pause)
    }

    /// Calls that were under way when a pause began tell nothing of the pace
    /// after it; and refused together, they were refused once.
    fn started_before_pause(&self, begun: Instant) -> bool {
        begun < self.closed_until
    }
}

/// Exponential, with jitter over its upper half: no pause would be none.
fn backoff(pauses: u32) -> Duration {
    let doublings = pauses.saturating_sub(1).min(20);
    let longest = MIN_PAUSE.saturating_mul(1 << doublings);
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
    fn a_refusal_closes_for_all_and_a_single_call_opens() {
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
    fn the_pace_grows_quickly_up_to_half_and_slowly_from_there() {
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
    fn calls_that_were_refused_together_were_refused_once() {
        let now = Instant::now();
        let mut state = State::new(8, now);
        assert!(state.on_rate_limited(now, now, 10 * SECOND).is_some());
        let later = now + SECOND;
        assert_eq!(state.on_rate_limited(now, later, 2 * SECOND), None);
        assert_eq!(state.closed_until, now + 10 * SECOND);
        assert_eq!(state.on_rate_limited(now, later, 20 * SECOND), None);
        assert_eq!(state.closed_until, later + 20 * SECOND);
        // One that is answered after all was asked at the old pace.
        assert!(!state.on_success(now));
        assert_eq!((state.slow_start_threshold, state.limit), (4, 1));
    }

    #[test]
    fn an_agent_that_keeps_refusing_is_asked_less_and_less() {
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

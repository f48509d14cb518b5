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

use crate::agent::{AgentError, Reply};

/// The longest first pause if the agent asks for none; it doubles with each
/// that follows without an answer between.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What all attempts of a worker know together about their agent.
pub(crate) struct Pace {
    state: watch::Sender<State>,
    /// Calls are made in the order in which they were wanted.
    line: Mutex<()>,
}

/// Room for one job, as long as this is kept.
pub(crate) struct Slot<'a>(&'a Pace);

/// Room for one call, as long as this is kept.
pub(crate) struct Call<'a> {
    pace: &'a Pace,
    begun: Instant,
}

impl Pace {
    /// `most` is how many jobs may run at once, and so how many calls.
    pub(crate) fn new(most: usize) -> Self {
        Pace {
            state: watch::Sender::new(State::new(most, Instant::now())),
            line: Mutex::new(()),
        }
    }

    /// Waits until there is room for a job, no more than may be called for.
    pub(crate) async fn slot(&self) -> Slot<'_> {
        self.enter(State::begin_job).await;
        Slot(self)
    }

    /// No job finds room while the queue is paused. Whether that is news.
    pub(crate) fn pause(&self, paused: bool) -> bool {
        self.state
            .send_if_modified(|state| std::mem::replace(&mut state.paused, paused) != paused)
    }

    /// Waits until a call may be made; None if that is not before `deadline`.
    pub(crate) async fn call(&self, deadline: Instant) -> Option<Call<'_>> {
        if self.state.borrow().closed_until > deadline {
            return None;
        }
        let turn = async {
            let _first = self.line.lock().await;
            self.enter(State::begin_call).await;
            Call {
                pace: self,
                begun: Instant::now(),
            }
        };
        timeout_at(deadline, turn).await.ok()
    }

    async fn enter(&self, begin: fn(&mut State, Instant) -> bool) {
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

impl Call<'_> {
    /// Learns from how the agent took the call.
    pub(crate) fn end(self, reply: &Result<Reply, AgentError>) {
        match reply {
            Ok(_) => self.answered(),
            Err(error) => {
                if let Some(pause) = error.wants_pause() {
                    self.refused(error, pause);
                }
            }
        }
    }

    fn answered(&self) {
        let mut recovered = false;
        let state = &self.pace.state;
        state.send_modify(|state| recovered = state.answered(self.begun));
        if recovered {
            tracing::info!("the agent is called at full pace again");
        }
    }

    fn refused(&self, error: &AgentError, after: Duration) {
        let mut pause = None;
        let (state, now) = (&self.pace.state, Instant::now());
        state.send_modify(|state| pause = state.refused(self.begun, now, after));
        if let Some(pause) = pause {
            let seconds = pause.as_secs_f64();
            tracing::warn!(%error, seconds, "the agent wants a pause: no calls and no new jobs");
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.jobs -= 1);
    }
}

impl Drop for Call<'_> {
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
    safe: usize,
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
            safe: most,
            answers: 0,
            jobs: 0,
            calls: 0,
            closed_until: now,
            pauses: 0,
        }
    }

    /// Whether there is room for a job; then it is taken.
    fn begin_job(&mut self, now: Instant) -> bool {
        let room = !self.paused && now >= self.closed_until && self.jobs < self.limit;
        self.jobs += usize::from(room);
        room
    }

    /// Whether there is room for a call; then it is taken.
    fn begin_call(&mut self, now: Instant) -> bool {
        let room = now >= self.closed_until && self.calls < self.limit;
        self.calls += usize::from(room);
        room
    }

    /// Whether that makes the pace full again.
    fn answered(&mut self, begun: Instant) -> bool {
        if self.is_old(begun) {
            return false;
        }
        let was_slow = self.pauses > 0 || self.limit < self.most;
        self.pauses = 0;
        self.answers += 1;
        let grows = self.limit < self.safe || self.answers >= self.limit;
        if grows && self.limit < self.most {
            self.limit += 1;
            self.answers = 0;
        }
        was_slow && self.limit == self.most
    }

    /// The pause, if one begins with this.
    fn refused(&mut self, begun: Instant, now: Instant, after: Duration) -> Option<Duration> {
        if self.is_old(begun) {
            self.closed_until = self.closed_until.max(now + after);
            return None;
        }
        if self.pauses == 0 {
            self.safe = (self.limit / 2).max(1);
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
    fn is_old(&self, begun: Instant) -> bool {
        begun < self.closed_until
    }
}

/// Exponential, with jitter over its upper half: no pause would be none.
fn backoff(pauses: u32) -> Duration {
    let doublings = pauses.saturating_sub(1).min(20);
    let longest = FIRST_PAUSE.saturating_mul(1 << doublings);
    let share = rand::rng().random_range(0.5..=1.0);
    longest.min(LONGEST_PAUSE).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many calls find room.
    fn room(state: &mut State, now: Instant) -> usize {
        let room = (0..100).take_while(|_| state.begin_call(now)).count();
        state.calls = 0;
        room
    }

    #[test]
    fn a_refusal_closes_for_all_and_a_single_call_opens() {
        let now = Instant::now();
        let mut state = State::new(8, now);
        assert_eq!(room(&mut state, now), 8);
        let pause = state.refused(now, now, 10 * SECOND);
        assert_eq!(pause, Some(10 * SECOND));
        let over = now + 10 * SECOND;
        for early in [now, over - Duration::from_millis(1)] {
            assert_eq!(room(&mut state, early), 0);
            assert!(!state.begin_job(early));
        }
        assert_eq!(room(&mut state, over), 1);
        assert!(state.begin_job(over) && !state.begin_job(over));
    }

    #[test]
    fn the_pace_grows_quickly_up_to_half_and_slowly_from_there() {
        let now = Instant::now();
        let mut state = State::new(6, now);
        state.refused(now, now, SECOND);
        // That was one call alone, and says no more of how many are too much.
        let now = now + SECOND;
        state.refused(now, now, 2 * SECOND);
        let now = now + 2 * SECOND;
        let mut rooms = vec![room(&mut state, now)];
        while rooms.last() != Some(&6) {
            let full = state.answered(now);
            rooms.push(room(&mut state, now));
            assert_eq!(full, rooms.last() == Some(&6));
        }
        assert_eq!(rooms, [1, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6]);
        assert!(!state.answered(now), "it was full before");
    }

    #[test]
    fn calls_that_were_refused_together_were_refused_once() {
        let now = Instant::now();
        let mut state = State::new(8, now);
        assert!(state.refused(now, now, 10 * SECOND).is_some());
        let later = now + SECOND;
        assert_eq!(state.refused(now, later, 2 * SECOND), None);
        assert_eq!(state.closed_until, now + 10 * SECOND);
        assert_eq!(state.refused(now, later, 20 * SECOND), None);
        assert_eq!(state.closed_until, later + 20 * SECOND);
        // One that is answered after all was asked at the old pace.
        assert!(!state.answered(now));
        assert_eq!((state.safe, state.limit), (4, 1));
    }

    #[test]
    fn an_agent_that_keeps_refusing_is_asked_less_and_less() {
        let mut now = Instant::now();
        let mut state = State::new(1, now);
        let mut seconds = Vec::new();
        for _ in 0..9 {
            let pause = state.refused(now, now, Duration::ZERO).unwrap();
            seconds.push(pause.as_secs_f64());
            now += pause;
        }
        for (pause, longest) in seconds.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
            let longest = f64::from(longest);
            assert!((longest / 2.0..=longest).contains(pause), "{seconds:?}");
        }
        assert!(
            state.answered(now),
            "with one call at once one answer is enough"
        );
        assert!(state.refused(now, now, Duration::ZERO).unwrap() <= SECOND);
        let asked = state.refused(now + 2 * SECOND, now + 2 * SECOND, 90 * SECOND);
        assert_eq!(asked, Some(90 * SECOND));
    }
}

//! A post in one streamed answer. Its whole sections become checkpoints as they come;
//! the next attempt continues after the last one.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use entity::job::{Phase, Warning, WarningCode};
use entity::step;
use entity::text::word_count;
use shared::queue::Progress;
use tokio::sync::mpsc;

use super::draft::{Draft, whole_sections_end};
use super::repetition::{ends_in_a_loop, loop_start};
use super::sentences::normalized;
use super::{PERCENT_WRITTEN, PostBrief, bad_output, chatter, language, prompts, sentences, steps};
use crate::agent::{Event, Prompt, Usage};
use crate::attempt::{Attempt, ProgressTracker};
use crate::live_text::PostView;
use crate::outcome::AttemptError;

/// After so many bytes a text without line breaks is looked at.
const CHECK_INTERVAL: usize = 256;

/// A post takes so many calls at most: an answer that is cut off is continued.
const MAX_CALLS: usize = 4;

/// Writes a draft. One in the wrong language is asked for once more.
pub(super) async fn write(
    attempt: &Attempt,
    brief: &PostBrief,
    finished: &[step::Model],
) -> Result<Draft, AttemptError> {
    let prompt = |so_far: &str| prompts::whole_post(brief, so_far);
    let first = write_draft(attempt, brief, prompt, finished, steps::DRAFT).await?;
    if !is_in_other_language(brief, &first) {
        return Ok(first);
    }
    tracing::info!("the draft is in the wrong language; asking once more");
    let of_first = attempt.warning_count().await;
    let second = write_draft(attempt, brief, prompt, finished, steps::SECOND_DRAFT).await?;
    if !is_finished(finished, steps::SECOND_DRAFT) {
        attempt.withdraw_warnings(0..of_first).await?;
    }
    Ok(second)
}

/// Whether an earlier attempt has finished the draft with these positions. Which warnings
/// are about it is not known any more.
pub(super) fn is_finished(finished: &[step::Model], positions: Range<i32>) -> bool {
    finished
        .iter()
        .any(|step| step.position == positions.end - 1)
}

pub(super) fn is_in_other_language(brief: &PostBrief, draft: &Draft) -> bool {
    let asked = brief.options.language.as_deref();
    asked.is_some_and(|tag| language::is_other_language(tag, &draft.content()))
}

/// Writes a draft, or what is missing of it, with checkpoints at `positions`. The last of
/// them ends the draft. `prompt` asks for what follows on the text so far.
pub(super) async fn write_draft(
    attempt: &Attempt,
    brief: &PostBrief,
    prompt: impl Fn(&str) -> Prompt,
    finished: &[step::Model],
    positions: Range<i32>,
) -> Result<Draft, AttemptError> {
    let last_step = positions.end - 1;
    // A second draft takes the place of the first only when it is known to be better.
    let is_seen = positions == steps::DRAFT;
    let steps: Vec<&step::Model> = finished
        .iter()
        .filter(|step| positions.contains(&step.position))
        .collect();
    let mut text: String = steps.iter().map(|step| step.content.as_str()).collect();
    let mut warnings = Vec::new();
    let mut usage = Usage::default();
    let mut next_step = positions.start + steps.len() as i32;
    let mut is_finished = is_finished(finished, positions.clone());
    let mut calls = 0;
    while !is_finished {
        calls += 1;
        let answer = stream(attempt, brief, prompt(&text), &text, next_step, is_seen).await?;
        next_step += answer.saved_sections;
        usage = usage.and(answer.usage);
        let whole_sections = text.len() + answer.saved;
        let unsaved = &answer.text[answer.saved..];
        let loop_start = whole_sections + loop_start(unsaved).unwrap_or(0);
        text += &answer.text;
        is_finished = answer.end == AnswerEnd::Finished
            || answer.saved_sections == 0
            || calls == MAX_CALLS
            || word_count(&text[..whole_sections]) as u32 >= brief.words();
        if answer.end != AnswerEnd::Finished {
            // A section that is asked for again is not kept in part.
            let (code, end) = match answer.end {
                AnswerEnd::Looped => (WarningCode::Loop, loop_start),
                _ => (WarningCode::CutSentence, text.len()),
            };
            let end = if is_finished {
                sentences::whole(&text[..end]).len()
            } else {
                0
            };
            let cut = text.split_off(end.max(whole_sections));
            if code == WarningCode::Loop || is_finished {
                warnings.push(Warning::new(code, None, &cut));
            }
        }
        if is_finished {
            // As a checkpoint it would leave the next attempt nothing to write.
            if !chatter::strip_chatter(&text).contains(char::is_alphanumeric) {
                return Err(bad_output("the post has no text"));
            }
            let done = progress(brief, &text);
            attempt.warn(warnings.drain(..)).await?;
            attempt
                .checkpoint(last_step, &text[whole_sections..], done, usage)
                .await?;
        }
    }
    let post = chatter::strip_chatter(&text);
    let stripped = chatter::around(&text, &post);
    let warnings = stripped.map(|cut| Warning::new(WarningCode::Chatter, None, cut));
    attempt.warn(warnings).await?;
    Ok(Draft::parse(&post))
}

/// What one call has brought.
struct Answer {
    text: String,
    /// Up to here it is whole sections, which are checkpoints.
    saved: usize,
    saved_sections: i32,
    end: AnswerEnd,
    usage: Usage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AnswerEnd {
    Finished,
    CutOff,
    Looped,
}

/// Calls the agent for what follows on `before`.
async fn stream(
    attempt: &Attempt,
    brief: &PostBrief,
    prompt: Prompt,
    before: &str,
    first_step: i32,
    is_seen: bool,
) -> Result<Answer, AttemptError> {
    let tracker = ProgressTracker::new(progress(brief, before));
    let stream = Mutex::new(TextStream {
        text: before.to_owned(),
        start: before.len(),
        saved: before.len(),
        sections: Vec::new(),
        is_stopped: false,
    });
    let lock = || stream.lock().unwrap_or_else(PoisonError::into_inner);
    let (send, mut signals) = mpsc::unbounded_channel();
    let call = async {
        // Moved in, so that the channel ends with the call.
        let send = send;
        let on_event = |event: Event| {
            let signal = match event {
                Event::Text(text) => {
                    tracker.add_words(&text);
                    tracker.raise_percent(percent(brief, tracker.words()));
                    lock().push(&text)
                }
                Event::Discarded => lock().discard(),
                Event::Restarted => lock().restart(),
                Event::Progress { .. } => None,
            };
            if let Some(signal) = signal {
                // If nobody listens any more the call is over.
                let _ = send.send(signal);
            }
        };
        let view = |text: &str| is_seen.then(|| view(&format!("{before}{text}")));
        attempt.call(prompt, &tracker, &on_event, &view).await
    };
    let mut saved_sections = 0;
    let save = async {
        while let Some(signal) = signals.recv().await {
            let piece = match signal {
                Signal::Section(piece) => piece,
                Signal::Discarded => {
                    let saved = first_step..first_step + saved_sections;
                    attempt.discard_steps(saved).await?;
                    saved_sections = 0;
                    continue;
                }
                Signal::Stop(end) => return Ok(end),
            };
            let step = first_step + saved_sections;
            let progress = progress(brief, &lock().text);
            attempt
                .checkpoint(step, &piece, progress, Usage::default())
                .await?;
            saved_sections += 1;
        }
        Ok::<AnswerEnd, AttemptError>(AnswerEnd::Finished)
    };
    // The call goes on while sections are saved, and is dropped when it is to stop.
    let (end, usage) = {
        tokio::pin!(call, save);
        tokio::select! {
            biased;
            reply = &mut call => {
                let reply = reply?;
                save.await?;
                let end = if reply.truncated { AnswerEnd::CutOff } else { AnswerEnd::Finished };
                (end, reply.usage)
            }
            end = &mut save => (end?, Usage::default()),
        }
    };
    let mut stream = stream.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Answer {
        text: stream.text.split_off(before.len()),
        saved: stream.saved - before.len(),
        saved_sections,
        end,
        usage,
    })
}

/// A post as it is to be seen while its text comes.
pub(super) fn view(text: &str) -> PostView {
    let (lines, last) = text.rsplit_once('\n').unwrap_or(("", text));
    // What a heading is shows at its end.
    let may_be_heading = lines.is_empty() || last.starts_with(['#', '*']);
    let text = if may_be_heading { lines } else { text };
    let draft = Draft::parse(&chatter::strip_chatter(text));
    draft.view(draft.sections.len().saturating_sub(1))
}

/// The text of a post while it comes.
struct TextStream {
    text: String,
    /// Where this call's text begins.
    start: usize,
    /// Up to here the text is whole sections that were handed on.
    saved: usize,
    /// These sections, for comparing.
    sections: Vec<String>,
    /// Whether the call is to be dropped: what still comes of it counts no more.
    is_stopped: bool,
}

enum Signal {
    /// A section is whole.
    Section(String),
    /// The sections of this call are void.
    Discarded,
    /// The call is to be dropped.
    Stop(AnswerEnd),
}

impl TextStream {
    fn push(&mut self, text: &str) -> Option<Signal> {
        if self.is_stopped {
            return None;
        }
        let checked = self.text.len() / CHECK_INTERVAL;
        self.text += text;
        if !text.contains('\n') && self.text.len() / CHECK_INTERVAL == checked {
            return None;
        }
        let whole = whole_sections_end(&self.text);
        if whole > self.saved {
            let section = self.text[self.saved..whole].to_owned();
            self.sections.push(normalized(&section));
            if ends_in_a_loop(&self.sections) {
                return Some(self.stop(AnswerEnd::Looped));
            }
            self.saved = whole;
            return Some(Signal::Section(section));
        }
        loop_start(&self.text[self.saved..]).map(|_| self.stop(AnswerEnd::Looped))
    }

    fn stop(&mut self, end: AnswerEnd) -> Signal {
        self.is_stopped = true;
        Signal::Stop(end)
    }

    /// The text of this call so far is none of the post's.
    fn discard(&mut self) -> Option<Signal> {
        if self.is_stopped {
            return None;
        }
        self.text.truncate(self.start);
        self.saved = self.start;
        self.sections.clear();
        Some(Signal::Discarded)
    }

    /// The call is made again, from its beginning. If sections of it are checkpoints
    /// already, another call has to go on behind them.
    fn restart(&mut self) -> Option<Signal> {
        if self.is_stopped {
            return None;
        }
        if self.saved > self.start {
            return Some(self.stop(AnswerEnd::CutOff));
        }
        self.text.truncate(self.start);
        None
    }
}

fn progress(brief: &PostBrief, text: &str) -> Progress {
    let words = word_count(text);
    Progress {
        phase: Phase::Writing,
        percent: percent(brief, words),
        words,
    }
}

fn percent(brief: &PostBrief, words: i32) -> i32 {
    let expected = brief.words() as i32;
    PERCENT_WRITTEN * words.min(expected) / expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_without_line_breaks_is_stopped_soon() {
        let mut stream = TextStream {
            text: String::new(),
            start: 0,
            saved: 0,
            sections: Vec::new(),
            is_stopped: false,
        };
        let words = "the pads press on the rim and "
            .split_inclusive(' ')
            .cycle();
        let mut said = words.take(1000);
        let stopped = said.find_map(|word| stream.push(word));
        assert!(matches!(stopped, Some(Signal::Stop(AnswerEnd::Looped))));
        assert!(stream.text.len() < 1000, "{}", stream.text.len());
    }
}

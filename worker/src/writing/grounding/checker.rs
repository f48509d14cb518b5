//! Checks what a section cites. Where the operator wants that, the model is asked about a sentence in
//! other words than its source has; but only if the source has all numbers, names and quotations of the
//! sentence, and denies the same.

use std::sync::Arc;

use entity::grounding::Citation;
use entity::step;
use serde::{Deserialize, Serialize};

use super::citations::read_sentences;
use super::{Texts, holds, in_background, verify, written};
use crate::agent::Usage;
use crate::attempt::{Attempt, ProgressTracker, UNSEEN};
use crate::outcome::AttemptError;
use crate::writing::{prompts, steps};

/// No more questions are asked about a post.
const MAX_QUESTIONS: i32 = 20;

/// Checks the sections of one post.
pub(super) struct Checker<'a> {
    attempt: &'a Attempt,
    texts: Arc<Texts>,
    /// How many words the post has.
    words: i32,
    /// Whether the model is asked.
    asks_model: bool,
    /// The position of the next answer.
    next: i32,
}

/// What the model has said, as it is kept between attempts.
#[derive(Deserialize, Serialize)]
struct Judgement {
    sentence: String,
    /// The number of the source.
    number: u32,
    /// Of the source: it may have been read anew since.
    passage: String,
    is_borne: bool,
}

impl<'a> Checker<'a> {
    /// `finished` are the steps of the post's writing.
    pub(super) fn new(
        attempt: &'a Attempt,
        texts: Arc<Texts>,
        words: i32,
        asks_model: bool,
        finished: &[step::Model],
    ) -> Self {
        let stored = finished
            .iter()
            .filter(|step| steps::JUDGED.contains(&step.position));
        let mut next = steps::JUDGED.start;
        for step in stored {
            next = step.position + 1;
            if let Ok(stored) = serde_json::from_str::<Judgement>(&step.content)
                && texts.passage_for(&stored.sentence, stored.number).as_ref()
                    == Some(&stored.passage)
            {
                texts.set_judged(&stored.sentence, stored.number, stored.is_borne);
            }
        }
        Checker {
            attempt,
            texts,
            words,
            asks_model,
            next,
        }
    }

    /// The citations of a section that hold, and those that do not.
    pub(super) async fn check(
        &mut self,
        body: &str,
    ) -> Result<(Vec<Citation>, Vec<Citation>), AttemptError> {
        let (holding, broken) = self.verify(body).await?;
        if !self.asks_model || broken.is_empty() {
            return Ok((holding, broken));
        }
        for citation in broken {
            self.ask(citation).await?;
        }
        self.verify(body).await
    }

    async fn verify(&self, body: &str) -> Result<(Vec<Citation>, Vec<Citation>), AttemptError> {
        let (texts, body) = (self.texts.clone(), body.to_owned());
        let verified = move || {
            let sentences = read_sentences(&body);
            let all = sentences
                .iter()
                .flat_map(|sentence| verify(sentence, 0, &texts));
            all.partition(holds)
        };
        in_background(self.attempt, self.words, verified).await
    }

    /// Asks about a citation, unless that was done, or the source can't bear it.
    async fn ask(&mut self, citation: Citation) -> Result<(), AttemptError> {
        if self.next - steps::JUDGED.start >= MAX_QUESTIONS {
            return Ok(());
        }
        let (texts, number) = (self.texts.clone(), citation.number);
        let sentence = citation.sentence.clone();
        let find = move || {
            let is_known = texts.is_judged(&sentence, number).is_some();
            let passage = (!is_known).then(|| texts.passage_for(&sentence, number));
            passage.flatten()
        };
        let Some(passage) = in_background(self.attempt, self.words, find).await? else {
            return Ok(());
        };
        let tracker = ProgressTracker::new(written(self.words));
        let prompt = prompts::judge(&citation.sentence, &passage);
        let reply = self
            .attempt
            .call(prompt, &tracker, &|_| {}, UNSEEN)
            .await
            .map(Some);
        let reply = reply.or_else(AttemptError::unless_refused)?;
        let is_borne = reply.as_ref().is_some_and(|reply| is_yes(&reply.text));
        let judgement = Judgement {
            sentence: citation.sentence,
            number,
            passage,
            is_borne,
        };
        let json = serde_json::to_string(&judgement).unwrap_or_default();
        let usage = reply.map_or(Usage::default(), |reply| reply.usage);
        self.attempt
            .checkpoint(self.next, &json, written(self.words), usage)
            .await?;
        self.next += 1;
        self.texts.set_judged(&judgement.sentence, number, is_borne);
        Ok(())
    }
}

/// Whether an answer is yes, and nothing else.
fn is_yes(answer: &str) -> bool {
    let word = answer.trim_matches(|c: char| !c.is_alphanumeric());
    word.eq_ignore_ascii_case("yes")
}

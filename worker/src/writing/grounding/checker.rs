//! Checks what a section cites. Where the operator wants that, the model is asked about a sentence in
//! other words than its source has; but only if the source has all numbers, names and quotations of the
//! sentence, and denies as often.

use std::sync::Arc;

use entity::grounding::Citation;
use entity::step;

use super::citations::read_sentences;
use super::{Texts, holds, in_background, verify, written};
use crate::attempt::{Attempt, ProgressTracker, UNSEEN};
use crate::outcome::AttemptError;
use crate::writing::{prompts, steps};

/// No more questions are asked about a post.
const MAX_QUESTIONS: i32 = 20;

/// Checks the sections of one post. The model's answers are checkpoints, in the order of the questions.
pub(super) struct Checker<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) texts: Arc<Texts>,
    /// How many words the post has.
    pub(super) words: i32,
    /// Whether the model is asked.
    pub(super) asks_model: bool,
    pub(super) finished: &'a [step::Model],
    /// How many questions were asked.
    pub(super) questions: i32,
}

impl Checker<'_> {
    /// The citations of a section that hold, and those that do not.
    pub(super) async fn check(
        &mut self,
        body: &str,
    ) -> Result<(Vec<Citation>, Vec<Citation>), AttemptError> {
        let (holding, broken) = self.verify(body).await?;
        if !self.asks_model || broken.is_empty() {
            return Ok((holding, broken));
        }
        for citation in &broken {
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
    async fn ask(&mut self, citation: &Citation) -> Result<(), AttemptError> {
        let passage = self.texts.passage_for(citation);
        let Some(passage) = passage.filter(|_| self.questions < MAX_QUESTIONS) else {
            return Ok(());
        };
        let step = steps::FIRST_JUDGED + self.questions;
        self.questions += 1;
        let stored = self.finished.iter().find(|stored| stored.position == step);
        let answer = match stored {
            Some(stored) => stored.content.clone(),
            None => {
                let tracker = ProgressTracker::new(written(self.words));
                let prompt = prompts::judge(&citation.sentence, &passage);
                let call = self.attempt.call(prompt, &tracker, &|_| {}, UNSEEN);
                let reply = call.await?;
                let answer = reply.text.trim();
                self.attempt
                    .checkpoint(step, answer, written(self.words), reply.usage)
                    .await?;
                answer.to_owned()
            }
        };
        self.texts.set_judged(citation, is_yes(&answer));
        Ok(())
    }
}

fn is_yes(answer: &str) -> bool {
    let word = answer.trim_start_matches(|c: char| !c.is_alphanumeric());
    let word: String = word.chars().take_while(|c| c.is_alphanumeric()).collect();
    word.eq_ignore_ascii_case("yes")
}

//! Writes a post: a draft in the way that suits the model, then its review. Each finished
//! step is a checkpoint, so an attempt continues where an earlier one has ended.

use std::sync::Arc;

use entity::job::Phase;
use entity::post::PostContent;
use entity::step;
use shared::queue::WrittenPost;

use super::draft::Draft;
use super::ways::{Way, Ways};
use super::{
    PERCENT_WRITTEN, PostBrief, bad_output, by_example, by_section, grounding, guided, one_call,
    one_section, rejected, research, review, steps, title,
};
use crate::agent::{CallScope, Event, Prompt};
use crate::attempt::{Attempt, ProgressTracker};
use crate::outcome::AttemptError;
use crate::sources::Researcher;

/// The phase in which an attempt begins, before it is known what earlier ones have done.
pub(crate) fn first_phase(scope: CallScope) -> Phase {
    match scope {
        CallScope::WholePost => Phase::Writing,
        CallScope::Prompt => Phase::Outline,
    }
}

/// Writes the post of an attempt's job, or the section that the job is about.
pub(crate) async fn write_post(
    attempt: &Attempt,
    ways: &Ways,
    researcher: &Researcher,
) -> Result<WrittenPost, AttemptError> {
    let mut brief = PostBrief::new(attempt.topic(), attempt.options());
    let is_program = attempt.agent_scope() == CallScope::WholePost;
    if is_program && (attempt.has_review() || attempt.section_task().is_some()) {
        return Err(rejected("a program writes whole posts, and has no outline"));
    }
    // A program makes its own prompts, and knows no sources.
    if !is_program {
        research::find_sources(attempt, &brief, ways, researcher).await?;
        brief.sources = researcher.read(attempt).await?.map(Arc::new);
    }
    if let Some(task) = attempt.section_task() {
        return one_section::write(attempt, &brief, &task).await;
    }
    let mut draft = if is_program {
        write_by_program(attempt).await?
    } else {
        write_by_model(attempt, &brief, ways).await?
    };
    let mut grounding = None;
    if let Some(sources) = brief.sources.clone() {
        let grounded = grounding::ground(attempt, &brief, &sources, draft).await?;
        (draft, grounding) = (grounded.0, Some(grounded.1));
    }
    if !draft.content().chars().any(char::is_alphanumeric) {
        return Err(bad_output("the post has no text"));
    }
    attempt.count_warnings().await;
    let title = match attempt.outline() {
        // As its owner has written it.
        Some(outline) => Some(outline.title.clone()),
        None => draft.title.as_deref().and_then(title::clean),
    };
    let title = title.unwrap_or_else(|| title::of_topic(&brief.topic));
    let mut view = draft.view(draft.sections.len());
    view.title = Some(title.clone());
    let mut content = PostContent::new(Some(title), draft.content());
    if let Some(grounding) = grounding {
        content = content.with_grounding(&grounding);
    }
    attempt.finish(content, view).await
}

async fn write_by_model(
    attempt: &Attempt,
    brief: &PostBrief,
    ways: &Ways,
) -> Result<Draft, AttemptError> {
    let finished = attempt.finished_steps(steps::WRITING).await?;
    let chosen = ways.of(attempt.model(), brief.words());
    let way = if attempt.has_review() {
        with_outline(chosen)
    } else {
        way(chosen, &finished)
    };
    let draft = match way {
        // These have checks of their own.
        Way::Guided => return guided::write(attempt, brief, &finished).await,
        Way::BySection => by_section::write(attempt, brief, &finished).await?,
        Way::OneCall => one_call::write(attempt, brief, &finished).await?,
        Way::ByExample => return by_example::write(attempt, brief, &finished).await,
    };
    review::improve(attempt, brief, &finished, draft).await
}

/// The way of writing to an outline: one that has exactly its headings.
fn with_outline(chosen: Way) -> Way {
    match chosen {
        Way::Guided => Way::Guided,
        Way::OneCall | Way::ByExample | Way::BySection => Way::BySection,
    }
}

/// An attempt goes on in the way in which an earlier one has begun, if it can: a plan
/// is stored as step 0.
fn way(chosen: Way, finished: &[step::Model]) -> Way {
    let Some(first) = finished.first() else {
        return chosen;
    };
    match chosen {
        Way::ByExample if first.position != steps::PLAN => Way::ByExample,
        _ if first.position != steps::PLAN => Way::OneCall,
        Way::Guided if guided::is_outline(&first.content) => Way::Guided,
        _ => Way::BySection,
    }
}

/// Has a program write the whole post. It makes its own prompts, and its text is taken
/// as it stands.
async fn write_by_program(attempt: &Attempt) -> Result<Draft, AttemptError> {
    let tracker = ProgressTracker::at_start(Phase::Writing);
    let on_event = |event: Event| match event {
        Event::Progress { percent, .. } => {
            tracker.raise_percent(i32::from(percent).min(PERCENT_WRITTEN));
        }
        Event::Text(text) => tracker.add_words(&text),
        Event::Discarded | Event::Restarted => {}
    };
    let view = |text: &str| Some(one_call::view(text));
    let reply = attempt
        .call(Prompt::default(), &tracker, &on_event, &view)
        .await?;
    let mut draft = Draft::parse(&reply.text);
    draft.title = reply
        .title
        .filter(|title| !title.trim().is_empty())
        .or(draft.title);
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_goes_on_in_the_way_that_an_earlier_one_has_begun() {
        const OUTLINE: &str = "# Pots\n## Sun\n## Water";
        const PLAN: &str = "# Pots\n## Sun <!-- How much. -->\n## Water <!-- When. -->";
        for (chosen, position, content, goes_on) in [
            (Way::OneCall, 1, "# Pots\n\n", Way::OneCall),
            (Way::Guided, 1, "# Pots\n\n", Way::OneCall),
            (
                Way::BySection,
                steps::SECOND_DRAFT.start,
                "# Pots\n\n",
                Way::OneCall,
            ),
            (Way::ByExample, 1, "# Pots\n\n", Way::ByExample),
            (Way::ByExample, steps::PLAN, PLAN, Way::BySection),
            (Way::OneCall, steps::PLAN, PLAN, Way::BySection),
            (Way::Guided, steps::PLAN, PLAN, Way::BySection),
            (Way::BySection, steps::PLAN, OUTLINE, Way::BySection),
            (Way::Guided, steps::PLAN, OUTLINE, Way::Guided),
        ] {
            let first = step::Model {
                job_id: Default::default(),
                position,
                content: content.to_owned(),
                created_at: Default::default(),
            };
            assert_eq!(way(chosen, &[first]), goes_on, "{chosen:?} {content}");
        }
        assert_eq!(way(Way::Guided, &[]), Way::Guided);
    }
}

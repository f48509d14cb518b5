//! What a canceled job has written becomes the post's text, if its owner wants that. It is what the
//! job's events have told, so who watches has it already.

use std::collections::HashMap;

use entity::job::{Column, Entity, Model};
use entity::job_event;
use entity::post::{self, PostContent, StoredText};
use sea_orm::DatabaseTransaction;
use sea_orm::entity::prelude::*;

use super::transition::{agent_text, count_events};
use crate::events::{Compacted, JobEvent, Snapshot};

const MAX_TITLE_CHARS: usize = 200;

/// Stores what canceled jobs have written, where it is to be kept. Returns what became of it, by
/// posts, and what is to be told before the ends of jobs.
pub(super) async fn store(
    tx: &DatabaseTransaction,
    canceled: &mut [Model],
) -> Result<(HashMap<Uuid, StoredText>, HashMap<Uuid, Vec<JobEvent>>), DbErr> {
    let mut stored = HashMap::new();
    let mut told = HashMap::new();
    for job in canceled.iter_mut().filter(|job| job.keep_text) {
        let rows = job_event::Entity::of_job(job.id).all(tx).await?;
        let before = Compacted::of(&rows).state();
        let topic = post::Entity::find_by_id(job.post_id);
        let topic = post::without_content(topic).one(tx).await?;
        let topic = topic.map_or_else(String::new, |post| post.topic);
        let kept = match job.section_task() {
            // All the other sections were there before.
            Some(_) => has_open_text(&before).then(|| before.clone()),
            None => written(before.clone(), &topic),
        };
        let Some(kept) = kept else { continue };
        if kept.title != before.title || kept.sections.len() != before.sections.len() {
            count_events(Entity::update_many(), 1)
                .filter(Column::Id.eq(job.id))
                .exec(tx)
                .await?;
            job.last_event += 1;
            told.insert(job.id, vec![kept.outline()]);
        }
        let content = PostContent::new(kept.title.clone(), kept.content());
        let texts = vec![agent_text(job, &content)];
        stored.extend(post::Entity::store_agent_texts(tx, texts).await?);
    }
    Ok((stored, told))
}

/// The text without sections that are only planned; None if nothing is written.
fn written(mut told: Snapshot, topic: &str) -> Option<Snapshot> {
    let last = told
        .sections
        .iter()
        .rposition(|section| has_text(&section.text))?;
    told.sections.truncate(last + 1);
    let topic = || topic.chars().take(MAX_TITLE_CHARS).collect();
    told.title = Some(told.title.unwrap_or_else(topic));
    Some(told)
}

/// Whether something was told of a section that is not written to its end.
fn has_open_text(told: &Snapshot) -> bool {
    let open = told.sections.iter().filter(|section| !section.done);
    open.map(|section| &section.text).any(|text| has_text(text))
}

fn has_text(text: &str) -> bool {
    text.contains(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::SnapshotSection;

    #[test]
    fn what_is_only_planned_is_left_out() {
        let section = |heading: &str, text: &str| SnapshotSection {
            heading: Some(heading.to_owned()),
            text: text.to_owned(),
            done: false,
        };
        let mut told = Snapshot {
            sections: vec![section("Sun", "Six ho"), section("Water", "")],
            ..Snapshot::default()
        };
        let kept = written(told.clone(), "Pots").unwrap();
        assert_eq!(kept.content(), "## Sun\n\nSix ho\n");
        assert_eq!(kept.title.as_deref(), Some("Pots"));
        told.sections[0].text = " ".to_owned();
        assert_eq!(written(told, "Pots"), None);
    }
}

//! Finds sources on the web: makes queries of the topic, searches, and stores the best pages as sources
//! of the post. Each step is a checkpoint: no attempt pays for what an earlier one has found.

use entity::job::{Phase, Warning, WarningCode};
use entity::source::{FoundPage, MAX_SOURCES};
use shared::queue::Progress;
use tokio::time::{Instant, timeout_at};

use super::ways::{Way, Ways};
use super::{PostBrief, chatter, prompts, steps};
use crate::agent::{CallScope, Usage};
use crate::attempt::{Attempt, ProgressTracker, UNSEEN};
use crate::outcome::AttemptError;
use crate::sources::{Researcher, SearchError, best};

/// A longer query finds less, and some services refuse it.
const MAX_QUERY_CHARS: usize = 200;

const START: Progress = Progress {
    phase: Phase::Researching,
    percent: 0,
    words: 0,
};

/// Finds sources for an attempt's post if it is to have some from the web, once for its job. A section
/// is written again from those that the post has.
pub(super) async fn find_sources(
    attempt: &Attempt,
    brief: &PostBrief,
    ways: &Ways,
    researcher: &Researcher,
) -> Result<(), AttemptError> {
    if !attempt.searches_web() || attempt.section_task().is_some() {
        return Ok(());
    }
    let finished = attempt.finished_steps(steps::RESEARCH).await?;
    let stored = |position| finished.iter().find(|step| step.position == position);
    if stored(steps::SOURCES_FOUND).is_some() {
        return Ok(());
    }
    let given = attempt.sources().await?.into_iter();
    let given: Vec<String> = given
        .filter(|source| source.found_by.is_none())
        .map(|source| source.url.unwrap_or_default())
        .collect();
    let room = MAX_SOURCES.saturating_sub(given.len());
    let Some((search, limits)) = researcher.search().filter(|_| room > 0) else {
        let failure = (room > 0).then_some(SearchError::NotConfigured);
        return finish(attempt, Vec::new(), failure, !given.is_empty()).await;
    };
    let queries = match stored(steps::QUERIES) {
        Some(step) => step.content.lines().map(str::to_owned).collect(),
        None => make_queries(attempt, brief, ways, limits.queries).await?,
    };
    let until = Instant::now() + limits.time;
    let mut results: Vec<Vec<FoundPage>> = Vec::new();
    let mut failure = None;
    for (query, step) in queries.iter().zip(steps::QUERIES + 1..) {
        if let Some(step) = stored(step) {
            results.push(serde_json::from_str(&step.content).unwrap_or_default());
            continue;
        }
        if Instant::now() >= until {
            failure = Some(SearchError::TooSlow);
            break;
        }
        let search = timeout_at(until, search.find(query, brief.options.language.as_deref()));
        let tracker = ProgressTracker::new(START);
        let found = attempt.run(&tracker, search).await?;
        match found.unwrap_or(Err(SearchError::TooSlow)) {
            Ok(pages) => {
                tracing::info!(pages = pages.len(), "searched the web");
                let json = serde_json::to_string(&pages).unwrap_or_default();
                attempt
                    .checkpoint(step, &json, START, Usage::default())
                    .await?;
                results.push(pages);
            }
            Err(error) => {
                tracing::warn!(%error, "a search failed");
                failure = Some(error);
            }
        }
    }
    let pages = best(results, &given, limits.pages.min(room));
    finish(attempt, pages, failure, !given.is_empty()).await
}

/// Stores what was found. If nothing was because of a `failure`, the post is written without it if it
/// can be, and what an earlier job has found stays.
async fn finish(
    attempt: &Attempt,
    pages: Vec<FoundPage>,
    failure: Option<SearchError>,
    has_given: bool,
) -> Result<(), AttemptError> {
    let Some(error) = failure.filter(|_| pages.is_empty()) else {
        return attempt.set_found_pages(steps::SOURCES_FOUND, pages).await;
    };
    if !has_given && !attempt.writes_without_sources() {
        return Err(AttemptError::Search(error));
    }
    tracing::warn!(%error, "the post is written without the web");
    let text = "the search of the web did not answer";
    attempt
        .warn([Warning::new(WarningCode::SearchFailed, None, text)])
        .await
}

/// The queries for a post, of which the first is its topic; a model that can is asked for more.
async fn make_queries(
    attempt: &Attempt,
    brief: &PostBrief,
    ways: &Ways,
    count: usize,
) -> Result<Vec<String>, AttemptError> {
    let mut queries = vec![shorten(&brief.topic)];
    let is_asked = count > 1
        && attempt.agent_scope() == CallScope::Prompt
        && ways.of(attempt.model(), brief.words()) != Way::Guided;
    let mut usage = Usage::default();
    if is_asked {
        let tracker = ProgressTracker::new(START);
        let prompt = prompts::queries(brief, count - 1);
        let reply = attempt.call(prompt, &tracker, &|_| {}, UNSEEN).await;
        // The topic alone finds something, too.
        if let Some(reply) = reply.map(Some).or_else(AttemptError::unless_refused)? {
            usage = reply.usage;
            queries.extend(read_queries(&reply.text));
        }
    } else {
        let keywords = brief.options.keywords.iter().flatten();
        queries.extend(keywords.map(|word| shorten(&format!("{} {word}", brief.topic))));
    }
    let mut seen: Vec<String> = Vec::new();
    queries.retain(|query| {
        let small = query.to_lowercase();
        let is_new = !seen.contains(&small);
        seen.push(small);
        is_new
    });
    queries.truncate(count);
    attempt
        .checkpoint(steps::QUERIES, &queries.join("\n"), START, usage)
        .await?;
    Ok(queries)
}

/// The queries in a model's answer, a line each.
fn read_queries(answer: &str) -> Vec<String> {
    let text = chatter::strip_wrapping(answer);
    let lines = text.lines().map(|line| {
        let line = line.trim_start_matches(|c: char| c.is_whitespace() || "#-*•".contains(c));
        let item = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let line = item.strip_prefix(['.', ')']).unwrap_or(line);
        shorten(line.trim_matches(|c: char| c.is_whitespace() || "\"'`“”„«»*".contains(c)))
    });
    lines
        // "Here are three queries:"
        .filter(|line| line.chars().any(char::is_alphanumeric) && !line.ends_with(':'))
        .collect()
}

/// As much of a text as fits into a query, in whole words.
fn shorten(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((end, _)) = text.char_indices().nth(MAX_QUERY_CHARS) else {
        return text;
    };
    let cut = text[..end].rfind(' ').unwrap_or(end);
    text[..cut].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_however_a_model_lists_them() {
        let answer = "Here are the queries:\n\n1. \"tomato sun hours\"\n- **when to plant \
            tomatoes**\n3) 2024 tomato yields\n";
        assert_eq!(
            read_queries(answer),
            [
                "tomato sun hours",
                "when to plant tomatoes",
                "2024 tomato yields"
            ]
        );
    }

    #[test]
    fn a_long_topic_is_cut_at_a_word_and_one_without_spaces_anywhere() {
        let long = shorten(&"growing ".repeat(50));
        assert!(
            long.ends_with("growing") && long.chars().count() <= MAX_QUERY_CHARS,
            "{long}"
        );
        assert_eq!(shorten(&"番".repeat(300)).chars().count(), MAX_QUERY_CHARS);
    }
}

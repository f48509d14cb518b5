//! Binds a post to its sources: each citation is checked against the words of its source. What a
//! source does not bear is written once more with the source before the model, and then loses its
//! citation. A sentence that a source bears, and that names none, gets its citation. Only here do
//! addresses come into a post.

mod checker;
mod citations;
mod evidence;
mod links;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use entity::grounding::{Citation, Grounding, LISTED, Verdict, is_list_of_sources};
use entity::job::{Phase, Warning, WarningCode};
use entity::text::word_count;
use shared::queue::Progress;

use self::checker::Checker;
use self::citations::{Sentence, read_sentences, with_citations, without_citations};
use self::evidence::{Evidence, Match, SourceText};
use self::links::without_addresses;
use super::draft::{Draft, Section};
use super::{PERCENT_WRITTEN, PostBrief, language, review, steps};
use crate::attempt::{Attempt, ProgressTracker};
use crate::outcome::AttemptError;
use crate::sources::{Source, Sources};

/// No more sections are written again because of their citations.
const MAX_REWRITES: usize = 5;

/// Whether a word, small, only holds a sentence together.
pub(crate) fn is_function_word(word: &str) -> bool {
    words::CONNECTIVES.contains(word) || words::OPENERS.contains(word)
}

/// The texts of the sources, by their numbers, and whether they bear sentences, as the model says.
pub(super) struct Texts {
    sources: BTreeMap<u32, SourceText>,
    judged: Mutex<HashMap<(String, u32), bool>>,
}

impl Texts {
    fn judged(&self) -> MutexGuard<'_, HashMap<(String, u32), bool>> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the model has said of a sentence and a source; None if it was not asked.
    fn is_judged(&self, sentence: &str, number: u32) -> Option<bool> {
        self.judged().get(&(sentence.to_owned(), number)).copied()
    }

    fn set_judged(&self, sentence: &str, number: u32, is_borne: bool) {
        self.judged()
            .insert((sentence.to_owned(), number), is_borne);
    }

    /// The passage of a source that may bear a sentence.
    fn passage_for(&self, sentence: &str, number: u32) -> Option<String> {
        let source = self.sources.get(&number)?;
        Some(source.quote(&source.candidate(sentence)?))
    }
}

/// The draft with citations that hold, the list of its sources behind it, and what was checked.
pub(super) async fn ground(
    attempt: &Attempt,
    brief: &PostBrief,
    sources: &Arc<Sources>,
    mut draft: Draft,
) -> Result<(Draft, Grounding), AttemptError> {
    let finished = attempt.finished_steps(steps::WRITING).await?;
    let words = word_count(&draft.content());
    let texts = texts(attempt, words, sources).await?;
    let own_words = brief.own_words();
    remove_inventions(attempt, &own_words, &texts, &mut draft).await?;
    let mut checker = Checker::new(attempt, texts.clone(), words, sources.asks_model, &finished);
    let mut rewrites = 0;
    for number in 0..draft.sections.len() {
        let before = draft.sections[number].body.clone();
        let (holding, broken) = checker.check(&before).await?;
        if broken.is_empty() || rewrites == MAX_REWRITES {
            continue;
        }
        rewrites += 1;
        let step = steps::FIRST_GROUNDED + number as i32;
        let stored = finished.iter().find(|stored| stored.position == step);
        let body = match stored {
            Some(stored) => stored.content.clone(),
            None => rewrite(attempt, brief, &draft, number, &broken, step).await?,
        };
        let (body, _) = without_inventions(&body, &own_words, &texts);
        let (still_holding, still_broken) = checker.check(&body).await?;
        let is_better = still_broken.len() < broken.len() && still_holding.len() >= holding.len();
        let room = word_count(&before).max(40) as u32;
        if is_better && review::is_one_section(&before, &body, room) {
            draft.sections[number].body = body;
        }
    }
    let bodies: Vec<String> = draft
        .sections
        .iter()
        .map(|section| section.body.clone())
        .collect();
    let of_texts = texts.clone();
    let settled = in_background(attempt, words, move || settle(&bodies, 0, &of_texts)).await?;
    attempt.warn(settled.warnings).await?;
    for (section, body) in draft.sections.iter_mut().zip(settled.bodies) {
        section.body = body;
    }
    if let Some(list) = list_of_sources(brief, &sources.list, &settled.grounding) {
        draft.sections.push(list);
    }
    Ok((draft, settled.grounding))
}

/// A section that was written anew, with citations that hold, and the texts that they hold against.
pub(super) async fn ground_section(
    attempt: &Attempt,
    brief: &PostBrief,
    sources: &Arc<Sources>,
    number: u32,
    text: &str,
) -> Result<(String, Arc<Texts>), AttemptError> {
    let words = word_count(text);
    let texts = texts(attempt, words, sources).await?;
    let (text, invented) = without_inventions(text, &brief.own_words(), &texts);
    let warn = |text: &String| Warning::new(WarningCode::InventedSource, Some(number), text);
    attempt.warn(invented.iter().map(warn)).await?;
    let finished = attempt.finished_steps(steps::WRITING).await?;
    let mut checker = Checker::new(attempt, texts.clone(), words, sources.asks_model, &finished);
    checker.check(&text).await?;
    let of_texts = texts.clone();
    let settled = in_background(attempt, words, move || settle(&[text], number, &of_texts)).await?;
    attempt.warn(settled.warnings).await?;
    Ok((settled.bodies.concat(), texts))
}

/// How the citations of a post hold that has these sections. The list of its sources is none of them.
pub(super) async fn measure(
    attempt: &Attempt,
    texts: Arc<Texts>,
    sections: Vec<String>,
) -> Result<Grounding, AttemptError> {
    let words = sections.iter().map(|section| word_count(section)).sum();
    let measured = in_background(attempt, words, move || {
        let mut grounding = Grounding::default();
        for (number, body) in sections
            .iter()
            .enumerate()
            .filter(|(_, body)| !is_list_of_sources(body))
        {
            for sentence in read_sentences(body) {
                let citations = verify(&sentence, number as u32, &texts);
                count(&mut grounding, &body[sentence.range], citations);
            }
        }
        grounding
    });
    measured.await
}

/// A text that is not checked yet, as it may be shown and kept: without addresses and citations.
pub(crate) fn unchecked(text: &str) -> String {
    without_citations(&without_addresses(text, "").0)
}

/// Comparing may take long: it is done off the threads that others wait for, while the lease is kept.
/// So many `words` are written.
async fn in_background<T: Send + 'static>(
    attempt: &Attempt,
    words: i32,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AttemptError> {
    let tracker = ProgressTracker::new(written(words));
    let done = attempt
        .run(&tracker, tokio::task::spawn_blocking(work))
        .await?;
    done.map_err(|panic| AttemptError::Panicked(panic.to_string()))
}

fn written(words: i32) -> Progress {
    Progress {
        phase: Phase::Assembling,
        percent: PERCENT_WRITTEN,
        words,
    }
}

async fn texts(
    attempt: &Attempt,
    words: i32,
    sources: &Arc<Sources>,
) -> Result<Arc<Texts>, AttemptError> {
    let sources = sources.clone();
    // What the model has said of a sentence stays so while both are the same.
    let judged = attempt.grounding().await?.citations.into_iter();
    let judged = judged.filter(|citation| citation.verdict == Verdict::Judged);
    let judged = judged.map(|it| ((without_citations(&it.sentence), it.number), true));
    let judged = judged.collect();
    let prepare = move || {
        let sources = sources.list.iter();
        let texts = sources.map(|source| (source.number, SourceText::new(&source.text)));
        Arc::new(Texts {
            sources: texts.collect(),
            judged: Mutex::new(judged),
        })
    };
    in_background(attempt, words, prepare).await
}

/// Takes out of a draft what its model has made up: addresses, and sources that there are not.
async fn remove_inventions(
    attempt: &Attempt,
    own_words: &str,
    texts: &Texts,
    draft: &mut Draft,
) -> Result<(), AttemptError> {
    let mut warnings = Vec::new();
    for (number, section) in draft.sections.iter_mut().enumerate() {
        let (body, invented) = without_inventions(&section.body, own_words, texts);
        section.body = body;
        let warn =
            |text: String| Warning::new(WarningCode::InventedSource, Some(number as u32), &text);
        warnings.extend(invented.into_iter().map(warn));
        // Headings cite nothing. Those of an outline are its owner's.
        if attempt.outline().is_none() {
            section.heading = section.heading.take().map(|heading| unchecked(&heading));
        }
    }
    if attempt.outline().is_none() {
        draft.title = draft.title.take().map(|title| unchecked(&title));
    }
    attempt.warn(warnings).await
}

/// A section without the addresses that its model has written, and what was taken out or names a
/// source that there is not.
fn without_inventions(body: &str, own_words: &str, texts: &Texts) -> (String, Vec<String>) {
    let (body, mut invented) = without_addresses(body, own_words);
    let cited = read_sentences(&body)
        .into_iter()
        .flat_map(|sentence| sentence.cited);
    let unknown = cited.filter(|number| !texts.sources.contains_key(number));
    invented.extend(unknown.map(|number| format!("[{number}]")));
    (body, invented)
}

/// Sections as they are stored.
struct Settled {
    bodies: Vec<String>,
    grounding: Grounding,
    warnings: Vec<Warning>,
}

/// Leaves the citations that hold, and adds those that a model has left out. `first` is the number of
/// the first section.
fn settle(bodies: &[String], first: u32, texts: &Texts) -> Settled {
    let mut settled = Settled {
        bodies: Vec::new(),
        grounding: Grounding::default(),
        warnings: Vec::new(),
    };
    for (body, section) in bodies.iter().zip(first..) {
        let mut kept: Vec<(Range<usize>, Vec<u32>)> = Vec::new();
        let mut found: Vec<Vec<Citation>> = Vec::new();
        for sentence in read_sentences(body) {
            let mut citations = verify(&sentence, section, texts);
            if citations.is_empty() {
                citations.extend(first_bearing(&sentence, section, texts));
            }
            if citations.iter().any(|citation| !holds(citation)) {
                let code = WarningCode::UnsupportedCitation;
                let warning = Warning::new(code, Some(section), &sentence.text);
                settled.warnings.push(warning);
            }
            let numbers = citations.iter().filter(|citation| holds(citation));
            kept.push((
                sentence.range,
                numbers.map(|citation| citation.number).collect(),
            ));
            found.push(citations);
        }
        let body = with_citations(body, &kept);
        for (sentence, citations) in read_sentences(&body).into_iter().zip(found) {
            count(&mut settled.grounding, &body[sentence.range], citations);
        }
        settled.bodies.push(body);
    }
    settled
}

/// Counts a sentence as it stands in the post.
fn count(grounding: &mut Grounding, sentence: &str, citations: Vec<Citation>) {
    grounding.sentences += 1;
    grounding.cited += u32::from(!citations.is_empty());
    grounding.supported += u32::from(citations.iter().any(holds));
    let as_written = citations.into_iter().map(|citation| Citation {
        sentence: sentence.to_owned(),
        ..citation
    });
    grounding.citations.extend(as_written);
}

fn holds(citation: &Citation) -> bool {
    citation.verdict != Verdict::Unsupported
}

/// What the sources that a sentence names have to say to it.
fn verify(sentence: &Sentence, section: u32, texts: &Texts) -> Vec<Citation> {
    let numbers = sentence.cited.iter().copied();
    let named = numbers.filter_map(|number| Some((number, texts.sources.get(&number)?)));
    named
        .map(|(number, source)| {
            let found = citation(sentence, section, number, source);
            let is_judged = texts.is_judged(&sentence.text, number) == Some(true);
            let candidate = (is_judged && !holds(&found)).then(|| source.candidate(&sentence.text));
            match candidate.flatten() {
                Some(range) => borne(found, Verdict::Judged, source, &range),
                None => found,
            }
        })
        .collect()
}

/// The first source that bears a sentence.
fn first_bearing(sentence: &Sentence, section: u32, texts: &Texts) -> Option<Citation> {
    let all = texts.sources.iter();
    let mut all = all.map(|(number, source)| citation(sentence, section, *number, source));
    all.find(holds)
}

fn citation(sentence: &Sentence, section: u32, number: u32, source: &SourceText) -> Citation {
    let unsupported = Citation {
        number,
        section,
        sentence: sentence.text.clone(),
        quote: None,
        start: None,
        end: None,
        verdict: Verdict::Unsupported,
    };
    match source.evidence(&sentence.text) {
        Some(Evidence { kind, range }) => {
            let verdict = match kind {
                Match::Exact => Verdict::Exact,
                Match::Close => Verdict::Close,
            };
            borne(unsupported, verdict, source, &range)
        }
        None => unsupported,
    }
}

/// The same citation, borne by these words of its source.
fn borne(
    citation: Citation,
    verdict: Verdict,
    source: &SourceText,
    range: &Range<usize>,
) -> Citation {
    let characters = source.characters(range);
    Citation {
        quote: Some(source.quote(range)),
        start: Some(characters.start as u32),
        end: Some(characters.end as u32),
        verdict,
        ..citation
    }
}

/// Has a section written again that says what its sources do not.
async fn rewrite(
    attempt: &Attempt,
    brief: &PostBrief,
    draft: &Draft,
    number: usize,
    unsupported: &[Citation],
    step: i32,
) -> Result<String, AttemptError> {
    let advice = unsupported.iter().map(|citation| {
        format!(
            "\"{}\" is not what source [{}] says. Say what it says, or leave it out.",
            citation.sentence, citation.number
        )
    });
    let words = (word_count(&draft.sections[number].body).max(0) as u32).clamp(40, 800);
    review::rewrite(attempt, brief, draft, number, advice.collect(), words, step).await
}

/// The sources that are cited, as the last section.
pub(super) fn list_of_sources(
    brief: &PostBrief,
    sources: &[Source],
    grounding: &Grounding,
) -> Option<Section> {
    let is_used = |source: &&Source| {
        let mut citations = grounding.citations.iter();
        citations.any(|it| it.number == source.number && it.verdict != Verdict::Unsupported)
    };
    let lines: Vec<String> = sources.iter().filter(is_used).map(line).collect();
    (!lines.is_empty()).then(|| Section {
        heading: Some(language::word_for_sources(brief.options.language.as_deref()).to_owned()),
        body: lines.join("\n"),
    })
}

/// A source as it is listed. Its names are text of others: marks in them are none of ours.
fn line(source: &Source) -> String {
    let title = escaped(source.name());
    let name = match &source.url {
        Some(url) => format!(
            "[{title}](<{}>)",
            url.replace('\\', "%5C").replace('&', "&amp;")
        ),
        None => title,
    };
    let site = source.site.as_deref().map(escaped).unwrap_or_default();
    let site = if site.is_empty() {
        site
    } else {
        format!(", {site}")
    };
    format!("{LISTED}{}\\] {name}{site}", source.number)
}

/// A name, in which nothing is Markdown.
fn escaped(name: &str) -> String {
    let mark = |c: char| "\\`*_[]<>&|~$^".contains(c).then_some('\\');
    name.chars()
        .flat_map(|c| mark(c).into_iter().chain([c]))
        .collect()
}

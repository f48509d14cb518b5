//! The plan of a post, and reading it from what a model made of the question.

use std::collections::BTreeSet;
use std::fmt;

use entity::job;
use serde_json::Value;

use super::deduplicate::is_repetitive;
use super::{fallback_outline, heading};
use crate::writing::{PostBrief, chatter, language};

/// Fewer headings don't make a post.
const MIN_SECTIONS: usize = 3;
/// More are too many for 3000 words.
const MAX_SECTIONS: usize = 8;

/// A longer title is cut.
const MAX_TITLE_LEN: usize = 120;
/// A longer heading is a sentence about the section.
const MAX_HEADING_LEN: usize = 64;
const MAX_HEADING_WORDS: usize = 10;

/// The title of a post and the headings of its sections.
///
/// As text, to be kept between attempts, it is Markdown: `# Title` and a line
/// `## Heading` for each section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    /// The post's title.
    pub(super) title: String,
    /// The headings of its sections, at most eight.
    pub(super) headings: Vec<String>,
}

/// Into how many sections a post is divided.
pub(super) fn section_count(brief: &PostBrief) -> usize {
    (brief.words() as usize / 125).clamp(MIN_SECTIONS, MAX_SECTIONS)
}

impl Outline {
    /// Read back what `to_string` wrote; `None` if it is something else.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let title = lines.next()?.strip_prefix("# ")?.to_owned();
        let headings: Option<Vec<_>> = lines
            .map(|line| line.strip_prefix("## ").map(str::to_owned))
            .collect();
        let headings = headings.filter(|headings| (1..=MAX_SECTIONS).contains(&headings.len()))?;
        Some(Outline { title, headings })
    }
}

impl From<job::Outline> for Outline {
    fn from(reviewed: job::Outline) -> Self {
        let headings = reviewed.sections.into_iter();
        Outline {
            title: reviewed.title,
            headings: headings.map(|section| section.heading).collect(),
        }
    }
}

impl From<Outline> for job::Outline {
    fn from(Outline { title, headings }: Outline) -> Self {
        let section = |heading| job::PlannedSection {
            heading,
            about: String::new(),
        };
        job::Outline {
            title,
            sections: headings.into_iter().map(section).collect(),
        }
    }
}

impl fmt::Display for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# {}", self.title)?;
        self.headings
            .iter()
            .try_for_each(|heading| write!(f, "\n## {heading}"))
    }
}

/// The outline in an agent's answer. Where it has no title, the topic is the
/// title; where it has too few headings, plain ones are put in their place, or in other
/// languages than English the topic.
/// `cut_short` says that the answer ends because its tokens were used up.
pub(super) fn read_outline(brief: &PostBrief, answer: &str, cut_short: bool) -> Outline {
    let answer = chatter::strip_wrapping(answer);
    let mut lines = from_json(&answer).unwrap_or_else(|| split(&answer));
    if cut_short {
        lines.pop();
    }
    let lines: Vec<OutlineLine> = lines
        .iter()
        .filter_map(|line| OutlineLine::read(line))
        .collect();
    let title = title_among(&lines).and_then(|title| clean_title(title, &brief.topic));
    let title = title.unwrap_or_else(|| fallback_outline::title(&brief.topic));

    let mut headings = HeadingCollector::new(brief, &title);
    let kinds: BTreeSet<LineKind> = lines.iter().map(|line| line.kind).collect();
    let of_kind = |kind: LineKind| {
        let mut found = headings.clone();
        lines
            .iter()
            .filter(|line| line.kind == kind)
            .for_each(|line| found.add(line.text));
        found
    };
    // The lines that look alike and are most: sub-headings and remarks fall away.
    let mut best = headings.clone();
    for found in kinds.into_iter().map(of_kind) {
        if found.list.len() > best.list.len() {
            best = found;
        }
    }
    if best.list.len() < MIN_SECTIONS {
        lines.iter().for_each(|line| best.add(line.text));
    }
    headings = best;
    if headings.list.len() < MIN_SECTIONS - 1 {
        // A single one was found by chance.
        headings = HeadingCollector::new(brief, &title);
    }
    let is_english = language::is_english(brief.options.language.as_deref());
    if headings.list.is_empty() && !is_english {
        headings.list.push(fallback_outline::title(&brief.topic));
    }
    if headings.list.len() < MIN_SECTIONS && is_english {
        fallback_outline::headings(&brief.topic)
            .iter()
            .for_each(|heading| headings.add(heading));
    }
    Outline {
        title,
        headings: headings.list,
    }
}

/// What a line looks like. The earlier kinds are the surer headings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LineKind {
    Hashes(usize),
    Label,
    Number,
    Bold,
    Bullet,
    /// Below another line.
    Indented,
    Words,
}

#[derive(Debug)]
struct OutlineLine<'a> {
    kind: LineKind,
    text: &'a str,
}

impl<'a> OutlineLine<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let text = line.trim();
        let inner = text.trim_start_matches(['*', '_', '"', ' ']);
        let hashes = text.chars().take_while(|c| *c == '#').count();
        let label = inner
            .split([':', '-', '–', '—', '.', '*'])
            .next()
            .unwrap_or_default();
        let kind = if line.starts_with("  ") || line.starts_with('\t') {
            LineKind::Indented
        } else if hashes > 0 {
            LineKind::Hashes(hashes)
        } else if heading::is_label(label) && label.len() < inner.len() {
            LineKind::Label
        } else if inner.starts_with(|c: char| c.is_ascii_digit()) {
            LineKind::Number
        } else if text.starts_with("**") {
            LineKind::Bold
        } else if text.starts_with(['-', '*', '•', '+', '|']) {
            LineKind::Bullet
        } else {
            LineKind::Words
        };
        // Of a table, the first column.
        let text = text.trim_matches('|').split(" | ").next().unwrap_or(text);
        let is_talk = text.is_empty() || chatter::is_greeting(text) || chatter::is_farewell(text);
        (!is_talk).then_some(OutlineLine { kind, text })
    }
}

/// The lines of an answer. Lists that were written on one line are taken apart.
fn split(answer: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in answer.lines() {
        let mut rest = line;
        for number in 1..=MAX_SECTIONS {
            if let Some(at) = rest.find(&format!(" {number}. ")) {
                lines.push(rest[..at].to_owned());
                rest = &rest[at + 1..];
            } else if number > 1 {
                break;
            }
        }
        lines.push(rest.to_owned());
    }
    lines
}

/// The strings of an answer in JSON, as lines of our own form.
fn from_json(answer: &str) -> Option<Vec<String>> {
    let start = answer.find(['{', '['])?;
    let end = answer.rfind(['}', ']'])?;
    let json: Value = serde_json::from_str(answer.get(start..=end)?).ok()?;
    let mut lines = Vec::new();
    collect(&json, true, &mut lines);
    Some(lines).filter(|lines| lines.len() >= MIN_SECTIONS)
}

fn collect(json: &Value, top: bool, lines: &mut Vec<String>) {
    match json {
        Value::String(text) => lines.push(format!("## {text}")),
        Value::Array(items) => items.iter().for_each(|item| collect(item, false, lines)),
        Value::Object(fields) if top => {
            let title = fields.get("title").and_then(Value::as_str);
            lines.extend(title.map(|title| format!("# {title}")));
            fields
                .values()
                .filter(|value| !value.is_string())
                .for_each(|value| collect(value, false, lines));
        }
        // Of a section with a heading and a description, the heading.
        Value::Object(fields) => {
            let name = ["heading", "title", "name", "section"]
                .iter()
                .find_map(|name| fields.get(*name));
            name.into_iter()
                .for_each(|name| collect(name, false, lines));
        }
        _ => {}
    }
}

/// The line that gives the title.
fn title_among<'a>(lines: &[OutlineLine<'a>]) -> Option<&'a str> {
    let labelled = lines.iter().find_map(|line| {
        let (label, title) = line.text.split_once(':')?;
        let label = heading::clean(label).to_lowercase();
        let label = label.strip_prefix("blog ").unwrap_or(&label);
        let is_title =
            ["title", "post title", "titel", "título", "titre", "titolo"].contains(&label);
        (is_title && !title.trim_matches(['*', ' ']).is_empty()).then_some(title)
    });
    let marked = || {
        let first = lines.iter().find(|line| line.kind == LineKind::Hashes(1))?;
        (lines
            .iter()
            .filter(|line| line.kind == LineKind::Hashes(1))
            .count()
            == 1)
            .then_some(first.text)
    };
    let above = || {
        let (first, rest) = lines.split_first()?;
        let alone = matches!(
            first.kind,
            LineKind::Words | LineKind::Bold | LineKind::Hashes(_)
        ) && rest.iter().all(|line| line.kind != first.kind);
        let listed = rest
            .iter()
            .filter(|line| !matches!(line.kind, LineKind::Words | LineKind::Indented))
            .count()
            >= MIN_SECTIONS;
        let is_title =
            !first.text.ends_with([':', '.']) && first.text.split_whitespace().count() <= 16;
        (alone && listed && is_title).then_some(first.text)
    };
    labelled.or_else(marked).or_else(above)
}

/// A title as a model or an agent wrote it, cleaned; `None` if nothing is left.
pub(super) fn clean_title(title: &str, topic: &str) -> Option<String> {
    let title = heading::normalize_case(heading::clean(title), topic);
    let is_title = !title.is_empty()
        && !heading::is_empty(&title)
        && !heading::is_placeholder(&title)
        && !is_repetitive(&title);
    is_title.then(|| heading::capitalized(heading::truncated(&title, MAX_TITLE_LEN)))
}

/// Headings as they are found, each fit for a post and unlike the others.
#[derive(Clone)]
struct HeadingCollector<'a> {
    topic: &'a str,
    most: usize,
    list: Vec<String>,
    known: Vec<BTreeSet<String>>,
}

impl<'a> HeadingCollector<'a> {
    fn new(brief: &'a PostBrief, title: &str) -> Self {
        // A heading that says no more than the title does is none. Topics that
        // are a whole paragraph may well hold all the words of a good heading.
        let known = [title, brief.topic.as_str()]
            .map(content_words)
            .into_iter()
            .filter(|words| words.len() < 8)
            .collect();
        HeadingCollector {
            topic: &brief.topic,
            most: section_count(brief),
            list: Vec::new(),
            known,
        }
    }

    fn add(&mut self, line: &str) {
        if self.list.len() == self.most {
            return;
        }
        let Some(heading) = clean_heading(line) else {
            return;
        };
        let heading = heading::normalize_case(without_topic(&heading, self.topic), self.topic);
        let heading = heading::capitalized(&heading);
        let words = content_words(&heading);
        let of_the_task = [
            "blog post",
            "blogpost",
            "section",
            "heading",
            "this title",
            "paragraph",
            "subtopic",
            "http",
        ];
        let small = heading.to_lowercase();
        let is_about_the_task = of_the_task
            .iter()
            .any(|word| small.contains(word) && !self.topic.to_lowercase().contains(word));
        let says_nothing = heading::is_empty(&heading) || is_about_the_task;
        if says_nothing
            || heading::is_placeholder(&heading)
            || self.known.iter().any(|known| words.is_subset(known))
        {
            return;
        }
        self.known.push(words);
        self.list.push(heading);
    }
}

/// "Watering" of "Growing tomatoes: Watering", when the topic is tomatoes'
/// growing: all headings would begin alike.
fn without_topic(heading: &str, topic: &str) -> String {
    let letters = topic.trim().chars().count();
    let (before, after) = match heading.char_indices().nth(letters) {
        Some((end, _)) => heading.split_at(end),
        None => return heading.to_owned(),
    };
    let rest = after.trim_start().strip_prefix([':', '-', '–', '—']);
    match rest.map(str::trim) {
        Some(rest) if !rest.is_empty() && before.to_lowercase() == topic.trim().to_lowercase() => {
            rest.to_owned()
        }
        _ => heading.to_owned(),
    }
}

/// One heading; `None` where the line is a sentence or nothing.
fn clean_heading(line: &str) -> Option<String> {
    let fits = |text: &str| {
        text.chars().count() <= MAX_HEADING_LEN
            && text.split_whitespace().count() <= MAX_HEADING_WORDS
    };
    let mut heading = heading::clean(line);
    // "Soil: What to plant them in and why it matters so much." is called "Soil".
    let explained = [": ", " - ", " – ", " — ", " ("]
        .iter()
        .filter_map(|mark| heading.split_once(mark))
        .min_by_key(|(name, _)| name.len());
    if let Some((name, explanation)) = explained
        && (!fits(&heading)
            || explanation.split_whitespace().count() > 5
            || line.trim().ends_with('.')
            || heading::is_same(name, explanation))
    {
        heading = heading::clean(name);
    }
    let is_sentence =
        line.trim().ends_with(['.', ',', ';']) && heading.split_whitespace().count() > 6;
    (!heading.is_empty() && fits(&heading) && !is_sentence).then_some(heading)
}

/// The words of a text that carry its meaning, without their endings.
fn content_words(text: &str) -> BTreeSet<String> {
    let words = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    let stem = |word: &str| word.to_lowercase().trim_end_matches('s').to_owned();
    let long: BTreeSet<String> = words
        .clone()
        .filter(|word| word.chars().count() > 3 || !word.is_ascii())
        .map(stem)
        .collect();
    if long.is_empty() {
        words.map(stem).collect()
    } else {
        long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(topic: &str, answer: &str) -> Outline {
        let brief = PostBrief {
            topic: topic.into(),
            ..PostBrief::default()
        };
        read_outline(&brief, answer, false)
    }

    fn headings(answer: &str) -> Vec<String> {
        read("Growing tomatoes on a balcony", answer).headings
    }

    const POTS_WATER_PESTS: [&str; 3] =
        ["Choosing the Pots", "Watering Well", "Pests and Diseases"];

    #[test]
    fn the_topic_does_not_stand_before_each_heading() {
        let topic = "Growing Tomatoes";
        assert_eq!(without_topic("growing tomatoes: Water", topic), "Water");
        assert_eq!(without_topic("Growing tomatoes – Water", topic), "Water");
        for heading in [
            "Growing tomatoes indoors",
            "Growing tomatoes:",
            "Water: Growing",
        ] {
            assert_eq!(without_topic(heading, topic), heading);
        }
    }

    #[test]
    fn an_outline_survives_as_text() {
        let outline = read(
            "Cats",
            "# Living with Cats\n## Food\n## Sleep and Play\n## The Vet",
        );
        assert_eq!(
            outline.to_string(),
            "# Living with Cats\n## Food\n## Sleep and Play\n## The Vet"
        );
        assert_eq!(Outline::from_text(&outline.to_string()), Some(outline));
        assert_eq!(Outline::from_text("something else"), None);
        assert_eq!(Outline::from_text("# Title"), None);
    }

    #[test]
    fn headings_may_come_in_any_list() {
        for answer in [
            "# Tomatoes Up High\n\n## Choosing the Pots\n## Watering Well\n## Pests and Diseases",
            "1. Choosing the Pots\n2. Watering Well\n3. Pests and Diseases",
            "1) \"Choosing the Pots\"\n\n2) \"Watering Well\"\n\n3) \"Pests and Diseases\"",
            "- **Choosing the Pots**\n- **Watering Well**\n- **Pests and Diseases**",
            "* Choosing the Pots (1) (150 words)\n* Watering Well - 20 sentences\n* Pests and Diseases [2 paragraphs]",
            "Section 1: Choosing the Pots\nSection 2 - Watering Well\nSection 3: Pests and Diseases",
            "**Heading 1:** Choosing the Pots\n**Heading 2:** Watering Well\n**Heading 3:** Pests and Diseases",
            "Sure! Here are three good headings:\n\nChoosing the Pots\nWatering Well\nPests and Diseases\n\nI hope this helps!",
            "Headings: 1. Choosing the Pots, 2. Watering Well, 3. Pests and Diseases",
            "{\"title\": \"Tomatoes\", \"headings\": [\"Choosing the Pots\", \"Watering Well\", \"Pests and Diseases\"]}",
            "```json\n{\n  \"title\": \"Tomatoes\",\n  \"sections\": [\n    {\"heading\": \"Choosing the Pots\", \"text\": \"What to buy\"},\n    {\"heading\": \"Watering Well\"},\n    {\"heading\": \"Pests and Diseases\"}]}\n```",
            "<think>Pots, water, pests.</think>\n1. Choosing the Pots\n2. Watering Well\n3. Pests and Diseases",
            "| Heading | Description |\n| --- | --- |\n| Choosing the Pots | What to buy |\n| Watering Well | How often |\n| Pests and Diseases | What to do |",
        ] {
            assert_eq!(headings(answer), POTS_WATER_PESTS, "{answer}");
        }
    }

    #[test]
    fn explanations_are_no_part_of_a_heading() {
        let answer = "Here's a list of five effective section headings to create engaging content:\n\n\
            1. **\"Choosing the Pots\"** - This title encourages readers to consider the size of their pots.\n\n\
            2. **Watering Well**: This section discusses how much water a plant needs on a hot day.\n   - in the morning\n   - in the evening\n\n\
            3. Pests and Diseases (what to look out for, and what to do about it in time)";
        assert_eq!(headings(answer), POTS_WATER_PESTS);
    }

    #[test]
    fn what_is_no_heading_is_left_out() {
        let answer = "1. Introduction\n2. Choosing the Pots\n3. Choosing the pots\n4. Growing Tomatoes on a Balcony\n\
            5. [Your Heading]\n6. The way that the sun shines upon the leaves of each and every one of the plants\n\
            7. Watering Well\n8. Section Heading 5\n9. Pests and Diseases\n10. Conclusion";
        assert_eq!(headings(answer), POTS_WATER_PESTS);
    }

    #[test]
    fn there_are_no_more_headings_than_wanted() {
        let answer = "1. Sun\n2. Soil\n3. Water\n4. Wind\n5. Pots\n6. Pests\n7. Harvest";
        assert_eq!(headings(answer), ["Sun", "Soil", "Water", "Wind"]);
    }

    #[test]
    fn a_heading_that_was_cut_short_is_left_out() {
        let brief = PostBrief {
            topic: "Bread".into(),
            ..PostBrief::default()
        };
        let outline = read_outline(
            &brief,
            "1. Flour\n2. Water\n3. Salt\n4. The Science Beh",
            true,
        );
        assert_eq!(outline.headings, ["Flour", "Water", "Salt"]);
    }

    #[test]
    fn plain_headings_replace_an_outline_that_is_prose() {
        let outline = read(
            "growing tomatoes on a balcony",
            "The blog post should first talk about the pots, then about the water, and finally about the harvest.",
        );
        assert_eq!(outline.title, "Growing tomatoes on a balcony");
        assert_eq!(
            outline.headings,
            fallback_outline::headings("growing tomatoes")[..4]
        );
        assert_eq!(read("Cats", "").headings.len(), 4);
        assert_eq!(read("Cats", "<think>What could I").headings.len(), 4);
    }

    #[test]
    fn a_title_has_no_marks_and_does_not_shout() {
        let title = |answer: &str| read("Growing tomatoes on a balcony", answer).title;
        assert_eq!(
            title("Title: \"Red Gold, High Up.\"\n1. Sun\n2. Soil\n3. Water"),
            "Red Gold, High Up"
        );
        assert_eq!(
            title("**Blog Title: Red Gold**\n1. Sun\n2. Soil\n3. Water"),
            "Red Gold"
        );
        assert_eq!(
            title("# RED GOLD ON THE BALCONY\n## Sun\n## Soil\n## Water"),
            "Red Gold on the Balcony"
        );
        assert_eq!(
            title("<<Red Gold>>\n\n1. Sun\n2. Soil\n3. Water"),
            "Red Gold"
        );
        assert_eq!(
            title("Here is an outline:\n1. Sun\n2. Soil\n3. Water"),
            "Growing tomatoes on a balcony"
        );
        let long = title(&format!(
            "# {}\n## Sun\n## Soil\n## Water",
            "Tomatoes again ".repeat(30)
        ));
        assert!(
            long.chars().count() <= 120 && long.ends_with(|c: char| c.is_alphabetic()),
            "{long}"
        );
    }

    #[test]
    fn other_languages_are_read_alike() {
        let outline = read(
            "Tomaten auf dem Balkon",
            "Hier ist die Gliederung:\n\n**Titel: Rotes Gold**\n\n1. Die richtigen Töpfe\n2. Gießen und Düngen\n3. Die Ernte",
        );
        assert_eq!(outline.title, "Rotes Gold");
        assert_eq!(
            outline.headings,
            ["Die richtigen Töpfe", "Gießen und Düngen", "Die Ernte"]
        );
    }
}

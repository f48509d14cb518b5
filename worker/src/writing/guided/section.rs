//! The body of a section, or of a whole post: what is left of an answer when
//! all is gone that no reader should see.

use super::deduplicate::SeenSentences;
use super::heading;
use super::markdown_blocks::{self, Block, blocks, join};
use super::outline::Outline;
use crate::writing::{chatter, sentences};

/// A body with fewer words is none.
const MIN_WORDS: usize = 20;
const MIN_SENTENCES: usize = 2;

/// The body of the section that comes after those written `so_far`, clean
/// Markdown without its heading; `None` when the answer has no body, and it is
/// worth asking once more. `cut_short` says that the answer ends because its
/// tokens were used up.
pub(super) fn read_section(
    outline: &Outline,
    so_far: &[String],
    answer: &str,
    cut_short: bool,
) -> Option<String> {
    let own = outline
        .headings
        .get(so_far.len())
        .map_or("", String::as_str);
    let mut blocks = blocks(&chatter::strip_possible_chatter(answer));
    drop_names(&mut blocks, &[own, &outline.title]);
    keep_own_part(&mut blocks, own, outline);
    drop_lone_heading(&mut blocks);
    drop_alternative_version(&mut blocks);
    blocks
        .iter_mut()
        .for_each(|block| drop_own_name(block, own));
    for block in &mut blocks {
        if let Block::Heading { level, .. } = block {
            // The post's own headings are of the second level.
            *level = if *level == 0 { 0 } else { (*level).max(3) };
        }
    }
    let names = outline.headings.iter().chain([&outline.title]);
    clean_body(blocks, SeenSentences::new(so_far, names), cut_short)
}

/// The body that the blocks make, if they make one.
pub(super) fn clean_body(
    mut blocks: Vec<Block>,
    mut said: SeenSentences,
    cut_short: bool,
) -> Option<String> {
    blocks.iter_mut().for_each(drop_label);
    cut_back(&mut blocks, cut_short);
    for block in &mut blocks {
        drop_repeated_sentences(block, &mut said);
    }
    blocks.retain(|block| !is_blank(block));
    drop_lead_ins(&mut blocks);
    is_enough(&blocks).then(|| join(&blocks))
}

/// Without the section's heading and the post's title at the beginning, with
/// marks or without.
pub(super) fn drop_names(blocks: &mut Vec<Block>, names: &[&str]) {
    let is_name = |text: &str| names.iter().any(|name| heading::is_same(text, name));
    loop {
        match blocks.first_mut() {
            Some(Block::Heading { text, .. }) if is_name(text) || text.is_empty() => {
                blocks.remove(0);
            }
            Some(Block::Prose(text)) => {
                let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
                let label = line.split_once(':').is_some_and(|(label, rest)| {
                    heading::is_label(&heading::clean(label))
                        && rest.len() < 150
                        && !sentences::is_ended(rest)
                });
                if !is_name(line) && !label {
                    return;
                }
                *text = rest.to_owned();
                if text.is_empty() {
                    blocks.remove(0);
                }
            }
            _ => return,
        }
    }
}

/// Without what belongs to other sections: a small model that is done with its
/// own goes on with the next.
fn keep_own_part(blocks: &mut Vec<Block>, own: &str, outline: &Outline) {
    let is_other = |text: &str| {
        outline
            .headings
            .iter()
            .any(|other| heading::is_same(text, other))
            && !heading::is_same(text, own)
    };
    let next = blocks
        .iter()
        .position(|block| matches!(block, Block::Heading { text, .. } if is_other(text)));
    match next {
        Some(next) if is_enough(&blocks[..next]) => blocks.truncate(next),
        _ => {}
    }
    let unwanted = |text: &str| {
        is_other(text)
            || heading::is_same(text, own)
            || heading::is_same(text, &outline.title)
            || heading::is_empty(text)
    };
    blocks.retain(|block| !matches!(block, Block::Heading { text, .. } if unwanted(text)));
}

/// Without the section's heading as the first line of a later paragraph.
fn drop_own_name(block: &mut Block, own: &str) {
    if let Block::Prose(text) = block
        && let Some((line, rest)) = text.split_once('\n')
        && heading::is_same(line, own)
    {
        *text = rest.to_owned();
    }
}

/// Without what a model adds when it thinks that it could do better.
fn drop_alternative_version(blocks: &mut Vec<Block>) {
    let second = |block: &Block| matches!(block, Block::Prose(text) if chatter::is_alternative_version(text));
    if let Some(at) = blocks.iter().position(second)
        && is_enough(&blocks[..at])
    {
        blocks.truncate(at);
    }
}

/// A single heading at the very top, or one as high as the section's own, is
/// another name for the section.
fn drop_lone_heading(blocks: &mut Vec<Block>) {
    let is_heading = |block: &Block| matches!(block, Block::Heading { .. });
    while matches!(blocks.first(), Some(Block::Heading { level: 1 | 2, .. })) {
        blocks.remove(0);
    }
    if blocks.first().is_some_and(is_heading)
        && blocks.iter().filter(|block| is_heading(block)).count() == 1
    {
        blocks.remove(0);
    }
}

/// Without "Section 2:" before a paragraph.
fn drop_label(block: &mut Block) {
    if let Block::Prose(text) = block
        && let Some((label, rest)) = text.split_once(':')
        && label.len() < 30
        && heading::is_label(&heading::clean(label))
    {
        *text = rest.trim_start_matches(['*', '_']).trim().to_owned();
    }
}

/// Without the sentence, the item or the code that was not finished.
fn cut_back(blocks: &mut Vec<Block>, cut_short: bool) {
    match blocks.last_mut() {
        Some(Block::Code { closed: false, .. } | Block::Heading { .. }) => {
            blocks.pop();
        }
        // A model that is done by itself leaves no half sentence, or but one.
        Some(Block::Prose(text)) if cut_short || is_broken_off(text) => {
            *text = close_open_marks(sentences::whole(text))
        }
        Some(Block::Items(items)) if cut_short => {
            if let Some(last) = items.pop() {
                let mark = markdown_blocks::mark_of(&last);
                let kept = close_open_marks(sentences::whole(&last[mark..]));
                if !kept.is_empty() {
                    items.push(last[..mark].to_owned() + &kept);
                }
            }
        }
        Some(Block::Lines(lines)) if cut_short => {
            lines.pop();
        }
        _ => {}
    }
}

/// Whether a text that its author holds for finished ends amid a sentence.
fn is_broken_off(text: &str) -> bool {
    let ends_open =
        text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, ',' | ';' | '-' | '–' | '('));
    ends_open && sentences::count(text) > 0
}

/// The text with its last `**` taken out if that is left open.
fn close_open_marks(text: &str) -> String {
    if text.matches("**").count().is_multiple_of(2) {
        return text.to_owned();
    }
    text.rsplit_once("**").map_or_else(
        || text.to_owned(),
        |(before, behind)| format!("{before}{behind}"),
    )
}

/// Without the sentences that were said before, run in circles, or are not
/// meant for readers.
fn drop_repeated_sentences(block: &mut Block, said: &mut SeenSentences) {
    match block {
        Block::Prose(text) => *text = unquoted(&said.new_in(text)).to_owned(),
        Block::Items(items) => {
            for item in items.iter_mut() {
                let mark = markdown_blocks::mark_of(item);
                let kept = said.new_in(&item[mark..]);
                *item = if kept.is_empty() {
                    kept
                } else {
                    item[..mark].to_owned() + &kept
                };
            }
            items.retain(|item| !item.is_empty());
        }
        _ => {}
    }
}

/// Without headings and "here are some tips:" that nothing follows.
fn drop_lead_ins(blocks: &mut Vec<Block>) {
    let mut at = blocks.len();
    while at > 0 {
        at -= 1;
        let is_last = at + 1 == blocks.len();
        let goes_on = !is_last && !matches!(blocks[at + 1], Block::Heading { .. });
        match &mut blocks[at] {
            Block::Heading { .. } if !goes_on => {
                blocks.remove(at);
            }
            Block::Prose(text) if is_last && text.ends_with(':') => {
                *text = sentences::whole(text).to_owned();
                if text.is_empty() {
                    blocks.remove(at);
                }
            }
            _ => {}
        }
    }
}

fn is_blank(block: &Block) -> bool {
    match block {
        Block::Heading { text, .. } | Block::Prose(text) => sentences::normalized(text).is_empty(),
        Block::Code { text, .. } => text.is_empty(),
        Block::Items(lines) | Block::Lines(lines) => lines.is_empty(),
    }
}

/// A paragraph without a quotation mark that has no other, and without those
/// around the whole: small models quote themselves.
fn unquoted(text: &str) -> &str {
    const QUOTES: &[char] = &['"', '“', '”'];
    let begins = text.starts_with(QUOTES);
    let ends = text.ends_with(QUOTES);
    match text.matches(QUOTES).count() {
        1 if begins || ends => text.trim_matches(QUOTES),
        2 if begins && ends && sentences::count(text) > 1 => text.trim_matches(QUOTES),
        _ => text,
    }
}

/// Whether there is enough to read.
fn is_enough(blocks: &[Block]) -> bool {
    let mut words = 0;
    let mut found = 0;
    for block in blocks {
        match block {
            Block::Prose(text) => {
                words += count_words(text);
                found += sentences::count(text);
            }
            Block::Items(lines) | Block::Lines(lines) => {
                words += lines.iter().map(|line| count_words(line)).sum::<usize>();
                found += lines.len();
            }
            Block::Heading { .. } | Block::Code { .. } => {}
        }
    }
    words >= MIN_WORDS && found >= MIN_SENTENCES
}

/// Words; of scripts without spaces, every two characters are one.
fn count_words(text: &str) -> usize {
    let without_spaces = |c: &char| matches!(*c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}');
    text.split_whitespace().count() + text.chars().filter(without_spaces).count() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "Tomatoes need a lot of sun and a deep pot to grow well. \
        Give them water every morning, and more of it on hot days.";

    fn outline() -> Outline {
        Outline {
            title: "Tomatoes Up High".into(),
            headings: ["Choosing the Pots", "Watering Well", "The Harvest"]
                .map(String::from)
                .to_vec(),
        }
    }

    fn read(answer: &str) -> Option<String> {
        read_section(&outline(), &[], answer, false)
    }

    fn read_cut(answer: &str) -> Option<String> {
        read_section(&outline(), &[], answer, true)
    }

    #[test]
    fn nothing_is_left_around_the_text() {
        for answer in [
            format!("Sure! Here is the section:\n\n{BODY}"),
            format!("Certainly! {BODY}"),
            format!(
                "Here's the section:\n\n{BODY}\n\nI hope this helps! Let me know if you want changes."
            ),
            format!("{BODY}\n\n---\n\n(Word count: 23)"),
            format!("{BODY} Feel free to ask if you have any questions!"),
            format!("```markdown\n{BODY}\n```"),
            format!(
                "Here is the section:\n\n```\n## Choosing the Pots\n\n{BODY}\n```\n\nLet me know what you think."
            ),
            format!("\"{BODY}\""),
            format!("\"{BODY}"),
            format!("## Choosing the Pots\n\n{BODY}"),
            format!("**Choosing the Pots**\n\n{BODY}"),
            format!("Choosing the Pots:\n\n{BODY}"),
            format!("# Tomatoes Up High\n\n## 1. Choosing the Pots\n\n{BODY}"),
            format!("Title: Tomatoes Up High\nSection 1: Choosing the Pots\n\n{BODY}"),
            format!("### A Word on Pots\n\n{BODY}"),
            format!("Section body: {BODY}"),
            format!("Choosing the Pots:\n{BODY}"),
            format!("{BODY}\n\nWritten by [Your Name]"),
            format!("As an AI language model, I have no balcony. {BODY}"),
            format!("{BODY}\n\nIn this blog post, I rephrased \"Choosing the Pots\"."),
            format!("{BODY}\n\n(This is just two paragraphs)"),
            format!(
                "{BODY}\n\nHere is the section rewritten in plain text:\n\nTomatoes need sun. They like water."
            ),
            format!("\u{feff}{}\0", BODY.replace("sun", "s\u{8}un")),
        ] {
            assert_eq!(read(&answer).as_deref(), Some(BODY), "{answer}");
        }
    }

    #[test]
    fn text_that_looks_like_chatter_stays() {
        for text in [
            "Sure footing matters when you carry pots up the stairs. Here is where most people go wrong, and it hurts their backs.",
            "Great tomatoes begin with great soil, and great soil is alive. Let me tell you how I found that out in my first summer.",
            "Use a note such as `pots[0]`, or see [the guide](https://example.com). Both of them will tell you how large a pot has to be.",
        ] {
            assert_eq!(read(text).as_deref(), Some(text));
        }
    }

    #[test]
    fn headings_in_a_section_stay_below_its_own() {
        let answer = format!(
            "{BODY}\n\n# Clay\n\nClay breathes.\n\n#### Plastic\n\nPlastic is light.\n\n## In Short"
        );
        let clean =
            format!("{BODY}\n\n### Clay\n\nClay breathes.\n\n#### Plastic\n\nPlastic is light.");
        assert_eq!(read(&answer), Some(clean));
    }

    #[test]
    fn a_section_ends_where_the_next_begins() {
        assert_eq!(
            read(&format!("{BODY}\n\n**Watering Well**\n\nWater is good.")).as_deref(),
            Some(BODY)
        );
    }

    #[test]
    fn what_was_cut_short_ends_with_a_whole_sentence() {
        for rest in [
            "And then the",
            "\n\nAnother thing is that the",
            "\n\n```rust\nfn main() {",
            "\n\n### More",
            "\n\nHere are three tips:\n\n1. Buy",
        ] {
            assert_eq!(
                read_cut(&format!("{BODY} {rest}")).as_deref(),
                Some(BODY),
                "{rest}"
            );
        }
        let list = format!("{BODY}\n\n- Clay pots.\n- Old buckets");
        assert_eq!(
            read_cut(&format!("{list}\n- Bags of s")),
            Some(list.clone())
        );
        assert_eq!(
            read_cut(&format!("{BODY}\n\n1. **Clay:** It breathes. It is hea")),
            Some(format!("{BODY}\n\n1. **Clay:** It breathes."))
        );
    }

    #[test]
    fn what_is_complete_is_not_cut() {
        for end in [
            "\n\n- Clay pots\n- Old buckets",
            "\n\n```rust\nfn main() {}\n```",
            " It is about 12.",
            "\n\n| Pot | Size |\n| --- | --- |\n| Clay | 20 |",
        ] {
            let text = format!("{BODY}{end}");
            assert_eq!(read(&text), Some(text.clone()));
        }
    }

    #[test]
    fn what_is_said_again_is_left_out() {
        assert_eq!(
            read(&format!("{BODY} {BODY}\n\n{BODY}")).as_deref(),
            Some(BODY)
        );
        assert_eq!(
            read(&format!(
                "{BODY} The pot, the pot, the pot, the pot, the pot is red."
            ))
            .as_deref(),
            Some(BODY)
        );
        assert_eq!(read_section(&outline(), &[BODY.into()], BODY, false), None);
    }

    #[test]
    fn an_answer_without_a_body_is_none() {
        for answer in [
            "",
            "<think>I should write about",
            "Sure! Here is the section:",
            "## Choosing the Pots",
            "Pots are good.",
            "I'm sorry, but I can't help with that.",
            "```rust\nfn main() {}\n```",
        ] {
            assert_eq!(read(answer), None, "{answer}");
        }
    }

    #[test]
    fn scripts_without_spaces_count_by_characters() {
        let text = "西红柿需要充足的阳光和深一点的花盆才能长得好。每天早上都要浇水，天气炎热的时候还要多浇一些水。";
        assert_eq!(read_cut(&format!("{text}然后")).as_deref(), Some(text));
        assert_eq!(read("西红柿很好。很好吃。"), None);
        let thai = "มะเขือเทศต้องการแสงแดดมากและกระถางลึกจึงจะโตได้ดี รดน้ำทุกเช้าและรดมากขึ้นในวันที่อากาศร้อน";
        assert_eq!(read_cut(&format!("{thai} จาก")).as_deref(), Some(thai));
    }
}

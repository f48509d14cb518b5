//! The body of a section, or of a whole post: what is left of an answer when
//! all is gone that no reader should see.

use super::blocks::{self, Block, blocks, join};
use super::said::Said;
use super::sentences;
use super::{Outline, heading, peel};

/// A body with fewer words is none.
const FEWEST_WORDS: usize = 20;
const FEWEST_SENTENCES: usize = 2;

/// The body of the section that comes after those written `so_far`, clean
/// Markdown without its heading; `None` when the answer has no body, and it is
/// worth asking once more. `cut_short` says that the answer ends because its
/// tokens were used up.
pub fn read_section(
    outline: &Outline,
    so_far: &[String],
    answer: &str,
    cut_short: bool,
) -> Option<String> {
    let own = outline
        .headings
        .get(so_far.len())
        .map_or("", String::as_str);
    let mut blocks = blocks(&peel::text_in(answer));
    drop_names(&mut blocks, &[own, &outline.title]);
    keep_own_part(&mut blocks, own, outline);
    drop_lone_heading(&mut blocks);
    for block in &mut blocks {
        if let Block::Heading { level, .. } = block {
            // The post's own headings are of the second level.
            *level = if *level == 0 { 0 } else { (*level).max(3) };
        }
    }
    let names = outline.headings.iter().chain([&outline.title]);
    finish(blocks, Said::new(so_far, names), cut_short)
}

/// The body that the blocks make, if they make one.
pub(super) fn finish(mut blocks: Vec<Block>, mut said: Said, cut_short: bool) -> Option<String> {
    blocks.iter_mut().for_each(drop_label);
    cut_back(&mut blocks, cut_short);
    for block in &mut blocks {
        say_once(block, &mut said);
    }
    blocks.retain(|block| !is_blank(block));
    drop_lead_ins(&mut blocks);
    is_enough(&blocks).then(|| join(&blocks))
}

/// Without the section's heading and the post's title at the beginning, with
/// marks or without.
pub(super) fn drop_names(blocks: &mut Vec<Block>, names: &[&str]) {
    let is_name = |text: &str| names.iter().any(|name| heading::same(text, name));
    loop {
        match blocks.first_mut() {
            Some(Block::Heading { text, level })
                if *level == 1 || *level == 2 || is_name(text) || text.is_empty() =>
            {
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
            .any(|other| heading::same(text, other))
            && !heading::same(text, own)
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
            || heading::same(text, own)
            || heading::same(text, &outline.title)
            || heading::is_empty(text)
    };
    blocks.retain(|block| !matches!(block, Block::Heading { text, .. } if unwanted(text)));
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
            *text = closed(sentences::whole(text))
        }
        Some(Block::Items(items)) if cut_short => {
            if let Some(last) = items.pop() {
                let mark = blocks::mark_of(&last);
                let kept = closed(sentences::whole(&last[mark..]));
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
fn closed(text: &str) -> String {
    if text.matches("**").count() % 2 == 0 {
        return text.to_owned();
    }
    text.rsplit_once("**").map_or_else(
        || text.to_owned(),
        |(before, behind)| format!("{before}{behind}"),
    )
}

/// Without the sentences that were said before, run in circles, or are not
/// meant for readers.
fn say_once(block: &mut Block, said: &mut Said) {
    match block {
        Block::Prose(text) => *text = said.new_in(text),
        Block::Items(items) => {
            for item in items.iter_mut() {
                let mark = blocks::mark_of(item);
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
        Block::Heading { text, .. } | Block::Prose(text) => sentences::letters(text).is_empty(),
        Block::Code { text, .. } => text.is_empty(),
        Block::Items(lines) | Block::Lines(lines) => lines.is_empty(),
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
    words >= FEWEST_WORDS && found >= FEWEST_SENTENCES
}

/// Words; of scripts without spaces, every two characters are one.
fn count_words(text: &str) -> usize {
    let without_spaces = |c: &char| matches!(*c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}');
    text.split_whitespace().count() + text.chars().filter(without_spaces).count() / 2
}

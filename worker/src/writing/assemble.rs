//! The whole post.

use super::blocks::{Block, blocks};
use super::clean::{drop_names, finish};
use super::outline::clean_title;
use super::said::Said;
use super::{Outline, peel, plain};

/// The post: its title, and its content as Markdown with the sections under
/// their headings, without the title.
pub fn assemble(outline: &Outline, sections: &[String]) -> (String, String) {
    let sections: Vec<String> = outline
        .headings
        .iter()
        .zip(sections)
        .map(|(heading, body)| format!("## {heading}\n\n{}\n", body.trim()))
        .collect();
    (outline.title.clone(), sections.join("\n"))
}

/// The title and content of a post that an agent wrote in one go; `None` when
/// there is no text. The title is the one it named, else the heading that its
/// text begins with, else the topic.
pub fn read_post(topic: &str, title: Option<String>, text: &str) -> Option<(String, String)> {
    let mut blocks = blocks(&peel::text_in(text));
    let above = match blocks.first() {
        Some(Block::Heading { level: 0 | 1, text }) => Some(text.clone()),
        Some(Block::Prose(text)) => {
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("Title:").map(str::to_owned)
        }
        _ => None,
    };
    let title = [title, above]
        .into_iter()
        .flatten()
        .find_map(|title| clean_title(&title, topic));
    let title = title.unwrap_or_else(|| plain::title(topic));
    if matches!(blocks.first(), Some(Block::Heading { level: 1, .. })) {
        blocks.remove(0);
    }
    drop_names(&mut blocks, &[&title]);
    let content = finish(blocks, Said::new(&[], [&title]), false)?;
    Some((title, content + "\n"))
}

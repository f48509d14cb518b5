//! The whole post.

use super::Outline;

/// The post: its title, and its content as Markdown with the sections under
/// their headings, without the title.
pub fn assemble(outline: &Outline, sections: &[String]) -> (String, String) {
    let sections: Vec<String> = outline
        .headings
        .iter()
        .zip(sections)
        .map(|(heading, body)| format!("## {heading}\n\n{body}\n"))
        .collect();
    (outline.title.clone(), sections.join("\n"))
}

/// The title and content of a post that an agent wrote in one go; `None` when
/// there is no text. The title is the one it named, else the heading that its
/// text begins with, else the topic.
pub fn read_post(topic: &str, title: Option<String>, text: &str) -> Option<(String, String)> {
    let text = text.trim();
    (!text.is_empty()).then(|| (title.unwrap_or_else(|| topic.to_owned()), text.to_owned()))
}

//! The whole post.

use super::cleanup::deduplicate::SeenSentences;
use super::cleanup::markdown_blocks::{Block, blocks};
use super::outline::clean_title;
use super::section::{clean_body, drop_names};
use super::{Outline, cleanup::strip_chatter, fallback_outline};

/// The post: its title, and its content as Markdown with the sections under
/// their headings, without the title.
pub(super) fn assemble(outline: &Outline, sections: &[String]) -> (String, String) {
    let sections: Vec<String> = outline
        .headings
        .iter()
        .zip(sections)
        .map(|(heading, body)| format!("## {heading}\n\n{}\n", body.trim()))
        .collect();
    (outline.title.clone(), sections.join("\n"))
}

/// The title and content of a post that an agent wrote in one go; `None` when
/// there is not a word in it.
///
/// An agent that names a title knows what a post is, so its text is taken as it
/// stands. Otherwise it may be anything that a model says: it is cleaned, and
/// the title is the heading that it begins with, or else the topic.
pub(super) fn read_post(
    topic: &str,
    title: Option<String>,
    text: &str,
) -> Option<(String, String)> {
    if !text.contains(char::is_alphanumeric) {
        return None;
    }
    match title.and_then(|title| clean_title(&title, topic)) {
        Some(title) => {
            let text = text.trim();
            let body = text.strip_prefix(&format!("# {title}\n")).unwrap_or(text);
            Some((title, format!("{}\n", body.trim())))
        }
        None => Some(read_text(topic, text)),
    }
}

fn read_text(topic: &str, text: &str) -> (String, String) {
    let mut blocks = blocks(&strip_chatter::strip_chatter(text));
    let above = match blocks.first() {
        Some(Block::Heading { level: 0 | 1, text }) => Some(text.as_str()),
        Some(Block::Prose(text)) => {
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("Title:")
        }
        _ => None,
    };
    let title = above.and_then(|title| clean_title(title, topic));
    let title = title.unwrap_or_else(|| fallback_outline::title(topic));
    if matches!(blocks.first(), Some(Block::Heading { level: 1, .. })) {
        blocks.remove(0);
    }
    drop_names(&mut blocks, &[&title]);
    // What is too short to be cleaned may be just what was wanted.
    let content = clean_body(blocks, SeenSentences::new(&[], [&title]), false);
    let content = content.unwrap_or_else(|| text.trim().to_owned());
    (title, content + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "Tomatoes need a lot of sun and a deep pot to grow well. \
        Give them water every morning, and more of it on hot days.";

    #[test]
    fn sections_stand_under_their_headings() {
        let outline = Outline {
            title: "Tomatoes".into(),
            headings: vec!["Sun".into(), "Water".into()],
        };
        let post = assemble(&outline, &["Much of it.".into(), "Even more.\n".into()]);
        assert_eq!(
            post,
            (
                "Tomatoes".into(),
                "## Sun\n\nMuch of it.\n\n## Water\n\nEven more.\n".into()
            )
        );
    }

    #[test]
    fn a_whole_post_has_the_title_that_it_names() {
        let titled = |title: Option<&str>, text: &str| {
            read_post("growing tomatoes", title.map(str::to_owned), text)
        };
        let post = |title: &str| Some((title.to_owned(), format!("{BODY}\n")));
        assert_eq!(titled(Some("**Red Gold**"), BODY), post("Red Gold"));
        assert_eq!(
            titled(
                None,
                &format!("Sure! Here is your post:\n\n# Red Gold\n\n{BODY}\n\nI hope this helps!")
            ),
            post("Red Gold")
        );
        assert_eq!(
            titled(Some("Red Gold"), &format!("# Red Gold\n\n{BODY}")),
            post("Red Gold")
        );
        assert_eq!(titled(None, BODY), post("Growing tomatoes"));
        assert_eq!(
            titled(Some(" "), &format!("Title: Red Gold\n\n{BODY}")),
            post("Red Gold")
        );
        assert_eq!(titled(Some("Red Gold"), " \n"), None);
    }

    #[test]
    fn a_post_that_an_agent_hands_over_whole_is_taken_as_it_stands() {
        let text = "In this blog post: one short sentence";
        let whole = read_post("Pots", Some("Pots".into()), text);
        assert_eq!(whole, Some(("Pots".into(), format!("{text}\n"))));
        let untitled = read_post("Pots", None, "A short one.");
        assert_eq!(untitled, Some(("Pots".into(), "A short one.\n".into())));
    }

    #[test]
    fn the_headings_of_a_whole_post_stay() {
        let text = format!("## Sun\n\n{BODY}\n\n## Water\n\nMornings are best for it.");
        assert_eq!(
            read_post("Tomatoes", None, &text),
            Some(("Tomatoes".into(), format!("{text}\n")))
        );
    }
}

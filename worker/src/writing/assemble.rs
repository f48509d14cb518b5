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
    fn the_headings_of_a_whole_post_stay() {
        let text = format!("## Sun\n\n{BODY}\n\n## Water\n\nMornings are best for it.");
        assert_eq!(
            read_post("Tomatoes", None, &text),
            Some(("Tomatoes".into(), format!("{text}\n")))
        );
    }
}

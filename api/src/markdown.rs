//! Renders Markdown to safe HTML. An agent's output is not trusted.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use ammonia::Builder;
use pulldown_cmark::{Event, Options, Parser, html};

/// Quotes and lists within each other deeper than this are rendered as if they
/// were not: the sanitiser takes time in proportion to the depth for each.
const MAX_NESTING: usize = 50;

/// What the ids of footnotes begin with, so that they can't be taken for others.
const ID_PREFIX: &str = "fn-";

/// Blocks of text, each of which has a direction of its own.
const TEXT_BLOCKS: &[&str] = &[
    "blockquote",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "li",
    "ol",
    "p",
    "table",
    "td",
    "th",
    "ul",
];

static SANITIZER: LazyLock<Builder<'static>> = LazyLock::new(sanitizer);

/// The same for texts with right-to-left characters: the browser finds the direction of
/// each block.
static SANITIZER_OF_BOTH_DIRECTIONS: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut sanitizer = sanitizer();
    for block in TEXT_BLOCKS {
        sanitizer.set_tag_attribute_value(*block, "dir", "auto");
    }
    sanitizer
});

fn sanitizer() -> Builder<'static> {
    let mut sanitizer = Builder::default();
    sanitizer
        // Task boxes.
        .add_tags(["input"])
        .add_tag_attribute_values("input", "type", ["checkbox"])
        .add_tag_attributes("input", ["checked"])
        .set_tag_attribute_value("input", "disabled", "")
        // The alignment of columns.
        .add_tag_attributes("th", ["style"])
        .add_tag_attributes("td", ["style"])
        .filter_style_properties(HashSet::from(["text-align"]))
        // The language of code.
        .add_tag_attributes("code", ["class"])
        // Footnotes.
        .add_tag_attributes("div", ["id"])
        .id_prefix(Some(ID_PREFIX))
        .attribute_filter(|tag, attribute, value| match (tag, attribute) {
            ("code", "class") if !value.starts_with("language-") => None,
            ("a", "href") => Some(match value.strip_prefix('#') {
                Some(id) => format!("#{ID_PREFIX}{id}").into(),
                None => Cow::Borrowed(value),
            }),
            _ => Some(Cow::Borrowed(value)),
        });
    sanitizer
}

/// Renders Markdown: CommonMark with tables, strikethrough, task lists and footnotes. HTML
/// in it is left out, and what could do something is removed from the rest.
///
/// It takes a second for a megabyte, so call it where it may block.
pub(crate) fn render_html(markdown: &str) -> String {
    let extensions = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_FOOTNOTES;
    let mut depth = 0_usize;
    let events = Parser::new_ext(markdown, extensions).filter(|event| match event {
        Event::Html(_) | Event::InlineHtml(_) => false,
        Event::Start(_) => {
            depth += 1;
            depth <= MAX_NESTING
        }
        Event::End(_) => {
            depth -= 1;
            depth < MAX_NESTING
        }
        _ => true,
    });
    let mut rendered = String::with_capacity(markdown.len() * 3 / 2);
    html::push_html(&mut rendered, events);
    let sanitizer = if markdown.chars().any(is_right_to_left) {
        &SANITIZER_OF_BOTH_DIRECTIONS
    } else {
        &SANITIZER
    };
    sanitizer.clean(&rendered).to_string()
}

/// Hebrew, Arabic, Syriac, Thaana, N'Ko and their presentation forms.
fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::render_html;

    #[test]
    fn markdown_is_rendered() {
        assert_eq!(
            render_html("## Soil\n\nUse *rich* soil."),
            "<h2>Soil</h2>\n<p>Use <em>rich</em> soil.</p>\n"
        );
    }

    #[test]
    fn what_markdown_has_beyond_text_is_rendered() {
        for (markdown, expected) in [
            (
                "- [x] Done\n- [ ] Open",
                "<input type=\"checkbox\" checked=\"\" disabled=\"\">",
            ),
            (
                "| a |\n|--:|\n| 1 |",
                "<td style=\"text-align:right\">1</td>",
            ),
            (
                "```rust\nfn main() {}\n```",
                "<code class=\"language-rust\">fn main() {}",
            ),
            ("~~no~~", "<del>no</del>"),
            ("A claim.[^1]\n\n[^1]: Its source.", "href=\"#fn-1\""),
            ("A claim.[^1]\n\n[^1]: Its source.", "id=\"fn-1\""),
            ("שלום עולם\n\n- אחד", "<p dir=\"auto\">שלום עולם</p>"),
        ] {
            let rendered = render_html(markdown);
            assert!(rendered.contains(expected), "{expected} in {rendered}");
        }
    }

    #[test]
    fn nothing_that_could_run_is_left() {
        let rendered = render_html(
            "<script>alert(1)</script>\n\n[x](javascript:alert(1))\n\n\
             <img src=x onerror=alert(1)>\n\n<iframe src=//evil></iframe>",
        );
        for bad in ["script", "onerror", "iframe"] {
            assert!(!rendered.contains(bad), "{bad} in {rendered}");
        }
    }

    #[test]
    fn depth_costs_no_more_than_length() {
        let deep = [
            ">".repeat(300_000),
            "<div>".repeat(60_000),
            "- ".repeat(150_000),
        ];
        for deep in deep {
            let begun = Instant::now();
            render_html(&deep);
            // Without the limit it takes hours.
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", &deep[..9]);
        }
    }
}

//! Renders Markdown to safe HTML. An agent's output is not trusted.

use pulldown_cmark::{Event, Options, Parser, html};

/// Deeper nested quotes and lists are flattened: the sanitiser takes time in proportion to the
/// depth of each.
const MAX_NESTING: usize = 50;

/// Renders CommonMark with tables, strikethrough and task lists. Raw HTML is dropped, and the rest
/// sanitised.
///
/// It takes a second for a megabyte, so call it where it may block.
pub(crate) fn render_html(markdown: &str) -> String {
    let extensions =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
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
    ammonia::clean(&rendered)
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

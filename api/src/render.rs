//! Markdown to HTML that is safe to show. What an agent writes is not ours.

use pulldown_cmark::{Options, Parser, html};

/// Renders Markdown (CommonMark with tables, strikethrough and task lists) and
/// removes all HTML that could do something.
pub fn html(markdown: &str) -> String {
    let extensions =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut rendered = String::with_capacity(markdown.len() * 3 / 2);
    html::push_html(&mut rendered, Parser::new_ext(markdown, extensions));
    ammonia::clean(&rendered)
}

#[cfg(test)]
mod tests {
    use super::html;

    #[test]
    fn markdown_is_rendered() {
        assert_eq!(
            html("## Soil\n\nUse *rich* soil."),
            "<h2>Soil</h2>\n<p>Use <em>rich</em> soil.</p>\n"
        );
    }

    #[test]
    fn nothing_that_could_run_is_left() {
        let rendered = html(
            "<script>alert(1)</script>\n\n[x](javascript:alert(1))\n\n<img src=x onerror=alert(1)>\n\n<iframe src=//evil></iframe>",
        );
        for bad in ["script", "onerror", "iframe"] {
            assert!(!rendered.contains(bad), "{bad} in {rendered}");
        }
    }
}

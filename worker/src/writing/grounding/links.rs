//! Links and addresses in the Markdown of a section. A model makes them up, or has them from a source
//! that wants them in posts: only those stay that the user has named.

use std::ops::Range;

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use super::citations::options;

/// Takes the addresses out that a model has written, but those that `allowed` has: a link becomes its
/// text, an image goes. Returns the text and the addresses.
pub(super) fn without_addresses(body: &str, allowed: &str) -> (String, Vec<String>) {
    let mut cuts: Vec<(Range<usize>, String)> = Vec::new();
    let mut addresses = Vec::new();
    // Links and images that have not ended, which may be in one another: where each stands, and its
    // text, if it is a link; None for one that stays.
    let mut open: Vec<Option<(Range<usize>, String)>> = Vec::new();
    let mut code = Vec::new();
    for (event, range) in Parser::new_ext(body, options()).into_offset_iter() {
        if let Event::Code(_) | Event::Start(Tag::CodeBlock(_)) = event {
            code.push(range.clone());
        }
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                let is_own = !is_allowed(&dest_url, allowed);
                if is_own {
                    addresses.push(dest_url.to_string());
                }
                open.push(is_own.then(|| (range, String::new())));
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(Some((_, inside))) = open.last_mut() {
                    *inside += &text;
                }
            }
            Event::End(end @ (TagEnd::Link | TagEnd::Image)) => {
                if let Some(Some((range, text))) = open.pop() {
                    let is_gone = end == TagEnd::Image || is_address(&text);
                    cuts.push((range, if is_gone { String::new() } else { text }));
                }
            }
            // An element of HTML may lead anywhere.
            Event::Html(html) | Event::InlineHtml(html) if has_address(&html) => {
                addresses.push(html.trim().to_owned());
                cuts.push((range, String::new()));
            }
            _ => {}
        }
    }
    for range in bare_addresses(body) {
        let is_known = cuts
            .iter()
            .any(|(cut, _)| cut.start <= range.start && range.end <= cut.end);
        let is_code = code.iter().any(|code| code.contains(&range.start));
        if is_known || is_code || is_allowed(&body[range.clone()], allowed) {
            continue;
        }
        addresses.push(body[range.clone()].to_owned());
        cuts.push((range, String::new()));
    }
    cuts.sort_by_key(|(range, _)| range.start);
    let mut text = String::new();
    let mut from = 0;
    for (range, instead) in cuts.into_iter() {
        if range.start < from {
            continue;
        }
        text += &body[from..range.start];
        text += &instead;
        from = range.end;
    }
    text += &body[from..];
    (text, addresses)
}

/// Whether the user has named the address.
fn is_allowed(address: &str, allowed: &str) -> bool {
    address.starts_with('#') || address.len() > 8 && allowed.contains(address.trim_end_matches('/'))
}

const SCHEMES: [&str; 5] = ["http://", "https://", "ftp://", "mailto:", "www."];

fn is_address(text: &str) -> bool {
    let text = text.trim();
    SCHEMES.iter().any(|scheme| text.starts_with(scheme)) && !text.contains(char::is_whitespace)
}

fn has_address(html: &str) -> bool {
    let small = html.to_lowercase();
    ["href", "src", "action", "url("]
        .iter()
        .any(|part| small.contains(part))
        || SCHEMES.iter().any(|scheme| small.contains(scheme))
}

/// Addresses that stand in a text as such.
fn bare_addresses(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    let small = text.to_ascii_lowercase();
    while let Some(at) = SCHEMES
        .iter()
        .filter_map(|scheme| small[from..].find(scheme))
        .min()
        .map(|at| at + from)
    {
        let rest = &text[at..];
        let length = rest
            .find(|c: char| c.is_whitespace() || "<>\"')]}|`".contains(c))
            .unwrap_or(rest.len());
        let address = rest[..length].trim_end_matches(['.', ',', ';', ':', '!', '?', '*', '_']);
        let starts_word = !text[..at].ends_with(char::is_alphanumeric);
        if starts_word && address.len() > 8 {
            found.push(at..at + address.len());
        }
        from = at + address.len().max(1);
        while !text.is_char_boundary(from) {
            from += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_models_own_are_taken_out() {
        for (body, expected, count) in [
            ("See [the guide](https://made.up/x).", "See the guide.", 1),
            ("See <https://made.up/x> there.", "See  there.", 1),
            (
                "See https://made.up/x, and www.made.up too.",
                "See , and  too.",
                2,
            ),
            (
                "![A pot](https://made.up/pot.png?d=secret) A pot.",
                " A pot.",
                1,
            ),
            ("[one][1]\n\n[1]: https://made.up", "one\n\n[1]: ", 2),
            (
                "Kept: https://own.example/a and [it](https://own.example/a).",
                "Kept: https://own.example/a and [it](https://own.example/a).",
                0,
            ),
            ("<a href='//evil'>x</a>", "x</a>", 1),
            (
                "[![A pot](https://made.up/pot.png)](https://made.up/x) grows.",
                " grows.",
                2,
            ),
            (
                "[it ![A pot](https://made.up/pot.png)](https://own.example/a)",
                "[it ](https://own.example/a)",
                1,
            ),
            ("`curl https://made.up`", "`curl https://made.up`", 0),
            ("`curl https://made.up", "`curl ", 1),
        ] {
            let (text, found) = without_addresses(body, "Mention https://own.example/a please.");
            assert_eq!((text.as_str(), found.len()), (expected, count), "{body}");
        }
    }
}

//! Markdown in blocks, as far as cleaning it needs to tell them apart.

use std::fmt;

use super::heading;

/// A piece of a text that stands by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// A heading; level 0 is a line in bold that serves as one.
    Heading {
        /// The number of its `#`.
        level: usize,
        /// Without the marks.
        text: String,
    },
    /// A paragraph.
    Prose(String),
    /// Lines that each begin with a list's mark, and what belongs to them.
    Items(Vec<String>),
    /// Code between fences, with them.
    Code {
        /// With its fences.
        text: String,
        /// Whether the last fence is there.
        closed: bool,
    },
    /// A table or a quotation, kept as it is.
    Lines(Vec<String>),
}

/// The text in its blocks. Rules are left out: we have headings.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut apart = true;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if trimmed.is_empty() || is_rule(trimmed) {
            apart = true;
            continue;
        }
        if let Some(fence) = fence(trimmed) {
            blocks.push(code(line, fence, &mut lines));
            apart = true;
            continue;
        }
        if let Some(heading) = heading_in(trimmed) {
            blocks.push(heading);
            apart = true;
            continue;
        }
        let last = if apart { None } else { blocks.last_mut() };
        match last {
            Some(Block::Items(items)) if is_item(trimmed) => items.push(line.trim_end().to_owned()),
            Some(Block::Items(items)) => {
                if let Some(item) = items.last_mut() {
                    *item += &format!("\n{}", line.trim_end());
                }
            }
            Some(Block::Lines(quoted)) => quoted.push(line.trim_end().to_owned()),
            Some(Block::Prose(prose)) if !is_item(trimmed) && !is_quoted(trimmed) => {
                *prose += &format!("\n{trimmed}")
            }
            _ if is_item(trimmed) => blocks.push(Block::Items(vec![line.trim_end().to_owned()])),
            _ if is_quoted(trimmed) => blocks.push(Block::Lines(vec![line.trim_end().to_owned()])),
            _ => blocks.push(Block::Prose(trimmed.to_owned())),
        }
        apart = false;
    }
    blocks
}

/// The blocks as text.
pub(super) fn join(blocks: &[Block]) -> String {
    blocks
        .iter()
        .map(Block::to_string)
        .collect::<Vec<_>>()
        .join("\n\n")
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Block::Heading { level: 0, text } => write!(f, "**{text}**"),
            Block::Heading { level, text } => write!(f, "{} {text}", "#".repeat(*level)),
            Block::Prose(text) | Block::Code { text, .. } => f.write_str(text),
            Block::Items(lines) | Block::Lines(lines) => f.write_str(&lines.join("\n")),
        }
    }
}

fn fence(line: &str) -> Option<&str> {
    ["```", "~~~"]
        .into_iter()
        .find(|fence| line.starts_with(fence))
}

fn code<'a>(first: &str, fence: &str, lines: &mut impl Iterator<Item = &'a str>) -> Block {
    let mut text = first.to_owned();
    for line in lines {
        text += &format!("\n{line}");
        if line.trim_start().starts_with(fence) {
            return Block::Code { text, closed: true };
        }
    }
    Block::Code {
        text,
        closed: false,
    }
}

fn heading_in(line: &str) -> Option<Block> {
    let level = line.chars().take_while(|c| *c == '#').count();
    let (level, text) = match level {
        1..=6 if line[level..].starts_with(' ') => (level, &line[level..]),
        1..=6 if line.len() == level => (level, ""),
        _ => (
            0,
            line.strip_prefix("**")?
                .trim_end_matches(':')
                .strip_suffix("**")?,
        ),
    };
    let is_bold_sentence = level == 0 && (text.contains("**") || text.len() > 100);
    (!is_bold_sentence).then(|| Block::Heading {
        level,
        text: heading::clean(text),
    })
}

fn is_rule(line: &str) -> bool {
    line.len() >= 3
        && ['-', '*', '_', '=']
            .into_iter()
            .any(|mark| line.chars().all(|c| c == mark || c == ' '))
}

fn is_quoted(line: &str) -> bool {
    line.starts_with(['>', '|'])
}

/// Whether the line begins with `-`, `*`, `+`, `•` or a number.
pub(super) fn is_item(line: &str) -> bool {
    mark_of(line) > 0
}

/// How long the mark at the line's start is, with its indentation and the
/// space behind it; 0 without one.
pub(super) fn mark_of(line: &str) -> usize {
    let text = line.trim_start();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let mark = match text.chars().next() {
        Some(mark @ ('-' | '*' | '+' | '•')) => mark.len_utf8(),
        Some(_) if (1..=3).contains(&digits) && text[digits..].starts_with(['.', ')']) => {
            digits + 1
        }
        _ => return 0,
    };
    let space = text[mark..].len() - text[mark..].trim_start().len();
    if space == 0 {
        0
    } else {
        line.len() - text.len() + mark + space
    }
}

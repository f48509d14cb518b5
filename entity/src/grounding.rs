//! How the citations of a post hold against its sources.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was checked when a text was written. The column `text_grounding` of a post has it as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounding {
    /// The citations, in the order of the text.
    pub citations: Vec<Citation>,
    /// How many sentences the text has.
    pub sentences: u32,
    /// How many of them cite a source, or did before it was found not to bear them.
    pub cited: u32,
    /// How many of them a source bears.
    pub supported: u32,
}

/// A sentence that names a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Citation {
    /// The number of the source.
    #[schema(minimum = 1, maximum = 1000)]
    pub number: u32,
    /// The section of the post, counted from 0.
    #[schema(minimum = 0, maximum = 1000)]
    pub section: u32,
    /// The sentence, as it stands in the post.
    pub sentence: String,
    /// The words of the source that bear it; null if it does not.
    pub quote: Option<String>,
    /// Where they begin in the source's text, in Unicode code points.
    #[schema(minimum = 0, maximum = 2147483647)]
    pub start: Option<u32>,
    /// Where they end.
    #[schema(minimum = 0, maximum = 2147483647)]
    pub end: Option<u32>,
    /// How well the source bears it.
    pub verdict: Verdict,
}

/// How a source bears a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CitationVerdict)]
pub enum Verdict {
    /// Word by word.
    Exact,
    /// In nearly the same words, with the same numbers, names, dates, quotations and negations.
    Close,
    /// In other words, as the model says that was asked about both.
    Judged,
    /// It does not: the citation was taken out of the text.
    Unsupported,
}

/// How each line of the list of sources begins, in which a post ends.
pub const LISTED: &str = "- \\[";

/// Whether the text of a section is the list of sources.
pub fn is_list_of_sources(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.lines().all(|line| line.starts_with(LISTED))
}

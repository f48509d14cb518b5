//! What was cut from a model's answers, or is doubtful in what it wrote.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A warning of a job. The column `warnings` has a JSON array of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = JobWarning)]
pub struct Warning {
    /// What kind of warning it is.
    pub code: WarningCode,
    /// The section that it is about, counted from 0; null if it is about the whole post.
    pub section: Option<u32>,
    /// What was cut, or the doubtful text, or what is wrong.
    pub text: String,
}

/// The kinds of warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = JobWarningCode)]
pub enum WarningCode {
    /// The model wrote the same again and again; all but the first was cut.
    Loop,
    /// Talk around the text was cut.
    Chatter,
    /// The end was cut, because a limit had broken it off.
    CutSentence,
    /// It stands in the post more than once, or was cut because it did.
    Repeated,
    /// It is not in the language that was asked for.
    WrongLanguage,
    /// The post is more than a quarter longer or shorter than asked for.
    Length,
    /// A source that there is not, or an address of the model's own, was taken out.
    InventedSource,
    /// Nothing in the sources has to do with the topic; the post was written without any.
    NoSources,
    /// The search of the web did not answer; the post was written without it.
    SearchFailed,
    /// The source that the sentence named does not bear it; it names none any more.
    UnsupportedCitation,
}

impl WarningCode {
    /// All of them.
    pub const ALL: [WarningCode; 10] = [
        WarningCode::Loop,
        WarningCode::Chatter,
        WarningCode::CutSentence,
        WarningCode::Repeated,
        WarningCode::WrongLanguage,
        WarningCode::Length,
        WarningCode::InventedSource,
        WarningCode::NoSources,
        WarningCode::SearchFailed,
        WarningCode::UnsupportedCitation,
    ];

    /// Its name in the contract and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            WarningCode::Loop => "loop",
            WarningCode::Chatter => "chatter",
            WarningCode::CutSentence => "cut_sentence",
            WarningCode::Repeated => "repeated",
            WarningCode::WrongLanguage => "wrong_language",
            WarningCode::Length => "length",
            WarningCode::InventedSource => "invented_source",
            WarningCode::NoSources => "no_sources",
            WarningCode::SearchFailed => "search_failed",
            WarningCode::UnsupportedCitation => "unsupported_citation",
        }
    }
}

impl Warning {
    /// A warning about a text, without white space around it.
    pub fn new(code: WarningCode, section: Option<u32>, text: &str) -> Self {
        Warning {
            code,
            section,
            text: text.trim().to_owned(),
        }
    }
}

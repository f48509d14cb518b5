//! What clients may say about how a post is to be written.

use serde::{Deserialize, Serialize};
use shared::config::Model;
use utoipa::ToSchema;

use crate::body::{Body, Fault, Fields, any, trimmed};
use crate::error::{Error, FieldError, Result};

/// How a post is to be written; all may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Options {
    #[schema(nullable)]
    tone: Option<Tone>,
    /// Who is to read it.
    #[schema(min_length = 1, max_length = 200)]
    audience: Option<String>,
    /// A BCP 47 tag.
    #[schema(example = "en-GB")]
    language: Option<String>,
    /// About how many words.
    #[schema(minimum = 100, maximum = 3000)]
    words: Option<u32>,
    /// Words that are to occur.
    #[schema(max_items = 10)]
    keywords: Option<Vec<String>>,
    /// Anything else that the writer should know.
    #[schema(min_length = 1, max_length = 2000)]
    instructions: Option<String>,
    /// One of `GET /models`.
    model: Option<String>,
}

/// How a post sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Tone {
    Neutral,
    Friendly,
    Professional,
    Enthusiastic,
    Humorous,
    Academic,
}

impl Body for Options {
    fn read(fields: &mut Fields) -> Option<Self> {
        let tone = fields.optional("tone", any);
        let audience = fields.optional("audience", trimmed(1, 200));
        let language = fields.optional("language", language);
        let words = fields.optional("words", words);
        let keywords = fields.optional("keywords", keywords);
        let instructions = fields.optional("instructions", trimmed(1, 2000));
        let model = fields.optional("model", any);
        Some(Options {
            tone: tone?,
            audience: audience?,
            language: language?,
            words: words?,
            keywords: keywords?,
            instructions: instructions?,
            model: model?,
        })
    }
}

impl Options {
    /// The model that is meant: the one that is named, or else the default.
    ///
    /// # Errors
    /// [`Error::Validation`] if it is not among `models`.
    pub fn model_of(&self, models: &[Model]) -> Result<String> {
        let found = match &self.model {
            Some(id) => models.iter().find(|model| model.id == *id),
            None => models.first(),
        };
        let unknown = || {
            Error::Validation(vec![FieldError {
                field: "options.model".to_owned(),
                code: "unknown_model",
                message: "is not one of GET /models".to_owned(),
            }])
        };
        found.map(|model| model.id.clone()).ok_or_else(unknown)
    }

    /// As they are stored with the job.
    ///
    /// # Errors
    /// When they can't be encoded.
    pub fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).map_err(|e| Error::Internal(e.to_string()))
    }
}

fn language(tag: String) -> std::result::Result<String, Fault> {
    match oxilangtag::LanguageTag::parse(tag) {
        Ok(tag) => Ok(tag.into_inner()),
        Err(e) => Err(("invalid", format!("is no BCP 47 language tag: {e}"))),
    }
}

fn words(words: u32) -> std::result::Result<u32, Fault> {
    match words {
        100..=3000 => Ok(words),
        _ => Err(("out_of_range", "must be 100 to 3000".to_owned())),
    }
}

fn keywords(keywords: Vec<String>) -> std::result::Result<Vec<String>, Fault> {
    if keywords.len() > 10 {
        return Err(("too_long", "must have at most 10 entries".to_owned()));
    }
    keywords.into_iter().map(trimmed(1, 50)).collect()
}

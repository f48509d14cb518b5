//! A client's options for generating a post.

use serde::{Deserialize, Serialize};
use shared::config::Model;
use utoipa::ToSchema;
use utoipa::openapi::{Array, Object, Type};

use crate::error::{Error, Result};
use crate::extract::field_reader::{FieldReader, Violation, accept_any};
use crate::extract::text_rules::{length, trimmed_length};

/// What a client can choose from.
#[derive(Clone, Debug)]
pub(crate) struct Capabilities {
    /// The first is the default.
    pub(crate) models: Vec<Model>,
    /// Whether there is a search of the web.
    pub(crate) web_search: bool,
}

impl Capabilities {
    pub(crate) fn new(models: Vec<Model>, has_search: bool) -> Self {
        Capabilities {
            web_search: has_search && check_writes_parts(&models).is_ok(),
            models,
        }
    }
}

/// How to write the post; everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerationOptions {
    #[schema(nullable)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tone: Option<Tone>,
    /// Who is going to read it.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
    /// A BCP 47 tag.
    #[schema(schema_with = language_schema)]
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    /// The approximate length.
    #[schema(minimum = 100, maximum = 3000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<u32>,
    /// Words that should occur.
    #[schema(schema_with = keywords_schema)]
    #[serde(skip_serializing_if = "Option::is_none")]
    keywords: Option<Vec<String>>,
    /// Further instructions for the writer.
    #[schema(
        min_length = 1,
        max_length = 2000,
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<String>,
    /// One of `GET /models`.
    #[schema(min_length = 1, max_length = 200, pattern = "^[^\\x00]*$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Whether the post is written from sources. By default it is where there are any.
    #[schema(nullable)]
    #[serde(skip_serializing_if = "Option::is_none")]
    research: Option<Research>,
    /// What to do when nothing in the sources has to do with the topic; by default `fail`.
    #[schema(nullable)]
    #[serde(skip_serializing_if = "Option::is_none")]
    without_sources: Option<WithoutSources>,
}

/// What a post is written from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Research {
    /// What the model knows.
    None,
    /// The sources that come with the post.
    Sources,
    /// Those, and what is found on the web, where the service has a search: see `GET /models`.
    Web,
}

/// What to do when nothing in the sources has to do with the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WithoutSources {
    /// The job fails with `no_sources`.
    Fail,
    /// The post is written from what the model knows.
    Write,
}

/// The tone of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) enum Tone {
    Neutral,
    Friendly,
    Professional,
    Enthusiastic,
    Humorous,
    Academic,
}

impl GenerationOptions {
    /// Takes the fields; they may ask only for what this service `can` do.
    pub(crate) fn from_fields(fields: &mut FieldReader, can: &Capabilities) -> Option<Self> {
        let tone = fields.optional("tone", accept_any);
        let audience = fields.optional("audience", trimmed_length(1, 200));
        let language = fields.optional("language", language);
        let words = fields.optional("words", words);
        let keywords = fields.optional("keywords", keywords);
        let instructions = fields.optional("instructions", trimmed_length(1, 2000));
        let model = fields.optional("model", |name| validate_model(name, &can.models));
        let research = fields.optional("research", |name| research(name, can));
        let without_sources = fields.optional("without_sources", accept_any);
        Some(GenerationOptions {
            tone: tone?,
            audience: audience?,
            language: language?,
            words: words?,
            keywords: keywords?,
            instructions: instructions?,
            model: model?,
            research: research?,
            without_sources: without_sources?,
        })
    }

    /// The options of a post that has sources, or none.
    ///
    /// # Errors
    /// A violation if it is to be written from sources and has none, or the agent can't do that.
    pub(crate) fn with_sources(mut self, has_sources: bool, can: &Capabilities) -> Result<Self> {
        if has_sources && self.research != Some(Research::None) {
            check_writes_parts(&can.models)
                .map_err(|(code, message)| Error::invalid("sources", code, message))?;
        }
        match self.research {
            None if has_sources => self.research = Some(Research::Sources),
            Some(Research::Sources) if !has_sources => {
                let message = "needs sources: give some in the field sources";
                return Err(Error::invalid("options.research", "required", message));
            }
            _ => {}
        }
        Ok(self)
    }

    /// The options as they are stored, with the post and its jobs.
    pub(crate) fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).map_err(Error::internal)
    }
}

fn research(name: String, can: &Capabilities) -> std::result::Result<Research, Violation> {
    match name.as_str() {
        "none" => Ok(Research::None),
        "sources" => Ok(Research::Sources),
        "web" if can.web_search => Ok(Research::Web),
        "web" => {
            let message = "is not possible: this service has no search; give sources instead";
            Err(("unsupported", message.to_owned()))
        }
        _ => Err(("invalid", "must be none, sources or web".to_owned())),
    }
}

/// Stored options for a post that has sources now, or none. If they are `new` they are to be used.
pub(crate) fn with_sources(
    mut options: serde_json::Value,
    has_sources: bool,
    new: bool,
) -> serde_json::Value {
    match (has_sources, options.as_object_mut()) {
        (true, Some(fields))
            if new && fields.get("research").is_none_or(|it| it != "web")
                || !fields.contains_key("research") =>
        {
            fields.insert("research".to_owned(), "sources".into());
        }
        (false, Some(fields)) if fields.get("research").is_some_and(|it| it == "sources") => {
            fields.remove("research");
        }
        _ => {}
    }
    options
}

/// Whether a post with these stored options is written from sources.
pub(crate) fn uses_sources(options: &serde_json::Value) -> bool {
    options["research"] == "sources" || options["research"] == "web"
}

/// The model for stored options: the one that they name, or the default if they name none or one
/// that is no longer available.
pub(crate) fn resolve_model(options: &serde_json::Value, models: &[Model]) -> Result<String> {
    let named = options["model"].as_str();
    let named = models.iter().find(|model| named == Some(&model.id));
    let model = named.or(models.first()).map(|model| model.id.clone());
    model.ok_or_else(|| Error::Internal("there are no models".to_owned()))
}

/// Whether there is an agent that writes parts of posts, such as an outline or a section.
pub(crate) fn check_writes_parts(models: &[Model]) -> std::result::Result<(), Violation> {
    if models.iter().all(|model| model.agent == "script") {
        let message = "is not possible: the agent is a program, which writes whole posts by itself";
        return Err(("unsupported", message.to_owned()));
    }
    Ok(())
}

fn validate_model(name: String, models: &[Model]) -> std::result::Result<String, Violation> {
    if models.iter().any(|model| model.id == name) {
        Ok(name)
    } else {
        Err(("unknown_model", "is not one of GET /models".to_owned()))
    }
}

/// The maximum that RFC 5646, 4.4.1, asks to support.
const MAX_LANGUAGE_LEN: usize = 35;

fn language(tag: String) -> std::result::Result<String, Violation> {
    let tag = length(0, MAX_LANGUAGE_LEN)(tag)?;
    match oxilangtag::LanguageTag::parse(tag) {
        Ok(tag) => Ok(tag.into_inner()),
        Err(e) => Err(("invalid", format!("is no BCP 47 language tag: {e}"))),
    }
}

/// RFC 5646, 2.1, without its grandfathered tags.
const LANGUAGE_PATTERN: &str = concat!(
    "^(([A-Za-z]{2,3}(-[A-Za-z]{3}){0,3}|[A-Za-z]{4,8})", // language
    "(-[A-Za-z]{4})?",                                    // script
    "(-([A-Za-z]{2}|[0-9]{3}))?",                         // region
    "(-([A-Za-z0-9]{5,8}|[0-9][A-Za-z0-9]{3}))*",         // variants
    "(-[0-9A-WY-Za-wy-z](-[A-Za-z0-9]{2,8})+)*",          // extensions
    "(-[xX](-[A-Za-z0-9]{1,8})+)?",                       // private use
    "|[xX](-[A-Za-z0-9]{1,8})+)$",
);

fn language_schema() -> Object {
    let mut schema = Object::new();
    schema.schema_type = [Type::String, Type::Null].into_iter().collect();
    schema.description = Some("A BCP 47 tag.".to_owned());
    schema.example = Some("en-GB".into());
    schema.max_length = Some(MAX_LANGUAGE_LEN);
    schema.pattern = Some(LANGUAGE_PATTERN.to_owned());
    schema
}

fn words(words: u32) -> std::result::Result<u32, Violation> {
    match words {
        100..=3000 => Ok(words),
        _ => Err(("out_of_range", "must be 100 to 3000".to_owned())),
    }
}

fn keywords_schema() -> Array {
    let mut keyword = Object::with_type(Type::String);
    (keyword.min_length, keyword.max_length) = (Some(1), Some(50));
    keyword.pattern = Some("^[^\\x00]*[^\\s\\x00][^\\x00]*$".to_owned());
    let mut schema = Array::new(keyword);
    schema.schema_type = [Type::Array, Type::Null].into_iter().collect();
    schema.description = Some("Words that are to occur.".to_owned());
    schema.max_items = Some(10);
    schema
}

fn keywords(keywords: Vec<String>) -> std::result::Result<Vec<String>, Violation> {
    if keywords.len() > 10 {
        return Err(("too_long", "must have at most 10 entries".to_owned()));
    }
    keywords.into_iter().map(trimmed_length(1, 50)).collect()
}

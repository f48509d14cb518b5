//! Which way of writing a model gets.

use std::collections::HashMap;
use std::str::FromStr;

/// A way of writing a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The whole post in one answer.
    OneCall,
    /// The same after an example, for models with less than four billion parameters.
    ByExample,
    /// A plan, then section by section.
    BySection,
    /// Fixed headings and one bounded question for each section, for models with less
    /// than a billion parameters.
    Guided,
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "one-call" => Ok(Way::OneCall),
            "by-example" => Ok(Way::ByExample),
            "by-section" => Ok(Way::BySection),
            "guided" => Ok(Way::Guided),
            other => Err(format!(
                "{other:?} is no way of writing: there are one-call, by-example, by-section and guided"
            )),
        }
    }
}

/// The ways that the settings name: for all models, or for single ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    of_all: Option<Way>,
    by_model: HashMap<String, Way>,
}

impl FromStr for Ways {
    type Err = String;

    /// `WAY`, `MODEL=WAY`, or several of them separated by commas.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut ways = Ways::default();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            match item.rsplit_once('=') {
                Some((model, way)) => {
                    ways.by_model.insert(model.trim().to_owned(), way.parse()?);
                }
                None => ways.of_all = Some(item.parse()?),
            }
        }
        Ok(ways)
    }
}

/// Up to so many words a model without a way of its own writes in one answer.
const ONE_CALL_WORDS: u32 = 1000;

impl Ways {
    /// The way that `model` writes a post of so many words.
    pub(super) fn of(&self, model: &str, words: u32) -> Way {
        let named = self.by_model.get(model).copied().or(self.of_all);
        named.unwrap_or_else(|| match billions_of_parameters(model) {
            Some(size) if size < 1.0 => Way::Guided,
            // Asked for sections, these repeat themselves: a short post is the better one.
            Some(size) if size < 4.0 => Way::ByExample,
            _ if words > ONE_CALL_WORDS => Way::BySection,
            _ => Way::OneCall,
        })
    }
}

/// A model's size as its name tells it: `SmolLM2-135M-Instruct`, `qwen3:0.6b`.
fn billions_of_parameters(model: &str) -> Option<f64> {
    let small = model.to_lowercase();
    let parts = small.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let size = |part: &str| {
        let (number, unit) = part.split_at_checked(part.len().checked_sub(1)?)?;
        let number: f64 = number.parse().ok()?;
        match unit {
            "m" => Some(number / 1000.0),
            "b" => Some(number),
            _ => None,
        }
    };
    parts.filter_map(size).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_a_model_the_more_it_is_led() {
        let ways = Ways::default();
        for (model, words, way) in [
            ("SmolLM2-135M-Instruct", 500, Way::Guided),
            ("qwen3:0.6b", 2000, Way::Guided),
            ("qwen2.5-coder-1.5b-instruct", 500, Way::ByExample),
            ("qwen2.5-coder-1.5b-instruct", 2500, Way::ByExample),
            ("qwen3:4b", 500, Way::OneCall),
            ("gpt-5", 1000, Way::OneCall),
            ("llama-3.3-70b-versatile", 3000, Way::BySection),
        ] {
            assert_eq!(ways.of(model, words), way, "{model} {words}");
        }
    }

    #[test]
    fn the_settings_name_a_way_for_all_or_for_one_model() {
        let ways: Ways = "by-section, tiny=guided".parse().unwrap();
        assert_eq!(ways.of("tiny", 100), Way::Guided);
        assert_eq!(ways.of("huge", 100), Way::BySection);
        let error = "tiny=quickly".parse::<Ways>().unwrap_err();
        assert!(error.contains("\"quickly\""), "{error}");
    }
}

//! What operators set for the models behind an endpoint.

use std::collections::HashMap;
use std::str::FromStr;

use serde_json::{Map, Value};

/// What is sent to a model besides what the worker sends by itself.
#[derive(Clone, Default)]
pub struct ModelSettings {
    /// Room for thoughts.
    pub thinking_tokens: ThinkingTokens,
    /// Further arguments of each request; a null takes one out.
    pub extra_body: Map<String, Value>,
}

/// How many tokens models may think, on top of those for their text: a number
/// for all of them, or `MODEL=NUMBER` for some, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThinkingTokens {
    default: Option<u32>,
    of_models: HashMap<String, u32>,
}

const MAX_THINKING_TOKENS: u32 = 1_000_000;

impl ThinkingTokens {
    /// The number for a model, if there is one.
    pub(super) fn of(&self, model: &str) -> Option<u32> {
        self.of_models.get(model).copied().or(self.default)
    }
}

impl FromStr for ThinkingTokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut tokens = ThinkingTokens::default();
        for part in text.split(',') {
            let (model, number) = match part.rsplit_once('=') {
                Some((model, number)) => (Some(model.trim()), number),
                None => (None, part),
            };
            let number = number.trim().parse::<u32>().ok();
            let number = number.filter(|number| *number <= MAX_THINKING_TOKENS);
            let number = number.ok_or_else(|| {
                format!("write a number up to {MAX_THINKING_TOKENS}, or MODEL=NUMBER, separated by commas")
            })?;
            match model {
                Some(model) => {
                    tokens.of_models.insert(model.to_owned(), number);
                }
                None => tokens.default = Some(number),
            }
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_holds_for_all_models_but_those_that_have_their_own() {
        let tokens: ThinkingTokens = "4096, qwen3:8b=0,org/r1 = 16000".parse().unwrap();
        let of = ["qwen3:8b", "org/r1", "other"].map(|model| tokens.of(model));
        assert_eq!(of, [Some(0), Some(16000), Some(4096)]);
        let some: ThinkingTokens = "a=1".parse().unwrap();
        assert_eq!((some.of("a"), some.of("b")), (Some(1), None));
        for nonsense in ["", "many", "-1", "a=", "1;2", "1000001"] {
            assert!(nonsense.parse::<ThinkingTokens>().is_err(), "{nonsense}");
        }
    }
}

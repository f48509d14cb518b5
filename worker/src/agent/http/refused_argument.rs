//! Finds what a provider refuses of a request, going by its error.

use super::error::ProviderError;
use super::model_profiles::{Change, MAX_COMPLETION_TOKENS, MAX_TOKENS, Object};

/// An error names a few.
const MAX_NUMBERS: usize = 20;

/// Phrases for "not with this model".
const UNSUPPORTED: &str = "support|unknown|unrecogni|unexpected|not recogni|not permitted|\
                           not allowed|extra|invalid|deprecated|cannot find|no longer|\
                           not available|unavailable|does not exist|not enabled|not accept|\
                           must be|should be|only|cannot be|can't be|incompatible|removed|forbidden";
/// Phrases for "too much".
const TOO_MUCH: &str = "too large|too high|at most|less than|exceed|range|maximum|greater than|\
                        between|limit|up to";
const CONTEXT: &str = "context length|context window|context size|context limit|max_model_len|\
                       maximum context";
const SYSTEM_ROLE: &str = "system role|'system'|\"system\"|role system|system message|\
                           system prompt|system instruction|developer instruction|\
                           developer role|developer message|roles must|must alternate";
const NO_STREAMING: &str = "not support|unsupported|n't support|not available|unavailable|\
                            not allowed|not enabled|not implemented|disabled|must be false";

/// What is to be changed in a request whose text needs `text_tokens`; none if the
/// error names nothing of it.
pub(super) fn find(error: &ProviderError, body: &Object, text_tokens: u32) -> Option<Change> {
    if !matches!(error.status, 400 | 404 | 405 | 415 | 422 | 500 | 501) {
        return None;
    }
    let refusal = Refusal {
        message: &error.message.to_lowercase(),
        arguments: &error.arguments,
        body,
    };
    if refusal.says(CONTEXT) {
        return refusal.context_room(text_tokens);
    }
    let limit = refusal.token_limit();
    limit
        .or_else(|| refusal.system_role())
        .or_else(|| refusal.argument())
        .or_else(|| refusal.streaming())
}

struct Refusal<'a> {
    /// In lower case.
    message: &'a str,
    /// Named by the error in a field.
    arguments: &'a [String],
    body: &'a Object,
}

impl Refusal<'_> {
    fn says(&self, phrases: &str) -> bool {
        phrases
            .split('|')
            .any(|phrase| self.message.contains(phrase))
    }

    /// How many tokens the answer may have, as sent.
    fn sent_tokens(&self) -> Option<u64> {
        let names = [MAX_TOKENS, MAX_COMPLETION_TOKENS];
        names.iter().find_map(|name| self.body.get(*name)?.as_u64())
    }

    fn numbers(&self) -> Vec<u64> {
        let numbers = self.message.split(|c: char| !c.is_ascii_digit());
        let numbers = numbers.filter_map(|number| number.parse().ok());
        numbers.take(MAX_NUMBERS).collect()
    }

    /// What the prompt leaves of the context. Which number is which is not said in
    /// the same way twice; a wrong guess is too much, and refused again.
    fn context_room(&self, text_tokens: u32) -> Option<Change> {
        let sent = self.sent_tokens()?;
        let mut numbers = self.numbers();
        numbers.retain(|number| *number != sent);
        let rooms = numbers.iter().flat_map(|context| {
            numbers
                .iter()
                .filter_map(move |other| match other < context {
                    // The prompt's length.
                    true => Some(context - other),
                    // That of prompt and answer.
                    false => context.checked_sub(other.checked_sub(sent)?),
                })
        });
        // Less would cut the text, and the prompt does not get shorter.
        let enough = u64::from(text_tokens.max(1))..sent;
        let room = rooms.filter(|room| enough.contains(room)).max()?;
        Some(Change::ContextRoom(u32::try_from(room).ok()?))
    }

    /// The most tokens that the model writes.
    fn token_limit(&self) -> Option<Change> {
        let sent = self.sent_tokens()?;
        let is_named =
            [MAX_TOKENS, MAX_COMPLETION_TOKENS].map(|name| self.place(name)) != [None; 2];
        if !is_named || !self.says(TOO_MUCH) {
            return None;
        }
        let smaller = self
            .numbers()
            .into_iter()
            .filter(|number| (16..sent).contains(number));
        Some(Change::MaxTokens(u32::try_from(smaller.max()?).ok()?))
    }

    fn system_role(&self) -> Option<Change> {
        let messages = self.body.get("messages");
        let has_role = messages.is_some_and(|messages| messages[0]["role"] == "system");
        let is_argument = |name: &String| name == "system" || name.ends_with("role");
        let is_named = self.says(SYSTEM_ROLE) || self.arguments.iter().any(is_argument);
        let is_refused = self.says(UNSUPPORTED) || self.says("alternate");
        let has_system = has_role || self.body.contains_key("system");
        (has_system && is_named && is_refused).then_some(Change::NoSystemRole)
    }

    /// The argument that is named first.
    fn argument(&self) -> Option<Change> {
        let required = ["model", "messages", "stream", "system"];
        let names = self.body.keys().map(String::as_str);
        let optional = names.filter(|name| !required.contains(name));
        let named = optional.filter_map(|name| Some((self.place(name)?, name)));
        let (_, name) = named.min()?;
        match name {
            MAX_TOKENS if self.says(MAX_COMPLETION_TOKENS) => {
                Some(Change::Rename(MAX_TOKENS, MAX_COMPLETION_TOKENS))
            }
            MAX_COMPLETION_TOKENS => Some(Change::Rename(MAX_COMPLETION_TOKENS, MAX_TOKENS)),
            // Anthropic's requests must have them.
            MAX_TOKENS if self.body.contains_key("system") => None,
            _ => Some(Change::Omit(name.to_owned())),
        }
    }

    /// Where an argument is refused by its name: in a field, before all, or else in
    /// the message.
    fn place(&self, name: &str) -> Option<usize> {
        let is_it = |argument: &String| {
            let rest = argument.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if self.arguments.iter().any(is_it) {
            return Some(0);
        }
        if !self.says(UNSUPPORTED) && !self.says(TOO_MUCH) {
            return None;
        }
        let name = name.to_lowercase();
        let spellings = [name.clone(), name.replace('_', ""), format!("{name}ing")];
        let places = spellings
            .iter()
            .filter_map(|spelling| self.find_name(spelling));
        places.min()
    }

    /// A short word is a name only in quotes, or before a colon.
    fn find_name(&self, name: &str) -> Option<usize> {
        let is_name = |before: Option<char>, after: Option<char>| {
            let is_quoted = before.is_some_and(|c| "'\"`[".contains(c)) || after == Some(':');
            name.len() > 7 || name.contains('_') || is_quoted
        };
        self.words(name)
            .find(|(_, before, after)| is_name(*before, *after))
            .map(|(place, ..)| place + 1)
    }

    /// Where the message has a word, with what stands before and after it.
    fn words(&self, word: &str) -> impl Iterator<Item = (usize, Option<char>, Option<char>)> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let places = self.message.match_indices(word).map(|(place, word)| {
            let before = self.message[..place].chars().next_back();
            let after = self.message[place + word.len()..].chars().next();
            (place, before, after)
        });
        places.filter(move |(_, before, after)| {
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
    }

    fn streaming(&self) -> Option<Change> {
        let is_word = ["stream", "streaming"]
            .iter()
            .any(|word| self.words(word).next().is_some());
        let is_named = is_word && (self.says(NO_STREAMING) || self.says("to stream"));
        let is_argument = self.arguments.iter().any(|name| name == "stream");
        let streams = self
            .body
            .get("stream")
            .is_some_and(|stream| *stream == true);
        (streams && (is_named || is_argument)).then_some(Change::NoStream)
    }
}

//! The tokens of chat templates: servers that do not know a model's template hand
//! them on, and let the model write the user's next turn, too.

use super::place::{Match, Place};

/// Tokens besides those that look like `<|…|>`.
const TOKENS: [&str; 13] = [
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "[EOS]",
    "[INST]",
    "[/INST]",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|turn>",
    "<turn|>",
    "<answer>",
    "</answer>",
];
const BARS: [(&str, &str); 2] = [("<|", "|>"), ("<｜", "｜>")];
const MAX_NAME_BYTES: usize = 40;

/// More tokens and white space than these are no text, whatever follows.
const MAX_END_BYTES: usize = 2000;

/// How far before its end an element of HTML may begin.
const MAX_ELEMENT_BYTES: usize = 500;

/// What is in the tokens that begin a turn, in lower case.
const TURN_STARTS: [&str; 9] = [
    "[inst]",
    "start_of_turn",
    "|turn>",
    "im_start",
    "start_header",
    "user",
    "assistant",
    "system",
    "human",
];

/// Who speaks in a turn; the first two are the model itself.
const ROLES: [&str; 7] = [
    "assistant",
    "model",
    "user",
    "system",
    "human",
    "### instruction",
    "### response",
];

/// What stands at a place.
pub(super) enum Token {
    /// So much that comes before the text.
    Skip(usize),
    /// The text's end: nothing else follows, or a new turn.
    End,
    /// More has to come.
    Partial,
    None,
}

/// Finds tokens that are no text. Within a text they are.
pub(super) fn token(place: &Place<'_>) -> Token {
    let (first, after) = match split_token(place.rest) {
        Split::Token(token, after) => (token, after),
        Split::Partial if !place.ended => return Token::Partial,
        _ => return Token::None,
    };
    let mut rest = after;
    let mut tokens = vec![first];
    while let Split::Token(token, after) = split_token(rest.trim_start()) {
        tokens.push(token);
        rest = after;
    }
    let rest = rest.trim_start();
    if place.rest.len() - rest.len() > MAX_END_BYTES {
        return Token::End;
    }
    let may_go_on = matches!(split_token(rest), Split::Partial) || rest.is_empty();
    let role = role(rest, place.ended);
    if (may_go_on || role == Role::Partial) && !place.ended {
        return Token::Partial;
    }
    let Some(is_word) = place.is_word(after) else {
        return Token::Partial;
    };
    if place.is_first() {
        return match role {
            Role::Other => Token::End,
            Role::Model(length) => Token::Skip(place.rest.len() - rest.len() + length),
            _ => Token::Skip(first.len()),
        };
    }
    // The end of an element of HTML.
    let opening = first.replacen("</", "<", 1);
    let near = place.before.len().saturating_sub(MAX_ELEMENT_BYTES);
    let near = &place.before[place.before.floor_char_boundary(near)..];
    let is_element =
        first.starts_with("</") && near.matches(&opening).count() > near.matches(first).count();
    let is_last =
        rest.is_empty() || role != Role::None || tokens.iter().any(|token| starts_turn(token));
    match is_last && !is_element && !is_word {
        true => Token::End,
        false => Token::None,
    }
}

fn starts_turn(token: &str) -> bool {
    let name = token.to_lowercase();
    TURN_STARTS.iter().any(|start| name.contains(start))
}

enum Split<'a> {
    /// A token, and what follows.
    Token(&'a str, &'a str),
    Partial,
    None,
}

fn split_token(text: &str) -> Split<'_> {
    let mut partial = false;
    for token in TOKENS {
        match Match::of(text, token) {
            Match::Whole(length) => {
                let (token, after) = text.split_at(length);
                return Split::Token(token, after);
            }
            found => partial |= found == Match::Partial && !text.is_empty(),
        }
    }
    for (open, close) in BARS {
        let inside = match text.strip_prefix(open) {
            Some(inside) => inside,
            None => {
                partial |= open.starts_with(text) && !text.is_empty();
                continue;
            }
        };
        let end = inside.find(close);
        let name = &inside[..end.unwrap_or(inside.len())];
        let is_part = |c: char| !c.is_whitespace() && !matches!(c, '<' | '|' | '｜');
        let name = name
            .strip_suffix(['|', '｜'])
            .filter(|_| end.is_none())
            .unwrap_or(name);
        if name.len() > MAX_NAME_BYTES || !name.chars().all(is_part) {
            continue;
        }
        match end {
            Some(end) if end > 0 => {
                let (token, after) = text.split_at(open.len() + end + close.len());
                return Split::Token(token, after);
            }
            Some(_) => {}
            None => partial = true,
        }
    }
    match partial {
        true => Split::Partial,
        false => Split::None,
    }
}

#[derive(PartialEq)]
enum Role {
    /// The model's own, and so long.
    Model(usize),
    Other,
    Partial,
    None,
}

/// The name of a role, with what has to follow it.
fn role(text: &str, ended: bool) -> Role {
    for role in ROLES {
        match Match::of(text, role) {
            Match::Whole(length) => {
                let is_model = ROLES[..2].contains(&role);
                let name = match text[length..].chars().next() {
                    None if !ended => return Role::Partial,
                    None | Some('<') => length,
                    Some(':' | '\n') => length + 1,
                    Some(_) => continue,
                };
                return if is_model {
                    Role::Model(name)
                } else {
                    Role::Other
                };
            }
            Match::Partial if !text.is_empty() => return Role::Partial,
            _ => {}
        }
    }
    Role::None
}

//! Takes a chat template's tokens off a text: servers that do not know a model's
//! template hand them on, and let the model write the user's next turn, too.

use super::code::outside_code;

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

/// What is in the tokens that begin a turn.
const TURN_STARTS: [&str; 9] = [
    "[INST]",
    "start_of_turn",
    "|turn>",
    "im_start",
    "start_header",
    "user",
    "assistant",
    "system",
    "human",
];

/// Who speaks in a turn.
const ROLES: [&str; 7] = [
    "assistant",
    "user",
    "system",
    "model",
    "human",
    "### instruction",
    "### response",
];

/// The text without the tokens before it and after it, and without the turns
/// that follow. What stands in code or within the text is left.
pub(in crate::agent) fn strip(text: &str) -> &str {
    let start = without_start(text);
    let kept = without_end(start);
    match kept.len() < start.len() {
        true => kept.trim_end(),
        false => kept,
    }
}

fn without_start(text: &str) -> &str {
    // Some begin with a byte order mark.
    let mut rest = text.trim_start_matches('\u{feff}');
    while let Some((token, after)) = split_token(rest.trim_start()) {
        // Struck out text begins with the same tag.
        if token == "<s>" && without_end(after).contains("</s>") {
            break;
        }
        rest = without_role(after).unwrap_or(after).trim_start();
    }
    rest
}

fn without_end(text: &str) -> &str {
    let places = outside_code(text).into_iter();
    let end = places.into_iter().find(|at| is_end(text, *at));
    &text[..end.unwrap_or(text.len())]
}

/// Whether the answer ends at a token: nothing else follows, or a new turn.
fn is_end(text: &str, at: usize) -> bool {
    let (before, mut rest) = text.split_at(at);
    let mut tokens = Vec::new();
    while let Some((token, after)) = split_token(rest.trim_start()) {
        tokens.push(token);
        rest = after;
    }
    let Some(token) = tokens.first() else {
        return false;
    };
    // The end of an element of HTML, or a word of a sentence.
    let opening = token.replacen("</", "<", 1);
    let is_element =
        token.starts_with("</") && before.matches(&opening).count() > before.matches(token).count();
    let is_word = before.ends_with([' ', '(', '"'])
        && rest
            .strip_prefix(' ')
            .is_some_and(|rest| rest.starts_with(char::is_lowercase));
    let starts_turn = |token: &&str| {
        let name = token.to_lowercase();
        TURN_STARTS
            .iter()
            .any(|start| name.contains(&start.to_lowercase()))
    };
    let rest = rest.trim_start();
    let is_last = rest.is_empty() || without_role(rest).is_some() || tokens.iter().any(starts_turn);
    is_last && !is_element && !is_word
}

/// The token at the start of a text, and what follows.
fn split_token(text: &str) -> Option<(&str, &str)> {
    if let Some(token) = TOKENS.iter().find(|token| text.starts_with(**token)) {
        return Some(text.split_at(token.len()));
    }
    let bars = [("<|", "|>"), ("<｜", "｜>")];
    let (open, close) = bars.into_iter().find(|(open, _)| text.starts_with(open))?;
    let inside = &text[open.len()..];
    let length = inside.find(close)?;
    let is_name = (1..=40).contains(&length) && !inside[..length].contains([' ', '\n', '<', '|']);
    is_name.then(|| text.split_at(open.len() + length + close.len()))
}

/// What follows the name of a role.
fn without_role(text: &str) -> Option<&str> {
    let is_role = |role: &&&str| {
        let start = text.get(..role.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(role))
    };
    let rest = &text[ROLES.iter().find(is_role)?.len()..];
    if rest.is_empty() || rest.starts_with('<') {
        return Some(rest);
    }
    rest.strip_prefix([':', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_further_turns_are_taken_off() {
        let tea = [
            "Tea.<|im_end|>",
            "Tea.\n<|im_end|>\n",
            "Tea.<|eot_id|>",
            "Tea.</s>",
            "Tea.<end_of_turn>\n<end_of_turn>\n<eos>",
            "Tea.<|endoftext|>",
            "Tea.<｜end▁of▁sentence｜>",
            "Tea.<|return|>",
            "Tea. [/INST]",
            "<s>Tea.</s>",
            "<s> [/INST] Tea.",
            "<|im_start|>assistant\nTea.<|im_end|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\nTea.<|eot_id|>",
            "<start_of_turn>model\nTea.",
            "<｜Assistant｜>Tea.",
            "<answer>\nTea.\n</answer>",
            "Tea.<|im_end|>\n<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\nNo.",
            "Tea.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nMore?",
            "Tea.<|end|><|assistant|> Good day!",
            "Tea.</s>[INST] More? [/INST] No.",
            "Tea.<end_of_turn>\n<start_of_turn>user\nMore?",
            "Tea.<|endoftext|>Human: More?\nAssistant: No.",
            "Tea.<|im_end|>\nassistant\nNo.",
            "Tea.<｜end▁of▁sentence｜><｜User｜>More?",
            "Tea.</s>\n### Instruction:\nMore?",
        ];
        for text in tea {
            assert_eq!(strip(text), "Tea.", "{text:?}");
        }
        assert_eq!(strip("```\ntea\n```<|im_end|>"), "```\ntea\n```");
        assert_eq!(strip("<|im_end|>\n<|im_start|>user\n"), "");
    }

    #[test]
    fn tokens_are_text_where_the_text_is_about_them() {
        let texts = [
            "A turn ends with `<|im_end|>`",
            "```\nTea.<|im_end|>\n<|im_start|>user\n```",
            "The <|im_end|> token ends it, the <|user|> token begins one.",
            "It costs <s>ten</s> five.",
            "<s>ten</s> five",
            "It costs <s>ten</s>",
            "Ends with <|im_end|>.",
            "a <|b c|> d <| e",
            "Tea.\n\nUser: more?",
            "  Tea.\n",
        ];
        for text in texts {
            assert_eq!(strip(text), text);
        }
    }
}

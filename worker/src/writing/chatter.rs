//! Strips what models write around a text: a fence around the whole, and sentences to the
//! person who asked.

use super::sentences::sentences;

/// The answer without control characters and a code fence around the whole.
pub(super) fn strip_wrapping(answer: &str) -> String {
    without_fence(printable(answer).trim()).to_owned()
}

/// A capable model's text: the answer without talk before and behind it. A line that
/// introduces a listing is no talk.
pub(super) fn strip_chatter(answer: &str) -> String {
    strip(answer, is_about_own_text)
}

/// A small model's text: without lines that may be talk either.
pub(super) fn strip_possible_chatter(answer: &str) -> String {
    strip(answer, is_greeting)
}

fn strip(answer: &str, is_talk: fn(&str) -> bool) -> String {
    let mut text = strip_wrapping(answer);
    loop {
        let stripped = without_farewell(without_greeting(&text, is_talk));
        let stripped = without_fence(stripped.trim()).trim().to_owned();
        if stripped.len() == text.len() {
            return text;
        }
        text = stripped;
    }
}

/// What stands around `text` in the answer that it was taken from.
pub(super) fn around<'a>(answer: &'a str, text: &str) -> impl Iterator<Item = &'a str> {
    let start = answer.find(text).filter(|_| !text.is_empty());
    let parts = start.map(|at| [&answer[..at], &answer[at + text.len()..]]);
    let has_words = |part: &&str| part.chars().any(char::is_alphanumeric);
    parts.into_iter().flatten().filter(has_words)
}

fn printable(answer: &str) -> String {
    let text = answer.replace("\r\n", "\n").replace('\r', "\n");
    let invisible =
        |c: char| c.is_control() && c != '\n' && c != '\t' || matches!(c, '\u{feff}' | '\u{fffd}');
    text.chars().filter(|c| !invisible(*c)).collect()
}

/// Without a fence around the whole, if it is not there to show code.
fn without_fence(text: &str) -> &str {
    let Some((first, rest)) = text.split_once('\n') else {
        return text;
    };
    let Some(language) = first.trim().strip_prefix("```") else {
        return text;
    };
    if !["", "markdown", "md", "text", "txt", "plaintext"]
        .contains(&language.trim().to_lowercase().as_str())
    {
        return text;
    }
    let (inside, behind) = match rest.rfind("```") {
        Some(close) => (&rest[..close], rest[close..].trim_start_matches('`')),
        None => (rest, ""),
    };
    // Two blocks of code with text between them are no fence around the whole.
    let fences = inside
        .lines()
        .filter(|line| line.trim_start().starts_with("```"))
        .count();
    if behind.trim().is_empty() && fences.is_multiple_of(2) {
        inside.trim_matches('\n')
    } else {
        text
    }
}

/// What models begin with when they talk to whom they write for.
const GREETINGS: &[&str] = &[
    "sure",
    "certainly",
    "of course",
    "absolutely",
    "okay",
    "ok,",
    "great",
    "here is",
    "here's",
    "here’s",
    "here are",
    "below is",
    "below are",
    "i'd be happy",
    "i would be happy",
    "i'm happy",
    "happy to",
    "thank you",
    "thanks for",
    "as requested",
    "gerne",
    "natürlich",
    "hier ist",
    "hier sind",
    "klar",
    "claro",
    "¡claro",
    "por supuesto",
    "aquí tienes",
    "aquí está",
    "bien sûr",
    "voici",
    "certo",
    "ecco",
    "the following is",
    "this is the",
    "this is a revised",
];

/// What they call what they write.
const WORKS: &[&str] = &[
    "section",
    "blog",
    "post",
    "article",
    "outline",
    "heading",
    "draft",
    "paragraph",
    "text",
    "version",
    "content",
    "rewrit",
    "abschnitt",
    "beitrag",
    "gliederung",
    "artikel",
    "sección",
    "artículo",
    "entrada",
    "article",
    "esquema",
    "texto",
    "sample",
    "template",
    "example",
];

/// Whether this first line is surely talk: "Sure!", "Here is your blog post:".
fn is_about_own_text(line: &str) -> bool {
    let small = line.trim_start_matches(['*', '_', '"', ' ']).to_lowercase();
    let count = small.split_whitespace().count();
    let greets = GREETINGS.iter().any(|greeting| small.starts_with(greeting));
    let about_the_work =
        WORKS.iter().any(|work| small.contains(work)) && small.ends_with([':', '.', '!', '*']);
    greets
        && !line.starts_with('#')
        && (about_the_work || count <= 3 && small.ends_with(['!', ',', ':']))
}

/// Whether this first line may be talk, and none of the text.
pub(super) fn is_greeting(line: &str) -> bool {
    let small = line
        .trim_start_matches(['*', '_', '"', '#', ' '])
        .to_lowercase();
    let greets = GREETINGS.iter().any(|greeting| small.starts_with(greeting));
    let about_the_work = WORKS.iter().any(|work| small.contains(work));
    let introduces = small.trim_end_matches(['*', ' ']).ends_with(':');
    let short = small.split_whitespace().count() <= 3 && small.ends_with(['!', '.', ',', ':']);
    greets && (introduces || about_the_work || short)
        || introduces
            && about_the_work
            && small.split_whitespace().count() > 3
            && small.len() < 160
            && is_meta(&small)
}

fn is_meta(small: &str) -> bool {
    [
        "revised",
        "sample",
        "possible",
        "example of",
        "requested",
        "you can use",
    ]
    .iter()
    .any(|word| small.contains(word))
}

fn without_greeting(text: &str, is_talk: fn(&str) -> bool) -> &str {
    let mut rest = text;
    loop {
        let line = rest.lines().next().unwrap_or_default();
        if line.chars().count() < 300
            && is_talk(line)
            && sentences(line).len() <= 3
            && sentences(line)
                .iter()
                .all(|sentence| is_talk(sentence.trim_end()))
        {
            rest = rest[line.len()..].trim_start();
            continue;
        }
        // "Here it is:", and then the title.
        let behind = rest[line.len()..].trim_start();
        if is_greeting(line) && !line.starts_with('#') && behind.starts_with("# ") {
            rest = behind;
            continue;
        }
        // "Sure! Tomatoes need sun."
        let first = sentences(line).first().copied().unwrap_or_default();
        if first.len() < line.len()
            && is_talk(first.trim_end())
            && first.split_whitespace().count() <= 3
        {
            rest = rest[first.len()..].trim_start();
            continue;
        }
        return rest;
    }
}

/// Whether a paragraph offers another version of what stands before it, or says
/// what was changed.
pub(super) fn is_alternative_version(paragraph: &str) -> bool {
    let line = paragraph.lines().next().unwrap_or_default();
    let small = sentences(line)
        .first()
        .map(|sentence| sentence.to_lowercase())
        .unwrap_or_default();
    let offers = ["here is", "here's", "here’s", "in this ", "this ", "i "]
        .iter()
        .any(|start| small.starts_with(start));
    let another = [
        "rewritten",
        "rephrased",
        "revised",
        "edited version",
        "the section",
        "changes to",
    ];
    offers && another.iter().any(|word| small.contains(word))
}

/// What models end with when the text is done.
const FAREWELLS: &[&str] = &[
    "i hope this",
    "i hope that helps",
    "hope this helps",
    "let me know",
    "please let me know",
    "feel free to ask",
    "feel free to let",
    "feel free to adjust",
    "feel free to modify",
    "feel free to edit",
    "feel free to customize",
    "would you like me",
    "do you want me",
    "shall i ",
    "if you'd like me",
    "if you would like me",
    "if you have any questions",
    "if you have any other questions",
    "if you need any",
    "if you need further",
    "is there anything else",
    "please feel free",
    "(word count",
    "word count",
    "*word count",
    "[word count",
    "**word count",
    "note: i ",
    "note: this section",
    "note: this post",
    "(note:",
    "this section is ",
    "this section has ",
    "please note that this",
    "ich hoffe, das hilft",
    "ich hoffe, dieser",
    "lass mich wissen",
    "lassen sie mich wissen",
    "espero que esto",
    "espero que te",
    "avísame",
    "j'espère que",
    "n'hésitez pas à me",
    "end of section",
    "[end",
    "(end",
    "best regards",
    "sincerely",
    "happy writing",
    "i can also ",
];

pub(super) fn is_farewell(sentence: &str) -> bool {
    let small = sentence
        .trim_start_matches(['*', '_', '-', ' ', '>', '#'])
        .to_lowercase();
    FAREWELLS.iter().any(|farewell| small.starts_with(farewell))
}

fn without_farewell(text: &str) -> &str {
    let mut rest = text.trim_end();
    loop {
        rest = rest.trim_end().trim_end_matches(['-', '—']).trim_end();
        let line = rest.rsplit('\n').next().unwrap_or_default();
        let last = sentences(line).pop().unwrap_or_default();
        if last.is_empty() || !is_farewell(last) {
            return rest;
        }
        rest = &rest[..rest.len() - last.len()];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn talk_around_a_text_is_taken_off_and_told() {
        for (answer, text) in [
            (
                "Sure! Here is your blog post:\n\n# Pots\n\nSome text.\n\nI hope this helps!",
                "# Pots\n\nSome text.",
            ),
            (
                "```markdown\n# Pots\n\n```sh\nls\n```\n```",
                "# Pots\n\n```sh\nls\n```",
            ),
            (
                "Certainly! Below is an article about pots.\n\n# Pots",
                "# Pots",
            ),
            ("Sure! Here it is:\n\n# Pots\n\nClay.", "# Pots\n\nClay."),
        ] {
            assert_eq!(strip_chatter(answer), text);
        }
        let answer = "Sure!\n\nPots.\n\nLet me know if you like it.";
        let told: Vec<&str> = around(answer, &strip_chatter(answer))
            .map(str::trim)
            .collect();
        assert_eq!(told, ["Sure!", "Let me know if you like it."]);
    }

    #[test]
    fn what_belongs_to_the_text_stays() {
        for text in [
            "Here are five ways to save water:\n\n- One\n- Two",
            "Great pots need great soil.",
            "# Here is a post about posts\n\nText.",
            "Thanks for all the fish. That is what dolphins said.",
            "Write `<think>` to begin.\n\nThen `</think>` to end.",
            "ลงมือ\u{200b}ทำ",
        ] {
            assert_eq!(strip_chatter(text), text);
            assert_eq!(around(text, text).count(), 0);
        }
    }
}

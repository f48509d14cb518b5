//! A post's title.

/// A longer title is cut.
const MAX_CHARS: usize = 120;
/// A longer topic is no title; its first clause is.
const MAX_TOPIC_CHARS: usize = 80;

/// A title on one line, without marks around it; None if nothing is left.
pub(super) fn clean(title: &str) -> Option<String> {
    let line = title.split_whitespace().collect::<Vec<_>>().join(" ");
    let marks = ['#', '*', '_', '"', '“', '”', '„', '`', ' '];
    let title = line.trim_matches(marks);
    title
        .contains(char::is_alphanumeric)
        .then(|| cut(title, MAX_CHARS).to_owned())
}

/// The topic as a title.
pub(super) fn of_topic(topic: &str) -> String {
    let topic = topic.split_whitespace().collect::<Vec<_>>().join(" ");
    let ends_clause = |at: &(usize, char)| at.0 > 15 && ".!?;,:。，".contains(at.1);
    let clause = topic
        .char_indices()
        .find(ends_clause)
        .map_or(topic.len(), |(end, _)| end);
    let short = if topic.chars().count() > MAX_TOPIC_CHARS {
        &topic[..clause]
    } else {
        &topic
    };
    let short = cut(short, MAX_TOPIC_CHARS);
    let mut chars = short.chars();
    chars.next().map_or(topic.clone(), |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// At most so many characters, ending with a word.
fn cut(text: &str, max: usize) -> &str {
    let Some((end, _)) = text.char_indices().nth(max) else {
        return text;
    };
    let words = text[..end].rfind(' ').filter(|at| *at > 0).unwrap_or(end);
    text[..words].trim_end_matches([',', ':', ';', '-', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_has_no_marks_around_it() {
        for (title, cleaned) in [
            ("**Red Gold**", Some("Red Gold")),
            ("\"Red\n Gold\"", Some("Red Gold")),
            ("C# and `rustc`", Some("C# and `rustc")),
            (" # ", None),
        ] {
            assert_eq!(clean(title).as_deref(), cleaned, "{title}");
        }
        assert!(clean(&"word ".repeat(100)).unwrap().chars().count() <= MAX_CHARS);
    }

    #[test]
    fn a_topic_makes_a_title_of_its_first_clause() {
        assert_eq!(of_topic("growing  tomatoes"), "Growing tomatoes");
        let long = "How my neighbour grew tomatoes on her balcony, although everybody had told her that it would not work";
        assert_eq!(
            of_topic(long),
            "How my neighbour grew tomatoes on her balcony"
        );
    }
}

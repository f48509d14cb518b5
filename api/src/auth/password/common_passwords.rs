//! The commonest passwords, which are refused.

/// None is shorter than the minimum, and all are in lower case. The file's head names its source.
const COMMON: &str = include_str!("common.txt");

/// Words that are guessed first for this service; longer ones stand before those they contain.
const SERVICE_TERMS: [&str; 18] = [
    "administrator",
    "generation",
    "generator",
    "generate",
    "username",
    "password",
    "service",
    "secret",
    "worker",
    "writer",
    "admin",
    "agent",
    "blog",
    "post",
    "root",
    "user",
    "api",
    "job",
];

pub(super) fn is_common(password: &str) -> bool {
    let password = password.to_lowercase();
    common().any(|common| common == password) || is_service_term(&password)
}

/// Whether a password has no letters except those of [`SERVICE_TERMS`].
fn is_service_term(password: &str) -> bool {
    let without = |rest: String, word: &&str| rest.replace(word, " ");
    let rest = SERVICE_TERMS.iter().fold(password.to_owned(), without);
    rest != password && !rest.contains(char::is_alphabetic)
}

fn common() -> impl Iterator<Item = &'static str> {
    COMMON.lines().filter(|line| !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_passwords_are_known_whatever_their_case() {
        assert!(is_common("Password123"));
        assert!(!is_common("correct horse"));
        // What is said of the list is not on it.
        assert!(!is_common(COMMON.lines().next().unwrap()));
    }

    #[test]
    fn words_that_everyone_tries_here_are_common_alone_and_together() {
        for ours in ["BlogPost", "blog-post-api", "admin2026!", "api_user_1"] {
            assert!(is_common(ours), "{ours}");
        }
        for other in ["my blog post", "postcards", "apiary 1789", "2026-11-22"] {
            assert!(!is_common(other), "{other}");
        }
    }

    #[test]
    fn three_thousand_passwords_are_common_and_long_enough_to_be_asked_about() {
        let fits = |common: &&str| common.len() >= 8 && common.to_lowercase() == **common;
        assert_eq!(common().filter(fits).count(), 3000);
        assert_eq!(common().count(), 3000);
    }
}

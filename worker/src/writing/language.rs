//! Languages: their names in prompts, and which one a text is written in.

use whatlang::{Lang, Script};

/// Shorter texts can't be told apart.
const MIN_CHARS: usize = 120;

/// Languages by the first part of their BCP 47 tag, with their English name.
const LANGUAGES: &[(&str, &str, Lang)] = &[
    ("af", "Afrikaans", Lang::Afr),
    ("ar", "Arabic", Lang::Ara),
    ("bg", "Bulgarian", Lang::Bul),
    ("bn", "Bengali", Lang::Ben),
    ("ca", "Catalan", Lang::Cat),
    ("cs", "Czech", Lang::Ces),
    ("da", "Danish", Lang::Dan),
    ("de", "German", Lang::Deu),
    ("el", "Greek", Lang::Ell),
    ("en", "English", Lang::Eng),
    ("es", "Spanish", Lang::Spa),
    ("et", "Estonian", Lang::Est),
    ("fa", "Persian", Lang::Pes),
    ("fi", "Finnish", Lang::Fin),
    ("fr", "French", Lang::Fra),
    ("he", "Hebrew", Lang::Heb),
    ("hi", "Hindi", Lang::Hin),
    ("hr", "Croatian", Lang::Hrv),
    ("hu", "Hungarian", Lang::Hun),
    ("id", "Indonesian", Lang::Ind),
    ("it", "Italian", Lang::Ita),
    ("ja", "Japanese", Lang::Jpn),
    ("ko", "Korean", Lang::Kor),
    ("lt", "Lithuanian", Lang::Lit),
    ("lv", "Latvian", Lang::Lav),
    ("nb", "Norwegian", Lang::Nob),
    ("nl", "Dutch", Lang::Nld),
    ("no", "Norwegian", Lang::Nob),
    ("pl", "Polish", Lang::Pol),
    ("pt", "Portuguese", Lang::Por),
    ("ro", "Romanian", Lang::Ron),
    ("ru", "Russian", Lang::Rus),
    ("sk", "Slovak", Lang::Slk),
    ("sl", "Slovenian", Lang::Slv),
    ("sr", "Serbian", Lang::Srp),
    ("sv", "Swedish", Lang::Swe),
    ("ta", "Tamil", Lang::Tam),
    ("th", "Thai", Lang::Tha),
    ("tr", "Turkish", Lang::Tur),
    ("uk", "Ukrainian", Lang::Ukr),
    ("ur", "Urdu", Lang::Urd),
    ("vi", "Vietnamese", Lang::Vie),
    ("zh", "Chinese", Lang::Cmn),
];

fn known(tag: &str) -> Option<&'static (&'static str, &'static str, Lang)> {
    let code = tag.split(['-', '_']).next()?.to_ascii_lowercase();
    LANGUAGES.iter().find(|(known, ..)| *known == code)
}

/// How a prompt names the language of a tag: `German (de-AT)`.
pub(super) fn name(tag: &str) -> String {
    match known(tag) {
        Some((code, name, _)) if code.eq_ignore_ascii_case(tag) => (*name).to_owned(),
        Some((_, name, _)) => format!("{name} ({tag})"),
        None => tag.to_owned(),
    }
}

/// The word over a list of sources, by the first part of a language's tag.
const SOURCES: &[(&str, &str)] = &[
    ("ar", "المصادر"),
    ("bg", "Източници"),
    ("ca", "Fonts"),
    ("cs", "Zdroje"),
    ("da", "Kilder"),
    ("de", "Quellen"),
    ("el", "Πηγές"),
    ("en", "Sources"),
    ("es", "Fuentes"),
    ("et", "Allikad"),
    ("fa", "منابع"),
    ("fi", "Lähteet"),
    ("he", "מקורות"),
    ("hi", "स्रोत"),
    ("hr", "Izvori"),
    ("hu", "Források"),
    ("id", "Sumber"),
    ("it", "Fonti"),
    ("ja", "出典"),
    ("ko", "출처"),
    ("nb", "Kilder"),
    ("nl", "Bronnen"),
    ("no", "Kilder"),
    ("pl", "Źródła"),
    ("pt", "Fontes"),
    ("ro", "Surse"),
    ("ru", "Источники"),
    ("sk", "Zdroje"),
    ("sl", "Viri"),
    ("sr", "Извори"),
    ("sv", "Källor"),
    ("th", "แหล่งข้อมูล"),
    ("tr", "Kaynaklar"),
    ("uk", "Джерела"),
    ("vi", "Nguồn"),
    ("zh", "参考资料"),
];

/// The heading of a list of sources. French has the English word; where we know none, so has the post.
pub(super) fn word_for_sources(tag: Option<&str>) -> &'static str {
    let code = tag.and_then(known).map(|(code, ..)| *code);
    let word = SOURCES.iter().find(|(known, _)| Some(*known) == code);
    word.map_or("Sources", |(_, word)| word)
}

/// Whether a post with this option is to be English; without one, who knows.
pub(super) fn is_english(tag: Option<&str>) -> bool {
    tag.is_none_or(|tag| known(tag).is_some_and(|(code, ..)| *code == "en"))
}

/// Whether a Markdown text is clearly not in the language of the tag.
pub(super) fn is_other_language(tag: &str, text: &str) -> bool {
    let Some((_, _, wanted)) = known(tag) else {
        return false;
    };
    let prose: String = super::repetition::prose(text).join("\n");
    if prose.chars().count() < MIN_CHARS {
        return false;
    }
    let Some(found) = whatlang::detect(&prose) else {
        return false;
    };
    if script_of(*wanted).is_some_and(|script| script != found.script()) {
        return true;
    }
    // Languages of the same script that are close to one another are not told apart.
    found.lang() != *wanted && found.is_reliable() && !are_close(*wanted, found.lang())
}

fn script_of(lang: Lang) -> Option<Script> {
    Some(match lang {
        Lang::Ara | Lang::Pes | Lang::Urd => Script::Arabic,
        Lang::Bul | Lang::Rus | Lang::Ukr => Script::Cyrillic,
        Lang::Ben => Script::Bengali,
        Lang::Ell => Script::Greek,
        Lang::Heb => Script::Hebrew,
        Lang::Hin => Script::Devanagari,
        Lang::Kor => Script::Hangul,
        Lang::Tam => Script::Tamil,
        Lang::Tha => Script::Thai,
        Lang::Cmn => Script::Mandarin,
        // Written in several.
        Lang::Jpn | Lang::Srp => return None,
        _ => Script::Latin,
    })
}

fn are_close(one: Lang, other: Lang) -> bool {
    const CLOSE: &[&[Lang]] = &[
        &[Lang::Dan, Lang::Nob, Lang::Swe],
        &[Lang::Hrv, Lang::Srp, Lang::Slv, Lang::Slk, Lang::Ces],
        &[Lang::Spa, Lang::Cat, Lang::Por],
        &[Lang::Nld, Lang::Afr],
        &[Lang::Rus, Lang::Ukr, Lang::Bul],
        &[Lang::Ara, Lang::Pes, Lang::Urd],
    ];
    CLOSE
        .iter()
        .any(|group| group.contains(&one) && group.contains(&other))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGLISH: &str = "Tomatoes need a lot of sun and a deep pot to grow well. Give them \
        water every morning, and more of it on hot days, because the soil in a pot dries out fast.";
    const GERMAN: &str = "Tomaten brauchen viel Sonne und einen tiefen Topf, damit sie gut \
        wachsen. Gib ihnen jeden Morgen Wasser und an heißen Tagen mehr davon, denn die Erde \
        trocknet schnell aus.";

    #[test]
    fn a_text_in_another_language_is_noticed() {
        let chinese = "番茄需要充足的阳光和深一点的花盆才能长得好。每天早上浇水，天热的时候要多浇一些，因为花盆里的土壤干得很快。".repeat(3);
        let japanese = "トマトがよく育つには、たくさんの日光と深い鉢が必要です。毎朝水をやり、暑い日にはもっと多くの水をやってください。".repeat(3);
        for (tag, text, is_other) in [
            ("en", ENGLISH, false),
            ("de", ENGLISH, true),
            ("de-AT", GERMAN, false),
            ("en-GB", GERMAN, true),
            ("zh", &chinese, false),
            ("ja", &japanese, false),
            ("zh-TW", ENGLISH, true),
            ("ar", ENGLISH, true),
            ("tlh", ENGLISH, false),
            ("de", "Too short.", false),
        ] {
            assert_eq!(is_other_language(tag, text), is_other, "{tag}: {text}");
        }
    }

    #[test]
    fn code_has_no_language() {
        let code = "def water(pot):\n    return pot.water(\"every morning\")\n".repeat(20);
        let text = format!("{GERMAN}\n\n```python\n{code}```");
        assert!(!is_other_language("de", &text));
    }

    #[test]
    fn prompts_name_languages_in_english() {
        assert_eq!(name("de"), "German");
        assert_eq!(name("pt-BR"), "Portuguese (pt-BR)");
        assert_eq!(name("tlh"), "tlh");
    }
}

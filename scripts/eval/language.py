"""Words, sentences and languages of a text, in any script."""

import re
import unicodedata
from functools import cache

# How many characters make a word, where words have no spaces between them. Signs that
# stand above or below another (Thai) don't count.
CHARS_PER_WORD = {"zh": 1.7, "ja": 2.2, "th": 3.5}

SCRIPTS = {
    "han": r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "kana": r"\u3040-\u30ff\u31f0-\u31ff",
    "thai": r"\u0e00-\u0e7f",
    "arabic": r"\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff",
    "cyrillic": r"\u0400-\u052f",
    "hangul": r"\u1100-\u11ff\uac00-\ud7af",
    "devanagari": r"\u0900-\u097f",
    "greek": r"\u0370-\u03ff",
    "hebrew": r"\u0590-\u05ff",
}
UNSPACED = f"{SCRIPTS['han']}{SCRIPTS['kana']}{SCRIPTS['thai']}"

# Of which script the letters have to be, and how many of them at least: names and code
# are in Latin everywhere, and kanji are Han.
SCRIPT_OF = {
    "zh": ("han", 0.6),
    "ja": ("kana", 0.2),
    "th": ("thai", 0.6),
    "ar": ("arabic", 0.6),
    "fa": ("arabic", 0.6),
    "ru": ("cyrillic", 0.6),
    "uk": ("cyrillic", 0.6),
    "ko": ("hangul", 0.6),
    "hi": ("devanagari", 0.6),
    "el": ("greek", 0.6),
    "he": ("hebrew", 0.6),
}

STOP_WORDS = {
    "en": "a i no the of and to in is that for it with as on are was be this by at from or have an"
    " not you your they their can will which but has we its our how what why when",
    "de": "der die das und ist nicht mit den von für ein eine einen auf dem zu sich im es sie"
    " auch werden oder wie man aber als bei nur sind wird kann sie ihre ich wir warum wenn aus",
    "fr": "a le la les des et est une un dans pour que qui sur pas vous avec plus au du par ce"
    " sont ou votre il elle en aux cette ne se mais comment pourquoi nous",
    "es": "a el la los las de que y en un una es por con para del se no su como más al lo pero"
    " son este esta o sus puede también cómo qué muy sin",
    "it": "a il la le di che e un una è per con del non si in della sono i come più al da anche"
    " gli lo nel ma questo alla",
    "pt": "o a os as de que e em um uma é por com para do da não se mais como no na ao dos"
    " são você mas sua seu também pode",
    "nl": "de het een en van is dat op te in voor met niet zijn ook aan er als maar om je bij"
    " naar wordt kan deze",
}
STOP_WORDS = {language: frozenset(words.split()) for language, words in STOP_WORDS.items()}

TERMINAL = ".!?…。！？؟।"
CLOSING = "\"'”’»)]}』」）》】*_`"
ABBREVIATIONS = frozenset(
    "e.g i.e mr mrs ms dr prof st vs no approx fig z.b d.h u.a o.ä bzw ca ggf evtl nr"
    " p.ej sr sra ej p.ex env m mme".split()
)


def primary(tag: str) -> str:
    """The language of a BCP 47 tag."""
    return tag.split("-")[0].lower()


@cache
def _of(script: str) -> re.Pattern:
    return re.compile(f"[{script}]")


def _count(text: str, script: str) -> int:
    """The characters of a script, without those that stand above or below others."""
    found = _of(script).findall(text)
    return sum(1 for char in found if unicodedata.category(char)[0] in "LN")


def count_words(text: str, language: str) -> int:
    """Words as a reader counts them: pieces with a letter or digit in them, and in scripts
    without spaces the characters, divided by how many make a word."""
    unspaced = _count(text, UNSPACED)
    rest = _of(UNSPACED).sub(" ", text) if unspaced else text
    spaced = sum(1 for word in rest.split() if any(char.isalnum() for char in word))
    return spaced + round(unspaced / CHARS_PER_WORD.get(primary(language), 1.7))


def units(text: str) -> list[str]:
    """The words, folded; in scripts without spaces every character is one."""
    pattern = rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:['’-][^\W_{UNSPACED}]+)*"
    return re.findall(pattern, unicodedata.normalize("NFC", text).casefold())


def units_per_word(language: str) -> float:
    return CHARS_PER_WORD.get(primary(language), 1.0)


def sentences(text: str, language: str) -> list[str]:
    """The sentences of a piece of prose. Thai ends none with a mark: a space does."""
    if primary(language) == "th":
        return _thai_phrases(text)
    found: list[str] = []
    for line in text.split("\n"):
        start = 0
        for end in re.finditer(rf"[{TERMINAL}]+[{re.escape(CLOSING)}]*(?=\s|$)|[。！？]+[”」』）]*", line):
            if _ends_sentence(line[start : end.end()]):
                found.append(line[start : end.end()])
                start = end.end()
        found.append(line[start:])
    return [sentence.strip() for sentence in found if any(map(str.isalnum, sentence))]


def _ends_sentence(piece: str) -> bool:
    last = piece.split()[-1].lstrip("(\"'“„«") if piece.split() else ""
    bare = last.rstrip(".").casefold()
    if not last.endswith("."):
        return True
    return not (bare in ABBREVIATIONS or len(bare) == 1 or (bare.isdigit() and len(bare) < 3))


def _thai_phrases(text: str) -> list[str]:
    """Pieces between spaces, the short ones put together."""
    phrases: list[str] = []
    for piece in text.split():
        if phrases and len(phrases[-1]) < 40:
            phrases[-1] += f" {piece}"
        else:
            phrases.append(piece)
    return phrases


def is_complete(text: str, language: str) -> bool:
    """Whether a paragraph ends where a sentence does."""
    end = text.rstrip().rstrip(CLOSING).rstrip()
    # Emoji and the like are put behind the full stop.
    while end and unicodedata.category(end[-1]) in ("So", "Sk", "Mn", "Cf") and not _is_thai(end[-1]):
        end = end[:-1].rstrip()
    if not end:
        return False
    if re.search(r"(https?://|www\.)\S+$", end):
        return True
    if primary(language) == "th":
        return end[-1] not in ",:;-–—("
    return end[-1] in TERMINAL


def _is_thai(char: str) -> bool:
    return bool(_of(SCRIPTS["thai"]).match(char))


def is_in(text: str, language: str) -> bool | None:
    """Whether a text is in the language; None where it is too short to tell."""
    language = primary(language)
    letters = sum(1 for char in text if char.isalpha())
    if letters < 2:
        return None
    if language in SCRIPT_OF:
        return _is_in_script(text, language, letters)
    foreign = sum(_count(text, script) for script in SCRIPTS.values())
    if foreign > letters / 3:
        return False
    if language not in STOP_WORDS:
        return None
    return _has_stop_words(units(text), language)


def _is_in_script(text: str, language: str, letters: int) -> bool | None:
    script, least = SCRIPT_OF[language]
    share = _count(text, SCRIPTS[script]) / letters
    if language == "ja":
        # A short heading may well be of kanji alone; a paragraph is not.
        japanese = share + _count(text, SCRIPTS["han"]) / letters
        return japanese >= 0.6 and (share >= least or letters < 15)
    if language == "zh" and _count(text, SCRIPTS["kana"]) > letters * 0.05:
        return False
    if share >= least:
        return True
    # A name, such as Python, is a heading in any language.
    return None if letters < 12 and share == 0 and len(text.split()) == 1 else False


def _has_stop_words(words: list[str], language: str) -> bool | None:
    scores = {
        other: sum(1 for word in words if word in known) for other, known in STOP_WORDS.items()
    }
    best = max(scores.values())
    if best == 0:
        return None
    if scores[language] == best:
        return True
    # In a heading, a word or two prove nothing unless none is of the wanted language.
    return None if len(words) < 8 and (scores[language] > 0 or best < 2) else False

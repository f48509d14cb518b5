"""Phrases by which a text gives away what it is: talk, a gap, a conclusion, a commonplace."""

import re

from language import STOP_WORDS, units


def _starts(*phrases: str) -> re.Pattern:
    return re.compile(rf"\s*(?:{'|'.join(phrases)})", re.IGNORECASE)


def _holds(*phrases: str) -> re.Pattern:
    return re.compile("|".join(phrases), re.IGNORECASE)


_GREETING = _starts(
    r"(sure|certainly|absolutely|of course|okay|gerne|natürlich|klar|bien sûr|claro|¡claro|certo)[\s,!.:]",
    r"(here is|here's|here’s|here are|below is|hier ist|hier sind|voici|aquí (tienes|está)|ecco)\b.{0,80}"
    r"(:|\b(blog|post|article|draft|artikel|beitrag|artículo|entrada)\b)",
    r"(好的|当然|以下是|這是|这是一篇|もちろん|以下は|承知|بالطبع|بالتأكيد|إليك|แน่นอน|นี่คือบทความ)",
    r"title\s*:",
)
_FAREWELL = _holds(
    r"\b(i )?hope (this|that) (helps|post|article|blog)",
    r"\blet me know (if|what|how)\b",
    r"\bfeel free to (ask|let|adjust|modify|edit|customi[sz]e|reach out|contact)",
    r"\bwould you like me to\b",
    r"\(?\bword count\b",
    r"\(\d+ (words|wörter|mots|palabras)\)",
    r"^this (blog post|article|post) (has|is|was|covers|provides|contains|includes)\b",
    r"\b(lass|lassen sie) (es )?mich wissen",
    r"\bn'hésitez pas à me\b",
    r"希望(这篇|這篇)|お役に立て|أتمنى أن (يكون|تكون) هذ",
)
_ABOUT_ITSELF = _holds(
    r"\bas an ai\b",
    r"\bi (cannot|can't|can’t|am unable to) (assist|fulfil|write|browse|provide)",
    r"作为(一个)?(ai|人工智能)(语言)?(模型|助手)",
    r"\bals (ki|ai|sprachmodell)\b.{0,20}\b(kann|bin) ich",
)
_TEMPLATE_TOKEN = re.compile(
    r"\{\{|\}\}|<\|[a-z_]+\|?>|</?s>|\[/?INST\]|</?(think|thinking|reasoning)>|\blorem ipsum\b|\\n"
    r"|\[(your|insert|add|name|author|company|image|link|date|topic|title|city|ihr|dein|votre|tu|su)"
    r"\b[^\]\n]{0,50}\](?![(\[:])",
    re.IGNORECASE,
)
_CONCLUSION_HEADING = _starts(
    r"(\d+[.)]\s*)?((in )?conclusions?|summary|summing up|to sum up|wrap(ping)?[ -](it )?up|the bottom line"
    r"|(final|closing|concluding) (thoughts?|words?|remarks?)|(key )?takeaways?|fazit|zusammenfassung"
    r"|schluss(wort|betrachtung|folgerung(en)?)?|conclusión|conclusiones|en resumen|en conclusion"
    r"|pour conclure|conclusione|conclusão)\s*([:.!–—-]|$)",
    r"(结论|结语|总结|小结|結論|まとめ|おわりに|终わりに|الخاتمة|خاتمة|خلاصة|الخلاصة|สรุป|บทสรุป|ส่งท้าย)",
)
_CONCLUSION_OPENING = _starts(
    r"(in conclusion|in summary|to sum up|to conclude|to summari[sz]e|all in all|zusammenfassend"
    r"|alles in allem|en conclusion|pour conclure|en résumé|en conclusión|en resumen|para concluir)\b",
    r"(总之|总而言之|综上|まとめると|في الختام|وفي الختام|ختاماً|ختامًا|โดยสรุป|สรุปแล้ว)",
)
# These close a section as well.
_SOFT_CONCLUSION_OPENING = _starts(
    r"(in short|overall|ultimately|in the end|so,|abschließend|kurz gesagt|am ende|letztlich|en somme"
    r"|en definitiva|finalmente|enfin)\b",
    r"(最后|このように|最後に|باختصار|في النهاية|สุดท้าย)",
)
_INTRODUCTION_HEADING = _starts(
    r"(\d+[.)]\s*)?(introduction|intro|einleitung|einführung|introducción|introduzione|introdução)\b",
    r"(引言|前言|导言|简介|介绍|はじめに|序章|مقدمة|المقدمة|บทนำ|เกริ่น)",
)
STOCK_PHRASES = _holds(
    r"\bcrucial\b", r"\b(vital|key|pivotal|crucial) (role|part)\b", r"\ba wide (range|variety|array) of\b",
    r"\bit('s| is) (important|essential|worth noting|crucial)\b",
    r"\bin (today's|today’s|the) (world|fast-paced)",
    r"\bwhether you('re|’re| are)\b", r"\bgame[- ]changer\b", r"\bdelve\b", r"\bunlock\b", r"\belevate\b",
    r"\bjourney\b", r"\bensur(e|es|ing)\b", r"\bnot only\b", r"\bsay goodbye\b", r"\blook no further\b",
    r"\bby following these\b", r"\bes ist wichtig\b", r"\beine (wichtige|entscheidende) rolle\b",
    r"\bil est (important|essentiel)\b", r"\bjoue un rôle\b", r"\bes (importante|esencial|fundamental)\b",
    r"\bdesempeña un papel\b", r"\bin this (section|blog post|post|article|guide)\b",
    r"\b(we'll|we’ll|we will) (explore|discuss|delve|look at|cover)\b",
)


def is_greeting(text: str) -> bool:
    """Whether a text begins with talk to whom it is written for."""
    return bool(_GREETING.match(text))


def is_farewell(text: str) -> bool:
    """Whether a paragraph is talk about the text that stands before it."""
    return bool(_FAREWELL.search(text))


def is_about_itself(text: str) -> bool:
    """Whether the model speaks of itself."""
    return bool(_ABOUT_ITSELF.search(text))


def has_template_token(text: str) -> bool:
    return bool(_TEMPLATE_TOKEN.search(text))


def is_conclusion_heading(heading: str) -> bool:
    return bool(_CONCLUSION_HEADING.match(heading))


def opens_conclusion(paragraph: str) -> bool:
    return bool(_CONCLUSION_OPENING.match(paragraph))


def may_open_conclusion(paragraph: str) -> bool:
    return opens_conclusion(paragraph) or bool(_SOFT_CONCLUSION_OPENING.match(paragraph))


def is_introduction_heading(heading: str) -> bool:
    return bool(_INTRODUCTION_HEADING.match(heading))


def names_topic(topic: str, text: str) -> bool:
    """Whether a text has half of the words of a topic that carry its meaning, two at least."""
    about = {
        _stem(word)
        for word in units(topic)
        if word not in STOP_WORDS["en"] and (len(word) > 3 or not word.isascii())
    }
    if not about:
        return False
    there = {_stem(word) for word in units(text)}
    needed = min(len(about), max(2, (len(about) + 1) // 2))
    return len(about & there) >= needed


def _stem(word: str) -> str:
    return word[:5]

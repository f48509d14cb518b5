//! Recognizes a refusal in words. Asked again, a model mostly refuses again, and
//! its apology is no post.

/// A refusal is short: no text that says more is one.
const MAX_CHARS: usize = 500;

/// How refusals begin, and what they go on to say in the first person, language
/// by language; in lower case, with plain apostrophes.
const REFUSALS: [(&str, &str); 25] = [
    (
        "i'm sorry|i am sorry|i'm really sorry|sorry,|sorry but|i apologize|my apologies|as an ai",
        "i can't|i cannot|i can not|i'm unable|i am unable|i'm not able|i am not able|i won't|\
         i'm not comfortable|i must decline",
    ),
    (
        "i can't|i cannot|i can not|i won't|i will not|i'm unable|i am unable|i'm not able|\
         i am not able|i must decline|i have to decline|unfortunately, i|i do not feel comfortable",
        "help with that|help with this|help you with|assist with|assist you|assist in|fulfill|\
         comply|your request|this request|that request|provide that|provide content|\
         provide information|provide instructions|provide assistance|create content|write that|\
         write content|write about that|write this|generate that|generate content|engage in|\
         discuss this topic",
    ),
    (
        "es tut mir leid|tut mir leid|entschuldigung|leider kann ich|ich kann",
        "nicht helfen|nicht weiterhelfen|nicht behilflich|nicht nachkommen|nicht erfüllen|\
         nicht unterstützen|nicht bei dieser|nicht beantworten|ich diesen text nicht",
    ),
    (
        "je suis désolé|désolé|je regrette|je m'excuse|malheureusement, je|je ne peux pas",
        "ne peux pas répondre|ne peux pas vous aider|ne peux pas t'aider|ne peux pas aider|\
         ne peux pas fournir|ne peux pas écrire|ne peux pas créer|ne suis pas en mesure|ne puis",
    ),
    (
        "lo siento|lamento|disculpa|lamentablemente, no",
        "no puedo|no me es posible",
    ),
    (
        "desculpe|sinto muito|lamento|infelizmente, não|peço desculpa",
        "não posso|não consigo",
    ),
    (
        "mi dispiace|spiacente|purtroppo non",
        "non posso|non sono in grado",
    ),
    (
        "het spijt me|sorry|helaas kan ik",
        "kan ik|ik kan|niet in staat",
    ),
    (
        "przykro mi|przepraszam|niestety nie",
        "nie mogę|nie jestem w stanie",
    ),
    ("omlouvám se|bohužel ne|je mi líto", "nemohu|nemůžu"),
    (
        "tyvärr kan jag|förlåt|jag är ledsen",
        "kan jag inte|jag kan inte",
    ),
    (
        "beklager|jeg beklager|desværre kan jeg|undskyld",
        "kan jeg ikke|jeg kan ikke",
    ),
    ("olen pahoillani|valitettavasti en", "en voi"),
    (
        "üzgünüm|maalesef|özür dilerim",
        "yardımcı olamam|yardımcı olamıyorum|yerine getiremem",
    ),
    (
        "извините|простите|прошу прощения|к сожалению, я",
        "не могу|не смогу",
    ),
    ("вибачте|перепрошую|на жаль, я", "не можу|не зможу"),
    (
        "maaf|mohon maaf",
        "saya tidak|tidak dapat membantu|tidak bisa membantu",
    ),
    ("xin lỗi|rất tiếc", "tôi không thể"),
    (
        "抱歉|很抱歉|非常抱歉|对不起|對不起",
        "我无法|我不能|我無法|无法协助|无法提供|无法满足|无法回答",
    ),
    (
        "申し訳|すみません|ごめんなさい",
        "お手伝いできません|お応えできません|お答えできません|かねます|提供できません",
    ),
    (
        "죄송|미안",
        "도와드릴 수|제공할 수 없|답변할 수 없|작성할 수 없|도움을 드릴 수",
    ),
    ("عذرا|عذرًا|آسف|أعتذر|للأسف", "لا أستطيع|لا يمكنني|لن أتمكن"),
    ("क्षमा|माफ़|मुझे खेद", "मैं इस|नहीं कर सकता|मदद नहीं"),
    ("מצטער|אני מצטער|סליחה", "לא יכול|לא אוכל"),
    ("ขออภัย|ขอโทษ", "ไม่สามารถช่วย|ฉันไม่สามารถ|ผมไม่สามารถ"),
];

/// Whether a text says nothing but that its model refuses to write it.
pub(in crate::agent) fn is_refusal(text: &str) -> bool {
    let text = text.trim_matches(|c: char| {
        c.is_whitespace() || matches!(c, '"' | '*' | '_' | '>' | '“' | '”' | '#')
    });
    if text.chars().nth(MAX_CHARS).is_some() || text.contains("\n#") {
        return false;
    }
    let text = text.to_lowercase().replace(['’', '‘', '`'], "'");
    REFUSALS.iter().any(|(begins, goes_on)| {
        begins.split('|').any(|phrase| text.starts_with(phrase))
            && goes_on.split('|').any(|phrase| text.contains(phrase))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_recognized() {
        let refusals = [
            "I'm sorry, but I can't help with that request.",
            "I’m sorry, but I can’t assist with that.",
            "I cannot fulfill this request. I can write about gardening instead.",
            "Sorry, I am unable to write about this topic.",
            "**I apologize, but I cannot provide content of that kind.**",
            "As an AI language model, I cannot create such a text.",
            "Es tut mir leid, aber dabei kann ich nicht helfen.",
            "Je suis désolé, mais je ne peux pas répondre à cette demande.",
            "Lo siento, pero no puedo ayudar con eso.",
            "Desculpe, mas não posso ajudar com isso.",
            "Mi dispiace, ma non posso aiutarti.",
            "Het spijt me, maar daar kan ik niet mee helpen.",
            "Извините, но я не могу помочь с этим.",
            "很抱歉，我无法协助处理该请求。",
            "申し訳ありませんが、その件についてはお手伝いできません。",
            "죄송하지만 그 요청은 도와드릴 수 없습니다.",
        ];
        for text in refusals {
            assert!(is_refusal(text), "{text}");
        }
    }

    #[test]
    fn texts_are_no_refusals() {
        let long = format!(
            "I'm sorry, but I can't help with that request. {}",
            "Tea is good. ".repeat(40)
        );
        let texts = [
            "",
            "Tea is good.",
            "I can't write about tea without thinking of my grandmother.",
            "I cannot help but smile when the kettle sings.",
            "Sorry is the hardest word, and tea makes it easier.",
            "Unfortunately, tea plants cannot survive frost.",
            "Tyvärr kan inte te växa här.",
            "Unfortunately, green tea turns bitter in boiling water.",
            "Leider wird grüner Tee in kochendem Wasser bitter.",
            "Lo siento así: el té calma.",
            long.as_str(),
        ];
        for text in texts {
            assert!(!is_refusal(text), "{text}");
        }
    }
}

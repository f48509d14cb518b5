"""Tests of what is measured. They need nothing but Python: python3 -m unittest test_metrics"""

import unittest

import cues
import form
import markdown
import metrics
import repetition
import topics
from form import Post
from language import count_words, is_complete, is_in, sentences
from topics import Topic

BODY = "Tomatoes need a lot of sun and a deep pot. Give them water in the morning."
GOOD = f"{BODY}\n\n## Sun\n\n{BODY}\n\n## Water\n\nA can of water a day is enough for the plant."


def flaws(content: str, title: str = "Growing Tomatoes", language: str = "en") -> list[str]:
    return form.flaws(Post(title, content), language)


def topic(**fields) -> Topic:
    values = {"id": "t", "kind": "list", "language": "en", "topic": "Tea", "options": {}}
    return Topic(**{**values, **fields})


class Topics(unittest.TestCase):
    def test_they_have_all_kinds_languages_and_lengths(self):
        all_topics = topics.load()
        ids = [each.id for each in all_topics]
        self.assertGreaterEqual(len(ids), 24)
        self.assertEqual(len(ids), len(set(ids)))
        kinds = {"how-to", "opinion", "explanation", "list", "news", "code", "poem", "recipe"}
        self.assertLessEqual(kinds, {each.kind for each in all_topics})
        languages = {"en", "de", "fr", "es", "zh", "ja", "ar", "th"}
        self.assertLessEqual(languages, {each.language for each in all_topics})
        self.assertEqual((150, 2500), (min(t.words for t in all_topics), max(t.words for t in all_topics)))

    def test_the_api_takes_them(self):
        tones = {"neutral", "friendly", "professional", "enthusiastic", "humorous", "academic"}
        fields = {"tone", "audience", "language", "words", "keywords", "instructions"}
        for each in topics.load():
            self.assertTrue(3 <= len(each.topic) <= 500, each.id)
            self.assertLessEqual(set(each.options), fields, each.id)
            self.assertIn(each.options.get("tone", "neutral"), tones, each.id)

    def test_they_are_chosen_by_name(self):
        all_topics = topics.load()
        self.assertEqual(topics.choose(all_topics, ""), all_topics)
        self.assertEqual([t.id for t in topics.choose(all_topics, "ja, code-csv")], ["code-csv", "ja-kyoto"])
        self.assertTrue(all(t.quick for t in topics.choose(all_topics, "quick")))
        with self.assertRaisesRegex(ValueError, "nonsense"):
            topics.choose(all_topics, "ja,nonsense")


class Markdown(unittest.TestCase):
    def kinds(self, text: str) -> list[str]:
        return [block.kind for block in markdown.parse(text)]

    def test_blocks_are_told_apart(self):
        text = "Intro\ntwo lines\n\n## Head ##\n- one\n  more\n\n- two\n\nEnd"
        text += "\n\n> said\n\n---\n\n| a | b |\n|---|---|\n| c | d |"
        self.assertEqual(self.kinds(text), "paragraph heading list paragraph quote rule table".split())
        blocks = markdown.parse(text)
        self.assertEqual((blocks[1].text, blocks[1].level), ("Head", 2))
        self.assertEqual([item.text for item in blocks[2].items], ["one\nmore", "two"])
        self.assertEqual(markdown.rows(blocks[-1]), [["a", "b"], ["c", "d"]])

    def test_nothing_in_code_is_markdown(self):
        blocks = markdown.parse("1. Do this:\n\n   ```sh\n   # no heading\n   ls\n   ```\n2. Then that.")
        self.assertEqual([block.kind for block in blocks], ["list", "code", "list"])
        self.assertEqual(blocks[1].text, "# no heading\nls")
        self.assertFalse(markdown.parse("```\nprint()")[0].closed)
        self.assertEqual(self.kinds("````md\n```\n````\nText"), ["code", "paragraph"])

    def test_lines_may_underline_headings(self):
        blocks = markdown.parse("Title\n=====\n\nText\n\n---\n\nMore")
        self.assertEqual([(b.kind, b.level) for b in blocks][0], ("heading", 1))
        self.assertEqual(self.kinds("Text\n\n---\n\nMore"), ["paragraph", "rule", "paragraph"])

    def test_inline_marks_are_taken_off(self):
        self.assertEqual(markdown.plain("**Bold** _it_ `x_y` [text](http://a) snake_case 2 * 3 * 4"),
                         "Bold it x_y text snake_case 2 * 3 * 4")


class Language(unittest.TestCase):
    def test_words_are_counted_in_every_script(self):
        self.assertEqual(count_words("## Two words\n\n- a *third* -- one", "en"), 5)
        self.assertEqual(count_words("绿茶的水温应该是八十度。", "zh"), round(11 / 1.7))
        self.assertEqual(count_words("用 Python 写", "zh"), 1 + round(2 / 1.7))
        self.assertEqual(count_words("お茶を飲みます。", "ja"), round(7 / 2.2))
        self.assertEqual(count_words("ที่นี่", "th"), round(3 / 3.5))
        self.assertEqual(count_words("المشي مفيد للصحة", "ar"), 3)

    def test_sentences_end_with_their_marks(self):
        self.assertEqual(sentences('Dr. Ann has 2.5 kg, e.g. of tea. "Really?" Yes!', "en"),
                         ["Dr. Ann has 2.5 kg, e.g. of tea.", '"Really?"', "Yes!"])
        self.assertEqual(sentences("Am 3. Oktober regnet es. Schade.", "de"),
                         ["Am 3. Oktober regnet es.", "Schade."])
        self.assertEqual(sentences("水很热。茶很香！好吗？", "zh"), ["水很热。", "茶很香！", "好吗？"])
        self.assertEqual(len(sentences("هل تمشي كل يوم؟ المشي مفيد.", "ar")), 2)

    def test_a_paragraph_is_complete_or_cut(self):
        for text in ["It is.", "It **is.**", 'He said "no."', "So good! 🎉",
                     "See https://a.example/b", "(It is.)"]:
            self.assertTrue(is_complete(text, "en"), text)
        for text in ["It is", "It is the", "For example:", "One,"]:
            self.assertFalse(is_complete(text, "en"), text)
        self.assertTrue(is_complete("茶很香。", "zh"))
        self.assertTrue(is_complete("อร่อยมาก", "th"))

    def test_the_language_is_known_by_its_script(self):
        self.assertTrue(is_in("绿茶的水温应该是八十度。", "zh-Hans"))
        self.assertFalse(is_in("これは緑茶です。とてもおいしいです。", "zh"))
        self.assertTrue(is_in("これは緑茶です。", "ja"))
        self.assertTrue(is_in("清水寺", "ja"))
        self.assertFalse(is_in("绿茶的水温应该是八十度，这样泡出来的茶才好喝。", "ja"))
        self.assertTrue(is_in("المشي مفيد للصحة", "ar"))
        self.assertFalse(is_in("Walking is good for the health", "ar"))
        self.assertFalse(is_in("What It Is All About", "zh"))
        self.assertIsNone(is_in("Python", "zh"))

    def test_the_language_is_known_by_its_commonest_words(self):
        english = "The tomato is one of the plants that you can grow in a pot."
        german = "Die Tomate ist eine der Pflanzen, die man auch auf dem Balkon ziehen kann."
        self.assertTrue(is_in(english, "en-GB"))
        self.assertTrue(is_in(german, "de-AT"))
        self.assertFalse(is_in(english, "de"))
        self.assertFalse(is_in(german, "en"))
        self.assertFalse(is_in("What It Is All About", "de"))
        self.assertIsNone(is_in("Tomaten", "de"))
        self.assertFalse(is_in("Привет, как дела", "en"))


class Form(unittest.TestCase):
    def test_a_good_post_has_no_flaws(self):
        self.assertEqual(flaws(GOOD), [])
        code = GOOD + "\n\n```python\n# a comment\nprint('{{x}}')\n```\n\nIt prints x."
        self.assertEqual(flaws(code), [])

    def test_each_flaw_has_a_name(self):
        for name, content in {
            "empty": " \n",
            "fence open": f"{GOOD}\n\n```\nx\n\nThe end.",
            "fenced whole": f"```markdown\n{GOOD}\n```",
            "greeting": f"Sure! Here is your blog post:\n\n{GOOD}",
            "farewell": f"{GOOD}\n\nI hope this helps! Let me know if you need more.",
            "about itself": f"As an AI, I grow no tomatoes.\n\n{GOOD}",
            "template token": f"{GOOD}\n\nWritten by [Your Name].",
            "# in content": f"# Tomatoes\n\n{GOOD}",
            "heading without body": f"{GOOD}\n\n## Wind\n\n## Rain\n\n{BODY}",
            "heading twice": f"{GOOD}\n\n## 3. Sun\n\n{BODY}",
            "title as heading": f"## Growing tomatoes\n\n{GOOD}",
            "unfinished": f"{GOOD}\n\n## Wind\n\nThe wind is\n\n## Rain\n\n{BODY}",
            "no ending": f"{GOOD}\n\n- one\n- two",
            "early conclusion": f"{BODY}\n\n## Conclusion\n\n{BODY}\n\n## Wind\n\n{BODY}",
        }.items():
            self.assertIn(name, flaws(content), content)

    def test_a_heading_may_have_headings_for_a_body(self):
        self.assertEqual(flaws(f"{BODY}\n\n## Sun\n\n### Morning\n\n{BODY}"), [])
        self.assertEqual(flaws(f"{BODY}\n\n## Sun\n\n### Morning"), ["heading without body", "no ending"])

    def test_titles_have_no_marks(self):
        for title in ["", "**Tomatoes**", "# Tomatoes", "Tomatoes:", '"Tomatoes"', "T" * 121]:
            self.assertTrue(flaws(GOOD, title=title), title)

    def test_a_link_is_no_gap_to_be_filled_in(self):
        for text in ["See [your account](https://a.example).", "An array [1, 2].", "See [image][1]."]:
            self.assertEqual(flaws(f"{GOOD}\n\n{text}"), [], text)

    def test_a_poem_needs_no_full_stops(self):
        poem = "The leaves are cold\nand I am old"
        self.assertEqual(form.flaws(Post("Leaves", poem), "en", is_poem=True), [])

    def test_introductions_and_conclusions_are_seen(self):
        self.assertTrue(form.has_introduction(Post("T", GOOD)))
        self.assertTrue(form.has_introduction(Post("T", f"## Einleitung\n\n{BODY}")))
        self.assertFalse(form.has_introduction(Post("T", f"## Sun\n\n{BODY}")))
        self.assertTrue(form.has_introduction(Post("T", f"{BODY}\n\n- one\n- two\n\n{BODY}")))
        self.assertTrue(form.has_conclusion(Post("T", f"{GOOD}\n\n## 结论\n\n好。")))
        self.assertTrue(form.has_conclusion(Post("T", f"{GOOD}\n\nIn the end, they are worth it.")))
        self.assertFalse(form.has_conclusion(Post("T", GOOD)))
        back = "So give growing them a try: nothing that is sold tastes like tomatoes of your own balcony."
        self.assertTrue(form.has_conclusion(Post("Growing Tomatoes", f"{GOOD}\n\n{back}")))

    def test_sections_may_begin_with_the_topic_again(self):
        again = f"{GOOD}\n\n## Wind\n\nGrowing tomatoes in the wind is hard. They break."
        share = form.reintroductions(Post("Red Gold", again), "Growing tomatoes", "en")
        self.assertAlmostEqual(share, 1 / 3)
        self.assertIsNone(form.reintroductions(Post("T", BODY), "Tomatoes", "en"))

    def test_talk_is_told_from_text(self):
        for text in ["Here's a blog post about tea.", "Certainly! Tea is good.",
                     "以下是一篇文章：", "Hier ist Ihr Artikel:"]:
            self.assertTrue(cues.is_greeting(text), text)
        for text in ["Here is where tea comes from.", "Surely tea is good.",
                     "Klara trinkt Tee.", "Feel free to add milk."]:
            self.assertFalse(cues.is_greeting(text) or cues.is_farewell(text), text)


class Repetition(unittest.TestCase):
    def test_runs_of_five_words_count_when_they_come_again(self):
        self.assertEqual(repetition.repeated_runs(["one two three four five six seven"], "en"), 0)
        again = ["one two three four five", "One two three four five!", "six seven eight nine ten"]
        self.assertAlmostEqual(repetition.repeated_runs(again, "en"), 2 / 3)
        self.assertGreater(repetition.repeated_runs(["绿茶的水温应该是八十度。"] * 2, "zh"), 0.9)
        self.assertEqual(repetition.repeated_runs([], "en"), 0)

    def test_sentences_may_begin_alike(self):
        pieces = ["It is the sun that helps. It is the rain too. Water helps a lot. We like it very much."]
        self.assertEqual(repetition.same_openings(pieces, "en"), 0.5)

    def test_sentences_that_hardly_differ_are_near_duplicates(self):
        pieces = ["Tomatoes need a lot of sun every day.", "Tomatoes need a lot of sun each and every day.",
                  "Give them water in the morning."]
        self.assertEqual(repetition.near_duplicates(pieces, "en"), 1)


class Measures(unittest.TestCase):
    def test_the_length_is_held_against_the_wish(self):
        wish = topic(options={"words": 100})
        self.assertTrue(metrics.measure(wish, "Tea", "word " * 80 + "end.")["length_kept"])
        self.assertFalse(metrics.measure(wish, "Tea", "word " * 60 + "end.")["length_kept"])

    def test_a_loop_is_a_flaw(self):
        self.assertIn("loop", metrics.measure(topic(), "Tea", f"{BODY} " * 3)["flaws"])
        self.assertNotIn("loop", metrics.measure(topic(), "Tea", BODY)["flaws"])

    def test_headings_of_the_program_are_not_the_models_own(self):
        if not metrics.FALLBACK_SOURCES:
            self.skipTest("the worker has no fixed headings any more")
        self.assertGreater(len(metrics.fallback_headings()), 8)
        post = f"{BODY}\n\n## Looking Ahead\n\n{BODY}\n\n## Of its own\n\n{BODY}"
        found = metrics.measure(topic(), "Tea", post)
        self.assertEqual((found["fallback_headings"], found["own_headings"]), (["Looking Ahead"], 0.5))

    def test_keywords_may_stand_in_any_case(self):
        wish = topic(options={"keywords": ["Water", "milk"]})
        self.assertEqual(metrics.measure(wish, "Tea", "It needs water.")["keywords_missing"], ["milk"])

    def test_english_headings_break_the_language(self):
        german = "Die Tomate ist eine der Pflanzen, die man auch auf dem Balkon ziehen kann."
        wish = topic(language="de")
        for heading, is_kept in [("Die Sonne", True), ("What It Is All About", False)]:
            found = metrics.measure(wish, "Tomaten", f"## {heading}\n\n{german}")
            self.assertEqual(found["language_kept"], is_kept, heading)

    def test_five_ways_have_to_be_five(self):
        wish = topic(expects={"items": 5})
        for mark in ["## {}. Way\n\nIt helps.\n\n", "{}. Way\n", "**Way {}.** It helps.\n\n"]:
            for count, missed in [(5, []), (4, ["5 items"])]:
                ways = "".join(mark.format(i) for i in range(1, count + 1))
                post = f"An introduction.\n\n{ways}\n\n## Conclusion\n\nAll of them help."
                found = metrics.measure(wish, "Five ways", post)
                self.assertEqual(found["expectations_missed"], missed, post)

    def test_phrases_may_have_alternatives(self):
        wish = topic(expects={"phrases": ["km|kilomet", "rain"], "code_blocks": 1})
        found = metrics.measure(wish, "Tea", "Ten kilometres.")
        self.assertEqual(found["expectations_missed"], ["1 code blocks", "rain"])


if __name__ == "__main__":
    unittest.main()

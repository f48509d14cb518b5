"""Tests of the baseline's request, the settings, the tables and the pages."""

import json
import unittest

import blind
import page
import report
import settings
from baseline import prompt, split_title
from citations import measure_citations
from metrics import measure
from render import inline, render
from service import sum_counters
from topics import Topic

TOPIC = Topic("tea", "list", "de", "Fünf Tees", {"words": 200, "language": "de", "tone": "friendly",
              "audience": "Kinder", "keywords": ["Minze"], "instructions": "Reime."}, {"items": 5})


def run(content: str = "Tee ist gut.", **fields) -> dict:
    values = {
        "status": "succeeded", "error": None, "title": "Tee", "content": content, "api_words": 3,
        "warnings": [], "attempts": 1, "calls": 2, "input_tokens": 5, "output_tokens": 7,
        "seconds": 1.5, "tokens_per_second": 4.0,
    }
    values |= fields
    return values | {"measures": measure(TOPIC, values["title"], values["content"])}


class Citations(unittest.TestCase):
    def test_a_citation_is_worth_the_known_fact_that_it_stands_with(self):
        facts = [{"source": 1, "words": ["412", "metres"]}, {"source": 2, "words": ["8 June"]}]
        topic = Topic("bridge", "sources", "en", "The bridge", {}, facts=facts)
        content = (
            "It is 412 metres long.[1] It opened on 8 June. It was 412 metres long.[2]\n\n## Cost\n\n"
            "It cost much.[1] It is 1412 metres long.\n\n## Sources\n\n- \\[1\\] 8 June\n"
        )
        found = measure_citations(topic, content, [{"verdict": "exact"}], None)
        kept = {name: found[name] for name in ("facts", "cited", "cited_facts", "fact_sentences",
                                               "fact_sentences_cited")}
        self.assertEqual(kept, {"facts": 2, "cited": 3, "cited_facts": 1, "fact_sentences": 3,
                                "fact_sentences_cited": 1})


class Baseline(unittest.TestCase):
    def test_all_options_are_put_into_words(self):
        asked = prompt(TOPIC)
        for words in ["about 200 words", "Fünf Tees", "German (de)", "friendly", "Kinder", "Minze", "Reime."]:
            self.assertIn(words, asked)

    def test_the_title_is_taken_from_the_answer(self):
        for title, answer, content in [
            ("Tea", "# Tea\n\nIt is hot.", "It is hot."),
            ("Tea", "**Tea**\n\nIt is hot.", "It is hot."),
            ("Tea", '**Title: "Tea"**\n\nIt is hot.', "It is hot."),
            ("Tea", "## Tea\n\nHot.\n\n## Milk\n\nCold.", "Hot.\n\n## Milk\n\nCold."),
            ("Tea", "Sure! Here is a post:\n\n# Tea\n\nHot.", "Sure! Here is a post:\n\n\nHot."),
            ("Tea", "```markdown\n# Tea\n\nHot.\n```", "```markdown\n\nHot.\n```"),
            ("", "It is hot.\n\n## Milk\n\nCold.", "It is hot.\n\n## Milk\n\nCold."),
            ("", "", ""),
        ]:
            self.assertEqual(split_title(answer), (title, content), answer)


class Settings(unittest.TestCase):
    def test_the_model_is_asked_where_the_worker_asks_it(self):
        url = lambda **env: settings.from_environment(env).chat_url
        self.assertEqual(url(AGENT="openai"), "https://api.openai.com/v1")
        self.assertEqual(url(AGENT="openai", AGENT_URL="http://a/v1/"), "http://a/v1")
        self.assertEqual(url(AGENT="anthropic"), "https://api.anthropic.com/v1")
        self.assertIsNone(url(AGENT="script", AGENT_SCRIPT="x"))

    def test_what_is_merged_into_requests_can_be_set(self):
        found = settings.from_environment(
            {"AGENT": "openai", "AGENT_URL": "http://a/v1", "EVAL_EXTRA_BODY": '{"seed": 7, "top_k": 1}'}
        )
        self.assertEqual(found.extra_body, {"seed": 7, "top_k": 1, "temperature": settings.TEMPERATURE})
        self.assertEqual(settings.from_environment({"AGENT": "openai"}).extra_body, {"seed": 1})
        with self.assertRaisesRegex(SystemExit, "EVAL_EXTRA_BODY"):
            settings.from_environment({"EVAL_EXTRA_BODY": "[1]"})


class Service(unittest.TestCase):
    def test_counters_are_summed_up(self):
        text = (
            "# TYPE blog_agent_calls_total counter\n"
            'blog_agent_calls_total{agent="a",model="m",outcome="succeeded"} 3\n'
            'blog_agent_calls_total{agent="a",model="m",outcome="agent_timeout"} 1\n'
            'blog_agent_tokens_total{agent="a",direction="out",model="m"} 70\n'
            'blog_agent_call_duration_seconds_sum{agent="a",model="m"} 2.5\n'
        )
        found = sum_counters(text)
        self.assertEqual(found["blog_agent_calls_total"], 4)
        self.assertEqual(found["blog_agent_tokens_total out"], 70)
        self.assertEqual(found["blog_agent_call_duration_seconds_sum"], 2.5)


class Report(unittest.TestCase):
    def test_a_row_for_each_post_and_one_for_all(self):
        failed = run("", status="failed", error="agent_timeout: too slow", title="")
        text = report.table("ours", {"tea": run(), "milk": failed})
        self.assertEqual(len(text.split("\n")), 4)
        self.assertRegex(text, r"tea +\d")
        self.assertIn("failed: agent_timeout: too slow; empty", text)
        self.assertIn("succeeded 1/2, well-formed 1/2", text)

    def test_summaries_stand_side_by_side(self):
        text = report.compared({"ours": report.summary([run()]), "baseline": report.summary([])})
        self.assertRegex(text, r"well-formed +1/1 +-")

    def test_warnings_are_counted_by_code(self):
        warned = run(warnings=[{"code": "loop"}, {"code": "length"}, {"code": "loop"}])
        self.assertEqual(report.summary([warned, run()])["warnings"], "loop 2, length 1")


class Pages(unittest.TestCase):
    def test_nothing_but_words_gets_through(self):
        for text in [
            "<script>alert(1)</script>", "[x](javascript:alert(1))", '[x](https://a" onclick="b)',
            "![x](https://a/b.png)", "`<b>`", "```\n</code></pre><script>\n```", "# <img src=x onerror=y>",
            "| <i>a</i> |\n|---|\n| [x](data:text/html,b) |", '[a](https://b/"><script>)',
        ]:
            html = render(text)
            self.assertNotRegex(html, r"<(script|img|i|b)\b|<a [^>]*(javascript|data|onclick)", text)

    def test_markdown_is_shown(self):
        self.assertEqual(inline("**a** *b* `*c*` [d_e_](https://x/_y_)"),
                         "<strong>a</strong> <em>b</em> <code>*c*</code> "
                         '<a href="https://x/_y_" rel="noreferrer">d_e_</a>')
        self.assertEqual(render("3. a\n   - b\n4. c"),
                         '<ol start="3"><li>a<ul><li>b</li></ul></li><li>c</li></ol>')
        self.assertEqual(render("[`a`](https://b)"),
                         '<p><a href="https://b" rel="noreferrer"><code>a</code></a></p>')

    def test_the_report_has_both_sides(self):
        sides = {"ours": {"tea": run()}, "baseline": {"tea": run("Alt.")}}
        html = page.report_page("m<1>", [TOPIC], sides, "s")
        for words in ["m&lt;1&gt;", "Tee ist gut.", "Alt.", 'lang="de" dir="ltr"']:
            self.assertIn(words, html)

    def test_blind_pairs_name_nobody(self):
        topics = [Topic(f"t{i}", "list", "en", f"Topic {i}", {}) for i in range(9)]
        ours = {topic.id: run(f"Mine {topic.id}.") for topic in topics[1:]}
        others = {topic.id: run(f"Theirs {topic.id}.") for topic in topics}
        pairs, key, numbered = blind.make_pairs(topics, ours, others, seed=1)
        self.assertEqual(blind.make_pairs(topics, ours, others, seed=1)[0], pairs)
        self.assertEqual(len(pairs), 8)
        self.assertEqual({entry["a"] for entry in key}, {"ours", "baseline"})
        shown = json.dumps(pairs) + page.blind_page(pairs, numbered)
        self.assertNotIn("ours", shown)
        self.assertNotIn("baseline", shown)
        for pair, entry in zip(pairs, key):
            mine = "a" if entry["a"] == "ours" else "b"
            self.assertEqual(pair[mine]["content"], f"Mine {entry['id']}.")


if __name__ == "__main__":
    unittest.main()

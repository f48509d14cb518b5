"""The pages for readers: all posts beside their baselines, and the blind pairs."""

from html import escape

from form import unfenced
from language import primary
from render import render
from report import COLUMNS, LEGEND, remarks, table
from topics import Topic

RIGHT_TO_LEFT = ("ar", "fa", "he", "ur")

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --soft: #8881; }}
body {{ font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 100rem; padding: 1rem; }}
.pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; }}
@media (max-width: 50rem) {{ .pair {{ grid-template-columns: 1fr; }} }}
article {{ border: 1px solid var(--line); border-radius: .5rem; padding: 0 1rem 1rem; min-width: 0;
  overflow-wrap: anywhere; }}
section > h2 {{ border-top: 2px solid var(--line); margin-top: 3rem; padding-top: 1rem; }}
article h1 {{ font-size: 1.5rem; }} article h2 {{ font-size: 1.2rem; }} article h3 {{ font-size: 1.05rem; }}
pre, .scroll {{ overflow-x: auto; background: var(--soft); padding: .5rem; border-radius: .3rem; }}
code {{ font-size: .9em; }} table {{ border-collapse: collapse; }}
th, td {{ border: 1px solid var(--line); padding: .2rem .5rem; text-align: start; }}
blockquote {{ border-inline-start: 3px solid var(--line); margin-inline: 0; padding-inline-start: 1rem; }}
small, .brief {{ opacity: .8; }} nav a {{ margin-inline-end: .8rem; }}
</style></head><body>
"""


def brief(topic: Topic) -> str:
    options = ", ".join(f"{name}: {value}" for name, value in topic.options.items())
    return f'<p class="brief"><b>{escape(topic.topic)}</b><br><small>{escape(options)}</small></p>'


def article(title: str, content: str, topic: Topic, label: str, remark: str = "") -> str:
    language = primary(topic.language)
    direction = "rtl" if language in RIGHT_TO_LEFT else "ltr"
    note = f"<small>{escape(remark)}</small>" if remark else ""
    return (
        f'<article><p><b>{escape(label)}</b> {note}</p><div lang="{escape(language)}" dir="{direction}">'
        f"<h1>{escape(title)}</h1>\n{render(unfenced(content))}</div></article>"
    )


def report_page(model: str, topics: list[Topic], sides: dict[str, dict[str, dict]], text: str) -> str:
    """`sides` has the runs by topic of each side, such as ours and baseline."""
    links = "".join(f'<a href="#{escape(topic.id)}">{escape(topic.id)}</a>' for topic in topics)
    tables = "\n\n".join(table(name, runs) for name, runs in sides.items())
    parts = [
        HEAD.format(title=escape(f"Posts by {model}")),
        f"<h1>Posts by {escape(model)}</h1>",
        f'<pre class="scroll">{escape(text)}\n\n{escape(tables)}\n\n{escape(LEGEND)}</pre><nav>{links}</nav>',
    ]
    for topic in topics:
        posts = "".join(
            article(run["title"], run["content"], topic, name, _remark(run))
            for name, runs in sides.items()
            if (run := runs.get(topic.id))
        )
        parts.append(
            f'<section id="{escape(topic.id)}"><h2>{escape(topic.id)}</h2>{brief(topic)}'
            f'<div class="pair">{posts}</div></section>'
        )
    return "\n".join([*parts, "</body></html>"])


def _remark(run: dict) -> str:
    shown = ("words", "of it", "rep5", "open3", "dup", "kw", "exp", "sec")
    measured = ", ".join(f"{title} {value(run)}" for title, value in COLUMNS if title in shown)
    warnings = ", ".join(str(warning["code"]) for warning in run["warnings"])
    return f"{remarks(run)} | {measured}" + (f" | warnings: {warnings}" if warnings else "")


def blind_page(pairs: list[dict], topics: dict[int, Topic]) -> str:
    """Pairs without names: `pairs` as blind.json has them, and the topic of each number."""
    parts = [HEAD.format(title="Pairs of posts"), "<h1>Pairs of posts</h1>"]
    for pair in pairs:
        topic = topics[pair["pair"]]
        posts = "".join(
            article(pair[side]["title"], pair[side]["content"], topic, side.upper()) for side in ("a", "b")
        )
        parts.append(
            f'<section id="pair-{pair["pair"]}"><h2>Pair {pair["pair"]}</h2>{brief(topic)}'
            f'<div class="pair">{posts}</div></section>'
        )
    return "\n".join([*parts, "</body></html>"])

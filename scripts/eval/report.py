"""The table of a run, and its summary."""

from collections import Counter
from collections.abc import Callable
from statistics import mean, median

Run = dict  # what came of one topic: how it was written, and under "measures" what was measured


def _mark(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _share(kept: int, of: int) -> str:
    return f"{kept}/{of}" if of else "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _kept(run: Run, name: str, missing: str) -> tuple[int, int]:
    measures = run["measures"]
    return measures[name] - len(measures[missing]), measures[name]


def _keywords(run: Run) -> tuple[int, int]:
    return _kept(run, "keywords", "keywords_missing")


def _facts(runs: list[Run], kept: str, of: str) -> str:
    facts = [run["facts"] for run in runs if "facts" in run]
    return _sums([(fact[kept], fact[of]) for fact in facts]) if facts else "-"


def _expectations(run: Run) -> tuple[int, int]:
    return _kept(run, "expectations", "expectations_missed")


def remarks(run: Run) -> str:
    """What is wrong with a post, in words."""
    measures = run["measures"]
    parts = [*measures["flaws"]]
    if run["status"] != "succeeded":
        parts.insert(0, f"{run['status']}: {run['error']}" if run["error"] else run["status"])
    if run["content"] and not measures["language_kept"]:
        parts.append("wrong language")
    if missing := measures["keywords_missing"]:
        parts.append(f"without {', '.join(missing)}")
    if missed := measures["expectations_missed"]:
        parts.append(f"not {', '.join(missed)}")
    return "; ".join(parts) or "ok"


COLUMNS: list[tuple[str, Callable[[Run], str]]] = [
    ("words", lambda r: str(r["measures"]["words"])),
    ("api", lambda r: str(r["api_words"])),
    ("wish", lambda r: str(r["measures"]["wished_words"])),
    ("of it", lambda r: _percent(r["measures"]["length_ratio"])),
    ("sect", lambda r: str(r["measures"]["sections"])),
    ("own", lambda r: _percent(r["measures"]["own_headings"])),
    ("rep5", lambda r: _percent(r["measures"]["repeated_runs"])),
    ("open3", lambda r: _percent(r["measures"]["same_openings"])),
    ("dup", lambda r: str(r["measures"]["near_duplicates"])),
    ("again", lambda r: _percent(r["measures"]["reintroductions"])),
    ("stock", lambda r: f"{r['measures']['stock_phrases']:.0f}"),
    ("fig", lambda r: f"{r['measures']['figures']:.0f}"),
    ("kw", lambda r: _share(*_keywords(r))),
    ("exp", lambda r: _share(*_expectations(r))),
    ("facts", lambda r: _facts([r], "facts", "known_facts")),
    ("prec", lambda r: _facts([r], "cited_facts", "cited")),
    ("rec", lambda r: _facts([r], "fact_sentences_cited", "fact_sentences")),
    ("lang", lambda r: _mark(r["measures"]["language_kept"])),
    ("intro", lambda r: _mark(r["measures"]["introduction"])),
    ("concl", lambda r: _mark(r["measures"]["conclusion"])),
    ("warn", lambda r: str(len(r["warnings"]))),
    ("calls", lambda r: str(r["calls"])),
    ("in", lambda r: str(r["input_tokens"])),
    ("out", lambda r: str(r["output_tokens"])),
    ("sec", lambda r: f"{r['seconds']:.0f}"),
    ("tok/s", lambda r: f"{r['tokens_per_second']:.1f}"),
]

LEGEND = """\
words: by script (zh, ja, th: characters / 1.7, 2.2, 3.5); api: the API's word_count; of it: of the wish;
own: headings that the model made; rep5: runs of 5 words that come again; open3: sentences that begin with
the same 3 words as another; dup: near-duplicate sentences; again: sections after the first that begin with
the topic again; stock, fig: stock phrases and figures in 1000 words; kw, exp: keywords and expectations
kept; facts: known facts of the sources that are told, prec: sentences that cite a source and tell a fact
of it, rec: sentences with a known fact that cite its source; lang, intro, concl: language kept, an introduction, a conclusion; warn: the job's warnings"""


def _count(runs: list[Run], measure: str) -> str:
    return _share(sum(1 for run in runs if run["measures"][measure]), len(runs))


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def _mean(values: list[float]) -> float | None:
    return mean(values) if values else None


def _sums(pairs: list[tuple[int, int]]) -> str:
    return _share(sum(kept for kept, _ in pairs), sum(of for _, of in pairs))


def summary(runs: list[Run]) -> dict[str, str]:
    """Medians are over the posts that have a text; the rest counts as not kept."""
    measures = [run["measures"] for run in runs if run["content"]]
    values = lambda name: [m[name] for m in measures if m[name] is not None]
    speeds = [run["tokens_per_second"] for run in runs if run["tokens_per_second"]]
    speed = _median(speeds)
    off = _median([abs(ratio - 1) for ratio in values("length_ratio")])
    return {
        "succeeded": _share(sum(1 for run in runs if run["status"] == "succeeded"), len(runs)),
        "well-formed": _count(runs, "well_formed"),
        "length within 25%": _count(runs, "length_kept"),
        "length off, median": _percent(off),
        "language kept": _count(runs, "language_kept"),
        "introduction": _count(runs, "introduction"),
        "conclusion": _count(runs, "conclusion"),
        "keywords": _sums([_keywords(run) for run in runs]),
        "expectations": _sums([_expectations(run) for run in runs]),
        "known facts told": _facts(runs, "facts", "known_facts"),
        "citations with a known fact": _facts(runs, "cited_facts", "cited"),
        "known facts cited": _facts(runs, "fact_sentences_cited", "fact_sentences"),
        "fallback headings": _share(
            sum(len(m["fallback_headings"]) for m in measures), sum(m["headings"] for m in measures)
        ),
        "repeated runs, median": _percent(_median(values("repeated_runs"))),
        "same openings, median": _percent(_median(values("same_openings"))),
        "near-duplicates": str(sum(values("near_duplicates"))),
        "reintroductions, mean": _percent(_mean(values("reintroductions"))),
        "stock phrases, median": _number(_median(values("stock_phrases"))),
        "figures, median": _number(_median(values("figures"))),
        "warnings": _warnings(runs),
        "calls": str(sum(run["calls"] for run in runs)),
        "input tokens": str(sum(run["input_tokens"] for run in runs)),
        "output tokens": str(sum(run["output_tokens"] for run in runs)),
        "seconds": f"{sum(run['seconds'] for run in runs):.0f}",
        "tokens/s, median": _number(speed),
    }


def _warnings(runs: list[Run]) -> str:
    codes = Counter(str(warning["code"]) for run in runs for warning in run["warnings"])
    return ", ".join(f"{code} {count}" for code, count in codes.most_common()) or "0"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def table(name: str, runs: dict[str, Run]) -> str:
    """One row a post, by the topics' ids, and one for all."""
    head = [name, *(title for title, _ in COLUMNS), "remarks"]
    rows = [
        [topic, *(value(run) for _, value in COLUMNS), remarks(run)] for topic, run in runs.items()
    ]
    return aligned([head, *rows]) + "\n" + _summary_row(list(runs.values()))


def _summary_row(runs: list[Run]) -> str:
    totals = summary(runs)
    named = ("succeeded", "well-formed", "length within 25%", "language kept", "fallback headings",
             "repeated runs, median", "keywords", "expectations", "seconds")
    return "= " + ", ".join(f"{name} {totals[name]}" for name in named)


def compared(summaries: dict[str, dict[str, str]]) -> str:
    """The summaries of several runs, side by side."""
    names = next(iter(summaries.values()))
    rows = [[name, *(each[name] for each in summaries.values())] for name in names]
    return aligned([["summary", *summaries], *rows])


def aligned(rows: list[list[str]]) -> str:
    """Columns of even width: the first and the last to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    last = len(widths) - 1
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i == 0 else cell if i == last and last > 5 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

"""How much a text repeats itself."""

from collections import Counter

from language import sentences, units, units_per_word

RUN_WORDS = 5
OPENING_WORDS = 3
NEAR_DUPLICATE = 0.8  # of the words of two sentences together, how many are in both
MIN_WORDS = 5  # shorter sentences are alike by chance


def repeated_runs(pieces: list[str], language: str) -> float:
    """The share of runs of five words that occur more than once."""
    length = round(RUN_WORDS * units_per_word(language))
    runs: Counter = Counter()
    for piece in pieces:
        words = units(piece)
        runs.update(tuple(words[i : i + length]) for i in range(len(words) - length + 1))
    total = sum(runs.values())
    return sum(count for count in runs.values() if count > 1) / total if total else 0.0


def same_openings(pieces: list[str], language: str) -> float:
    """The share of sentences that begin with the same three words as another."""
    length = round(OPENING_WORDS * units_per_word(language))
    words = [units(sentence) for sentence in _sentences(pieces, language)]
    openings = Counter(tuple(each[:length]) for each in words if len(each) > length)
    total = sum(openings.values())
    return sum(count for count in openings.values() if count > 1) / total if total else 0.0


def near_duplicates(pieces: list[str], language: str) -> int:
    """How many sentences say what one before them says, in almost the same words."""
    least = round(MIN_WORDS * units_per_word(language))
    words = [units(sentence) for sentence in _sentences(pieces, language)]
    sets = [_pairs(each) if language in ("zh", "ja", "th") else set(each)
            for each in words if len(each) >= least]
    return sum(any(_alike(one, other) for other in sets[:i]) for i, one in enumerate(sets))


def _pairs(characters: list[str]) -> set:
    return set(zip(characters, characters[1:]))


def _alike(one: set, other: set) -> bool:
    return len(one & other) >= NEAR_DUPLICATE * len(one | other)


def _sentences(pieces: list[str], language: str) -> list[str]:
    return [sentence for piece in pieces for sentence in sentences(piece, language)]

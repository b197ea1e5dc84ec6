"""Texts that are made for a regular expression match it."""

import re

import pytest
from hypothesis import given, settings, strategies as st

from tidegate.simulator.answers.seeded import SeededChoices
from tidegate.simulator.structured.regex import regexes
from tidegate.simulator.structured.regex.expressions import Expression, Unreadable
from tidegate.simulator.structured.regex.formats import FORMATS
from tidegate.simulator.structured.regex.regexes import read_regex
from tidegate.simulator.structured.regex.scanner import NESTING_MAX
from tidegate.simulator.structured.regex.writing import COST_MAX, EXTRA_COST, Writer

# Regular expressions of every part of the language, put together at random.
_LEAVES = st.sampled_from(
    ["a", "Z", "\u00e9", "_", r"\.", r"\d", r"\W", r"\s", ".", "[a-c]", "[^a-z]", r"[\d_-]", r"\n",
     "{", r"\x41", r"\u00e9", r"[\s\S]", r"[\]x]"]
)  # fmt: skip
PATTERNS = st.recursive(
    _LEAVES,
    lambda inner: (
        st.builds("".join, st.lists(inner, max_size=4))
        | st.builds("({}|{})".format, inner, inner)
        | st.builds(
            "(?:{}){}".format,
            inner,
            st.sampled_from(["*", "+", "?", "{2}", "{0,3}", "{1,}", "*?", "+?"]),
        )
        | st.builds("(?P<n>{})?".format, _LEAVES)
    ),
    max_leaves=12,
)


def texts(expression: Expression, count: int = 8) -> list[str]:
    writer = Writer(expression)
    return [writer.write(SeededChoices(number)) for number in range(count)]


@settings(max_examples=400, deadline=None)
@given(pattern=PATTERNS, drain=st.sampled_from(["{}", "^{}$", "^(?:{})$|x"]))
def test_a_text_fits_its_regular_expression(pattern: str, drain: str) -> None:
    whole = drain.format(pattern)
    try:
        compiled = re.compile(whole)
    except re.error:  # A name that is there twice.
        return
    for text in texts(read_regex(whole), 3):
        assert compiled.fullmatch(text), (whole, text)


@pytest.mark.parametrize("shape", FORMATS)
def test_formats_are_regular_expressions(shape: str) -> None:
    for text in texts(read_regex(FORMATS[shape]), 40):
        assert re.fullmatch(FORMATS[shape], text)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?=a)", "(?!a)", "(?<=a)", "(?<!a)", r"(a)\1", r"\b", r"\p{L}", "(?i)a", "(?P=n)"),
        *("a**", "a{2}{3}", "*a", "|?", "^*", "a^b", "a$b", "(^a)*", "$^"),
        *("(", ")", "a)", "[", "[]", "[b-a]", r"[\w-a]", "\\", r"\x4", r"\u{110000}", r"\ud800"),
        *("(?<n", "(?<n-m>a)", "a{3,2}", "a{9999999}", r"[^\s\S]", r"\01", "a\0"),
        "(" * (NESTING_MAX + 1) + ")" * (NESTING_MAX + 1),
        "a" * (regexes.CHARACTERS_MAX + 1),
        "(((a{900}){900}){900}){900}",
    ],
    ids=lambda pattern: pattern[:20],
)
def test_what_is_not_supported_is_refused(pattern: str) -> None:
    with pytest.raises(Unreadable):
        Writer(read_regex(pattern))


def test_what_a_number_chooses_differs_and_stays() -> None:
    found = texts(read_regex("[a-z]{8}"), 30)
    assert len(set(found)) == 30
    assert found == texts(read_regex("[a-z]{8}"), 30)


@pytest.mark.parametrize(
    ("pattern", "length"),
    [(".*", None), ("(a|b*)*", None), (f"[ab]{{{COST_MAX - 1}}}", COST_MAX - 1), ("(|){4000}", 0)],
)
def test_no_text_is_longer_than_the_budget(pattern: str, length: int | None) -> None:
    writer = Writer(read_regex(pattern))
    assert writer.work_max <= COST_MAX + EXTRA_COST
    for number in range(20):
        text = writer.write(SeededChoices(number))
        assert len(text) <= writer.work_max
        assert length in {None, len(text)}


def test_a_text_that_costs_one_too_much_is_refused() -> None:
    Writer(read_regex(f"a{{{(COST_MAX - 1) // 2}}}"))
    with pytest.raises(Unreadable, match=str(COST_MAX)):
        Writer(read_regex(f"[ab]{{{COST_MAX}}}"))

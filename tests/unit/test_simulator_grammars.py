"""Texts that are made for a regular expression or a grammar fit it, whatever it is."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from tidegate.simulator.dice import Dice
from tidegate.simulator.grammars import ebnf, lark, regexes
from tidegate.simulator.grammars.ebnf import read_ebnf
from tidegate.simulator.grammars.expressions import Grammar, Unreadable
from tidegate.simulator.grammars.formats import FORMATS
from tidegate.simulator.grammars.lark import COMMON, read_lark
from tidegate.simulator.grammars.regexes import read_regex
from tidegate.simulator.grammars.scanner import NESTING_MAX
from tidegate.simulator.grammars.writing import COST_MAX, EXTRA_COST, Writer

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


def texts(grammar: Grammar, count: int = 8) -> list[str]:
    writer = Writer(grammar)
    return [writer.write(Dice(number)) for number in range(count)]


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


@pytest.mark.parametrize("name", COMMON)
def test_rules_of_lark_are_regular_expressions(name: str) -> None:
    grammar = read_lark(f"start: {name}\n%import common.{name}")
    for text in texts(grammar, 20):
        assert re.fullmatch(COMMON[name], text)


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
def test_what_is_not_offered_is_told(pattern: str) -> None:
    with pytest.raises(Unreadable):
        Writer(read_regex(pattern))


def test_what_a_number_chooses_differs_and_stays() -> None:
    found = texts(read_regex("[a-z]{8}"), 30)
    assert len(set(found)) == 30
    assert found == texts(read_regex("[a-z]{8}"), 30)


@pytest.mark.parametrize(
    ("pattern", "length"),
    [(".*", None), ("(a|b*)*", None), (f"[ab]{{{COST_MAX - 2}}}", COST_MAX - 2), ("(|){4000}", 0)],
)
def test_no_text_is_longer_than_the_purse(pattern: str, length: int | None) -> None:
    writer = Writer(read_regex(pattern))
    assert writer.work_max <= COST_MAX + EXTRA_COST
    for number in range(20):
        text = writer.write(Dice(number))
        assert len(text) <= writer.work_max
        assert length in {None, len(text)}


def test_a_text_that_costs_one_too_much_is_refused() -> None:
    Writer(read_regex(f"a{{{(COST_MAX - 2) // 2}}}"))
    with pytest.raises(Unreadable, match=str(COST_MAX)):
        Writer(read_regex(f"[ab]{{{COST_MAX - 1}}}"))


# Grammars

SUM = 'root ::= term (("+" | "-") term)*\nterm ::= [0-9]{1,3} | "(" root ")"  # a number\n'
SQL = (
    'root ::= "SELECT " column " FROM " table\n'
    '  | "DROP " table\ncolumn ::= "col_1"\n  | "col_2"\ntable ::= "t\\"\\x41\\u00e9"\n'
)
SUM_OF_LARK = (
    '// A sum.\n?start: part\n  | start "+" part -> add\npart.2: INT | "(" start ")"\n'
    "%import common (INT, WS)\n%ignore WS\n"
)


def is_sum(text: str) -> bool:
    """Take the innermost brackets away until none is left."""
    while (shorter := re.sub(r"\(\d{1,3}([+-]\d{1,3})*\)", "1", text)) != text:
        text = shorter
    return re.fullmatch(r"\d{1,3}([+-]\d{1,3})*", text) is not None


@pytest.mark.parametrize(
    ("read", "grammar", "fits"),
    [
        (read_ebnf, SUM, is_sum),
        (read_ebnf, SQL, lambda text: re.fullmatch('SELECT col_[12] FROM t"Aé|DROP t"Aé', text)),
        (read_ebnf, "root ::=", lambda text: text == ""),
        (
            read_ebnf,
            "root ::= . [^a-zA-Z0-9]{2}",
            lambda text: re.fullmatch(".[^a-zA-Z0-9]{2}", text),
        ),
        (
            read_lark,
            SUM_OF_LARK,
            lambda text: is_sum(re.sub(r"\d+", "1", text)),
        ),
        (
            read_lark,
            'start: "x"~2..3 ["y"i] /[a-c]+\\/d/i WHO~1\nWHO: "a".."f" | "Z"\n',
            lambda text: re.fullmatch(r"x{2,3}y?[a-c]+/d[a-fZ]", text),
        ),
        (
            read_lark,
            'start: ("a"\n  | "b")+ NAME\n%import common.CNAME -> NAME\n',
            lambda text: re.fullmatch(r"[ab]+[a-zA-Z_]\w*", text),
        ),
    ],
)
def test_a_text_fits_its_grammar(
    read: Callable[[str], Grammar], grammar: str, fits: Callable[[str], object]
) -> None:
    found = texts(read(grammar), 40)
    for text in found:
        assert fits(text), text
    assert len(set(found)) > 1 or found[0] in {"", found[1]}


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= root",
        "root ::= nothing",
        'other ::= "a"',
        'root ::= "a"\nroot ::= "b"',
        'root ::= "a',
        'root ::= ("a"',
        'root ::= "a")',
        'root ::= "a" (= "b")',
        'root ::= TagDispatch("a")',
        'root ::= "a" * *',
        "root ::= [z-a]",
        "::= 7",
        "root",
        'root ::= "a" @',
        "root ::= " + "(" * (NESTING_MAX + 1),
        "x" * (ebnf.CHARACTERS_MAX + 1),
        "\n".join(f"r{number} ::= [a]" for number in range(ebnf.RULES_MAX + 1)),
    ],
    ids=lambda grammar: grammar[:20],
)
def test_a_grammar_that_can_not_be_followed_is_refused(grammar: str) -> None:
    with pytest.raises(Unreadable):
        Writer(read_ebnf(grammar))


@pytest.mark.parametrize(
    "grammar",
    [
        *("start: start", "start: A", 'rule: "a"', 'start: "a"\nstart: "b"', 'start: "a', "hello"),
        *('start{x}: "a"', "start: x{y}", "%declare A", "%import common.NOTHING", 'start.x: "a"'),
        *(
            "%import other.WORD",
            "%import common (WORD",
            "%import common ()",
            "start: /a",
            "start: /[",
        ),
        *('start: "a"~', 'start: "a"~3..2', 'start: "b".."a"', 'start: "ab".."c"', 'start: ("a"'),
        *("start: /a/x", 'start: "a" $'),
        "//" + "x" * lark.CHARACTERS_MAX,
        "\n".join(f"r{number}: /a/" for number in range(lark.RULES_MAX + 1)),
    ],
    ids=lambda grammar: grammar[:20],
)
def test_a_grammar_of_lark_that_can_not_be_followed_is_refused(grammar: str) -> None:
    with pytest.raises(Unreadable):
        Writer(read_lark(grammar))


def test_rules_that_wind_around_each_other_come_to_an_end() -> None:
    """Each rule is cheaper once the one behind it is known: worked out again and again."""
    count = 1_200
    chain = "\n".join(f"r{place} ::= r{place + 1} | [ab]{{2}} r{place}" for place in range(count))
    calls = " ".join(f"r{place}" for place in range(count))
    with pytest.raises(Unreadable, match="too large"):
        Writer(read_ebnf(f'root ::= {calls}\n{chain}\nr{count} ::= "x"'))
    doubled = "\n".join(f"r{place} ::= r{place + 1} r{place + 1}" for place in range(100))
    with pytest.raises(Unreadable):
        Writer(read_ebnf(f'root ::= r0\n{doubled}\nr100 ::= "x"'))


def test_who_calls_itself_twice_stays_short() -> None:
    for text in texts(read_ebnf("root ::= root root | [a] root? | (root root)*"), 50):
        assert len(text) <= EXTRA_COST + 2

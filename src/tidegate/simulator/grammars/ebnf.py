"""Grammars in the notation of xgrammar and of llama.cpp: `root ::= "a" | [0-9]+ rest`."""

from tidegate.simulator.grammars.expressions import (
    LINE_ENDS,
    Expression,
    Grammar,
    Named,
    Text,
    Unreadable,
    characters,
    in_a_row,
    one_of,
    others,
)
from tidegate.simulator.grammars.scanner import Scanner

CHARACTERS_MAX = 65_536
RULES_MAX = 4_096
ROOT = "root"
_SIGN = "::="
_NAME_MARKS = frozenset("_-.")


def read_ebnf(text: str) -> Grammar:
    """Return a grammar, read; its whole text is what `root` says.

    Raises:
        Unreadable: it is none, or has a part that is not offered.
    """
    if len(text) > CHARACTERS_MAX:
        raise Unreadable(f"a grammar has {CHARACTERS_MAX} characters at most")
    scanner = Scanner(text)
    rules: dict[str, Expression] = {}
    _blank(scanner)
    while scanner.next:
        name = _name(scanner)
        if not name:
            raise scanner.wrong("a rule begins with its name")
        _blank(scanner)
        scanner.expect(_SIGN)
        if name in rules:
            raise scanner.wrong(f"the rule '{name}' is there twice")
        if len(rules) >= RULES_MAX:
            raise scanner.wrong(f"there are more than {RULES_MAX} rules")
        rules[name] = _options(scanner)
        _blank(scanner)
    if ROOT not in rules:
        raise Unreadable(f"there is no rule '{ROOT}'")
    return Grammar(rules, ROOT)


def _blank(scanner: Scanner) -> None:
    """Go past blanks, ends of lines and remarks."""
    while scanner.next:
        if scanner.accept("#"):
            while scanner.next and scanner.next != "\n":
                scanner.take()
        elif scanner.next.isspace():
            scanner.take()
        else:
            return


def _name(scanner: Scanner) -> str:
    start = scanner.place
    while scanner.next and (scanner.next.isalnum() or scanner.next in _NAME_MARKS):
        scanner.take()
    return scanner.text[start : scanner.place]


def _options(scanner: Scanner) -> Expression:
    scanner.enter()
    options = [_row(scanner)]
    while scanner.accept("|"):
        options.append(_row(scanner))
    scanner.leave()
    return one_of(options)


def _row(scanner: Scanner) -> Expression:
    items: list[Expression] = []
    while True:
        _blank(scanner)
        if not scanner.next or scanner.next in "|)" or _begins_rule(scanner):
            return in_a_row(items) if items else Text("")
        items.append(scanner.repeated(_item(scanner)))


def _begins_rule(scanner: Scanner) -> bool:
    start = scanner.place
    begins = bool(_name(scanner))
    if begins:
        _blank(scanner)
        begins = scanner.accept(_SIGN)
    scanner.place = start
    return begins


def _item(scanner: Scanner) -> Expression:
    if scanner.accept('"'):
        return Text(_quoted(scanner))
    if scanner.accept("["):
        return scanner.character_class()
    if scanner.accept("("):
        _blank(scanner)
        if scanner.next == "=":
            raise scanner.wrong("looking ahead is not supported")
        found = _options(scanner)
        scanner.expect(")")
        return found
    if scanner.accept("."):
        return characters(others(LINE_ENDS))
    name = _name(scanner)
    if not name:
        raise scanner.wrong(f"'{scanner.next}' is no part of a rule")
    if scanner.next == "(":
        raise scanner.wrong(f"'{name}(...)' is not supported")
    return Named(name)


def _quoted(scanner: Scanner) -> str:
    """Return the text whose opening quote is behind."""
    written: list[str] = []
    while not scanner.accept('"'):
        if scanner.next == "\n":
            raise scanner.wrong("a text has no closing quote")
        written.append(scanner.escaped() if scanner.accept("\\") else scanner.take())
    return "".join(written)

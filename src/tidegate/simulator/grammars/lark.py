"""Grammars in the notation of Lark, as far as single texts go: `start: "a" NUMBER`.

What `%ignore` names may stand between others; nothing is put there. Priorities, aliases and signs
that only shape a tree are passed over.
"""

from tidegate.simulator.grammars.expressions import (
    Expression,
    Grammar,
    Named,
    Repeat,
    Text,
    Unreadable,
    characters,
    in_a_row,
    one_of,
)
from tidegate.simulator.grammars.regexes import regex
from tidegate.simulator.grammars.scanner import Scanner

CHARACTERS_MAX = 65_536
RULES_MAX = 4_096
ROOT = "start"
_PASSED_OVER = "!?"
_FLAGS = frozenset("imsux")
# What can be imported from Lark's own rules, as regular expressions.
COMMON = {
    "DIGIT": "[0-9]",
    "HEXDIGIT": "[a-fA-F0-9]",
    "INT": "[0-9]+",
    "SIGNED_INT": "[+-]?[0-9]+",
    "DECIMAL": r"[0-9]+\.[0-9]*|\.[0-9]+",
    "FLOAT": r"[0-9]+\.[0-9]+([eE][+-]?[0-9]+)?",
    "SIGNED_FLOAT": r"[+-]?[0-9]+\.[0-9]+([eE][+-]?[0-9]+)?",
    "NUMBER": r"[0-9]+(\.[0-9]+)?",
    "SIGNED_NUMBER": r"[+-]?[0-9]+(\.[0-9]+)?",
    "LCASE_LETTER": "[a-z]",
    "UCASE_LETTER": "[A-Z]",
    "LETTER": "[a-zA-Z]",
    "WORD": "[a-zA-Z]+",
    "CNAME": "[a-zA-Z_][a-zA-Z0-9_]*",
    "ESCAPED_STRING": '"[a-zA-Z0-9 ]*"',
    "WS_INLINE": "[ \\t]+",
    "WS": "[ \\t\\n]+",
    "CR": "\\r",
    "LF": "\\n",
    "NEWLINE": "(\\r?\\n)+",
}


def read_lark(text: str) -> Grammar:
    """Return a grammar, read; its whole text is what `start` says.

    Raises:
        Unreadable: it is none, or has a part that is not offered.
    """
    if len(text) > CHARACTERS_MAX:
        raise Unreadable(f"a grammar has {CHARACTERS_MAX} characters at most")
    scanner = Scanner(text)
    rules: dict[str, Expression] = {}
    while _next_line(scanner):
        if scanner.accept("%"):
            rules |= _directive(scanner)
            continue
        name = _rule_name(scanner)
        if name in rules:
            raise scanner.wrong(f"the rule '{name}' is there twice")
        rules[name] = _options(scanner)
        if len(rules) > RULES_MAX:
            raise scanner.wrong(f"there are more than {RULES_MAX} rules")
    if ROOT not in rules:
        raise Unreadable(f"there is no rule '{ROOT}'")
    return Grammar(rules, ROOT)


def _blank(scanner: Scanner) -> None:
    """Go past blanks and remarks, but not past the end of a line."""
    while scanner.next:
        if scanner.accept("//") or scanner.accept("#"):
            while scanner.next and scanner.next != "\n":
                scanner.take()
        elif scanner.next in " \t\r":
            scanner.take()
        else:
            return


def _next_line(scanner: Scanner) -> bool:
    _blank(scanner)
    while scanner.accept("\n"):
        _blank(scanner)
    return bool(scanner.next)


def _goes_on(scanner: Scanner) -> bool:
    """Go to the next line where it begins with `|`, and say whether it does."""
    start = scanner.place
    if _next_line(scanner) and scanner.next == "|":
        return True
    scanner.place = start
    return False


def _name(scanner: Scanner) -> str:
    start = scanner.place
    while scanner.next and (scanner.next.isalnum() or scanner.next == "_"):
        scanner.take()
    return scanner.text[start : scanner.place]


def _rule_name(scanner: Scanner) -> str:
    while scanner.next and scanner.next in _PASSED_OVER:
        scanner.take()
    name = _name(scanner)
    if not name:
        raise scanner.wrong("a rule begins with its name")
    if scanner.accept(".") and scanner.count() is None:
        raise scanner.wrong("a priority is a number")
    if scanner.next in {"{", "["}:
        raise scanner.wrong("rules with parameters or attributes are not supported")
    _blank(scanner)
    scanner.expect(":")
    return name


def _directive(scanner: Scanner) -> dict[str, Expression]:
    kind = _name(scanner)
    _blank(scanner)
    if kind == "ignore":
        _options(scanner)
        return {}
    if kind != "import":
        raise scanner.wrong(f"'%{kind}' is not supported")
    listed = _imported(scanner)
    unknown = next((name for name in listed if name not in COMMON), None)
    if unknown is not None:
        raise scanner.wrong(f"'common.{unknown}' is not supported")
    found = {name: regex(COMMON[name]) for name in listed}
    _blank(scanner)
    if scanner.accept("->"):
        _blank(scanner)
        return {_name(scanner): found[listed[0]]}
    return found


def _imported(scanner: Scanner) -> list[str]:
    scanner.expect("common")
    if scanner.accept("."):
        return [_name(scanner)]
    _blank(scanner)
    scanner.expect("(")
    listed: list[str] = []
    while not scanner.accept(")"):
        _blank(scanner)
        listed.append(_name(scanner))
        _blank(scanner)
        if not scanner.accept(",") and scanner.next != ")":
            raise scanner.wrong("names are listed with commas")
    if not listed:
        raise scanner.wrong("nothing is imported")
    return listed


def _options(scanner: Scanner) -> Expression:
    scanner.enter()
    options = [_row(scanner)]
    while scanner.next == "|" or _goes_on(scanner):
        scanner.take()
        options.append(_row(scanner))
    scanner.leave()
    return one_of(options)


def _row(scanner: Scanner) -> Expression:
    items: list[Expression] = []
    while True:
        _blank(scanner)
        if scanner.accept("->"):
            _blank(scanner)
            _name(scanner)
        elif not scanner.next or scanner.next in "|)]\n":
            return in_a_row(items) if items else Text("")
        else:
            items.append(_repeated(scanner, _item(scanner)))


def _repeated(scanner: Scanner, item: Expression) -> Expression:
    if not scanner.accept("~"):
        return scanner.repeated(item)
    low = scanner.count()
    high = scanner.count() if scanner.accept("..") else low
    if low is None or high is None or high < low:
        raise scanner.wrong("'~' wants a number, or two with '..' between")
    return Repeat(item, low, high)


def _item(scanner: Scanner) -> Expression:
    if scanner.accept('"'):
        return _literal(scanner)
    if scanner.accept("/"):
        return _pattern(scanner)
    if scanner.accept("("):
        found = _options(scanner)
        _next_line(scanner)
        scanner.expect(")")
        return found
    if scanner.accept("["):
        found = _options(scanner)
        _next_line(scanner)
        scanner.expect("]")
        return Repeat(found, 0, 1)
    name = _name(scanner)
    if not name:
        raise scanner.wrong(f"'{scanner.next}' is no part of a rule")
    if scanner.next == "{":
        raise scanner.wrong("rules with parameters are not supported")
    return Named(name)


def _literal(scanner: Scanner) -> Expression:
    """Return the text whose opening quote is behind, or the range that it begins."""
    first = _quoted(scanner)
    scanner.accept("i")  # Which letters are taken is free: these are.
    if not scanner.accept(".."):
        return Text(first)
    scanner.expect('"')
    last = _quoted(scanner)
    if len(first) != 1 or len(last) != 1 or last < first:
        raise scanner.wrong("a range goes from one character to a later one")
    return characters(((ord(first), ord(last)),))


def _quoted(scanner: Scanner) -> str:
    written: list[str] = []
    while not scanner.accept('"'):
        if scanner.next == "\n":
            raise scanner.wrong("a text has no closing quote")
        written.append(scanner.escaped() if scanner.accept("\\") else scanner.take())
    return "".join(written)


def _pattern(scanner: Scanner) -> Expression:
    """Return the regular expression whose opening slash is behind."""
    written: list[str] = []
    while not scanner.accept("/"):
        if scanner.next == "\n":
            raise scanner.wrong("a regular expression has no closing slash")
        if scanner.accept("\\"):
            written.append("/" if scanner.next == "/" else "\\" + scanner.next)
        else:
            written.append(scanner.next)
        scanner.take()
    while scanner.next in _FLAGS and scanner.next:
        if scanner.take() == "x":
            raise scanner.wrong("the flag 'x' is not supported")
    return regex("".join(written))

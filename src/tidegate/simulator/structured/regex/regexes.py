"""Regular expressions, in the part of their language that constrained decoding has.

There are classes, groups, alternatives and counts, and anchors at both ends. What looks around,
refers back or changes how the rest is read is refused, as is what no text could be made for.
"""

from tidegate.simulator.structured.regex.expressions import (
    LINE_ENDS,
    Choice,
    Expression,
    Repeat,
    Sequence,
    Text,
    Unreadable,
    characters,
    in_a_row,
    one_of,
    others,
)
from tidegate.simulator.structured.regex.scanner import CLASSES, Scanner

CHARACTERS_MAX = 16_384
_ANY = characters(others(LINE_ENDS))
# They stand in the tree until it is known that they stand at an end.
_START, _END = Text(""), Text("")
_SIGNS: dict[str, Expression] = {".": _ANY, "^": _START, "$": _END}


def read_regex(pattern: str) -> Expression:
    """Return a regular expression, read.

    Raises:
        Unreadable: it is malformed, or has a part that is not supported.
    """
    if len(pattern) > CHARACTERS_MAX:
        raise Unreadable(f"a regular expression has {CHARACTERS_MAX} characters at most")
    if "\0" in pattern:
        raise Unreadable("a regular expression has no NUL")
    scanner = Scanner(pattern)
    found = _alternatives(scanner)
    if scanner.next:
        raise scanner.wrong("a ')' closes nothing")
    return _anchored(found, begins=True, ends=True)


def _alternatives(scanner: Scanner) -> Expression:
    scanner.enter()
    options = [_row(scanner)]
    while scanner.accept("|"):
        options.append(_row(scanner))
    scanner.leave()
    return one_of(options)


def _row(scanner: Scanner) -> Expression:
    items: list[Expression] = []
    while scanner.next and scanner.next not in "|)":
        item = _atom(scanner)
        bounds = scanner.bounds()
        if bounds is not None:
            if item is _START or item is _END:
                raise scanner.wrong("an anchor can't be repeated")
            item = Repeat(item, *bounds)
            scanner.accept("?")  # Who is lazy finds the same texts.
            if scanner.bounds() is not None:
                raise scanner.wrong("there is nothing to repeat")
        items.append(item)
    return in_a_row(items) if items else Text("")


def _atom(scanner: Scanner) -> Expression:
    letter = scanner.take()
    if letter in _SIGNS:
        return _SIGNS[letter]
    match letter:
        case "(":
            return _group(scanner)
        case "[":
            return scanner.character_class()
        case "\\":
            return _escape(scanner)
        case "*" | "+" | "?":
            raise scanner.wrong("there is nothing to repeat")
        case _:
            return Text(letter)


def _escape(scanner: Scanner) -> Expression:
    if scanner.next in CLASSES:
        return characters(CLASSES[scanner.take()])
    if scanner.accept("A"):
        return _START
    if scanner.accept("z") or scanner.accept("Z"):
        return _END
    return Text(scanner.escaped())


def _group(scanner: Scanner) -> Expression:
    if scanner.accept("?"):
        if scanner.accept("P<") or scanner.accept("<"):
            if scanner.next in {"=", "!"}:
                raise scanner.wrong("looking around is not supported")
            while not scanner.accept(">"):
                name = scanner.take()
                if not (name.isalnum() or name == "_"):
                    raise scanner.wrong("the name of a group is not acceptable")
        elif not scanner.accept(":"):
            raise scanner.wrong(f"a group with '?{scanner.next}' is not supported")
    found = _alternatives(scanner)
    scanner.expect(")")
    return found


def _anchored(found: Expression, *, begins: bool, ends: bool) -> Expression:
    """Return an expression without anchors.

    Raises:
        Unreadable: one stands where the text can't begin (or end).
    """
    match found:
        case Text() if found is _START and not begins:
            raise Unreadable("'^' is only supported at the beginning")
        case Text() if found is _END and not ends:
            raise Unreadable("'$' is only supported at the end")
        case Choice(options):
            return one_of([_anchored(each, begins=begins, ends=ends) for each in options])
        case Sequence(items):
            return _row_anchored(items, begins=begins, ends=ends)
        case Repeat(item, low, high):
            is_single = high is not None and high <= 1
            inner = _anchored(item, begins=begins and is_single, ends=ends and is_single)
            return Repeat(inner, low, high)
        case _:
            return found


def _row_anchored(items: tuple[Expression, ...], *, begins: bool, ends: bool) -> Expression:
    first = next((place for place, item in enumerate(items) if item is not _START), len(items))
    after = next((place for place in range(len(items), 0, -1) if items[place - 1] is not _END), 0)
    if (first and not begins) or (after < len(items) and not ends):
        raise Unreadable("'^' and '$' are only supported at the ends")
    inner = items[first : max(first, after)]
    last = len(inner) - 1
    rest = [
        _anchored(item, begins=begins and not place, ends=ends and place == last)
        for place, item in enumerate(inner)
    ]
    return in_a_row(rest) if rest else Text("")

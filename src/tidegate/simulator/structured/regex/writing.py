"""Texts that a regular expression accepts: short ones, in a time bounded by its size.

First the lowest cost of each part is computed; a character and a step cost one each. Then a text
is written from left to right with a budget of the lowest cost and a little more, from which each
part may use what the parts after it do not need.
"""

from typing import assert_never

from tidegate.simulator.answers.seeded import SeededChoices
from tidegate.simulator.structured.regex.expressions import (
    Characters,
    Choice,
    Expression,
    Repeat,
    Sequence,
    Text,
    Unreadable,
)

COST_MAX = 8_192
EXTRA_COST = 96
VISITS_MAX = 400_000


class Writer:
    """Makes texts that an expression accepts.

    Attributes:
        work_max: how many turns one text takes at most, which bounds its characters, too.
    """

    def __init__(self, expression: Expression) -> None:
        """Look at what each part needs.

        Raises:
            Unreadable: only texts that are too long fit, or the expression is too large.
        """
        self._root = expression
        self._costs = _Costs(expression)
        self._least = self._costs.of(self._root)
        if self._least > COST_MAX:
            raise Unreadable(f"its shortest text has more than {COST_MAX} parts")
        self.work_max = self._least + EXTRA_COST

    def write(self, dice: SeededChoices) -> str:
        """Return a text that fits, chosen by the dice."""
        cost = self._costs.of
        left, owed = self.work_max, self._least
        written: list[str] = []
        waiting: list[Expression] = [self._root]
        while waiting:
            item = waiting.pop()
            owed -= cost(item)
            left -= 1 if not isinstance(item, Text) else len(item.text) + 1
            for each in reversed(self._turn(item, left - owed, dice, written)):
                waiting.append(each)
                owed += cost(each)
            assert owed <= left, "more was promised than there is"
        return "".join(written)

    def _turn(
        self, item: Expression, spare: int, dice: SeededChoices, written: list[str]
    ) -> tuple[Expression, ...]:
        """Write what can be written, and return what is to be written in its place."""
        instead: tuple[Expression, ...] = ()
        match item:
            case Text(text):
                written.append(text)
            case Characters(pool):
                written.append(pool[dice.roll(len(pool))])
            case Sequence(items):
                instead = items
            case Choice(options):
                fitting = [each for each in options if self._costs.of(each) <= spare]
                instead = (fitting[dice.roll(len(fitting))],)
            case Repeat():
                instead = self._times(item, spare, dice)
        return instead

    def _times(self, item: Repeat, spare: int, dice: SeededChoices) -> tuple[Expression, ...]:
        each = self._costs.of(item.item)
        bound = spare // each if item.high is None else min(item.high, spare // each)
        count = item.low
        while count < bound and dice.roll(3):
            count += 1
        return (item.item,) * count


class _Costs:
    """The lowest cost of a text for each part of an expression."""

    def __init__(self, root: Expression) -> None:
        self._known: dict[int, int] = {}
        self._visits = 0
        self._worked_out(root)

    def of(self, item: Expression) -> int:
        """Return what an expression costs at least."""
        return self._known[id(item)]

    def _worked_out(self, item: Expression) -> int:
        self._visits += 1
        if self._visits > VISITS_MAX:
            raise Unreadable("it is too large")
        match item:
            case Text(text):
                cost = len(text) + 1
            case Characters():
                cost = 1
            case Sequence(items):
                cost = 1 + sum([self._worked_out(each) for each in items])
            case Choice(options):
                cost = 1 + min([self._worked_out(each) for each in options])
            case Repeat(inner, low, _):
                cost = 1 + low * self._worked_out(inner)
            case _:
                assert_never(item)
        self._known[id(item)] = cost
        return cost

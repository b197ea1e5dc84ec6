"""Texts for a grammar: short ones, in a time that follows from its size alone.

First it is found out how little each part needs: a character and a turn count one. Then a text is
written from left to right with a purse of what is needed and a little more, from which every part
may take what the parts after it can spare. So no grammar, however it is wound, gets more.
"""

from collections import defaultdict, deque
from collections.abc import Mapping

from tidegate.simulator.dice import Dice
from tidegate.simulator.grammars.expressions import (
    Characters,
    Choice,
    Expression,
    Grammar,
    Named,
    Repeat,
    Sequence,
    Text,
    Unreadable,
)

COST_MAX = 8_192
EXTRA_COST = 96
VISITS_MAX = 400_000
_ENDLESS = 1 << 40


class Writer:
    """Makes texts that fit a grammar.

    Attributes:
        work_max: how many turns one text takes at most, which bounds its characters, too.
    """

    def __init__(self, grammar: Grammar) -> None:
        """Look at what each part needs.

        Raises:
            Unreadable: no text fits, or only one that is too long, or the grammar is too large.
        """
        self._grammar = grammar
        self._root = Named(grammar.root)
        self._costs = _Costs(grammar.rules, self._root)
        self._least = self._costs.of(self._root)
        if self._least >= _ENDLESS:
            raise Unreadable("no text of a sensible length is ever complete")
        if self._least > COST_MAX:
            raise Unreadable(f"its shortest text has more than {COST_MAX} parts")
        self.work_max = self._least + EXTRA_COST

    def write(self, dice: Dice) -> str:
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
        self, item: Expression, spare: int, dice: Dice, written: list[str]
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
            case Named(name):
                instead = (self._grammar.rules[name],)
        return instead

    def _times(self, item: Repeat, spare: int, dice: Dice) -> tuple[Expression, ...]:
        each = self._costs.of(item.item)
        bound = spare // each if item.high is None else min(item.high, spare // each)
        count = item.low
        while count < bound and dice.roll(3):
            count += 1
        return (item.item,) * count


class _Costs:
    """How much the cheapest text of each expression costs; rules may call each other and back."""

    def __init__(self, rules: Mapping[str, Expression], root: Expression) -> None:
        self._rules = rules
        self._of_rules: dict[str, int] = dict.fromkeys(rules, _ENDLESS)
        self._known: dict[int, int] = {}
        self._visits = 0
        self._calls: set[str] = set()
        self._settle()
        self._known.clear()
        for item in (*rules.values(), root):
            self._worked_out(item)

    def of(self, item: Expression) -> int:
        """Return what an expression costs at least."""
        return self._known[id(item)]

    def _settle(self) -> None:
        """Work out all rules, and again those that call one that became cheaper."""
        callers: defaultdict[str, set[str]] = defaultdict(set)
        due = deque(self._rules)
        queued = set(due)
        while due:
            name = due.popleft()
            queued.discard(name)
            self._calls = set()
            cost = self._worked_out(self._rules[name])
            for called in self._calls:
                callers[called].add(name)
            if cost < self._of_rules[name]:
                self._of_rules[name] = cost
                again = sorted(callers[name] - queued)
                due += again
                queued.update(again)

    def _called(self, name: str) -> int:
        self._calls.add(name)
        if name not in self._of_rules:
            raise Unreadable(f"there is no rule '{name}'")
        return self._of_rules[name]

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
            case Named(name):
                cost = 1 + self._called(name)
        cost = self._known[id(item)] = min(cost, _ENDLESS)
        return cost

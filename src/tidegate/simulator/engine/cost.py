"""How long a step takes: a linear law, exact in integers, with presets and a least-squares fit.

The law is that of a roofline in small: a fixed price for each step (launches, weights read once),
a price for each prefilled token (compute), for each decoding sequence (sampling, its share of the
weights' traffic) and for each token of context that a decoding sequence attends to (KV traffic).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tidegate.domain.errors import SettingsInvalid

PICOSECONDS = 1_000_000_000_000
STEPS_TO_FIT_MIN = 4
STEP_PS_MIN = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Prices in picoseconds. A step costs the sum of them, and at least one nanosecond."""

    fixed_ps: int
    prefill_token_ps: int
    decode_seq_ps: int
    context_token_ps: int

    def __post_init__(self) -> None:
        tokens = (self.prefill_token_ps, self.decode_seq_ps, self.context_token_ps)
        if min(self.fixed_ps, *tokens) < 0:
            raise SettingsInvalid(f"A step can't have a negative price: {self}.")
        if self.fixed_ps + min(self.prefill_token_ps, self.decode_seq_ps) < STEP_PS_MIN:
            raise SettingsInvalid("A step must take at least a nanosecond: raise the fixed price.")

    @classmethod
    def of_seconds(
        cls, *, fixed: float, prefill_token: float, decode_seq: float, context_token: float
    ) -> "Cost":
        """Return the law with these prices in seconds."""
        return cls(
            fixed_ps=round(fixed * PICOSECONDS),
            prefill_token_ps=round(prefill_token * PICOSECONDS),
            decode_seq_ps=round(decode_seq * PICOSECONDS),
            context_token_ps=round(context_token * PICOSECONDS),
        )

    def step_ps(self, *, prefill_tokens: int, decode_seqs: int, context_tokens: int) -> int:
        """Return how long one step takes, in picoseconds."""
        return (
            self.fixed_ps
            + self.prefill_token_ps * prefill_tokens
            + self.decode_seq_ps * decode_seqs
            + self.context_token_ps * context_tokens
        )

    def scaled(self, factor: float) -> "Cost":
        """Return the law of an engine that takes `factor` times as long for everything."""
        if factor <= 0:
            raise SettingsInvalid(f"A time factor must be above 0, not {factor:g}.")
        return Cost(
            fixed_ps=round(self.fixed_ps * factor),
            prefill_token_ps=round(self.prefill_token_ps * factor),
            decode_seq_ps=round(self.decode_seq_ps * factor),
            context_token_ps=round(self.context_token_ps * factor),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One step of a real engine, as recorded in a trace."""

    prefill_tokens: int
    decode_seqs: int
    context_tokens: int
    seconds: float


def fit(steps: Iterable[Measured]) -> Cost:
    """Return the law nearest to measured steps, by least squares with no negative price.

    A price that would come out negative is set to nothing, and the others are fitted again.

    Raises:
        SettingsInvalid: there are too few steps, or they do not determine the prices.
    """
    rows = [
        (
            (1.0, float(step.prefill_tokens), float(step.decode_seqs), float(step.context_tokens)),
            step.seconds,
        )
        for step in steps
    ]
    if len(rows) < STEPS_TO_FIT_MIN:
        raise SettingsInvalid(
            f"A fit needs at least {STEPS_TO_FIT_MIN} measured steps, and there are {len(rows)}."
        )
    used = [column for column in range(4) if any(values[column] for values, _ in rows)]
    while True:
        prices = _least_squares(rows, used)
        worst = min(used, key=lambda column: prices[column])
        if prices[worst] >= 0.0:
            break
        used.remove(worst)
    return Cost.of_seconds(
        fixed=prices[0], prefill_token=prices[1], decode_seq=prices[2], context_token=prices[3]
    )


def _least_squares(
    rows: Sequence[tuple[tuple[float, ...], float]], used: Sequence[int]
) -> list[float]:
    """Solve the normal equations for the columns in use; the others get 0."""
    scale = [max(abs(values[column]) for values, _ in rows) or 1.0 for column in used]
    matrix: list[list[float]] = []
    for i, row_column in enumerate(used):
        line = [
            sum(values[row_column] / scale[i] * (values[column] / scale[j]) for values, _ in rows)
            for j, column in enumerate(used)
        ]
        line.append(sum(values[row_column] / scale[i] * seconds for values, seconds in rows))
        matrix.append(line)
    solution = _solved(matrix)
    prices = [0.0] * 4
    for i, column in enumerate(used):
        prices[column] = solution[i] / scale[i]
    return prices


def _solved(matrix: list[list[float]]) -> list[float]:
    """Return the solution of a small linear system by elimination with pivots."""
    size = len(matrix)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(matrix[row][column]))
        if abs(matrix[pivot][column]) < 1e-12:  # noqa: PLR2004 - columns are scaled to 1
            raise SettingsInvalid(
                "The measured steps do not determine the prices: vary prefill tokens, decoding "
                "sequences and context independently."
            )
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        for row in range(size):
            if row != column:
                factor = matrix[row][column] / matrix[column][column]
                matrix[row] = [
                    value - factor * upper
                    for value, upper in zip(matrix[row], matrix[column], strict=True)
                ]
    return [matrix[row][size] / matrix[row][row] for row in range(size)]

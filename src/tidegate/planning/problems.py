"""The first problems of a file by line, and their total number."""

from tidegate.domain.batch import Problem


class FirstProblems:
    """Keeps the `errors_max` problems with the lowest line numbers, added in any order."""

    def __init__(self, errors_max: int) -> None:
        self._errors_max = errors_max
        self._kept: list[Problem] = []
        self._total = 0

    def add(self, problem: Problem) -> None:
        """Add a problem of one line."""
        self._total += 1
        self._kept.append(problem)
        if len(self._kept) >= 2 * self._errors_max:
            self._trim()

    def listed(self) -> list[Problem]:
        """Return the kept problems by line; if more were found, a last entry gives the total."""
        self._trim()
        if self._total <= self._errors_max:
            return list(self._kept)
        more = Problem(
            code="too_many_errors",
            message=f"{self._total} problems were found; the first {self._errors_max} are listed.",
        )
        return [*self._kept, more]

    def _trim(self) -> None:
        self._kept.sort(key=_place)
        del self._kept[self._errors_max :]


def _place(problem: Problem) -> tuple[int, str]:
    return problem.line or 0, problem.code

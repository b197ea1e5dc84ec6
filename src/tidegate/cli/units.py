"""Sizes, durations, counts and rates as short text."""

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_THOUSAND = 1_000
_MANY = 10_000
_SLOW = 10


def bytes_of(count: float) -> str:
    """Return a size: 12 B, 3.4 kB, 5.6 MB, 7.8 GB."""
    if count < _THOUSAND:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= _THOUSAND
        if count < _THOUSAND:
            return f"{count:.1f} {unit}"
    return f"{count / _THOUSAND:.1f} TB"


def seconds_of(seconds: float | None) -> str:
    """Return a duration: 12s, 3m 04s, 5h 06m, 7d 08h."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR:02d}h"


def count_of(count: int) -> str:
    """Return a count: exact below ten thousand, else 12.3k or 4.5M."""
    if count < _MANY:
        return str(count)
    if count < _THOUSAND * _THOUSAND:
        return f"{count / _THOUSAND:.1f}k"
    return f"{count / (_THOUSAND * _THOUSAND):.1f}M"


def rate_of(rate: float | None) -> str:
    """Return a rate of lines: 0.4/s, 123/s."""
    if rate is None:
        return "-"
    return f"{rate:.1f}/s" if rate < _SLOW else f"{rate:.0f}/s"

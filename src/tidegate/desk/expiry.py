"""When a file goes: the rules of `expires_after` and `output_expires_after`."""

from tidegate.desk.refusals import check_range, unsupported
from tidegate.desk.settings import EXPIRY_SECONDS_MAX, EXPIRY_SECONDS_MIN
from tidegate.wire.batch_request import ExpiresAfter

ANCHOR = "created_at"


def expiry_seconds(param: str, expiry: ExpiresAfter) -> int:
    """Return the checked seconds from the file's creation to its end.

    Raises:
        Refused: the anchor is unknown, or the time is under an hour or over 30 days.
    """
    if expiry.anchor != ANCHOR:
        raise unsupported(f"{param}.anchor", expiry.anchor, [ANCHOR])
    check_range(f"{param}.seconds", expiry.seconds, low=EXPIRY_SECONDS_MIN, high=EXPIRY_SECONDS_MAX)
    return expiry.seconds

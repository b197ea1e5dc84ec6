"""The notes that a user may pin to a batch."""

from tidegate.desk.refusals import check_length, echo
from tidegate.domain.errors import Refused

PAIRS_MAX = 16
KEY_CHARACTERS_MAX = 64
VALUE_CHARACTERS_MAX = 512


def check_metadata(metadata: dict[str, str]) -> None:
    """Check the number of pairs and the length of each, in characters.

    Raises:
        Refused: a bound is passed.
    """
    if len(metadata) > PAIRS_MAX:
        raise Refused(
            f"Invalid 'metadata': too many properties. Expected an object with at most {PAIRS_MAX} "
            f"properties, but got an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        if len(key) > KEY_CHARACTERS_MAX or "\0" in key:
            raise Refused(
                f"Invalid 'metadata': property name '{echo(key)}' is not allowed. Expected a name "
                f"of at most {KEY_CHARACTERS_MAX} characters without U+0000.",
                param="metadata",
                code="string_above_max_length",
            )
        check_length(f"metadata.{key}", value, VALUE_CHARACTERS_MAX)

"""The promise of every authenticator."""

from abc import ABC, abstractmethod

from tidegate.access.principal import Principal
from tidegate.domain.errors import Refused

CREDENTIAL_CHARACTERS_MAX = 8_192


class Unauthenticated(Refused):
    """The request carries no credential, or an unknown one."""


def missing_credential() -> Unauthenticated:
    """Return the error for a request without a credential."""
    return Unauthenticated(
        "You didn't provide an API key: send it in the header `Authorization: Bearer YOUR_KEY`.",
        code="invalid_api_key",
    )


def unknown_credential() -> Unauthenticated:
    """Return the error for a credential that nobody has; it is the same for every reason."""
    return Unauthenticated("Incorrect API key provided.", code="invalid_api_key")


class Authenticator(ABC):
    """Finds out who presents a credential.

    The time that an answer takes reveals nothing of the known credentials, and its cost does not
    grow with their number.
    """

    @abstractmethod
    async def authenticate(self, credential: str | None) -> Principal:
        """Return who presents this credential; None stands for none.

        Raises:
            Unauthenticated: one is needed and missing, it is unknown, or it is longer than
                `CREDENTIAL_CHARACTERS_MAX`.
        """

"""Keys that an operator lists in the settings."""

import hashlib
from collections.abc import Mapping

from typing_extensions import override

from tidegate.access.base import (
    CREDENTIAL_CHARACTERS_MAX,
    Authenticator,
    missing_credential,
    unknown_credential,
)
from tidegate.access.principal import Principal

KEY_ID_DIGITS = 12


class StaticKeys(Authenticator):
    """Knows each key by its SHA-256 alone, so that reading the settings reveals none.

    A key is found by one look-up of its digest. A caller can't choose digests, so the time of the
    look-up says nothing of how near a wrong key is to a known one.

    Args:
        tenants: the tenant of each key, by the SHA-256 of the key in hexadecimal.
    """

    def __init__(self, tenants: Mapping[str, str]) -> None:
        self._principals = {
            digest: Principal(tenant=tenant, key_id=f"key_{digest[:KEY_ID_DIGITS]}")
            for digest, tenant in tenants.items()
        }

    @override
    async def authenticate(self, credential: str | None) -> Principal:
        if not credential:
            raise missing_credential()
        if len(credential) > CREDENTIAL_CHARACTERS_MAX:
            raise unknown_credential()
        digest = hashlib.sha256(credential.encode("latin-1", "replace")).hexdigest()
        principal = self._principals.get(digest)
        if principal is None:
            raise unknown_credential()
        return principal

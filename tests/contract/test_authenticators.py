import hashlib
from collections.abc import Mapping

import pytest

from tidegate.access.anonymous import TENANT_DEFAULT, Anonymous
from tidegate.access.base import CREDENTIAL_CHARACTERS_MAX, Authenticator
from tidegate.access.static_keys import StaticKeys
from tidegate.testing.contract.authenticators import AuthenticatorContract

KEYS = {
    "key-one": "one",
    "key-two": "two",
    "another-of-two": "two",
    "x" * (CREDENTIAL_CHARACTERS_MAX - 1): "long",
}


class TestStaticKeys(AuthenticatorContract):
    @pytest.fixture
    def credentials(self) -> Mapping[str, str]:
        return KEYS

    @pytest.fixture
    def authenticator(self) -> Authenticator:
        digests = {hashlib.sha256(key.encode()).hexdigest(): key for key in KEYS}
        return StaticKeys({digest: KEYS[key] for digest, key in digests.items()})


async def test_without_keys_everyone_is_the_default_tenant() -> None:
    authenticator = Anonymous()
    for credential in (None, "", "anything"):
        principal = await authenticator.authenticate(credential)
        assert (principal.tenant, principal.key_id) == (TENANT_DEFAULT, None)

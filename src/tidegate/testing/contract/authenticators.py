"""What every authenticator promises; subclass it where the fixtures are.

Fixtures: `authenticator`, and `credentials`, which maps each known credential to its tenant.
"""

# ruff: noqa: D102 -- these are tests: their names are sentences

from collections.abc import Mapping

from tidegate.access.base import CREDENTIAL_CHARACTERS_MAX, Authenticator, Unauthenticated


class AuthenticatorContract:
    """The contract of `authenticate` of known and unknown credentials."""

    async def test_a_known_credential_gives_its_tenant(
        self, authenticator: Authenticator, credentials: Mapping[str, str]
    ) -> None:
        for credential, tenant in credentials.items():
            principal = await authenticator.authenticate(credential)
            assert principal.tenant == tenant
            assert await authenticator.authenticate(credential) == principal

    async def test_a_key_id_tells_credentials_apart_and_reveals_none(
        self, authenticator: Authenticator, credentials: Mapping[str, str]
    ) -> None:
        ids = [(await authenticator.authenticate(known)).key_id for known in credentials]
        assert len(set(ids)) == len(credentials)
        for known in credentials:
            assert all(known not in (key_id or "") for key_id in ids)

    async def test_anything_else_is_refused_in_the_same_words(
        self, authenticator: Authenticator, credentials: Mapping[str, str]
    ) -> None:
        known = next(iter(credentials))
        longest = "k" * CREDENTIAL_CHARACTERS_MAX
        wrong = (known[:-1], known + "x", known.swapcase(), "\u20ac", longest, longest + "k")
        assert len({await _refusal(authenticator, credential) for credential in wrong}) == 1

    async def test_a_missing_credential_is_refused(self, authenticator: Authenticator) -> None:
        assert await _refusal(authenticator, None) == await _refusal(authenticator, "")


async def _refusal(authenticator: Authenticator, credential: str | None) -> str:
    try:
        await authenticator.authenticate(credential)
    except Unauthenticated as error:
        return str(error)
    raise AssertionError(f"{credential!r} was accepted")

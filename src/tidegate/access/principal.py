"""Who asks for something."""

from dataclasses import dataclass

EVERY_SCOPE = frozenset({"*"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request; every function of `application` takes it.

    Attributes:
        tenant: whose files and batches it sees. Tenants never see each other's.
        key_id: which credential it presented, for logs; it does not reveal the credential. None if
            it needed none.
        scopes: what it may do; `EVERY_SCOPE` permits everything.
    """

    tenant: str
    key_id: str | None = None
    scopes: frozenset[str] = EVERY_SCOPE

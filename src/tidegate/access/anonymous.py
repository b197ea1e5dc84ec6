"""No credential is needed: everyone is the same principal."""

from typing_extensions import override

from tidegate.access.base import Authenticator
from tidegate.access.principal import Principal

TENANT_DEFAULT = "default"


class Anonymous(Authenticator):
    """Accepts every request as one of tenant `TENANT_DEFAULT`."""

    @override
    async def authenticate(self, credential: str | None) -> Principal:
        return Principal(tenant=TENANT_DEFAULT)

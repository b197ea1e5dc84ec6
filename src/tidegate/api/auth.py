"""Whose request is this? The API key decides, and the tenant goes along with the request."""

import hashlib
import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate.api.errors import Unauthorized

TENANT_DEFAULT = "default"
_SCHEME = "bearer"


class Auth:
    """Lets in who has a key, or everybody where no keys are set; notes the tenant in the state.

    Only digests of keys are known here, so that reading the settings reveals none.
    """

    def __init__(self, app: ASGIApp, *, keys: Mapping[str, str]) -> None:
        self._app = app
        self._keys = dict(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request on with its tenant.

        Raises:
            Unauthorized: it has no key that is known.
        """
        tenant = TENANT_DEFAULT
        if self._keys:
            tenant = self._find_tenant(Headers(scope=scope).get("authorization"))
        scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)

    def _find_tenant(self, header: str | None) -> str:
        scheme, _, key = (header or "").strip().partition(" ")
        key = key.strip()
        if scheme.lower() != _SCHEME or not key:
            raise Unauthorized(
                "You didn't provide an API key: send it in the header "
                "`Authorization: Bearer YOUR_KEY`.",
                code="invalid_api_key",
            )
        digest = hashlib.sha256(key.encode("latin-1", "replace")).hexdigest()
        found: str | None = None
        # Every key is compared, each in constant time, so that time tells nothing of which fits.
        for known, tenant in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = tenant
        if found is None:
            raise Unauthorized("Incorrect API key provided.", code="invalid_api_key")
        return found

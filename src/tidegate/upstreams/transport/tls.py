"""TLS contexts of connections to upstreams, reloaded when their files are replaced."""

import asyncio
import ssl

from tidegate.domain.errors import SettingsInvalid
from tidegate.upstreams.settings import TlsSettings, TlsVersion

_VERSIONS = {TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3}
# Inode, size and time of the last change of each file: they differ when a file is replaced.
Fingerprint = tuple[tuple[int, int, int] | None, ...]


def make_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return the context for connections to one upstream; read its files.

    Raises:
        SettingsInvalid: a file can't be read or has the wrong content.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise SettingsInvalid(
            f"tls.ca_file ({settings.ca_file}) can't be read as certificates in PEM form: "
            f"{reason(exc)}."
        ) from exc
    context.minimum_version = _VERSIONS[settings.version_min]
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert_file is not None:
        try:
            # With an empty password OpenSSL does not prompt on the terminal.
            context.load_cert_chain(settings.cert_file, settings.key_file, password="")
        except (OSError, ssl.SSLError) as exc:
            raise SettingsInvalid(
                f"tls.cert_file ({settings.cert_file}) and its key can't be read: both must be in "
                f"PEM form, belong together and need no password: {reason(exc)}."
            ) from exc
    context.set_alpn_protocols(["http/1.1"])
    return context


def fingerprint(settings: TlsSettings) -> Fingerprint:
    """Return a value that changes when a file is replaced; None if it is missing."""
    found: list[tuple[int, int, int] | None] = []
    for path in (settings.ca_file, settings.cert_file, settings.key_file):
        try:
            stat = path.stat() if path is not None else None
        except OSError:
            stat = None
        found.append((stat.st_ino, stat.st_size, stat.st_ctime_ns) if stat is not None else None)
    return tuple(found)


class TlsContextCache:
    """The context for new connections, reloaded when one of its files was replaced.

    If the files can't be read, for example while they are being replaced, the last context is used.

    Attributes:
        trouble: why the current files are not used, and what to change; None if they are used.
    """

    def __init__(self, settings: TlsSettings) -> None:
        """Read the files.

        Raises:
            SettingsInvalid: one of them can't be used.
        """
        self._settings = settings
        # Taken first, so that a file that is replaced while it is read is reloaded later.
        self._fingerprint = fingerprint(settings)
        self._context = make_context(settings)
        self._reading = asyncio.Lock()
        self.trouble: str | None = None

    async def current(self) -> ssl.SSLContext:
        """Return the context for the next connection."""
        if fingerprint(self._settings) != self._fingerprint:
            async with self._reading:
                await self._reload()
        return self._context

    async def _reload(self) -> None:
        found = fingerprint(self._settings)
        if found == self._fingerprint:
            return
        try:
            # Read in a thread, because files of authorities can be large.
            self._context = await asyncio.to_thread(make_context, self._settings)
        except SettingsInvalid as exc:
            self.trouble = f"What was read before is still used: {exc}"
        else:
            self.trouble = None
        self._fingerprint = found


def reason(exc: OSError) -> str:
    """Return a short text for an error."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return exc.verify_message
    # Errors that the event loop itself raises have no `reason`.
    name = getattr(exc, "reason", None)
    if isinstance(name, str) and name:
        return name.replace("_", " ").lower()
    return exc.strerror or str(exc) or type(exc).__name__

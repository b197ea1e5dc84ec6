"""Whom to trust over TLS, and how to mend it when that fails."""

import ssl

from tidegate.domain.errors import SettingsInvalid
from tidegate.upstreams.settings import TlsSettings


def make_context(settings: TlsSettings) -> ssl.SSLContext:
    """Build the context for connections to one upstream. Reads the files.

    Raises:
        SettingsInvalid: a file can't be read, or does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise SettingsInvalid(
            f"tls.ca_file ({settings.ca_file}) can't be read as certificates in PEM form: "
            f"{reason(exc)}."
        ) from exc
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert_file is not None:
        try:
            # The empty password keeps OpenSSL from asking at the terminal.
            context.load_cert_chain(settings.cert_file, settings.key_file, password="")
        except (OSError, ssl.SSLError) as exc:
            raise SettingsInvalid(
                f"tls.cert_file ({settings.cert_file}) and its key can't be read: both must be in "
                f"PEM form, belong together and need no password: {reason(exc)}."
            ) from exc
    context.set_alpn_protocols(["http/1.1"])
    return context


def reason(exc: OSError) -> str:
    """Return the shortest text that says what went wrong."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return exc.verify_message
    # Errors that a loop raises by itself lack what those of OpenSSL carry.
    name = getattr(exc, "reason", None)
    if isinstance(name, str) and name:
        return name.replace("_", " ").lower()
    return exc.strerror or str(exc) or type(exc).__name__

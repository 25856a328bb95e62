"""What a part does with each refusal: it is counted, and written to the audit log."""

import asyncio
import ssl

from prometheus_client import CollectorRegistry, Counter

from minga_core.errors import MingaError, Refusal, UnauthenticatedError
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.origin import Origin

REPEAT_SECONDS = 60.0
"""A caller that is refused for one reason again and again is one line in so long, with a count."""
MAX_REPEATED = 1_000
"""Callers whose refusals are counted by themselves; those of all others are counted together."""
MAX_MESSAGE = 300
_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL."""
_NO_CERTIFICATE = "PEER_DID_NOT_RETURN_A_CERTIFICATE"


class Refusals:
    """Counts refusals, and records them. For the event loop's thread."""

    def __init__(self, registry: CollectorRegistry, part: str, audit: Audit) -> None:
        family = Counter(
            f"minga_{part}_refused",
            "Calls, requests and connections that were refused for what the caller is, may do, or has already.",
            ["reason"],
            registry=registry,
        )
        self._counts = {reason: family.labels(reason.value) for reason in Refusal}
        self._audit = audit
        self._repeated: dict[tuple[str, Refusal], int] = {}

    def record(self, error: MingaError, origin: Origin, action: str) -> None:
        """Record an error if it is a refusal. action: what was refused, as `Publish` or `GET /v1/files`."""
        reason = error.refusal
        if reason is None:
            return
        self._counts[reason].inc()
        if not self._audit.enabled:
            return
        key = (origin.who, reason)
        if key not in self._repeated and len(self._repeated) >= MAX_REPEATED:
            key = ("", reason)
        if key in self._repeated:
            self._repeated[key] += 1
            return
        self._repeated[key] = 0
        asyncio.get_running_loop().call_later(REPEAT_SECONDS, self._record_repeated, key, origin)
        self._audit.record("refused", origin, reason=reason.value, action=action, message=str(error)[:MAX_MESSAGE])

    def handshake_failed(self, error: Exception, origin: Origin) -> None:
        """Record a TLS handshake that did not succeed."""
        self.record(handshake_refusal(error), origin, "handshake")

    def _record_repeated(self, key: tuple[str, Refusal], origin: Origin) -> None:
        count = self._repeated.pop(key)
        if count and key[0]:
            self._audit.record("refused", origin, reason=key[1].value, repeated=count)
        elif count:
            self._audit.record("refused", Origin("", "others"), reason=key[1].value, repeated=count)


def handshake_refusal(error: Exception) -> UnauthenticatedError:
    """Why a handshake failed, as an error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = Refusal.CERTIFICATE_EXPIRED if error.verify_code == _EXPIRED else Refusal.HANDSHAKE_FAILED
        return UnauthenticatedError(f"the certificate is not valid here: {error.verify_message}", refusal=reason)
    if isinstance(error, TimeoutError):
        return UnauthenticatedError("the handshake took too long", refusal=Refusal.HANDSHAKE_FAILED)
    cause = getattr(error, "reason", None) or "this is no TLS"
    reason = Refusal.NO_CERTIFICATE if cause == _NO_CERTIFICATE else Refusal.HANDSHAKE_FAILED
    return UnauthenticatedError(f"the handshake failed: {cause}", refusal=reason)

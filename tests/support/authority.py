"""A network's authority for tests: certificates of members, good ones and every kind of bad one."""

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class Authority:
    """A CA. start: when its certificate and those that it issues begin, from now on."""

    def __init__(self, network: str = "test", start: timedelta = -2 * DAY) -> None:
        self.network = network
        self._start = start
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {network}")])
        self._certificate = (
            _builder(name, name, self._key, DAY, start)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        folder: Path,
        role: str,
        name: str,
        *,
        network: str = "",
        start: timedelta | None = None,
        life: timedelta = DAY,
        trusted: bytes = b"",
        self_signed: bool = False,
        host_names: Iterable[str] = (),
    ) -> Path:
        """Writes tls.crt, tls.key and ca.crt of a new certificate. start, life: from now on; start is the CA's own
        unless given, life is below zero for one that has ended. trusted: further CAs for ca.crt. self_signed: by its
        own key, in the CA's name. host_names: further DNS names."""
        key = ec.generate_private_key(ec.SECP256R1())
        signer = key if self_signed else self._key
        hosts = [f"{name}.peer.minga"] if role == "peer" else []
        hosts += ["localhost"] if role in ("registry", "locator") else []
        hosts += [host for host in host_names if host not in hosts]
        names = [
            x509.UniformResourceIdentifier(f"spiffe://{network or self.network}/{role}/{name}"),
            *map(x509.DNSName, hosts),
        ]
        if role in ("registry", "locator"):
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        certificate = (
            _builder(x509.Name([]), self._certificate.subject, key, life, self._start if start is None else start)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .sign(signer, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tls.key").touch(mode=0o600)
        contents = {"tls.crt": certificate.public_bytes(pem), "tls.key": private, "ca.crt": self.pem + trusted}
        for file, data in contents.items():
            (folder / file).write_bytes(data)
        return folder

    def issue_all(self, folder: Path, peer_count: int, *, trusted: bytes = b"") -> None:
        """Credentials of a network as LocalNetworkConfig has them, and of a command in `command`."""
        self.issue(folder / "registry", "registry", "registry", trusted=trusted)
        self.issue(folder / "locator", "locator", "locator", trusted=trusted)
        self.issue(folder / "command", "client", "someone", trusted=trusted)
        for number in range(1, peer_count + 1):
            self.issue(folder / f"peer-{number}", "peer", f"peer-{number}", trusted=trusted)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    life: timedelta,
    start: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + life)
    )

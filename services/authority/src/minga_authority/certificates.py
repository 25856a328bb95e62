"""Certificates: that of the CA, and those that it signs. Nothing here reads files or knows who may have one."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from minga_core.errors import InvalidArgumentError

CA_LIFE = timedelta(days=3650)
BACKDATED = timedelta(minutes=5)
"""A certificate is valid from so long before it was made: clocks differ."""
MAX_CSR_BYTES = 8 * 1024
"""One with a P-384 key has some 500."""
CURVES = (ec.SECP256R1, ec.SECP384R1)

PublicKey = ec.EllipticCurvePublicKey


class CertificateAuthority:
    """A CA: its certificate and its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @classmethod
    def make(cls, network: str, now: datetime) -> Self:
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Minga CA of {network}"[:64])])
        certificate = (
            _builder(name, name, key.public_key(), now, now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    def issue(
        self, key: PublicKey, uri: str | None, hosts: Iterable[str], now: datetime, life: timedelta, *, serves: bool
    ) -> x509.Certificate:
        """A certificate with exactly those names. hosts: DNS names and IP addresses.

        It ends with the CA's at the latest. serves: whether others connect to its owner.
        """
        names: list[x509.GeneralName] = [] if uri is None else [x509.UniformResourceIdentifier(uri)]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if serves else [])
        until = min(now + life, self.certificate.not_valid_after_utc)
        return (
            _builder(x509.Name([]), self.certificate.subject, key, now, until)
            .add_extension(x509.SubjectAlternativeName(names + [_host(host) for host in hosts]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def key_of_request(csr: str) -> PublicKey:
    """The public key that a certificate is asked for, whose owner has signed the request; all else in it is ignored.

    csr: PEM. Raises InvalidArgumentError.
    """
    if len(csr) > MAX_CSR_BYTES:
        raise InvalidArgumentError(f"a certificate request has at most {MAX_CSR_BYTES:,} bytes")
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key, signed = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion) as error:
        raise InvalidArgumentError("the certificate request is not one in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise InvalidArgumentError("the key of a certificate request must be of the curve P-256 or P-384")
    if not signed:
        raise InvalidArgumentError("the certificate request is not signed by its own key")
    return key


def fingerprint(key: PublicKey) -> str:
    """SHA-256 of a public key, in hex."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(encoded)
    return digest.finalize().hex()


def pem(*certificates: x509.Certificate) -> str:
    """Certificates one after the other."""
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)


def moment(seconds: float) -> datetime:
    """Unix time as certificates have it: whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)

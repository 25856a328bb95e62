"""An authority and a server's certificate, made by openssl for one test run."""

import subprocess
from pathlib import Path


def make_certificates(directory: Path, *, name: str = "IP:127.0.0.1") -> dict[str, Path]:
    """`ca`, `cert` and `key` in PEM files; the certificate is for `name`."""
    files = {part: directory / f"{part}.pem" for part in ("ca", "ca-key", "cert", "key")}
    extensions = directory / "extensions.cnf"
    extensions.write_text(f"subjectAltName={name}\n")
    request = directory / "request.pem"
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority",
             "-keyout", files["ca-key"], "-out", files["ca"])  # fmt: skip
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test server",
             "-keyout", files["key"], "-out", request)  # fmt: skip
    _openssl("x509", "-req", "-days", "2", "-in", request, "-CA", files["ca"], "-CAkey", files["ca-key"],
             "-CAcreateserial", "-extfile", extensions, "-out", files["cert"])  # fmt: skip
    return files


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=30)

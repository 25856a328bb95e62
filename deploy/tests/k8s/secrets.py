"""The Secrets that manifests need: made as the documentation says, or as cert-manager makes them."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

from deploy.tests.k8s.manifests import DEPLOY, Object, of_kind
from deploy.tests.support.engine import run_command
from tests.support.authority import Authority


class Secrets:
    """Of one cluster. folder: an empty one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = Authority("minga")

    def of(self, objects: tuple[Object, ...]) -> dict[str, dict[str, bytes]]:
        """Name to content, of all that `objects` need."""
        names = {volume["secret"]["secretName"] for volume in volumes(objects) if "secret" in volume}
        made = {name: self.issue(uris[0], hosts) for name, (uris, hosts) in self.certificates(objects).items()}
        if "redis-users" in names:
            made["redis-users"] = self._redis_users()
        if "redis-tls" in names:
            made["redis-tls"] = self.issue("spiffe://redis/server/redis", ["redis"])
        if "minga-authority" in names:
            made |= _authority_secrets()
        return made

    def certificates(self, objects: tuple[Object, ...]) -> dict[str, tuple[list[str], list[str]]]:
        """By the Secret of each Certificate of a member: URIs and DNS names."""
        specs = [each["spec"] for each in of_kind(objects, "Certificate").values() if not each["spec"].get("isCA")]
        return {spec["secretName"]: (spec["uris"], spec.get("dnsNames", [])) for spec in specs}

    def issue(self, uri: str, hosts: Iterable[str] = ()) -> dict[str, bytes]:
        """A certificate of these names as cert-manager writes it: `tls.crt`, `tls.key`, `ca.crt`."""
        network, role, name = uri.removeprefix("spiffe://").split("/")
        folder = self._folder / network / role / name
        return _contents(self._authority.issue(folder, role, name, network=network, host_names=hosts))

    def _redis_users(self) -> dict[str, bytes]:
        folder = self._folder / "redis"
        subprocess.run([str(DEPLOY / "redis/users.sh"), str(folder)], check=True, timeout=30)
        return _contents(folder)


def _authority_secrets() -> dict[str, dict[str, bytes]]:
    """What `minga ca init --kubernetes | kubectl apply -f -` makes."""
    command = Path(sys.executable).with_name("minga-authority")
    printed = run_command([str(command), "init", "--kubernetes"]).out
    return {
        secret["metadata"]["name"]: {key: text.encode() for key, text in secret["stringData"].items()}
        for secret in yaml.safe_load_all(printed)
    }


def volumes(objects: tuple[Object, ...]) -> list[Object]:
    """All volumes of all pods."""
    workloads = of_kind(objects, "Deployment", "StatefulSet", "DaemonSet").values()
    return [volume for each in workloads for volume in each["spec"]["template"]["spec"].get("volumes", [])]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}

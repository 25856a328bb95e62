"""Secrets for Kubernetes: an authority's folder, and a join token for each kind of part in the cluster."""

import json
import tempfile
from datetime import timedelta
from pathlib import Path

from minga_authority.authority import Authority
from minga_authority.folder import Network, init
from minga_authority.terms import Terms
from minga_runtime.trust.members import Role
from minga_runtime.trust.rights import EVERYTHING

AUTHORITY_SECRET = "minga-authority"  # noqa: S105 - its name
SCRAPER_SECRET = "minga-prometheus"  # noqa: S105 - its name
TOKEN_LIFE = timedelta(days=3650)
"""Pods join with them for as long as there is the cluster: who may read the Secrets has the network anyway."""
PORTS = {"authority": 50050, "registry": 50051, "locator": 50052}


def secrets_yaml(network: Network, namespace: str, now: float) -> str:
    """Manifests for `kubectl apply -f -`: the Secret `minga-authority`, one with the key `token` for each of registry,
    locator and peer, `minga-join-ROLE`, and `minga-prometheus` with a `grant` that has no right but to scrape the
    locator. What `network` leaves out is as in the Services of deploy/k8s."""
    network = Network(
        network.network,
        f"https://authority.{namespace}.svc:{PORTS['authority']}",
        network.registry or f"registry.{namespace}.svc:{PORTS['registry']}",
        network.locator or f"https://locator.{namespace}.svc:{PORTS['locator']}",
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = init(Path(temporary) / "authority", network, now)
        files = {path.name: path.read_text() for path in sorted(folder.path.iterdir())}
        authority = Authority(folder)
        secrets = {AUTHORITY_SECRET: files}
        for terms in _parts(namespace):
            secrets[f"minga-join-{terms.role}"] = {"token": authority.create_token(terms, TOKEN_LIFE)}
        secrets[SCRAPER_SECRET] = {"grant": authority.grant("prometheus", (), (), TOKEN_LIFE)}
    return "".join(_secret(name, namespace, data) for name, data in secrets.items())


def _parts(namespace: str) -> list[Terms]:
    return [
        *(Terms(role, hosts=_service_names(role, namespace), uses=0) for role in (Role.REGISTRY, Role.LOCATOR)),
        Terms(Role.PEER, read=(EVERYTHING,), publish=(EVERYTHING,), uses=0),
    ]


def _service_names(role: Role, namespace: str) -> tuple[str, ...]:
    """A part's names in the cluster, and for probes from its own pod. Not ROLE.NAMESPACE: what is below `.minga`, as
    with the namespace of that name, is the name of no host."""
    return (role, f"{role}.{namespace}.svc", f"{role}.{namespace}.svc.cluster.local", "localhost", "127.0.0.1")


def _secret(name: str, namespace: str, data: dict[str, str]) -> str:
    """JSON is YAML, in which no character of a value can end it."""
    lines = "".join(f"  {json.dumps(key)}: {json.dumps(value)}\n" for key, value in data.items())
    return (
        "---\napiVersion: v1\nkind: Secret\ntype: Opaque\n"
        f"metadata:\n  name: {name}\n  namespace: {json.dumps(namespace)}\nstringData:\n{lines}"
    )

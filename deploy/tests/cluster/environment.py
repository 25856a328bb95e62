"""A container's environment, as kubelet makes it from the manifest and the facts about the pod."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.tests.cluster.fields import NotEmulatedError
from deploy.tests.cluster.manifests import NAMESPACE, Manifests
from deploy.tests.cluster.podspec import AllKeys, ContainerSpec, FieldRef, KeyRef, Literal, ResourceRef, Source


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What a manifest may ask about its own pod."""

    name: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    node: str
    host_ip: str
    ip: str
    service_account: str

    def field(self, path: str) -> str:
        """The value of a fieldRef. An absent label or annotation is empty. Raises NotEmulatedError."""
        if found := re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path):
            return (self.labels if found[1] == "labels" else self.annotations).get(found[2], "")
        known = {
            "metadata.name": self.name,
            "metadata.namespace": NAMESPACE,
            "metadata.uid": self.uid,
            "spec.nodeName": self.node,
            "spec.serviceAccountName": self.service_account,
            "status.podIP": self.ip,
            "status.podIPs": self.ip,
            "status.hostIP": self.host_ip,
        }
        if path not in known:
            raise NotEmulatedError(f"fieldRef {path}")
        return known[path]


class MissingKeyError(Exception):
    """A ConfigMap or Secret that a pod needs is not there, or lacks the key; kubelet would not start the container."""


class Resolver:
    """Turns sources of values into values, for one pod."""

    def __init__(self, manifests: Manifests, facts: PodFacts) -> None:
        self._data = {"ConfigMap": manifests.config_maps, "Secret": manifests.secrets}
        self._facts = facts

    def data(self, kind: str, name: str, *, optional: bool) -> Mapping[str, bytes]:
        """All of a ConfigMap or Secret. Raises MissingKeyError."""
        found = self._data[kind].get(name)
        if found is None and not optional:
            raise MissingKeyError(f"{kind} {name} does not exist")
        return found or {}

    def value(self, source: Source, container: ContainerSpec | None = None) -> bytes | None:
        """What a source stands for; None when it is absent and may be. Raises MissingKeyError."""
        match source:
            case Literal(value):
                return value.encode()
            case FieldRef(path):
                return self._facts.field(path).encode()
            case KeyRef(kind, name, key, optional):
                found = self.data(kind, name, optional=optional).get(key)
                if found is None and not optional:
                    raise MissingKeyError(f"{kind} {name} has no {key}")
                return found
            case ResourceRef(resource, divisor):
                assert container is not None, "resources are a container's"
                group, _, name = resource.partition(".")
                amounts = container.limits if group == "limits" else container.requests
                return str(-(-amounts[name] // divisor)).removesuffix(".0").encode()

    def environment(self, container: ContainerSpec) -> dict[str, str]:
        """Its variables; later ones win, and `$(NAME)` in a literal is one before it. Raises MissingKeyError."""
        made: dict[str, str] = {}
        for entry in container.environment:
            if isinstance(entry, AllKeys):
                found = self.data(entry.kind, entry.name, optional=entry.optional)
                made |= {entry.prefix + key: value.decode() for key, value in found.items()}
                continue
            name, source = entry
            value = self.value(source, container)
            if value is not None:
                made[name] = expanded(value.decode(), made) if isinstance(source, Literal) else value.decode()
        return made


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by its variable; one that is not known stays, and `$$` is a dollar."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]+)\)", value, text)


def expanded_words(words: Sequence[str] | None, variables: Mapping[str, str]) -> list[str] | None:
    """The same in every word of a command."""
    return None if words is None else [expanded(word, variables) for word in words]

"""Folders of this machine that stand for nodes' disks, claims, and the volumes of pods."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deploy.tests.cluster.containers import Bind
from deploy.tests.cluster.environment import Resolver
from deploy.tests.cluster.podspec import ClaimVolume, ContainerSpec, EmptyDir, Files, HostPath, PodSpec, Projection

MOUNT_SECONDS = 10.0


class Disks:
    """All folders of a cluster. Nodes' and claims' outlive pods; a pod's own end with it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Users of containers pass through, as they do through kubelet's folders.
        root.chmod(0o711)

    def host_path(self, node: str, path: str) -> Path:
        """What a node has at `path`; made when it is not there, root's, as kubelet makes it."""
        return _folder(self._root / "nodes" / node / path.lstrip("/"), 0o755)

    def claim(self, name: str) -> Path:
        """A claim's volume: an empty file system at first, which is root's."""
        return _folder(self._root / "claims" / name, 0o755)

    def pod(self, uid: str) -> Path:
        """The folder of a pod's own volumes."""
        return _folder(self._root / "pods" / uid, 0o755)

    def close(self) -> None:
        """Unmounts what a failed test left."""
        for mount in _mounts_below(self._root):
            _unmount(mount)


class PodVolumes:
    """The volumes of one pod: made before its containers, gone with it."""

    def __init__(
        self, disks: Disks, spec: PodSpec, *, uid: str, node: str, claims: Mapping[str, str], resolver: Resolver
    ) -> None:
        self._own = disks.pod(uid)
        self._spec = spec
        self._paths: dict[str, Path] = {}
        for name, volume in spec.volumes.items():
            match volume:
                case EmptyDir():
                    self._paths[name] = self._empty_dir(name, volume)
                case HostPath(path):
                    # kubelet leaves the owner of a node's folder alone, whatever fsGroup says.
                    self._paths[name] = disks.host_path(node, path)
                case ClaimVolume(claim):
                    self._paths[name] = self._owned(disks.claim(claim))
                case Files():
                    self._paths[name] = self._files(name, volume, resolver)
        for name, claim in claims.items():
            self._paths[name] = self._owned(disks.claim(claim))

    def path(self, volume: str) -> Path:
        """Where a volume is on this machine."""
        return self._paths[volume]

    def binds(self, container: ContainerSpec) -> list[Bind]:
        """A container's mounts, outer ones first."""
        found = []
        for mount in sorted(container.mounts, key=lambda mount: mount.path):
            source = self._paths[mount.volume]
            if mount.sub_path:
                source = source / mount.sub_path
                if not source.exists():
                    _folder(source, 0o755)
            found.append(Bind(source, mount.path, mount.read_only))
        return found

    def remove(self) -> None:
        """Takes the pod's own volumes away."""
        for mount in _mounts_below(self._own):
            _unmount(mount)
        shutil.rmtree(self._own, ignore_errors=True)

    def _empty_dir(self, name: str, volume: EmptyDir) -> Path:
        path = _folder(self._own / "empty" / name, 0o777)
        if volume.memory:
            options = f"mode=0777{'' if volume.size_bytes is None else f',size={volume.size_bytes}'}"
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "minga-emptydir", str(path)], check=True, timeout=MOUNT_SECONDS
            )
        return self._owned(path)

    def _owned(self, path: Path) -> Path:
        """As fsGroup asks: the group's, writable for it, and new files are the group's too."""
        if self._spec.fs_group is not None:
            for each in (path, *path.rglob("*")):
                if each.is_symlink():
                    continue
                os.chown(each, -1, self._spec.fs_group)
                each.chmod(each.stat().st_mode | (0o2770 if each.is_dir() else 0o660))
        return path

    def _files(self, name: str, volume: Files, resolver: Resolver) -> Path:
        path = _folder(self._own / "files" / name, 0o755)
        for projection in volume.projections:
            for place, data in _projected(projection, resolver).items():
                target = path / place
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                target.chmod(volume.mode | (0o440 if self._spec.fs_group is not None else 0))
                if self._spec.fs_group is not None:
                    os.chown(target, 0, self._spec.fs_group)
        return path


def _projected(projection: Projection, resolver: Resolver) -> Mapping[str, bytes]:
    if projection.items is None:
        return resolver.data(projection.kind, projection.name, optional=projection.optional)
    found = {place: resolver.value(source) for place, source in projection.items.items()}
    return {place: data for place, data in found.items() if data is not None}


def _folder(path: Path, mode: int) -> Path:
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(mode)
    return path


def _mounts_below(root: Path) -> list[Path]:
    mounts = (Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines())
    return [mount for mount in mounts if mount.is_relative_to(root)]


def _unmount(path: Path) -> None:
    # Lazily: a process that is still ending must not fail the test.
    subprocess.run(["umount", "--lazy", str(path)], check=False, timeout=MOUNT_SECONDS)

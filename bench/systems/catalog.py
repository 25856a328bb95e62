"""The systems by name."""

from bench.systems.aria2 import Aria2
from bench.systems.hub import Hub
from bench.systems.images import Images
from bench.systems.libtorrent import Libtorrent
from bench.systems.minga import Minga, MingaOutput, SecureMinga
from bench.systems.minga_doors import MingaGateway, MingaOpen
from bench.systems.minga_origin import MingaLimitedOrigin, MingaOrigin, OneThenSwarm
from bench.systems.nginx import LimitedNginx, Nginx, SecureNginx
from bench.systems.port import System
from bench.systems.rsync import Rsync

SYSTEMS: dict[str, type[System]] = {
    system.name: system
    for system in (
        Minga,
        MingaOutput,
        MingaOpen,
        MingaGateway,
        SecureMinga,
        MingaOrigin,
        MingaLimitedOrigin,
        OneThenSwarm,
        Images,
        Hub,
        Aria2,
        Libtorrent,
        Nginx,
        LimitedNginx,
        SecureNginx,
        Rsync,
    )
}

"""The systems by name."""

from bench.systems.aria2 import Aria2
from bench.systems.libtorrent import Libtorrent
from bench.systems.minga import Minga, SecureMinga
from bench.systems.nginx import Nginx, SecureNginx
from bench.systems.port import System
from bench.systems.rsync import Rsync

SYSTEMS: dict[str, type[System]] = {
    system.name: system for system in (Minga, SecureMinga, Aria2, Libtorrent, Nginx, SecureNginx, Rsync)
}

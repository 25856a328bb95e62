"""Several server processes that make a store together: a primary with replicas and sentinels, and a Cluster."""

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from tests.support.redis_server import Program, RedisServer

SETTLE_SECONDS = 30.0
SERVICE = "directory"
SLOTS = 16384
NODE_TIMEOUT_MILLIS = 1_500
DOWN_AFTER_MILLIS = 1_000


def wait_for(condition: Callable[[], bool], what: str, seconds: float = SETTLE_SECONDS) -> None:
    """Returns once it holds; a server that is away meanwhile is no error."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def asked(port: int, *, password: str = "") -> redis.Redis:
    """A client for the test's own questions."""
    return redis.Redis(port=port, password=password or None, socket_timeout=5, protocol=2)


def stop_replication(primary: RedisServer) -> None:
    """From now on no replica gets anything of it: they are cut off, and not let in again. Others stay connected."""
    with asked(primary.port) as client:
        client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")


class SentinelStore:
    """One primary, two replicas, three sentinels."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.servers = [RedisServer(tcp=True, program=program, options=_REPLICATED) for _ in range(3)]
        self._sentinels: list[_Sentinel] = []

    @property
    def url(self) -> str:
        """What the directory connects to."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self._sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    @property
    def primary(self) -> RedisServer:
        """The one that most sentinels name."""
        port = self._named()
        return next(server for server in self.servers if server.port == port)

    @property
    def admin_urls(self) -> list[str]:
        """Of the primary."""
        return [self.primary.url]

    def start(self) -> None:
        """Returns once replicas follow and sentinels know each other."""
        for server in self.servers:
            server.start()
        first, *others = self.servers
        for other in others:
            asked(other.port).replicaof("127.0.0.1", str(first.port))
        wait_for(lambda: all(self.follows(other) for other in others), "replicas follow")
        self._sentinels = [_Sentinel(self._program, first.port) for _ in range(3)]
        wait_for(lambda: all(self._knows_all(sentinel) for sentinel in self._sentinels), "sentinels know each other")

    def follows(self, server: RedisServer) -> bool:
        """Whether it is a replica in step."""
        with asked(server.port) as client:
            return client.info("replication").get("master_link_status") == "up"

    def fail_over(self) -> RedisServer:
        """Kills the primary and waits for another one; the dead one."""
        dead = self.primary
        dead.kill()
        self.wait_for_other(dead)
        return dead

    def wait_for_other(self, dead: RedisServer) -> None:
        """Returns once the sentinels name another primary, and that is one."""
        wait_for(lambda: self._named() != dead.port and self._is_primary(self._named()), "a failover")

    def bring_back(self, server: RedisServer) -> None:
        """Starts a dead server; sentinels make it a replica of the primary of now."""
        server.start()
        wait_for(lambda: self.follows(server), "the old primary follows")

    def stop_sentinels(self, count: int) -> None:
        """Kills so many of those that are left; the directory still has all of them in its URL."""
        for sentinel in [each for each in self._sentinels if each.running][:count]:
            sentinel.kill()

    def close(self) -> None:
        """Ends all processes."""
        for sentinel in self._sentinels:
            sentinel.close()
        for server in self.servers:
            server.close()

    def _named(self) -> int:
        named: list[int] = []
        for sentinel in self._sentinels:
            with asked(sentinel.port) as client:
                named.append(int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1]))
        return max(named, key=named.count)

    def _is_primary(self, port: int) -> bool:
        with asked(port) as client:
            return client.info("replication")["role"] == "master"

    def _knows_all(self, sentinel: "_Sentinel") -> bool:
        with asked(sentinel.port) as client:
            flat: list[Any] = client.execute_command("SENTINEL", "MASTERS")[0]
            facts = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
            known = {_str(key): _str(value) for key, value in facts.items()}
            return known["num-slaves"] == "2" and known["num-other-sentinels"] == "2" and known["flags"] == "master"


_REPLICATED = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0", "repl-timeout": "5"}


def _str(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class _Sentinel:
    """One sentinel process."""

    def __init__(self, program: Program, primary_port: int) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="minga-sentinel-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = Path(self._directory.name) / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._directory.name}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MILLIS}\n"
            f"sentinel failover-timeout {SERVICE} 5000\nsentinel parallel-syncs {SERVICE} 2\n"
        )
        self._process = subprocess.Popen(
            program.command(str(config), "--sentinel"), executable=program.path, stdout=subprocess.DEVNULL
        )
        wait_for(lambda: bool(asked(self.port).ping()), "a sentinel answers")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._directory.cleanup()


class ClusterStore:
    """Three primaries with a third of the slots each, and a replica for each."""

    def __init__(self, program: Program) -> None:
        options = {
            **_REPLICATED,
            "cluster-node-timeout": str(NODE_TIMEOUT_MILLIS),
            "cluster-replica-validity-factor": "0",
        }
        self.servers = [RedisServer(node=True, program=program, options=options) for _ in range(6)]

    @property
    def url(self) -> str:
        """What the directory connects to: two of the nodes are enough."""
        running = [server for server in self.servers if server.running][:2]
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in running)

    @property
    def admin_urls(self) -> list[str]:
        """Of all primaries."""
        return [server.url for server in self.primaries]

    @property
    def primaries(self) -> list[RedisServer]:
        """Those that have slots."""
        return [self.server(port) for port in sorted({port for _, _, port in self._ranges()})]

    def server(self, port: int) -> RedisServer:
        """The one that listens there."""
        return next(server for server in self.servers if server.port == port)

    def owner(self, slot: int) -> RedisServer:
        """Who has a slot."""
        return next(self.server(port) for first, last, port in self._ranges() if first <= slot <= last)

    def start(self) -> None:
        """Returns once the Cluster works and every primary has a replica in step."""
        for server in self.servers:
            server.start()
        first, *others = self.servers
        for number, server in enumerate(self.servers[:3]):
            with asked(server.port) as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                slots = range(SLOTS * number // 3, SLOTS * (number + 1) // 3)
                client.execute_command("CLUSTER", "ADDSLOTS", *slots)
        for other in others:
            asked(other.port).execute_command("CLUSTER", "MEET", "127.0.0.1", first.port)
        wait_for(lambda: all(self._known_by(server) == 6 for server in self.servers), "nodes know each other")
        for primary, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            self._replicate(replica, primary)
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Returns once all running nodes say that it works, and running replicas are in step."""
        running = [server for server in self.servers if server.running]
        wait_for(lambda: all(self._works(server) for server in running), "the Cluster works")

    def wait_until_works(self) -> None:
        """Returns once all running nodes say that it works."""
        running = [server for server in self.servers if server.running]
        wait_for(lambda: all("fail" not in self._state(server) for server in running), "the Cluster works")

    def remove_replicas_of(self, primary: RedisServer) -> None:
        """Kills them."""
        for server in [each for each in self.servers if each.running]:
            with asked(server.port) as client:
                facts = client.info("replication")
            if facts["role"] != "master" and facts["master_port"] == primary.port:
                server.kill()

    def fail_over(self, dead: RedisServer) -> None:
        """Kills a primary and waits until its replica has taken over."""
        dead.kill()
        self.wait_for_other(dead)

    def wait_for_other(self, dead: RedisServer) -> None:
        """Return once all others agree that another node has its slots."""
        wait_for(lambda: all(self._agrees(server, dead) for server in self.servers if server.running), "a failover")

    def bring_back(self, server: RedisServer) -> None:
        """Starts a dead server; the others make it a replica."""
        server.start()
        self.wait_until_whole()

    def migrate(self, slots: Sequence[int], target: RedisServer) -> Iterator[int]:
        """Moves slots live, as `redis-cli --cluster reshard` does; yields each slot in the middle of its way."""
        to = _id(target)
        for slot in slots:
            source = self.owner(slot)
            if source is target:
                continue
            asked(target.port).execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
            asked(source.port).execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", to)
            yield slot
            with asked(source.port) as client:
                while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
                    client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
                    yield slot
            for server in (target, source, *self.primaries):
                asked(server.port).execute_command("CLUSTER", "SETSLOT", slot, "NODE", to)

    def close(self) -> None:
        """Ends all processes."""
        for server in self.servers:
            server.close()

    def _ranges(self) -> list[tuple[int, int, int]]:
        for server in self.servers:
            if server.running:
                with contextlib.suppress(redis.RedisError), asked(server.port) as client:
                    found: list[Any] = client.execute_command("CLUSTER", "SLOTS")
                    return [(int(first), int(last), int(node[1])) for first, last, node, *_ in _lists(found)]
        raise RuntimeError("no node answers")

    def _known_by(self, server: RedisServer) -> int:
        with asked(server.port) as client:
            text = client.execute_command("CLUSTER", "NODES")
            nodes = text if isinstance(text, dict) else _str(text).splitlines()
            return len(nodes)

    def _replicate(self, replica: RedisServer, primary: RedisServer) -> None:
        def follows() -> bool:
            with asked(replica.port) as client:
                return bool(client.execute_command("CLUSTER", "REPLICATE", _id(primary)))

        wait_for(follows, "a replica follows its primary")

    def _works(self, server: RedisServer) -> bool:
        with asked(server.port) as client:
            replication = client.info("replication")
        in_step = replication["role"] == "master" or replication.get("master_link_status") == "up"
        return "fail" not in self._state(server) and in_step

    def _state(self, server: RedisServer) -> str:
        with asked(server.port) as client:
            info: Any = client.execute_command("CLUSTER", "INFO")
        return info["cluster_state"] if isinstance(info, dict) else _str(info).split("cluster_slots", maxsplit=1)[0]

    def _agrees(self, server: RedisServer, dead: RedisServer) -> bool:
        with asked(server.port) as client:
            found = _lists(client.execute_command("CLUSTER", "SLOTS"))
            covered = sum(int(last) - int(first) + 1 for first, last, *_ in found)
            return (
                covered == SLOTS and all(int(node[1]) != dead.port for _, _, node, *_ in found) and self._works(server)
            )


def _id(server: RedisServer) -> str:
    with asked(server.port) as client:
        return _str(client.execute_command("CLUSTER", "MYID"))


def _lists(slots: Any) -> list[Any]:
    """CLUSTER SLOTS as it is sent, also where redis-py makes a dict of it."""
    if isinstance(slots, dict):
        return [
            [first, last, list(facts["primary"]), *map(list, facts.get("replicas", ()))]
            for (first, last), facts in slots.items()
        ]
    return list(slots)

"""The lab: hosts as network namespaces on one bridge, every link shaped both ways.

          host a                         switch                          host b
    [process]─eth0 ══ veth ══ port0 ── bridge ── port1 ══ veth ══ eth0─[process]
              tbf: a's upload  tbf: a's download

Goals: the same wires for every system measured; nothing left behind, however a run ends; several labs at once. It does
not shape delay or loss: what queues up is all there is, as in a rack. All namespaces, the bridge's included, are the
lab's own, so addresses and names never clash with the machine's network.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from types import TracebackType

from bench import congestion, netns
from bench.netns import LabError

SUBNET = "10.77.0"
QUEUE_SECONDS = 0.06
"""What may wait in front of a link. A switch port or a home router holds 10 to 100 ms; at less than about 20 ms several
TCP flows into one port lose packets in bursts, at more than 100 ms small messages wait behind chunks for too long."""
GSO_BYTES = 65536
"""The kernel hands up to so many bytes at a time over a veth: segmentation and checksum offload stay on, since cutting
into real packets costs the two cores more than all of the systems under test. tbf counts the headers of the packets
that a big one stands for, so the rate is that of real Ethernet frames; but it would have to cut what is bigger than its
bucket, which is why the bucket holds two of them beside what one timer tick lets through."""
TICKS_PER_SECOND = 100
"""The coarsest timer of a usual kernel: a bucket smaller than rate / HZ would never let the full rate through."""
TSO_SEGMENTS = 16
"""The least number of packets that TCP hands down at a time (tcp_min_tso_segs). The kernel's default is 2, which is
what many slow flows get: a millisecond's worth each. All hosts share this machine's processors, and handling packets by
twos costs a system that wakes up for each most of them, which hosts with processors of their own would not feel; 16 are
4 ms of a 50 Mbit/s link. It is no neutral choice. 16 hosts on 2 cores, 50 Mbit/s, 128 MiB, when it was made: Minga
(0 to 19 % idle) needed 1.17 bounds with 16 and 1.22 with 2; aria2 (over 60 % idle, and it varies) 1.53 and 1.62;
libtorrent (over 50 % idle) 1.68 and 1.65. `--tso-segments 2` measures with the kernel's default."""
CONGESTION_CONTROL = "cubic"
"""Linux's own default, whatever this machine's is."""
TCP_SETTINGS = (
    "net.ipv4.tcp_no_metrics_save=1",
    # The kernel's own defaults, whatever this machine's administrator prefers.
    "net.ipv4.tcp_rmem=4096 131072 6291456",
    "net.ipv4.tcp_wmem=4096 16384 4194304",
    "net.ipv6.conf.all.disable_ipv6=1",
    "net.ipv6.conf.default.disable_ipv6=1",
)


@dataclass(frozen=True, slots=True)
class Link:
    """What a host can send and receive, in Mbit/s (10^6 bit/s, Ethernet frames counted whole); None: unshaped."""

    up_mbit: float | None = None
    down_mbit: float | None = None

    @classmethod
    def even(cls, rate_mbit: float | None) -> "Link":
        """The same rate both ways."""
        return cls(rate_mbit, rate_mbit)


@dataclass(frozen=True, slots=True)
class Host:
    """A place for processes, with an address of its own."""

    name: str
    address: str
    link: Link
    namespace: str
    port: str
    """Its interface on the switch."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes over a host's link since the lab was built. A packet that the kernel cuts later counts its headers once, so
    in transfers of chunks this is payload and less than 1 % more."""

    sent_bytes: int
    received_bytes: int


class Lab:
    """A context manager: inside the block the hosts exist, afterwards neither they nor anything that ran on them.

    hosts: name → link, in the order of their addresses. tso_segments: see TSO_SEGMENTS. Raises LabError when it cannot
    be built.
    """

    def __init__(self, hosts: Mapping[str, Link], *, tso_segments: int = TSO_SEGMENTS) -> None:
        self._id = netns.new_lab_id()
        self._switch = f"{self._id}.switch"
        self._tso_segments = tso_segments
        self._anchor: Popen[bytes] | None = None
        self.hosts = {
            name: Host(name, f"{SUBNET}.{index + 1}", link, f"{self._id}.{name}", f"port{index}")
            for index, (name, link) in enumerate(hosts.items())
        }

    def __enter__(self) -> "Lab":
        if problem := netns.why_impossible():
            raise LabError(f"no lab here: {problem}")
        netns.remove_leftovers()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def enter_command(self, host: str) -> list[str]:
        """What to put in front of a command line to run it on a host; it replaces itself, so the process id stays.

        The kernel kills the process when the thread that started it ends.
        """
        namespace = netns.NETNS_DIR / self.hosts[host].namespace
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={namespace}"]

    def connect(self, host: str, port: int, timeout_seconds: float = 10.0) -> socket.socket:
        """A TCP connection to a host's own port, made from that host, so it never crosses a shaped link. Blocking.

        Raises OSError.
        """
        found = self.hosts[host]
        return netns.connect(found.namespace, (found.address, port), timeout_seconds)

    def cut(self, host: str) -> None:
        """Pulls a host's cable: nothing leaves or reaches it any more, and no host is notified."""
        netns.command("ip", "-n", self._switch, "link", "set", self.hosts[host].port, "nomaster")

    def reconnect(self, host: str) -> None:
        """Plugs a cable in again that was pulled."""
        netns.command("ip", "-n", self._switch, "link", "set", self.hosts[host].port, "master", "bridge")

    def isolate(self, host: str, apart: bool) -> None:
        """Isolated hosts do not reach one another, and reach all other hosts as before; no host is notified."""
        words = ("bridge", "link", "set", "dev", self.hosts[host].port, "isolated", "on" if apart else "off")
        netns.command("ip", "netns", "exec", self._switch, *words)

    def traffic(self) -> dict[str, Traffic]:
        """Bytes over every host's link, read at one instant."""
        assert self._anchor is not None, "the lab is not built"
        ports = _port_counters(Path(f"/proc/{self._anchor.pid}/net/dev").read_text())
        # What the switch's port received is what the host sent.
        return {host.name: Traffic(*ports[host.port]) for host in self.hosts.values()}

    def _build(self) -> None:
        namespaces = [self._switch, *(host.namespace for host in self.hosts.values())]
        netns.command("ip", "-batch", "-", stdin="".join(f"netns add {name}\n" for name in namespaces))
        self._settings(namespaces)
        netns.batch("ip", self._switch, self._switch_lines())
        shaped = [line for host in self.hosts.values() for line in _tbf(host.port, host.link.down_mbit)]
        netns.batch("tc", self._switch, shaped)
        for host in self.hosts.values():
            lines = [f"address add {host.address}/24 dev eth0", "link set eth0 up", "link set lo up"]
            netns.batch("ip", host.namespace, lines)
            netns.batch("tc", host.namespace, _tbf("eth0", host.link.up_mbit))
        # /proc/PID/net shows the namespace of that process: with this one all counters are one read of one file.
        anchor = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={netns.NETNS_DIR / self._switch}"]
        self._anchor = Popen([*anchor, "sh", "-c", "echo; exec sleep infinity"], stdin=DEVNULL, stdout=-1)
        assert self._anchor.stdout is not None
        self._anchor.stdout.readline()

    def _switch_lines(self) -> list[str]:
        lines = ["link add bridge type bridge forward_delay 0 stp_state 0 mcast_snooping 0", "link set bridge up"]
        for host in self.hosts.values():
            lines += [
                f"link add {host.port} type veth peer name eth0 netns {host.namespace}",
                f"link set {host.port} master bridge up",
            ]
        return lines

    def _settings(self, namespaces: Sequence[str]) -> None:
        """The same TCP for every system and on every machine; a connection learns nothing from an earlier one."""
        values = [
            *TCP_SETTINGS,
            f"net.ipv4.tcp_min_tso_segs={self._tso_segments}",
            f"net.ipv4.tcp_congestion_control={CONGESTION_CONTROL}",
        ]
        with congestion.allowed(CONGESTION_CONTROL):
            for namespace in namespaces:
                netns.command("nsenter", f"--net={netns.NETNS_DIR / namespace}", "sysctl", "-qw", *values)

    def _remove(self) -> None:
        if self._anchor is not None:
            self._anchor.kill()
            self._anchor.communicate()
            self._anchor = None
        netns.remove([*(host.namespace for host in self.hosts.values()), self._switch])


def why_no_lab() -> str:
    """One sentence on why no lab can be built here, found out by building a small one; empty when one can be.

    A container's root may lack the rights, and a kernel the parts.
    """
    if problem := netns.why_impossible():
        return problem
    try:
        with Lab({"probe": Link.even(10.0)}):
            return ""
    except (LabError, OSError) as error:
        return str(error)


def bucket_bytes(rate_mbit: float) -> int:
    """How much may pass at once: two of the biggest packets and what one timer tick lets through."""
    return 2 * GSO_BYTES + int(rate_mbit * 1e6 / 8 / TICKS_PER_SECOND)


def queue_bytes(rate_mbit: float) -> int:
    """How much may wait, the bucket included, as tbf counts its limit."""
    return bucket_bytes(rate_mbit) + int(rate_mbit * 1e6 / 8 * QUEUE_SECONDS)


def _tbf(device: str, rate_mbit: float | None) -> list[str]:
    if rate_mbit is None:
        return []
    bits = round(rate_mbit * 1e6)
    sizes = f"burst {bucket_bytes(rate_mbit)} limit {queue_bytes(rate_mbit)}"
    return [f"qdisc add dev {device} root tbf rate {bits}bit {sizes}"]


def _port_counters(text: str) -> dict[str, tuple[int, int]]:
    """Interface → (received, sent) bytes, from the text of /proc/net/dev."""
    counters = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        fields = numbers.split()
        counters[name.strip()] = (int(fields[0]), int(fields[8]))
    return counters

"""Users, passwords, TLS, and URLs that lead to something else: it works, or says plainly what is wrong."""

import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, closing
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from deploy.tests.redis.certificates import make_certificates
from deploy.tests.redis.programs import FOUND, program
from deploy.tests.redis.stores import PROGRAMS
from deploy.tests.redis.test_conformance import ONE_SERVER, WITHOUT_KEYS, passed_over
from deploy.tests.redis.topologies import ClusterStore, asked
from minga_core.errors import SettingsError, StoreRefusedError, StoreUnavailableError
from minga_core.names import Name
from minga_directory import connect_reader, connect_writer
from tests.conformance.harness import over, peer, row
from tests.support.redis_server import RedisServer

REPOSITORY = Path(__file__).parents[3]
_DOCUMENTED = re.findall(
    r"^ACL SETUSER (?:registry|locator) (on .* -@all .*\+eval.*)$",
    (REPOSITORY / "docs/running-redis.md").read_text(),
    re.MULTILINE,
)
REGISTRY, LOCATOR, LOCATOR_62 = _DOCUMENTED
PASSWORD = "s3cr3t/word"
IN_URL = "s3cr3t%2Fword"

LEASE = timedelta(seconds=15)
_TABLE, _TOKENS = "minga:v2:table:{a}", "minga:v2:tokens:{all}"
FORBIDDEN: list[tuple[str | int, ...]] = [
    ("HSET", _TABLE, "field", "value"),
    ("DEL", _TABLE),
    ("EVAL", "return redis.call('HSET', KEYS[1], 'f', 'v')", 1, _TABLE),
    ("EVAL", "return redis.call('DEL', ARGV[1])", 0, _TABLE),
    ("INCRBY", _TOKENS, 1),
    ("EVAL", "return redis.call('INCRBY', KEYS[1], 1)", 1, _TOKENS),
    ("GET", "somebody else's"),
    ("EVAL", "return redis.call('GET', ARGV[1])", 0, "somebody else's"),
    ("FLUSHALL",),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("KEYS", "*"),
]

MakeServer = Callable[..., RedisServer]


@pytest.fixture
def server() -> Iterator[MakeServer]:
    """Starts servers, which end with the test."""
    made: list[RedisServer] = []

    def make(name: str = "valkey", **arguments: object) -> RedisServer:
        made.append(RedisServer(program=program(name), **arguments))  # type: ignore[arg-type]
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def with_user(server: RedisServer, name: str, rules: str) -> str:
    """Makes a user of these rules; the user's URL."""
    with asked(server.port) as client:
        client.execute_command("ACL", "SETUSER", name, *split_rules(rules.replace("PASSWORD", PASSWORD)))
    return server.url.replace("://", f"://{name}:{IN_URL}@")


def split_rules(rules: str) -> list[str]:
    """Words; what is in brackets is one."""
    return re.findall(r"\([^)]*\)|\S+", rules)


def with_users(server: RedisServer, program_name: str) -> tuple[str, str]:
    """The URLs of registry and locator, with the documented users."""
    locator = LOCATOR_62 if program_name == "redis-6.2" else LOCATOR
    return with_user(server, "registry", REGISTRY), with_user(server, "locator", locator)


def denied(server: RedisServer) -> object:
    """What Redis has refused to users."""
    with asked(server.port) as client:
        return client.execute_command("ACL", "LOG")


# Users


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "cluster"), [("redis-6.2", False), ("redis-7", True), ("valkey", False)])
def test_the_documented_users_may_do_all_that_is_needed(server: MakeServer, name: str, cluster: bool) -> None:
    """The conformance suite as these users. When this fails, a new command is used: add it in docs/running-redis.md and
    deploy/redis/users.sh."""
    made = server(name, tcp=True, cluster=cluster)
    admin = made.url.replace("redis+cluster", "redis")
    ignored = [f"--ignore=tests/conformance/{each}" for each in ONE_SERVER]
    registry, locator = with_users(made, name)
    passed_over(registry, [admin], *ignored, *WITHOUT_KEYS, reader_url=locator)


async def test_the_documented_users_may_reap_and_find_losses_on_a_cluster(server: MakeServer) -> None:
    """What the conformance suite does not come to."""
    made = server(tcp=True, cluster=True)
    async with over(with_user(made, "registry", REGISTRY)) as directory:
        await directory.register("a")
        await directory.push("a", [row("x")])
        assert await directory.writer.reap() == 0
        assert await directory.beat("a") == "ok"
    assert denied(made) == []


@pytest.mark.parametrize("name", ["redis-7", "valkey"])
async def test_a_locator_cannot_write_the_directory(server: MakeServer, name: str) -> None:
    """One that was taken over can read, and move the counter of round robin. It writes no table, lease or fencing
    token, by no script either, and sees nothing that is not Minga's."""
    made = server(name, tcp=True)
    registry, locator = with_users(made, name)
    async with over(registry) as directory, aclosing(connect_reader(locator)) as reader:
        await directory.register("a")
        await directory.push("a", [row("x")])
        assert (await reader.find(Name("x")))[0].holders
        await reader.place(Name("y"), 1, 1)
        assert denied(made) == []
    async with aclosing(connect_writer(locator)) as writer:
        with pytest.raises(StoreRefusedError, match="forbids this user something"):
            await writer.register(peer("b"), LEASE, b"")
    with redis.Redis.from_url(locator) as client:
        for words in FORBIDDEN:
            with pytest.raises(redis.ResponseError, match=r"(?i)NOPERM|no permissions|ACL failure|can't (run|access)"):
                client.execute_command(*words)
        assert client.incrby("minga:v2:placement-cursor", 1) > 0


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_user_that_lacks_a_command_is_told_which(server: MakeServer, name: str) -> None:
    """By the call that needs it, each time, and at start when everything needs it."""
    made = server(name, tcp=True)
    rules = LOCATOR_62 if name == "redis-6.2" else LOCATOR
    url = with_user(made, "locator", rules.replace(" +zrangebylex", ""))
    async with aclosing(connect_reader(url)) as reader:
        await reader.check_access()
        with pytest.raises(StoreRefusedError, match=r"forbids this user something.*zrangebylex"):
            await reader.list_names()
    url = with_user(made, "less", rules.replace(" +zcard", ""))
    async with aclosing(connect_reader(url)) as reader, aclosing(connect_writer(url)) as writer:
        with pytest.raises(SettingsError, match=r"MINGA_REDIS_URL.*zcard"):
            await reader.check_access()
        with pytest.raises(SettingsError, match=r"MINGA_REDIS_URL.*forbids this user something"):
            await writer.check_access()


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_password_is_read_from_its_file_for_each_connection(
    server: MakeServer, name: str, tmp_path: Path
) -> None:
    """It is exchanged as docs/running-redis.md says, without a new client. One that cannot be read stops the start."""
    made = server(name, tcp=True)
    with_users(made, name)
    file = tmp_path / "password"
    url = f"redis://registry@127.0.0.1:{made.port}?password_file={file}"
    with pytest.raises(SettingsError, match=r"MINGA_REDIS_URL: password_file: .*No such file"):
        connect_writer(url)
    file.write_text("\n")
    with pytest.raises(SettingsError, match=r"MINGA_REDIS_URL: password_file: .*is empty"):
        connect_writer(url)
    file.write_text(f"{PASSWORD}\n")
    async with aclosing(connect_writer(url)) as writer:
        await writer.ping()
        with asked(made.port) as client:
            client.execute_command("ACL", "SETUSER", "registry", ">another", f"<{PASSWORD}")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(StoreRefusedError, match="refuses user or password"):
            await until_refused(writer.ping)
        file.write_text("another")
        await writer.ping()


async def until_refused(call: Callable[[], Awaitable[None]]) -> None:
    """The first call after a connection was closed may only find that out."""
    for _ in range(3):
        try:
            await call()
        except StoreRefusedError:
            raise
        except StoreUnavailableError:
            pass


@pytest.mark.parametrize("name", ["redis-7", "valkey"])
def test_the_script_makes_the_documented_users(server: MakeServer, name: str, tmp_path: Path) -> None:
    """With passwords of their own, which the ACL file does not have; others may ping and no more."""
    script = [str(REPOSITORY / "deploy/redis/users.sh"), str(tmp_path / "new")]
    subprocess.run(script, check=True, timeout=30)
    acl = (tmp_path / "new/users.acl").read_text()
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"users.acl", "registry", "locator"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "new").iterdir())
    made = server(name, tcp=True, options={"aclfile": str(tmp_path / "new/users.acl")})
    for user, rules in {"registry": REGISTRY, "locator": LOCATOR}.items():
        password = (tmp_path / "new" / user).read_text()
        assert len(password) == 32
        assert password not in acl
        (line,) = (line for line in acl.splitlines() if line.startswith(f"user {user} "))
        assert line.split(" ", 4)[4] == rules.split(" ", 2)[2], "the rules are those of docs/running-redis.md"
        with redis.Redis.from_url(made.url.replace("://", f"://{user}:{password}@")) as client:
            assert client.ping()
    with redis.Redis.from_url(made.url) as client:
        assert client.ping()
        with pytest.raises(redis.ResponseError, match=r"(?i)no permissions"):
            client.get("minga:v2:epoch:{all}")
    subprocess.run(script, check=True, timeout=30)
    assert (tmp_path / "new/users.acl").read_text() == acl, "a second run changes nothing"


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    ("user", "said"),
    [("", "Authentication required"), (":wrong@", "invalid username-password"), ("nobody:x@", "invalid username")],
)
async def test_a_wrong_password_is_no_outage(server: MakeServer, name: str, user: str, said: str) -> None:
    """It is said as what it is; at start it stops the process; the password shows nowhere."""
    made = server(name, tcp=True, password=PASSWORD)
    async with aclosing(connect_reader(made.url)) as reader:
        await reader.check_access()
    async with aclosing(connect_writer(f"redis://{user}127.0.0.1:{made.port}")) as writer:
        for _ in range(2):
            with pytest.raises(StoreRefusedError, match=f"(?i)refuses user or password.*{said}"):
                await writer.ping()
        with pytest.raises(SettingsError, match="MINGA_REDIS_URL"):
            await writer.check_access()


@pytest.mark.parametrize("part", ["registry", "locator"])
@pytest.mark.parametrize("kind", ["wrong password", "no cluster", "bad port", "unknown parameter"])
def test_a_process_that_redis_refuses_does_not_start(server: MakeServer, part: str, kind: str, tmp_path: Path) -> None:
    """One line that names the setting and the reason, without the password, and an exit code; no traceback."""
    made = server(tcp=True, password=PASSWORD)
    url, said = {
        "wrong password": (f"redis://:wr0ng@127.0.0.1:{made.port}", "refuses user or password"),
        "no cluster": (f"redis+cluster://:{IN_URL}@127.0.0.1:{made.port}", "is no Cluster"),
        "bad port": (f"redis://:{IN_URL}@127.0.0.1:port", "port"),
        "unknown parameter": (f"redis://:{IN_URL}@127.0.0.1:{made.port}?colour=blue", "colour"),
    }[kind]
    done = subprocess.run(
        [sys.executable, "-m", f"minga_{part}", "--listen", "127.0.0.1:0"],
        env={"MINGA_REDIS_URL": url, "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    shown = done.stdout + done.stderr
    assert done.returncode not in (0, None), shown
    assert "MINGA_REDIS_URL" in shown
    assert said in shown
    assert "Traceback" not in shown
    assert "wr0ng" not in shown
    assert "s3cr3t" not in shown


# Other things than were named


async def test_a_node_of_a_cluster_named_as_a_single_server_says_so() -> None:
    """And the other way round."""
    with closing(ClusterStore(program("valkey"))) as store:
        store.start()
        async with aclosing(connect_reader(store.servers[0].url)) as reader:
            with pytest.raises(StoreRefusedError, match="node of a Cluster"):
                await reader.find_newest([Name(f"x{number}") for number in range(50)])
    single = RedisServer(tcp=True)
    with closing(single):
        single.start()
        async with aclosing(connect_reader(f"redis+cluster://127.0.0.1:{single.port}")) as reader:
            with pytest.raises(StoreRefusedError, match="is no Cluster"):
                await reader.ping()
            with pytest.raises(StoreRefusedError, match="is no Cluster"):
                await reader.find(Name("x"))


async def test_a_replica_named_as_the_store_says_so(server: MakeServer) -> None:
    """Writes fail with a reason; once it is promoted, they succeed over the same client."""
    primary, replica = server(tcp=True), server(tcp=True)
    with asked(replica.port) as client:
        client.replicaof("127.0.0.1", str(primary.port))
        async with over(replica.url) as directory:
            with pytest.raises(StoreUnavailableError, match="Redis is a replica there"):
                await directory.register("a")
            client.replicaof("NO", "ONE")
            await directory.register("a")


# TLS

needs_tls = pytest.mark.skipif(FOUND["redis-7"] is None, reason="of these servers only Debian's has TLS")


@needs_tls
@pytest.mark.timeout(300)
@pytest.mark.parametrize("cluster", [False, True], ids=["single", "cluster"])
async def test_over_tls(server: MakeServer, cluster: bool, tmp_path: Path) -> None:
    """With the authority that signed; not without; not under another name unless names do not matter."""
    files = make_certificates(tmp_path)
    made = tls_server(server, files, cluster=cluster)
    url = made.url.replace("redis", "rediss", 1)
    async with over(f"{url}?ssl_ca_certs={files['ca']}") as directory:
        await directory.register("a")
        await directory.push("a", [row("x")])
        assert await directory.holders("x") != {}
    async with aclosing(connect_reader(url)) as reader:
        with pytest.raises(StoreRefusedError, match="certificate that is not trusted"):
            await reader.ping()
        with pytest.raises(SettingsError, match="MINGA_REDIS_URL"):
            await reader.check_access()
    async with aclosing(connect_reader(made.url)) as reader:
        with pytest.raises(StoreUnavailableError):
            await reader.ping()


@needs_tls
async def test_a_certificate_for_another_name_is_refused_unless_names_do_not_matter(
    server: MakeServer, tmp_path: Path
) -> None:
    """As it is with certificates of host names where sentinels and nodes name each other by address."""
    files = make_certificates(tmp_path, name="DNS:redis.example")
    url = tls_server(server, files).url.replace("redis", "rediss", 1)
    async with aclosing(connect_reader(f"{url}?ssl_ca_certs={files['ca']}")) as reader:
        with pytest.raises(StoreRefusedError, match="certificate"):
            await reader.ping()
    async with aclosing(connect_reader(f"{url}?ssl_ca_certs={files['ca']}&ssl_check_hostname=false")) as reader:
        await reader.ping()


def tls_server(server: MakeServer, files: dict[str, Path], *, cluster: bool = False) -> RedisServer:
    """One whose port speaks TLS alone."""
    options = {
        "tls-cert-file": str(files["cert"]),
        "tls-key-file": str(files["key"]),
        "tls-ca-cert-file": str(files["ca"]),
        "tls-auth-clients": "no",
        "tls-replication": "yes",
        "tls-cluster": "yes",
    }
    return server("redis-7", tcp=True, cluster=cluster, options=options, tls=True)


def test_a_certificate_that_cannot_be_read_is_a_setting_error(tmp_path: Path) -> None:
    """Before anything connects."""
    for text in ("ssl_ca_certs=/nowhere.pem", f"ssl_ca_certs={tmp_path}/empty.pem"):
        (tmp_path / "empty.pem").write_text("")
        with pytest.raises(SettingsError, match="MINGA_REDIS_URL"):
            connect_reader(f"rediss://127.0.0.1:1?{text}")

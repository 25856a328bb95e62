"""What MINGA_REDIS_URL may be, and what is said of what it may not be."""

from typing import Any

import pytest

from minga_core.errors import SettingsError
from minga_directory.connect import connect
from minga_directory.urls import StoreUrl, Topology, parse_store_url

SECRET = "s3cr3t"


def plain(url: StoreUrl) -> dict[str, Any]:
    """The options, save how the connection is made."""
    options = {name: value for name, value in url.options.items() if name != "connection_class"}
    return options | ({"node": url.nodes[0]} if url.topology is Topology.SINGLE and url.nodes else {})


def test_a_single_server() -> None:
    """Host, port, user, password and database, wherever they stand."""
    url = parse_store_url(f"redis://joe:{SECRET}%2F@redis.example:7000/3")
    assert url.topology is Topology.SINGLE
    assert plain(url) == {"node": ("redis.example", 7000), "username": "joe", "password": SECRET + "/", "db": 3}
    assert plain(parse_store_url("redis://[::1]")) == {"node": ("::1", 6379)}
    assert plain(parse_store_url(f"redis://h?password={SECRET}&db=2"))["password"] == SECRET
    assert plain(parse_store_url(f"unix://:{SECRET}@/run/redis.sock?db=1")) == {
        "path": "/run/redis.sock",
        "password": SECRET,
        "db": 1,
    }


def test_sentinels() -> None:
    """Several, with the service, and passwords of two kinds."""
    url = parse_store_url(f"redis+sentinel://:{SECRET}@a:1,b,[::1]:3/directory/2?sentinel_password=other")
    assert url.topology is Topology.SENTINEL
    assert url.nodes == (("a", 1), ("b", 26379), ("::1", 3))
    assert url.service == "directory"
    assert plain(url) == {"password": SECRET, "db": 2}
    assert url.sentinel_options == {"password": "other"}


def test_sentinels_over_tls_are_asked_over_tls() -> None:
    """With the same authorities."""
    url = parse_store_url("rediss+sentinel://a/directory?ssl_ca_certs=/ca.pem")
    assert url.sentinel_options["ssl_ca_certs"] == "/ca.pem"
    assert url.sentinel_options["connection_class"] is url.options["connection_class"]


def test_a_cluster() -> None:
    """Any of its nodes, and no database."""
    url = parse_store_url(f"redis+cluster://joe:{SECRET}@a:7000,b/0?max_connections=8")
    assert url.topology is Topology.CLUSTER
    assert url.nodes == (("a", 7000), ("b", 6379))
    assert plain(url) == {"username": "joe", "password": SECRET, "max_connections": 8}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://somewhere", r"redis\+cluster://"),
        ("redis+ring://h", r"redis\+cluster://"),
        ("redis://", "host:port"),
        ("redis://h:0", "host:port"),
        ("redis://h:70000", "host:port"),
        ("redis://a,b", "several hosts"),
        ("redis://h/directory", "number of a database"),
        (f"redis://:{SECRET}/x@h:1", "host:port"),
        (f"redis://:{SECRET}#x@h:1", "%23"),
        (f"redis://:[{SECRET}@h:1", "%5B"),
        (f"redis://h?db={SECRET}", "db"),
        (f"redis://h?colour={SECRET}", "'colour' is no parameter"),
        ("redis://h?ssl_ca_certs=/x", "rediss:// alone"),
        ("redis://h?sentinel_password=x", "no parameter of this kind"),
        ("redis://h?max_connections=0", "1 or more"),
        ("redis://h?max_connections=many", "max_connections"),
        ("redis+sentinel://a,b", "name of the service is missing"),
        ("redis+sentinel://a,b/directory/first", "number of a database"),
        ("redis+sentinel://a,,b/directory", "host:port"),
        ("redis+cluster://a,b/3", "database 0"),
        ("redis+cluster://a,b?db=3", "database 0"),
        ("rediss://h?ssl_ca_certs=/nowhere.pem", "No such file"),
        ("rediss://h?ssl_cert_reqs=perhaps", "perhaps"),
        ("rediss+cluster://h?ssl_ca_certs=/nowhere.pem", "No such file"),
        ("rediss+sentinel://h/d?ssl_certfile=/nowhere.pem", "No such file"),
    ],
)
async def test_what_is_no_url_is_told_without_what_might_be_a_password(url: str, said: str) -> None:
    """By the name of the setting, before anything connects."""
    with pytest.raises(SettingsError, match=f"MINGA_REDIS_URL: .*{said}") as caught:
        connect(url)
    assert SECRET not in str(caught.value)


def test_passwords_show_in_no_repr() -> None:
    """Whoever prints it."""
    url = parse_store_url(f"redis+sentinel://:{SECRET}@a/directory?sentinel_password={SECRET}")
    assert SECRET not in repr(url)

"""What registries write into `WWW-Authenticate`."""

import pytest

from minga_peer.images.challenges import parse_challenge

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull"'
HUB_URL = "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2Fx%3Apull"


@pytest.mark.parametrize(
    ("header", "url"),
    [
        (HUB, HUB_URL),
        (HUB.replace("Bearer", "bearer").replace(",", " , "), HUB_URL),
        (f'Basic realm="x", {HUB}', HUB_URL),
        (f'{HUB}, Basic realm="x"', HUB_URL),
        ("Bearer realm=https://r.example/t", "https://r.example/t?scope=repository%3Alibrary%2Fx%3Apull"),
        ('Bearer realm="http://r.example/t?a=b"', "http://r.example/t?a=b&scope=repository%3Alibrary%2Fx%3Apull"),
    ],
)
def test_where_a_token_is_to_be_had(header: str, url: str) -> None:
    """Of one challenge or several; the scope is the repository's where none is named."""
    challenge = parse_challenge(header)
    assert challenge is not None
    assert challenge.url("library/x") == url


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic realm=x",
        "Bearer",
        'Bearer service="x"',
        'Bearer realm="file:///etc/passwd"',
        'Bearer realm="//x"',
        ",,",
    ],
)
def test_what_no_token_answers(header: str) -> None:
    """The client asks the registry itself then, with what it has."""
    assert parse_challenge(header) is None

"""Page tokens and times."""

import base64
import re
from datetime import datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga_core.errors import InvalidArgumentError
from minga_core.ids import parse_peer_id
from minga_core.names import parse_name
from minga_locator.page_tokens import ListKind, decode_token, encode_token
from minga_locator.schemas import rfc3339
from services.locator.tests.support import problem_of


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=80))
def test_a_token_says_what_it_was_given(text: str) -> None:
    """Every name survives the way out and back."""
    try:
        name = parse_name(text)
    except InvalidArgumentError:
        return
    assert decode_token(ListKind.FILES, encode_token(ListKind.FILES, name), parse_name) == name


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_what_was_never_given_out_is_refused(text: str) -> None:
    """Whatever decodes is spelt exactly as it would be given out; all else is InvalidArgumentError."""
    try:
        after = decode_token(ListKind.FILES, text, parse_name)
    except InvalidArgumentError:
        return
    assert encode_token(ListKind.FILES, after or "") == text


@pytest.mark.parametrize(
    "token", ["x", "!!!!", "AAAA", "MmZhYWE", encode_token(ListKind.PEERS, "a") + "=", "é", "A" * 5000]
)
async def test_garbage_is_refused(api: httpx.AsyncClient, token: str) -> None:
    """400 invalid_argument in every list."""
    for path in ("/v1/files", "/v1/peers"):
        assert problem_of(await api.get(path, params={"page_token": token})) == (400, "invalid_argument")


def test_a_token_belongs_to_its_list() -> None:
    """A token of the files is none of the peers."""
    token = encode_token(ListKind.FILES, "a")
    with pytest.raises(InvalidArgumentError):
        decode_token(ListKind.PEERS, token, parse_peer_id)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_time_is_exact(nanos: int) -> None:
    """RFC 3339 in UTC with nine digits; seconds and nanoseconds are those that were meant."""
    text = rfc3339(nanos)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", text)
    whole = round(datetime.fromisoformat(text[:19] + "+00:00").timestamp())
    assert whole * 10**9 + int(text[20:29]) == nanos

import pytest

from minga_core.errors import InvalidArgumentError, InvalidNameError, PermissionDeniedError
from minga_core.names import parse_name
from minga_runtime.trust.rights import ALL, MAX_PREFIXES, NONE, Prefixes, Rights


@pytest.mark.parametrize("name", ["data", "data/x", "data/x/y.bin", "ci/a"])
def test_a_prefix_has_what_is_at_and_below_it(name: str) -> None:
    assert name in Prefixes.parse(["data/", "ci"])


@pytest.mark.parametrize("name", ["data-secret", "data-secret/x", "dat", "x/data", "Data/x", "c"])
def test_a_prefix_ends_with_a_whole_folder(name: str) -> None:
    assert name not in Prefixes.parse(["data", "ci"])


@pytest.mark.parametrize("text", ["", "/", "a/../b", "../a", "/data", "a//b", "./a", "data//", "a\0b"])
def test_a_prefix_that_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError):
        Prefixes.parse([text])


def test_a_prefix_in_another_normal_form_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="NFC"):
        Prefixes.parse(["cafe\N{COMBINING ACUTE ACCENT}"])


def test_too_many_prefixes_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="at most"):
        Prefixes.parse([f"d{at}" for at in range(MAX_PREFIXES + 1)])


def test_rights_say_what_they_are_of() -> None:
    rights = Rights(Prefixes.parse(["data"]), Prefixes.parse([]))
    rights.check_read(parse_name("data/x"))
    with pytest.raises(PermissionDeniedError, match=r"'secret'.*of data"):
        rights.check_read(parse_name("secret"))
    with pytest.raises(PermissionDeniedError, match="of nothing"):
        rights.check_publish(parse_name("data/x"))


def test_all_and_nothing() -> None:
    ALL.check_read(parse_name("a"))
    ALL.check_publish(parse_name("a"))
    with pytest.raises(PermissionDeniedError):
        NONE.check_read(parse_name("a"))

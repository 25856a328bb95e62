"""What people and programs write for a file."""

import pytest

from minga_core.errors import InvalidArgumentError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.references import ContentReference, NameReference, Reference, parse_reference

ID = ContentId(bytes(range(32)))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a/b", NameReference(Name("a/b"))),
        (f"a@{ID}", NameReference(Name("a"), ID)),
        (f"a@b3:1@{ID}", NameReference(Name("a@b3:1"), ID)),
        # Names that a listing may have: only a whole id behind an `@` is a version.
        ("a@b3:1", NameReference(Name("a@b3:1"))),
        (f"a@{str(ID).upper()}", NameReference(Name(f"a@{str(ID).upper()}"))),
        (f"a@{ID}0", NameReference(Name(f"a@{ID}0"))),
        (str(ID), ContentReference(ID)),
    ],
)
def test_a_name_a_version_of_it_and_a_content(text: str, wanted: Reference) -> None:
    """And what was read is written as it was."""
    assert parse_reference(text) == wanted
    assert str(wanted) == text


@pytest.mark.parametrize("text", ["", "/a", "b3:1", f"@{ID}", f"/a@{ID}"])
def test_what_refers_to_nothing_is_refused(text: str) -> None:
    """A content id that was cut is no name: those of logs are."""
    with pytest.raises(InvalidArgumentError):
        parse_reference(text)


def test_where_there_are_names_alone_an_id_is_one() -> None:
    """As in the gateway, whose contents have a path of their own."""
    assert NameReference.parse(str(ID)) == NameReference(Name(str(ID)))

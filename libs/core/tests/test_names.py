"""What is a file name."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minga_core.errors import InvalidNameError
from minga_core.names import HIDDEN_ROOT, MAX_NAME_BYTES, MAX_PART_BYTES, _parsed_slowly, parse_name, parse_prefix


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "models/llama/weights.safetensors",
        "CON",
        "aux.txt",
        "with space.txt",
        "...",
        ".hidden",
        "ends.",
        "emoji-🎉.bin",
        "x/.minga",
        "a" * 255,
        "/".join(["a" * 255] * 4),
    ],
)
def test_ordinary_and_surprising_names_are_names(text: str) -> None:
    """Nothing harmless is refused; `CON` is a file like any other here."""
    assert parse_name(text) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("../x", "'..'"),
        ("a/../../x", "'..'"),
        ("a/./x", "'.'"),
        (".", "'.'"),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\x7fb", "control"),
        ("a\u2028b", "control"),
        ("a\ud800", "UTF-8"),
        ("/".join(["a" * 255] * 4) + "/a", "1,025 bytes"),
        ("a" * 256, "255"),
        (".minga/index", "reserved"),
    ],
)
def test_names_that_break_a_rule_are_refused_with_that_rule(text: str, rule: str) -> None:
    """Each rule has its own message, on one line."""
    with pytest.raises(InvalidNameError) as caught:
        parse_name(text)
    assert rule in str(caught.value)
    assert str(caught.value).isprintable()


def test_both_normal_forms_are_one_name() -> None:
    """A name is NFC whatever it was typed in."""
    composed, decomposed = "caf\u00e9/\u00fc.txt", unicodedata.normalize("NFD", "caf\u00e9/\u00fc.txt")
    assert composed != decomposed
    assert parse_name(decomposed) == parse_name(composed) == composed


@given(st.text(max_size=60))
def test_a_name_that_passes_stays_inside_its_root(text: str) -> None:
    """Whatever comes in: refused, or a relative path without a way up."""
    try:
        name = parse_name(text)
    except InvalidNameError:
        return
    assert not name.startswith("/")
    assert not {"", ".", ".."} & set(name.split("/"))
    assert parse_name(name) == name


@pytest.mark.parametrize("text", ["", "a", "dir/", "dir/fi", "dir/.", "."])
def test_the_beginning_of_a_name_is_a_prefix(text: str) -> None:
    """A prefix may end anywhere within a name."""
    assert parse_prefix(text) == text


@pytest.mark.parametrize("text", ["/", "../", "a//", "a\0"])
def test_what_no_name_begins_with_is_no_prefix(text: str) -> None:
    """Prefixes are checked like names."""
    with pytest.raises(InvalidNameError):
        parse_prefix(text)


pieces = st.one_of(
    st.sampled_from(
        ["/", ".", "..", HIDDEN_ROOT, "a", " ", "~", "\x7f", "\x1f", "\n", "\u2028", "é", "e\u0301", "\ud800"]
    ),
    st.sampled_from(["a" * MAX_PART_BYTES, "é" * 128, "/".join(["a" * MAX_PART_BYTES] * 4), "b" * MAX_NAME_BYTES]),
    st.characters(max_codepoint=255),
)


@given(st.lists(pieces, max_size=8).map("".join))
@example("/".join(["a" * MAX_PART_BYTES] * 4))
@example("/".join(["a" * MAX_PART_BYTES] * 4) + "/")
@example(f"{HIDDEN_ROOT}x")
@example("a\n")
@example("..\n")
def test_the_fast_expression_accepts_what_the_rules_accept(text: str) -> None:
    """Whatever the expression for plain names lets pass, and whatever it does not."""

    def outcome(parse: Callable[[str], str]) -> tuple[str, str]:
        try:
            return "name", parse(text)
        except InvalidNameError as error:
            return "refused", str(error)

    assert outcome(parse_name) == outcome(_parsed_slowly)

"""Heads of chunk requests and responses: what is encoded is decoded, and nothing else is."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga_core.chunks import ChunkSet
from minga_core.errors import BusyError, ContentChangedError, InvalidArgumentError, MingaError
from minga_core.ids import Address, ContentId, PeerId
from minga_engine.wire.http_format import (
    END_OF_HEAD,
    AvailabilityRequest,
    ChunkRequest,
    ChunkResponse,
    EarlyHints,
    ErrorResponse,
    FilesRequest,
    WrongChunkReport,
    decode_availability,
    decode_request,
    decode_response,
    encode_availability,
)
from minga_engine.wire.messages import SourceAddress

CONTENT = ContentId(bytes(range(32)))
CALLER = SourceAddress(PeerId("a.b-c_d"), Address("[::1]:50053"), complete=False, http_port=50054)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = SourceAddress(PeerId("other"), Address("10.0.0.7:1"), complete=False)


def head(encoded: bytes) -> bytes:
    """A head without its end."""
    assert encoded.endswith(END_OF_HEAD)
    return encoded.removesuffix(END_OF_HEAD)


@given(st.sets(st.integers(0, 2000), min_size=1), st.sampled_from([None, CALLER, OTHER]))
def test_requests_come_back(chunks: set[int], caller: SourceAddress | None) -> None:
    """Any chunks, any caller."""
    request = ChunkRequest(CONTENT, tuple(ChunkSet(2001, chunks).ranges()), caller)
    assert decode_request(head(request.encode("host:1"))) == request


def test_a_traceparent_comes_back() -> None:
    """The header as it was sent."""
    traced = ChunkRequest(CONTENT, ((0, 1),), CALLER, TRACEPARENT)
    assert decode_request(head(traced.encode("host:1"))) == traced


def test_an_availability_request_comes_back() -> None:
    """The other thing that can be asked for."""
    assert decode_request(head(AvailabilityRequest(CONTENT).encode("host:1"))) == AvailabilityRequest(CONTENT)


def test_a_report_of_a_wrong_chunk_comes_back() -> None:
    """It has no body, and one is refused."""
    report = WrongChunkReport(CONTENT, 17)
    encoded = head(report.encode("host:1"))
    assert decode_request(encoded) == report
    for wrong in (encoded.replace(b": 0", b": 1"), encoded.replace(b"/17/", b"/x/"), encoded.replace(b"POST", b"PUT")):
        with pytest.raises(InvalidArgumentError):
            decode_request(wrong)


@pytest.mark.parametrize("count", [1, 2000])
def test_a_request_for_small_files_comes_back(count: int) -> None:
    """Its body follows the head."""
    request = FilesRequest(count)
    assert decode_request(head(request.encode("host:1"))) == request


@pytest.mark.parametrize("length", ["0", "31", "33", "64032", "9999999999", "-32", "", "x"])
def test_a_request_for_small_files_has_1_to_2000_ids(length: str) -> None:
    """Anything else is refused before its body is read."""
    with pytest.raises(InvalidArgumentError):
        decode_request(f"POST /v1/files HTTP/1.1\r\nContent-Length: {length}".encode())


def test_answers_come_back() -> None:
    """Each kind."""
    for answer in (
        ChunkResponse(None),
        ChunkResponse(7, 262144),
        ChunkResponse(0, 1, (CALLER, OTHER)),
        EarlyHints((OTHER,)),
    ):
        assert decode_response(head(answer.encode())) == answer


@pytest.mark.parametrize(
    "error",
    [ContentChangedError("a file\r\nMinga-Chunk: 1"), BusyError("full", retry_after=timedelta(milliseconds=250))],
)
def test_errors_come_back_as_the_class_they_were(error: MingaError) -> None:
    """With the others to ask; and nothing in a sentence can become a header."""
    refusal = decode_response(head(ErrorResponse(error, (OTHER,)).encode()))
    assert isinstance(refusal, ErrorResponse)
    assert type(refusal.error) is type(error)
    assert refusal.sources == (OTHER,)
    if isinstance(error, BusyError):
        assert isinstance(refusal.error, BusyError)
        assert refusal.error.retry_after == error.retry_after


@given(st.sets(st.integers(0, 99)))
def test_availability_comes_back(chunks: set[int]) -> None:
    """Nothing, some, and all."""
    held = ChunkSet(100, chunks)
    assert decode_availability(encode_availability(held, complete=held.complete), 100) == (held, held.complete)


GOOD = f"/v1/contents/{CONTENT}/chunks?wanted=0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET",
        f"POST {GOOD} HTTP/1.1",
        f"GET {GOOD} HTTP/1.0",
        f"GET {GOOD}",
        f"GET {GOOD}, HTTP/1.1",
        f"GET {GOOD}-,1 HTTP/1.1",
        f"GET {GOOD}&x=1 HTTP/1.1",
        f"GET /v1/contents/{CONTENT}/chunks?wanted=5-4 HTTP/1.1",
        f"GET /v1/contents/{CONTENT}/chunks?wanted=99999999999 HTTP/1.1",
        f"GET /v1/contents/{CONTENT}/chunks?wanted=" + ",".join("0" for _ in range(1025)) + " HTTP/1.1",
        "GET /v1/contents/b3:00/chunks?wanted=0 HTTP/1.1",
        "GET /../etc/passwd HTTP/1.1",
        f"GET {GOOD} HTTP/1.1\r\nno header",
        f"GET {GOOD} HTTP/1.1\r\nHost : x",
        f"GET {GOOD} HTTP/1.1\r\nHost: x\r\nhost: y",
        f"GET {GOOD} HTTP/1.1\r\nTransfer-Encoding: chunked",
        f"GET {GOOD} HTTP/1.1\r\nHost: \xff",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """With our own error."""
    with pytest.raises(InvalidArgumentError):
        decode_request(text.encode("latin-1"))


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_readers(data: bytes) -> None:
    """They are understood, or refused."""
    for read in (decode_request, decode_response, lambda raw: decode_availability(raw, 8)):
        try:
            read(data)
        except InvalidArgumentError:
            continue


def test_sources_that_are_malformed_are_left_out() -> None:
    """The answer counts all the same."""
    text = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nMinga-Chunk: 0\r\nMinga-Sources: x,@,a@b,other@10.0.0.7:1,p@h:1/99999"
    )
    assert decode_response(text) == ChunkResponse(0, 1, (OTHER,))

"""Names of files in stores: one meaning for each text, and one URL for each meaning."""

import pytest

from minga_core.errors import InvalidArgumentError
from minga_core.origin_names import (
    Endpoints,
    HubPath,
    StoredObject,
    endpoints_of,
    parse_origin_name,
    prefix_url,
)

PUBLIC = Endpoints()


@pytest.mark.parametrize(
    ("text", "name", "url"),
    [
        ("s3://data/a/b.csv", StoredObject("s3", "data", "a/b.csv"), "https://data.s3.amazonaws.com/a/b.csv"),
        (
            "S3://data/A b#1?x=%20",
            StoredObject("s3", "data", "A b#1?x=%20"),
            "https://data.s3.amazonaws.com/A%20b%231%3Fx%3D%2520",
        ),
        ("s3://data//a//b", StoredObject("s3", "data", "/a//b"), "https://data.s3.amazonaws.com//a//b"),
        ("s3://da.ta/é+", StoredObject("s3", "da.ta", "é+"), "https://s3.amazonaws.com/da.ta/%C3%A9%2B"),
        ("s3://Old_Bucket/k", StoredObject("s3", "Old_Bucket", "k"), "https://s3.amazonaws.com/Old_Bucket/k"),
        (
            "s3://data/k?versionId=3/L4kq+tJlcpXro==",
            StoredObject("s3", "data", "k", "3/L4kq+tJlcpXro=="),
            "https://data.s3.amazonaws.com/k?versionId=3%2FL4kq%2BtJlcpXro%3D%3D",
        ),
        (
            "s3://data/k?versionId=",
            StoredObject("s3", "data", "k?versionId="),
            "https://data.s3.amazonaws.com/k%3FversionId%3D",
        ),
        (
            "gs://data/o?generation=12",
            StoredObject("gs", "data", "o", "12"),
            "https://storage.googleapis.com/data/o?generation=12",
        ),
        (
            "gs://data/o?versionId=12",
            StoredObject("gs", "data", "o?versionId=12"),
            "https://storage.googleapis.com/data/o%3FversionId%3D12",
        ),
        (
            "hf://org/model/a b.bin",
            HubPath("org/model", "main", "a b.bin"),
            "https://huggingface.co/org/model/resolve/main/a%20b.bin",
        ),
        (
            "hf://models/org/model/x",
            HubPath("org/model", "main", "x"),
            "https://huggingface.co/org/model/resolve/main/x",
        ),
        (
            "hf://datasets/org/set@v1.0/d/x.parquet",
            HubPath("datasets/org/set", "v1.0", "d/x.parquet"),
            "https://huggingface.co/datasets/org/set/resolve/v1.0/d/x.parquet",
        ),
        (
            "hf://gpt2@main/config.json",
            HubPath("gpt2", "main", "config.json"),
            "https://huggingface.co/gpt2/resolve/main/config.json",
        ),
        (
            "hf://org/m@refs/pr/7/x",
            HubPath("org/m", "refs/pr/7", "x"),
            "https://huggingface.co/org/m/resolve/refs%2Fpr%2F7/x",
        ),
        (
            "hf://org/m@refs%2Fpr%2F7/x",
            HubPath("org/m", "refs/pr/7", "x"),
            "https://huggingface.co/org/m/resolve/refs%2Fpr%2F7/x",
        ),
        ("hf://org/m@a%2Fb/x", HubPath("org/m", "a/b", "x"), "https://huggingface.co/org/m/resolve/a%2Fb/x"),
    ],
)
def test_a_name_of_a_store_is_one_file_at_one_url(text: str, name: StoredObject | HubPath, url: str) -> None:
    found = parse_origin_name(text)
    assert found == name
    assert found.url(PUBLIC) == url
    assert parse_origin_name(str(found)) == name


@pytest.mark.parametrize("text", ["https://a/b", "data/a.csv", "b3:1", "s3:/data/a", "s3", "minga://s3://a/b"])
def test_what_is_no_name_of_a_store_is_left_to_others(text: str) -> None:
    assert parse_origin_name(text) is None
    assert prefix_url(text, PUBLIC) == text


@pytest.mark.parametrize(
    "text",
    [
        *("s3://", "s3://data", "s3://data/", "s3://data/folder/", "s3:///a", "s3://a/b", "s3://a@b.evil/c"),
        *("s3://data.evil:80/x", "gs://-data/x", "s3://data/" + 1025 * "a", "s3://data/\udcff", "gs://[::1]/x"),
        *("hf://", "hf://org", "hf://org/model", "hf://gpt2/config.json", "hf://org/model/", "hf://org/model@/x"),
        *("hf://../model/x", "hf://org/model@v1", "hf://datasets/org/set", "hf://o r g/model/x"),
    ],
)
def test_what_names_no_file_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_origin_name(text)


def test_endpoints_are_those_of_the_environment() -> None:
    """As the stores' own programs read it; a bucket is a part of the path at any endpoint but AWS' own."""
    own = endpoints_of({"AWS_ENDPOINT_URL_S3": "http://minio:9000/", "STORAGE_EMULATOR_HOST": "gcs:4443"}, "")
    for text, url in (
        ("s3://data/a", "http://minio:9000/data/a"),
        ("gs://data/a", "http://gcs:4443/data/a"),
    ):
        assert isinstance(found := parse_origin_name(text), StoredObject)
        assert found.url(own) == url
    general = {"AWS_ENDPOINT_URL": "http://all:1"}
    assert endpoints_of(general, "x") == Endpoints("http://all:1", hub="x")
    assert endpoints_of(general | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, "").s3 == PUBLIC.s3
    with pytest.raises(InvalidArgumentError):
        HubPath("org/m", "main", "x").url(own)


def test_a_prefix_of_names_is_one_of_urls() -> None:
    for text, url in (
        ("s3://data", "https://data.s3.amazonaws.com/"),
        ("s3://data/2026/", "https://data.s3.amazonaws.com/2026/"),
        ("s3://da.ta/x", "https://s3.amazonaws.com/da.ta/x"),
        ("gs://data/", "https://storage.googleapis.com/data/"),
        ("hf://datasets/org/", "https://huggingface.co/datasets/org/"),
    ):
        assert prefix_url(text, PUBLIC) == url
    for text in ("s3://", "s3:///x", "s3://a.evil:80/"):
        with pytest.raises(InvalidArgumentError):
            prefix_url(text, PUBLIC)

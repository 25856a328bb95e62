"""Requests for files of S3: signed by the credentials that AWS's own programs would use. Everything here blocks."""

import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from minga.origin_credentials import OriginRequest, kept, taken
from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, SettingsError, UnavailableError
from minga_core.origin_names import Endpoints, StoredObject

SIGNED_SECONDS = 12 * 3600
"""How long a signature is good for: a file that comes slowly may have to be asked for again in the middle."""
ASK_SECONDS = 10
_ACCEPT_ENCODING = {"Accept-Encoding": "identity, *;q=0.1"}
"""A store keeps an encoding with a file; what is fetched is what it keeps."""
_OPTIONS = ("anon", "profile", "key", "secret", "token", "endpoint_url", "client_kwargs")
_OF_CLIENTS = ("endpoint_url", "region_name")


def s3_request(name: StoredObject, options: Mapping[str, Any]) -> OriginRequest:
    """The request for an object: a URL that is signed for reading it, good for twelve hours, or less where the
    credentials end; unsigned without credentials.

    options: as s3fs takes them. Raises as `OriginUrl.request`.
    """
    try:
        import botocore.exceptions  # type: ignore[import-untyped]
    except ImportError as error:
        raise SettingsError(f"{name.scheme}:// needs botocore", hint="pip install 'minga[s3]'") from error
    try:
        checked = taken(options, *_OPTIONS)
        return kept(lambda: _Signer(checked), name.scheme, checked).request(name)
    except botocore.exceptions.ParamValidationError as error:
        raise InvalidArgumentError(f"{name}: {error}") from error
    except botocore.exceptions.BotoCoreError as error:
        raise SettingsError(f"the credentials for {name.scheme}://{name.bucket} cannot be had: {error}") from error


class _Signer:
    """Signs for one user, with clients for the regions of buckets. Threads may share it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        import botocore.session  # type: ignore[import-untyped]

        self._options = options
        self._session = botocore.session.Session(profile=options.get("profile"))
        if options.get("key"):
            self._session.set_credentials(options["key"], options.get("secret"), options.get("token"))
        self._credentials = None if options.get("anon") else self._session.get_credentials()
        self._client = _client(self._session, options, signed=self._credentials is not None)
        self._endpoint = str(self._client.meta.endpoint_url).rstrip("/")
        self._is_aws = (urlsplit(self._endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
        self._by_bucket: dict[str, Any] = {}
        self._by_region: dict[str, Any] = {}
        self._lock = threading.Lock()

    def request(self, name: StoredObject) -> OriginRequest:
        """The request for an object."""
        if self._credentials is None:
            found = Endpoints() if self._is_aws else Endpoints(s3=self._endpoint)
            return OriginRequest(name.url(found), _ACCEPT_ENCODING)
        client = self._regional(name.bucket) if self._is_aws else self._client
        wanted = {"Bucket": name.bucket, "Key": name.key} | ({"VersionId": name.version} if name.version else {})
        url = client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=SIGNED_SECONDS)
        return OriginRequest(url, _ACCEPT_ENCODING, f"the AWS credentials of {self._credentials.method}")

    def _regional(self, bucket: str) -> Any:
        """The client for a bucket's own region."""
        with self._lock:
            if bucket not in self._by_bucket:
                region = _region(self._client, bucket) or self._client.meta.region_name
                if region not in self._by_region:
                    options = {**self._options, "client_kwargs": {"region_name": region}}
                    self._by_region[region] = _client(self._session, options, signed=True, at_aws=True)
                self._by_bucket[bucket] = self._by_region[region]
            return self._by_bucket[bucket]


def _client(session: Any, options: Mapping[str, Any], *, signed: bool, at_aws: bool = False) -> Any:
    from botocore import UNSIGNED
    from botocore.config import Config  # type: ignore[import-untyped]

    given = taken(options.get("client_kwargs") or {}, *_OF_CLIENTS)
    config = Config(
        signature_version="s3v4" if signed else UNSIGNED,
        connect_timeout=ASK_SECONDS,
        read_timeout=ASK_SECONDS,
        # Only so URLs are those of the region; buckets whose names have dots are parts of paths all the same.
        s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"} if at_aws else None,
    )
    region = given.get("region_name") or session.get_config_variable("region") or "us-east-1"
    endpoint = options.get("endpoint_url") or given.get("endpoint_url")
    return session.create_client("s3", region_name=region, endpoint_url=endpoint, config=config)


def _region(client: Any, bucket: str) -> str:
    """Where the bucket is, as S3 says it also to who may not see it; empty when it does not."""
    import botocore.exceptions

    try:
        answer = client.head_bucket(Bucket=bucket)
    except botocore.exceptions.ClientError as error:
        answer = error.response
        if answer["ResponseMetadata"]["HTTPStatusCode"] == 404:
            raise FileNotFoundInDirectoryError(f"S3 has no bucket {bucket}") from error
    except botocore.exceptions.HTTPClientError as error:
        raise UnavailableError(f"S3 cannot be asked where the bucket {bucket} is: {error}") from error
    region = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", "")
    return str(region)

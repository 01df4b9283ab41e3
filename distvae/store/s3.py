"""S3 and what speaks like it: one client a process, and every error in words a user can act on.

Credentials, region and endpoint come from where boto3 looks for them (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,
AWS_PROFILE, an instance's role; AWS_REGION; AWS_ENDPOINT_URL for a server of one's own). boto3 is the extra `s3`."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from distvae.store.errors import BucketError, StoreError

# How long a request is made again while nobody answers it. Our own clock, for boto3 counts attempts, and how fast it makes
# them changes with its versions. Once one has failed like that S3 is away, and until one is answered none is made again:
# what a sweep has still to write then must not cost it a minute each, one after the other.
FIRST_S = 10.0  # nobody has answered yet: an address that is wrong
PATIENCE_S = 60.0  # S3 that was there
CONNECT_S, READ_S, AWAY_S = 5, 10, 3  # of one attempt: for the connection, for the answer, for either once S3 is away
LARGE = 64 * 2**20  # bytes from which a file goes up in parts
GONE = ("404", "NoSuchKey", "NotFound")
TAKEN = ("412", "PreconditionFailed", "409", "ConditionalRequestConflict")
ENVIRONMENT = (  # what a process on another node needs to reach the same place
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)  # fmt: skip


class Taken(Exception):
    """A conditional request whose condition does not hold: somebody else was faster."""


def environment() -> dict[str, str]:
    """What this process was told of S3 by environment variables."""
    return {name: os.environ[name] for name in ENVIRONMENT if os.environ.get(name)}


_patience = FIRST_S


def give_up() -> None:
    """S3 does not answer, as this process or another has found."""
    global _patience
    _patience = 0.0


def _answered() -> None:
    global _patience
    _patience = PATIENCE_S


def client() -> Any:
    """boto3's client: safe in threads, made anew after a fork or when the environment says something else."""
    return _client(os.getpid(), tuple(sorted(environment().items())), away=not _patience)


@lru_cache(2)
def _client(pid: int, told: tuple[tuple[str, str], ...], *, away: bool) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as e:
        raise StoreError(f"s3:// needs boto3, which is not installed (pip install 'distvae[s3]'): {e}") from None
    own = any(name.startswith("AWS_ENDPOINT_URL") for name, _ in told)
    settings: dict[str, Any] = {
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "connect_timeout": AWAY_S if away else CONNECT_S,
        "read_timeout": AWAY_S if away else READ_S,
        "max_pool_connections": 40,
    }
    if own:  # many servers know no host name for each bucket, nor AWS's newer checksums
        settings |= {"s3": {"addressing_style": "path"}}
        settings |= {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    try:
        region = None if boto3.Session().region_name else "us-east-1"  # S3's own default; a bucket elsewhere says so
        made = boto3.Session().client("s3", region_name=region, config=Config(**settings))
        made.meta.events.register_first("before-call.s3", _begins)
        made.meta.events.register_last("needs-retry.s3", _again)
        return made
    except (BotoCoreError, ValueError) as e:  # a profile that is not there, an endpoint that is no URL
        raise StoreError(f"s3: {e} (look at AWS_PROFILE, AWS_ENDPOINT_URL and ~/.aws)") from None


def _begins(context: dict[str, Any], **more: Any) -> None:
    context["distvae_began"] = time.monotonic()


def _again(request_dict: Any, attempts: int, response: Any, caught_exception: Any, **more: Any) -> float | None:
    """For botocore: in how many seconds to make a request again; None: not."""
    if not _unanswered(caught_exception or (response[1] if response else {})):
        return None
    waited = time.monotonic() - request_dict["context"]["distvae_began"]
    return random.uniform(0.5, 1.0) * min(attempts, 5) if waited < _patience else None


def _unanswered(what: Any) -> bool:
    """An exception, or an answer, that says nothing about the request: S3 is away, or asks for patience."""
    from botocore.exceptions import ConnectionError, HTTPClientError, SSLError

    if isinstance(what, Exception):
        return isinstance(what, ConnectionError | HTTPClientError) and not isinstance(what, SSLError)
    status = what.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status == 429 or (status >= 500 and status != 501)


@contextmanager
def asked(where: object) -> Iterator[Any]:
    """The client, for a request about `where` (an s3:// address). Raises FileNotFoundError, Taken, StoreError."""
    s3 = client()
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield s3
        _answered()
    except ClientError as e:
        give_up() if _unanswered(e.response) else _answered()
        raise _translated(where, e) from None
    except BotoCoreError as e:
        if _unanswered(e):
            give_up()
        raise StoreError(f"{where}: {_unreachable(e)}") from None


def _translated(where: object, e: Any) -> Exception:
    error = e.response.get("Error", {})
    metadata = e.response.get("ResponseMetadata", {})
    code, status, attempts = (
        str(error.get("Code", "")),
        metadata.get("HTTPStatusCode"),
        metadata.get("RetryAttempts", 0),
    )
    region = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region") or error.get("Region")
    said = f"{code}: {error.get('Message') or e}"
    if code == "NoSuchBucket":
        return BucketError(f"{where}: there is no such bucket (make it, or name another; AWS_ENDPOINT_URL says where)")
    if code in GONE:
        return FileNotFoundError(2, "No such object", str(where))
    if code in TAKEN:
        return Taken(str(where))
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"):
        fix = f"AWS_REGION={region}" if region else "AWS_REGION to the bucket's"
        return StoreError(f"{where}: the bucket is in another region (set {fix})")
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"):
        return StoreError(f"{where}: S3 does not accept the credentials ({said}); give valid ones, then run again")
    if status == 403:
        return StoreError(
            f"{where}: access denied ({said}); the credentials need s3:ListBucket, GetObject, PutObject, DeleteObject"
        )
    if code in ("NotImplemented", "InvalidArgument", "501"):
        return StoreError(f"{where}: this server does not do what distvae needs of S3 ({said})")
    return StoreError(f"{where}: S3 answers {status} {said} (asked {attempts + 1} times; run again when it is well)")


def _unreachable(e: Exception) -> str:
    name = type(e).__name__
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        return f"no credentials for S3 ({e}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if name in ("ProfileNotFound", "InvalidRegionError", "ParamValidationError"):
        return " ".join(str(e).split())
    at = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    why = " ".join(str(e).split()).split(" on endpoint URL")[0].split(" to the endpoint URL")[0]
    return f"S3 at {at} cannot be reached ({name}: {why[:160]}); run again when it answers"

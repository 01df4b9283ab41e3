"""`S3Path`: an `s3://bucket/key` with the part of `pathlib.Path`'s interface that distvae uses. A folder is a prefix: it is
there while something is in it, and needs no making. All writing goes through `distvae.files`."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import IO, Any, Self

from distvae.store.errors import BucketError, StoreError, UnwrittenError, safe, told

S3 = "s3://"
READS = 3  # a body can break off after a good answer, which boto3 does not ask for again
WILD = "*?["


@dataclass(frozen=True)
class Stat:
    """Of an object: bytes, when it was put (unix seconds by the server's clock), and which content it is."""

    st_size: int
    st_mtime: float
    etag: str

    @property
    def st_mtime_ns(self) -> int:
        return int(self.st_mtime * 1e9)


class S3Path:
    """`bucket` and `key`, which has no slash at either end."""

    __slots__ = ("_listed", "bucket", "key")

    def __init__(self, bucket: str, key: str, listed: Stat | None = None):
        self.bucket, self.key, self._listed = bucket, key, listed

    @classmethod
    def parse(cls, text: str) -> Self:
        bucket, _, key = text.removeprefix(S3).partition("/")
        names = [name for name in key.split("/") if name]
        if not bucket or not all(c.isprintable() for c in text) or {".", ".."} & set(names):
            raise BucketError(f"{text!r}: is not an address on S3 (s3://bucket/prefix, without '.' and '..')")
        return cls(bucket, "/".join(names))

    # --- names --------------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return f"{S3}{self.bucket}/{self.key}".rstrip("/")

    def __repr__(self) -> str:
        return f"S3Path({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Path) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: S3Path) -> bool:
        return (self.bucket, self.key.split("/")) < (other.bucket, other.key.split("/"))

    def __reduce__(self) -> Any:
        return S3Path, (self.bucket, self.key)

    def __truediv__(self, name: Any) -> S3Path:
        names = [safe(part, f"{self}/{name}") for part in str(name).split("/")]
        return S3Path(self.bucket, "/".join(([self.key] if self.key else []) + names))

    @property
    def parts(self) -> tuple[str, ...]:
        return (f"{S3}{self.bucket}", *filter(None, self.key.split("/")))

    @property
    def name(self) -> str:
        return self.parts[-1].removeprefix(S3)

    @property
    def suffix(self) -> str:
        i = self.name.rfind(".")
        return self.name[i:] if 0 < i < len(self.name) - 1 else ""

    @property
    def stem(self) -> str:
        return self.name.removesuffix(self.suffix) if self.suffix else self.name

    @property
    def parent(self) -> S3Path:
        return S3Path(self.bucket, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> S3Path:
        return self.parent / name

    def absolute(self) -> S3Path:
        return self

    def resolve(self) -> S3Path:
        return self

    def as_posix(self) -> str:
        return str(self)

    # --- reading ------------------------------------------------------------------------------------------------------

    def stat(self) -> Stat:
        """Of an object. Raises FileNotFoundError, for a folder too."""
        if self._listed is None:
            with _asked(self) as s3:
                head = s3.head_object(Bucket=self.bucket, Key=self.key)
            self._listed = _stat(head["ContentLength"], head["LastModified"], head["ETag"])
        return self._listed

    def is_file(self) -> bool:
        if not self.key:
            return False
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        with _asked(self) as s3:
            found = s3.list_objects_v2(Bucket=self.bucket, Prefix=self._prefix, MaxKeys=1)
        return bool(found.get("KeyCount"))

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_symlink(self) -> bool:
        return False

    def iterdir(self) -> Iterator[S3Path]:
        """What lies in the folder, by name. A folder that is not there is empty."""
        yield from self._listing("")

    def glob(self, pattern: str) -> Iterator[S3Path]:
        """One level: `*.parquet`."""
        if "/" in pattern:
            raise NotImplementedError(f"{pattern}: on S3 one level at a time")
        start = pattern[: min((pattern.find(c) for c in WILD if c in pattern), default=len(pattern))]
        for path in self._listing(start):
            if fnmatch.fnmatchcase(path.name, pattern):
                yield path

    @property
    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""

    def _listing(self, start: str, deep: bool = False) -> Iterator[S3Path]:
        asked = {"Bucket": self.bucket, "Prefix": self._prefix + start, **({} if deep else {"Delimiter": "/"})}
        with _asked(self) as s3:
            for page in s3.get_paginator("list_objects_v2").paginate(**asked):
                for folder in page.get("CommonPrefixes", ()):
                    yield S3Path(self.bucket, folder["Prefix"].rstrip("/"))
                for o in page.get("Contents", ()):
                    if not o["Key"].endswith("/"):  # what consoles put to show an empty folder
                        yield S3Path(self.bucket, o["Key"], _stat(o["Size"], o["LastModified"], o["ETag"]))

    def read_bytes(self) -> bytes:
        return self.read()[0]

    def read(self) -> tuple[bytes, str]:
        """(content, its ETag)."""
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        for _ in range(READS):
            with _asked(self) as s3:
                answer = s3.get_object(Bucket=self.bucket, Key=self.key)  # which boto3 itself asks for again and again
                with contextlib.suppress(BotoCoreError, HTTPError):
                    return answer["Body"].read(), answer["ETag"]
        raise StoreError(f"{self}: breaks off each time it is read; run again when S3 is well")

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "r") -> IO[Any]:
        if mode != "rb":
            raise ValueError(f"{self}: opens for reading bytes ('rb'), not {mode!r}: write through distvae.files")
        return BytesIO(self.read_bytes())

    # --- writing, for `distvae.files` -----------------------------------------------------------------------------------

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there when something is in it."""

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok:
            self.stat()
        with _writing(self) as s3:
            s3.delete_object(Bucket=self.bucket, Key=self.key)

    @contextmanager
    def replacing(self, *, create: bool = False) -> Iterator[IO[bytes]]:
        """Collects in memory, and puts at the end. `create`: FileExistsError if it is there by then."""
        f = BytesIO()
        yield f
        self.put(f.getvalue(), create=create)

    def put(self, blob: bytes, *, create: bool = False, match: str | None = None) -> str:
        """The whole object, in one request or not at all; its new ETag. `create`: only if there is none
        (FileExistsError); `match`: only in place of that ETag (`s3.Taken`)."""
        from distvae.store import s3 as store

        for part in self.key.split("/"):
            safe(part, self)
        condition = {"IfNoneMatch": "*"} if create else {"IfMatch": match} if match else {}
        try:
            with _writing(self) as s3:
                if len(blob) > store.LARGE and not condition:
                    s3.upload_fileobj(BytesIO(blob), self.bucket, self.key)
                    return ""
                return s3.put_object(Bucket=self.bucket, Key=self.key, Body=blob, **condition)["ETag"]
        except store.Taken:
            if create:
                raise FileExistsError(errno.EEXIST, "exists already", str(self)) from None
            raise
        finally:
            self._listed = None

    def move(self, to: S3Path) -> None:
        """Copies, then deletes: who dies between leaves both. The file of a folder that sorts last goes last."""
        for old in [self] if self.is_file() else list(self._listing("", deep=True)):
            new = S3Path(to.bucket, to.key + old.key.removeprefix(self.key))
            with _writing(old) as s3:
                s3.copy({"Bucket": old.bucket, "Key": old.key}, new.bucket, new.key)
                s3.delete_object(Bucket=old.bucket, Key=old.key)

    def remove(self) -> None:
        """The object, and all that is below it as a folder, `state.json` first: without it a checkpoint is none."""
        found = [*self._listing("", deep=True)] if self.key else []
        for old in sorted(found, key=lambda p: p.name != "state.json"):
            old.unlink(missing_ok=True)
        self.unlink(missing_ok=True)


def _stat(size: int, when: datetime, etag: str) -> Stat:
    return Stat(size, when.timestamp(), etag)


@contextmanager
def _asked(path: S3Path) -> Iterator[Any]:
    from distvae.store import s3

    with s3.asked(path) as client:
        yield client


@contextmanager
def _writing(path: S3Path) -> Iterator[Any]:
    """The client; if S3 cannot be reached or refuses, UnwrittenError. A bucket that is not there is told as such."""
    try:
        with _asked(path) as client:
            yield client
    except BucketError:
        raise
    except StoreError as e:
        why = str(e).removeprefix(f"{path}: ")
        raise UnwrittenError(errno.EIO, told(path, why, "when it is mended"), str(path)) from None

"""`s3://` as a path, and the door for writing: whole files, exclusive creates, logs, names and links that lead away."""

import contextlib
import errno
import os
import pickle
import socket
import threading
import time

import pytest

from distvae import files
from distvae.store import appended, local
from distvae.store.errors import BucketError, StoreError, UnsafeNameError, UnwrittenError
from distvae.store.path import S3Path


def put(path, blob=b"x"):
    with files.replacing(path) as f:
        f.write(blob)


def test_an_address_reads_as_a_path():
    out = files.at("s3://bucket/a//b/")
    assert str(out) == "s3://bucket/a/b" and (out.name, out.stem, out.suffix) == ("b", "b", "")
    assert str(out.parent) == "s3://bucket/a" and out / "c" / "d.e.png" == files.at("s3://bucket/a/b/c/d.e.png")
    assert (out / "d.e.png").suffix == ".png" and (out / "d.e.png").stem == "d.e"
    assert (out / ".created_ms").suffix == "" and (out / "c").with_name("x") == out / "x"
    root = files.at("s3://bucket")
    assert str(root) == "s3://bucket" and root.name == "bucket" and str(root / "a") == "s3://bucket/a"
    assert pickle.loads(pickle.dumps(out)) == out and len({out, files.at(str(out))}) == 1
    assert sorted([out / "b", out / "a"]) == [out / "a", out / "b"]
    assert files.at(out) is out and files.at("some/folder").as_posix() == "some/folder"


@pytest.mark.parametrize("text", ["s3://", "s3:///x", "s3://b/../c", "s3://b/a\nb", "s3://b/\0"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(BucketError, match="s3://bucket/prefix"):
        files.at(text)


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "a\nb", "a\0b", "", "/x", "."])
def test_no_name_leads_out_of_an_address(name):
    with pytest.raises(UnsafeNameError, match="is not the name of a file in OUT"):
        files.at("s3://b/out") / name


@pytest.mark.parametrize("name", ["../x", "points/../../x", "a\nb", "a\0b"])
def test_no_name_leads_out_of_a_folder(tmp_path, name):
    out = tmp_path / "out"
    files.guard(out)
    for write in (put, lambda p: files.append(p, "x"), lambda p: files.creating(p).__enter__()):
        with pytest.raises(UnsafeNameError):
            write(out / name)
    assert list(tmp_path.rglob("*")) in ([], [out])
    put(tmp_path / "out" / "x" / "y")  # and `--out ../runs/x` is a user's own business
    here = tmp_path / "out" / ".." / "runs"
    files.guard(here)
    put(here / "z")
    assert (tmp_path / "runs" / "z").read_bytes() == b"x"


def test_files_come_and_go(out):
    a = out / "points" / "a.0.parquet"
    assert not a.exists() and not out.is_dir() and list(out.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        a.read_bytes()
    put(a, b"one")
    put(out / "points" / "b.1.parquet", b"three")
    put(out / "points" / "deep" / "c", b"")
    put(out / "top", b"t")
    assert a.is_file() and not a.is_dir() and (out / "points").is_dir() and not (out / "points").is_file()
    assert not (out / "point").exists()  # a prefix of a name is no folder
    assert (a.stat().st_size, a.read_text()) == (3, "one") and a.open("rb").read() == b"one"
    assert sorted(p.name for p in out.iterdir()) == ["points", "top"]
    assert [p.name for p in sorted((out / "points").iterdir())] == ["a.0.parquet", "b.1.parquet", "deep"]
    assert [p.name for p in (out / "points").glob("a.*.parquet")] == ["a.0.parquet"]
    assert [p.name for p in (out / "points").glob("*eep")] == ["deep"]
    put(a, b"other")
    assert a.read_bytes() == b"other" and a.stat().st_size == 5
    files.move(out / "points", out / "moved")
    assert not (out / "points").exists() and (out / "moved" / "deep" / "c").is_file()
    files.remove(out / "moved" / "a.0.parquet")
    files.remove(out / "moved" / "never")
    assert [p.name for p in sorted((out / "moved").iterdir())] == ["b.1.parquet", "deep"]
    files.remove(out / "moved")
    assert [p.name for p in out.iterdir()] == ["top"]
    (out / "top").unlink()
    with pytest.raises(FileNotFoundError):
        (out / "top").unlink()


def test_more_than_a_page_of_names(out, monkeypatch):
    for i in range(5):
        put(out / "points" / f"{i}")
    from distvae.store import s3

    listing = s3.client().list_objects_v2
    monkeypatch.setattr(s3.client(), "list_objects_v2", lambda **k: listing(**{**k, "MaxKeys": 2}))
    assert len(list((out / "points").iterdir())) == 5


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_file_is_whole_or_not_there_and_created_once(place, tmp_path, out):
    where = out if place == "s3" else tmp_path / "out"
    path = where / "points" / "a"
    put(path, b"first")
    for write in (files.replacing, files.creating):
        with pytest.raises(RuntimeError), write(path) as f:
            f.write(b"half")
            raise RuntimeError
        assert path.read_bytes() == b"first"
    with pytest.raises(FileExistsError), files.creating(path) as f:
        f.write(b"second")
    assert path.read_bytes() == b"first" and [p.name for p in path.parent.iterdir()] == ["a"]
    with files.creating(where / "points" / "b") as f:
        f.write(b"b")
    assert (where / "points" / "b").read_bytes() == b"b"


def test_of_many_that_create_one_file_one_succeeds(tmp_path, monkeypatch):
    won = []

    def create(path, i):
        try:
            with files.creating(path) as f:
                f.write(b"%d" % i)
            won.append(i)
        except FileExistsError:
            pass

    def no_links(*args, **kwargs):
        raise OSError(errno.EPERM, "no hard links here")

    for name in ("a", "b"):
        won.clear()
        threads = [threading.Thread(target=create, args=(tmp_path / name, i)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(won) == 1 and (tmp_path / name).read_bytes() == b"%d" % won[0]
        monkeypatch.setattr(local.os, "link", no_links)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("at", ["points", "points/deep", "points/deep/file", ""])
def test_nothing_is_written_through_a_link_in_out(tmp_path, at):
    out, away = tmp_path / "out", tmp_path / "away"
    away.mkdir()
    files.guard(out)
    link = out / at if at else out
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(away / "target" if at.endswith("file") else away)
    target = out / "points" / "deep" / "file"
    if at.endswith("file"):
        with pytest.raises(UnwrittenError, match=r"out/points/deep/file: is a symbolic link"):
            files.append(target, "x")
        put(target, b"mine")  # takes the link's place
        assert target.read_bytes() == b"mine" and not target.is_symlink()
    else:
        for write in (put, lambda p: files.append(p, "x"), lambda p: files.move(away, p)):
            with pytest.raises(OSError, match=r"symbolic link|Not a directory"):
                write(target)
    assert list(away.iterdir()) == []
    (away / "deep").mkdir()
    (away / "deep" / "file").write_text("theirs")
    if at == "points":
        with pytest.raises(UnwrittenError):
            files.remove(target)
        files.remove(out / "points")  # the link goes, not what it leads to
        assert not (out / "points").is_symlink()
    assert (away / "deep" / "file").read_text() == "theirs"


def test_a_full_disk_says_where_what_and_what_is_lost(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local.os, "fsync", full)
    path = tmp_path / "points" / "a"
    path.parent.mkdir()
    with pytest.raises(UnwrittenError) as told:
        put(path)
    assert str(told.value) == (
        f"{path}: cannot be written: No space left on device (nothing of it was written, and what is committed stays; "
        "free some space, then run the same command again)"
    )
    assert told.value.errno == errno.ENOSPC and list(path.parent.iterdir()) == []
    assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)  # it comes from a worker


def test_lines_of_several_processes_all_arrive(out):
    log = out / "logs" / "a.jsonl"

    def writer(i):
        mine = appended.Log(log)  # as each process has its own
        for j in range(3):
            mine.append(f"{i}.{j}\n")
        mine.flush()

    threads = [threading.Thread(target=writer, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    lines = log.read_text().splitlines()
    assert sorted(lines) == [f"{i}.{j}" for i in range(3) for j in range(3)]
    assert [line for line in lines if line.startswith("1.")] == ["1.0", "1.1", "1.2"]


def test_a_long_log_is_put_seldom_and_whole_at_the_end(out, monkeypatch):
    monkeypatch.setattr(appended, "RATE", 100)
    puts = []
    put_ = S3Path.put
    monkeypatch.setattr(S3Path, "put", lambda self, blob, **k: puts.append(len(blob)) or put_(self, blob, **k))
    log = appended.Log(out / "logs" / "a")
    for i in range(20):
        log.append(f"{i:099d}\n")
    assert puts == [100]  # the next is due in a second
    log.flush()
    assert puts == [100, 2000] and log.timer is None
    assert [int(line) for line in (out / "logs" / "a").read_text().splitlines()] == list(range(20))


def test_a_local_log_takes_lines(tmp_path):
    files.append(tmp_path / "logs" / "a", "one\n")
    files.append(tmp_path / "logs" / "a", "two\n")
    assert (tmp_path / "logs" / "a").read_text() == "one\ntwo\n"


def test_what_is_wrong_with_s3_is_told(out, monkeypatch):
    from distvae.store import s3

    with pytest.raises(BucketError, match=r"s3://no-such-bucket-here/x: there is no such bucket"):
        files.at("s3://no-such-bucket-here/x").is_dir()
    s3.give_up()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens on it
    with pytest.raises(StoreError, match=r"S3 at http://127.0.0.1:9 cannot be reached"):
        (out / "a").read_bytes()
    with pytest.raises(UnwrittenError, match=r"/a: cannot be written: S3 at .* cannot be reached.*nothing of it was"):
        put(out / "a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no url")
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        out.is_dir()
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match=r"no credentials for S3.*AWS_ACCESS_KEY_ID"):
        out.is_dir()
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    s3._client.cache_clear()
    with pytest.raises(StoreError, match=r"needs boto3.*pip install 'distvae\[s3\]'"):
        out.is_dir()


@pytest.mark.parametrize(
    "code, status, headers, error, words",
    [
        ("PermanentRedirect", 301, {"x-amz-bucket-region": "eu-central-1"}, StoreError, "set AWS_REGION=eu-central-1"),
        ("AccessDenied", 403, {}, StoreError, "s3:ListBucket, GetObject, PutObject, DeleteObject"),
        ("InvalidAccessKeyId", 403, {}, StoreError, "does not accept the credentials"),
        ("NoSuchBucket", 404, {}, BucketError, "make it, or name another"),
        ("InternalError", 500, {}, StoreError, "S3 answers 500"),
    ],
)
def test_what_s3_answers_is_told(code, status, headers, error, words):
    from botocore.exceptions import ClientError

    from distvae.store import s3

    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}
    told = s3._translated("s3://b/x", ClientError(answer, "GetObject"))
    assert type(told) is error and words in str(told) and str(told).startswith("s3://b/x: ")


class Silent:
    """A server that takes every call and answers none."""

    def __enter__(self):
        self.calls, self.door = [], socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.door.getsockname()[1]}"
        self.thread = threading.Thread(target=self._take, daemon=True)
        self.thread.start()
        return self

    def _take(self):
        with contextlib.suppress(OSError):
            while True:
                self.calls.append(self.door.accept()[0])

    def __exit__(self, *exc):
        self.door.shutdown(socket.SHUT_RDWR)
        self.door.close()
        self.thread.join()
        for call in self.calls:
            call.close()


def test_s3_that_answers_nothing_is_waited_for_once(out, monkeypatch):
    """Then no request is made twice until one is answered, so that an end with many of them comes soon."""
    from distvae.store import s3

    monkeypatch.setattr(s3, "READ_S", 0.2)
    monkeypatch.setattr(s3, "AWAY_S", 0.2)
    monkeypatch.setattr(s3, "PATIENCE_S", 2.0)
    s3._client.cache_clear()
    put(out / "a")
    there = os.environ["AWS_ENDPOINT_URL"]
    with Silent() as silent:

        def refused():
            monkeypatch.setenv("AWS_ENDPOINT_URL", silent.uri)
            before, began = len(silent.calls), time.monotonic()
            with pytest.raises(StoreError, match="cannot be reached"):
                (out / "a").read_bytes()
            monkeypatch.setenv("AWS_ENDPOINT_URL", there)
            return len(silent.calls) - before, time.monotonic() - began

        calls, took = refused()
        assert calls > 1 and 2.0 < took < 8.0
        assert refused()[0] == 1
        assert (out / "a").read_bytes()
        assert refused()[0] > 1
        assert (out / "a").read_bytes()
        s3.give_up()
        assert refused()[0] == 1
    assert (out / "a").read_bytes()
    s3._client.cache_clear()


def test_s3_that_is_started_again_is_waited_for(out, monkeypatch):
    put(out / "a")
    there = int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])
    with socket.socket() as gap:
        gap.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        gap.bind(("127.0.0.1", 0))  # refuses: nobody listens yet
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{gap.getsockname()[1]}")

        def pass_on():
            with gap.accept()[0] as one, socket.create_connection(("127.0.0.1", there)) as other:
                other.sendall(one.recv(65536))
                one.sendall(other.recv(65536))

        later = threading.Timer(3.0, lambda: (gap.listen(), pass_on()))
        later.daemon = True
        began = time.monotonic()
        later.start()
        assert (out / "a").stat().st_size == 1 and time.monotonic() - began >= 3.0


def test_out_that_is_a_link_is_owned_by_nobody(tmp_path):
    from distvae.sweeps.lock import hold_out

    (tmp_path / "away").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "away")
    with pytest.raises(UnwrittenError, match="out: is a symbolic link"), hold_out(tmp_path / "out"):
        pass
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / ".lock").symlink_to(tmp_path / "away" / "lock")
    with pytest.raises(UnwrittenError, match=r"\.lock: is a symbolic link"), hold_out(tmp_path / "real"):
        pass
    assert list((tmp_path / "away").iterdir()) == []

"""A PostgreSQL of Debian's packages that lasts as long as a `with`: its files and its socket in a folder that nobody else
may enter, no port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, the newest there is. Debian keeps it off the PATH."""
    found = [p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/initdb") if (p.parent / "postgres").exists()]
    on_path = shutil.which("initdb")
    return max(found, key=lambda p: float(p.parent.name), default=Path(on_path).parent if on_path else None)


def _somebody() -> dict[str, Any]:
    """For Popen: a user that is not root, whom PostgreSQL refuses."""
    if os.geteuid() != 0:
        return {}
    names = {u.pw_name for u in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Postgres:
    """One server with one empty database, `mlflow`."""

    def __init__(self, programs: Path):
        self.programs, self.who = programs, _somebody()

    def __enter__(self) -> Self:
        # Not in pytest's folder, which is root's; and the path of a socket is at most a hundred characters.
        self.folder = Path(tempfile.mkdtemp(prefix="dv-pg-", dir="/tmp"))
        if self.who:
            os.chown(self.folder, self.who["user"], self.who["group"])
        self.log = self.folder / "postgres.log"
        self.process: subprocess.Popen | None = None
        try:
            self._call("initdb", "-D", "data", "-U", "mlflow", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
            self.serve()
            self._call("createdb", "-h", self.folder, "-U", "mlflow", "mlflow")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.halt()
        shutil.rmtree(self.folder)

    def serve(self) -> None:
        command = [self.programs / "postgres", "-D", "data", "-k", self.folder]
        command += ["-c", "listen_addresses=", "-c", "fsync=off"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **self.who
            )
        self._call("pg_isready", "-h", self.folder, "-d", "postgres", "-U", "mlflow", tries=120)

    def halt(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # "fast": clients are cut off
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    @property
    def uri(self) -> str:
        """With the driver's name: SQLAlchemy's own choice for a plain `postgresql://` changed with 2.1."""
        return f"postgresql+psycopg://mlflow@/mlflow?host={self.folder}"

    def _call(self, program: str, *args: object, tries: int = 1) -> None:
        """Run it as the server's user, so often until it succeeds, half a second apart."""
        command = [self.programs / program, *args]
        for left in reversed(range(tries)):
            done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, **self.who)
            if done.returncode == 0:
                return
            gone = self.process is not None and self.process.poll() is not None
            assert left and not gone, f"{program}: {done.stderr}\n{self.log.read_text() if self.log.exists() else ''}"
            time.sleep(0.5)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(host=str(self.folder), user="mlflow", dbname="mlflow") as session:
            return session.execute(query.encode()).fetchall()

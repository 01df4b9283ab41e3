"""The system's clock a day off, before and after: nothing is judged by comparing clocks. The clock is moved by a library
that is loaded before the C library, so that Python, Ray and Parquet all see it."""

import os
import shutil
import signal
import subprocess

import pytest
from driver import Sweep
from faulted import before, cannot, config, holds, same_command_again

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHIFT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long shift(void) { const char *s = getenv("CLOCK_SHIFT_S"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, t);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += shift();
    return failed;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture
def shifted(tmp_path):
    """`shifted(days)`: an environment whose clock is days off."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        cannot("needs a C compiler for the library that moves the clock")
    (tmp_path / "shift.c").write_text(SHIFT)
    library = tmp_path / "shift.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, tmp_path / "shift.c", "-ldl"], check=True)

    def env(days):
        moved = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_SHIFT_S": str(days * 86_400)}
        probe = subprocess.run(
            ["python3", "-c", "import time; print(time.time())"], env=moved, capture_output=True, text=True
        )
        plain = subprocess.run(["python3", "-c", "import time; print(time.time())"], capture_output=True, text=True)
        assert abs(float(probe.stdout) - float(plain.stdout) - days * 86_400) < 60
        return moved

    return env


@pytest.mark.parametrize("days", [(1, 0), (-1, 0), (0, -1)], ids=["first ahead", "first behind", "then behind"])
def test_clock_a_day_off(tmp_path, clean, shifted, days, tell):
    """system clock a day off"""
    path, out = config(tmp_path), tmp_path / "out"
    with Sweep(path, out, env=shifted(days[0])) as sweep:
        sweep.wait_for(lambda: before(out).points and before(out).saved)
        then = before(out)
        sweep.end(signal.SIGKILL)
        assert sweep.all_gone(), sweep.survivors()
    same_command_again(path, out, env=shifted(days[1]))
    then.saved = {}  # their times were written by another clock
    held = holds(path, out, then, clean.rows)
    tell(moment=f"{days[0]:+d} day, killed, {days[1]:+d}", outcome=held)

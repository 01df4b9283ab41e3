"""The system's clock a day off, before and after: nothing is judged by comparing clocks. The clock is moved by a library
that is loaded before the C library, so that Python, Ray and Parquet all see it. The kernel does not: a moment to wait
until is handed to it in its own time (Ray's servers wait so, and would wait for ever, or not at all)."""

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
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })
static long shift(void) {
    static long found, known;
    if (!known) { const char *s = getenv("CLOCK_SHIFT_S"); found = s ? atol(s) : 0; known = 1; }
    return found;
}
int clock_gettime(clockid_t id, struct timespec *t) {
    int failed = REAL(clock_gettime)(id, t);
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
/* The kernel's own clock stays: a moment to wait until is told in it. A monotonic one is years smaller, and left alone. */
static const struct timespec *kernels(const struct timespec *until, struct timespec *copy) {
    if (!until || until->tv_sec < 1000000000) return until;
    *copy = *until; copy->tv_sec -= shift();
    return copy;
}
int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict t) {
    struct timespec copy;
    return REAL(pthread_cond_timedwait)(c, m, kernels(t, &copy));
}
int pthread_cond_clockwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, clockid_t id, const struct timespec *restrict t) {
    struct timespec copy;
    return REAL(pthread_cond_clockwait)(c, m, id, kernels(t, &copy));
}
int pthread_mutex_timedlock(pthread_mutex_t *restrict m, const struct timespec *restrict t) {
    struct timespec copy;
    return REAL(pthread_mutex_timedlock)(m, kernels(t, &copy));
}
int sem_timedwait(sem_t *restrict s, const struct timespec *restrict t) {
    struct timespec copy;
    return REAL(sem_timedwait)(s, kernels(t, &copy));
}
int sem_clockwait(sem_t *restrict s, clockid_t id, const struct timespec *restrict t) {
    struct timespec copy;
    return REAL(sem_clockwait)(s, id, kernels(t, &copy));
}
long syscall(long number, ...) {
    va_list all;
    long a[6];
    struct timespec copy;
    va_start(all, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(all, long);
    va_end(all);
    if (number == SYS_futex && ((int)a[1] & FUTEX_CLOCK_REALTIME)) a[3] = (long)kernels((void *)a[3], &copy);
    return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
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

"""CUDA C++ to a cubin with torch's own NVRTC, through ctypes: no nvcc, no headers, no build step. Cubins are kept in
`$DISTVAE_CACHE`, `$XDG_CACHE_HOME/distvae` or `~/.cache/distvae`, named after what went into them; where that cannot be
read or written they are compiled in memory."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

import torch

from distvae.files import cache_folder, replacing

OPTIONS = ("--std=c++17",)


class CompileError(RuntimeError):
    """NVRTC refused a source, or cannot be used; the message holds its log."""


@cache
def library() -> ctypes.CDLL:
    """NVRTC: the wheels' beside torch, torch's own folder, or the system's. Raises CompileError."""
    tried = []
    for name in _candidates():
        try:
            lib = ctypes.CDLL(name)
        except OSError as e:
            tried.append(str(e))
            continue
        lib.nvrtcGetErrorString.restype = ctypes.c_char_p
        return lib
    raise CompileError("libnvrtc was not found beside torch or on the system" + "".join(f"; {t}" for t in tried))


def _candidates() -> list[str]:
    found: list[Path] = []
    for package, pattern in (("nvidia", "*/lib/libnvrtc.so*"), ("torch", "lib/libnvrtc*.so*")):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            found += sorted(Path(folder).glob(pattern), reverse=True)
    found = [path for path in found if "builtins" not in path.name and ".alt." not in path.name]
    major = (torch.version.cuda or "13").partition(".")[0]
    names = [str(path) for path in sorted(found, key=lambda path: not path.name.endswith(f".so.{major}"))]
    system = ctypes.util.find_library("nvrtc")
    return [*names, f"libnvrtc.so.{major}", *([system] if system else [])]


def version() -> tuple[int, int]:
    """NVRTC's (major, minor)."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return major.value, minor.value


def compile_(name: str, sources: dict[str, str], arch: str, options: tuple[str, ...] = ()) -> tuple[bytes, str]:
    """(cubin, log) of `sources[name]`, whose includes are the other `sources`; arch such as "sm_90". Raises
    CompileError with the log."""
    lib = library()
    headers = [h for h in sources if h != name]
    texts = (ctypes.c_char_p * len(headers))(*(sources[h].encode() for h in headers))
    names = (ctypes.c_char_p * len(headers))(*(h.encode() for h in headers))
    program = ctypes.c_void_p()
    _check(
        lib.nvrtcCreateProgram(
            ctypes.byref(program), sources[name].encode(), name.encode(), len(headers), texts, names
        ),
        "nvrtcCreateProgram",
    )
    try:
        flags = [flag.encode() for flag in (f"--gpu-architecture={arch}", *OPTIONS, *options)]
        code = lib.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
        log = _read(lib, program, "ProgramLog").rstrip(b"\0").decode(errors="replace").strip()
        _check(code, f"{name} for {arch}", log)
        return _read(lib, program, "CUBIN"), log
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


def _read(lib: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), f"nvrtcGet{what}Size")
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(lib, f"nvrtcGet{what}")(program, buffer), f"nvrtcGet{what}")
    return buffer.raw


def _check(code: int, what: str, log: str = "") -> None:
    if code:
        message = library().nvrtcGetErrorString(code).decode()
        raise CompileError(f"NVRTC: {what}: {message}" + (f"\n{log}" if log else ""))


# --- the cache on disk ---------------------------------------------------------------------------------------------


def folder() -> Path | None:
    """Where cubins are kept; None if there is no home to keep them in."""
    root = cache_folder()
    return None if root is None else root / "kernels"


def cubin(name: str, sources: dict[str, str], arch: str) -> bytes:
    """The cubin of `sources[name]`, from the cache or compiled into it. Raises CompileError."""
    key = hashlib.sha256(repr((sorted(sources.items()), arch, OPTIONS, version())).encode()).hexdigest()[:24]
    where = folder()
    path = where / f"{Path(name).stem}-{arch}-{key}.cubin" if where else None
    try:
        if path and (kept := path.read_bytes()).startswith(b"\x7fELF"):
            return kept
    except OSError:
        pass
    made, _ = compile_(name, sources, arch)
    try:
        if path:
            with replacing(path) as f:
                f.write(made)
    except OSError:
        pass  # read-only or full: the kernel in memory is as good
    return made

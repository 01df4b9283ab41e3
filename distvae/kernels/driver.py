"""Loads cubins and launches their kernels on torch's current stream, through the CUDA driver and ctypes.

A kernel takes one struct whose fields are 8 bytes each: tensors pass as addresses, None as null, integers as int64,
floats as double. A launch allocates nothing and does not wait, so it can be captured into a CUDA graph; the module is
loaded at a kernel's first launch, which must come before the capture."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

MAX_GRID = 2**31 - 1


class DriverError(RuntimeError):
    """A call of the CUDA driver failed."""


@cache
def library() -> ctypes.CDLL:
    """The driver. Raises OSError."""
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *args: object) -> None:
    code = getattr(library(), name)(*args)
    if code:
        text = ctypes.c_char_p()
        library().cuGetErrorString(code, ctypes.byref(text))
        raise DriverError(f"{name}: error {code}, {(text.value or b'unknown').decode()}")


@cache
def _context(device: int) -> int:
    """torch's context of a device (the primary one), kept alive."""
    handle, context = ctypes.c_int(), ctypes.c_void_p()
    _call("cuDeviceGet", ctypes.byref(handle), device)
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
    return context.value or 0


@cache
def arch(device: int) -> str:
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


_lock = threading.Lock()
_modules: dict[tuple[int, str], ctypes.c_void_p] = {}
_functions: dict[tuple[int, str, str], ctypes.c_void_p] = {}


def _function(device: int, source: str, kernel: str, cubin: Callable[[str, str], bytes]) -> ctypes.c_void_p:
    key = device, source, kernel
    if key in _functions:
        return _functions[key]
    with _lock:  # autograd launches from threads of its own
        if key[:2] not in _modules:
            module = ctypes.c_void_p()
            _call("cuModuleLoadData", ctypes.byref(module), cubin(source, arch(device)))
            _modules[key[:2]] = module
        function = ctypes.c_void_p()
        _call("cuModuleGetFunction", ctypes.byref(function), _modules[key[:2]], kernel.encode())
        _functions[key] = function
    return function


def pack(args: tuple[Tensor | float | None, ...]) -> bytes:
    """The kernel's struct."""
    values = [0 if a is None else a.data_ptr() if isinstance(a, Tensor) else a for a in args]
    return struct.pack("".join("d" if isinstance(v, float) else "q" for v in values), *values)


def launch(
    x: Tensor,
    cubin: Callable[[str, str], bytes],
    source: str,
    kernel: str,
    blocks: int,
    threads: int,
    args: tuple[Tensor | float | None, ...],
) -> None:
    """Launches `kernel` of `source` on x's device and its current stream; no blocks, no launch. `cubin(source, arch)`
    compiles. Raises DriverError, CompileError."""
    if not blocks:
        return
    if blocks > MAX_GRID:
        raise DriverError(f"{kernel}: {blocks} blocks are more than the {MAX_GRID} of a grid; pass fewer rows at once")
    device = x.device.index
    context, current = _context(device), ctypes.c_void_p()
    _call("cuCtxGetCurrent", ctypes.byref(current))
    elsewhere = current.value != context
    if elsewhere:
        _call("cuCtxPushCurrent_v2", ctypes.c_void_p(context))
    try:
        function = _function(device, source, kernel, cubin)
        packed = ctypes.create_string_buffer(pack(args))
        params = (ctypes.c_void_p * 1)(ctypes.addressof(packed))
        stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
        u = ctypes.c_uint
        _call("cuLaunchKernel", function, u(blocks), u(1), u(1), u(threads), u(1), u(1), u(0), stream, params, None)
    finally:
        if elsewhere:
            _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

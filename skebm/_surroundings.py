"""What surrounds a computation, settings of torch and numpy, threads and forks, changes no number.

Autocast, a default dtype or device, gradients switched off and numpy's error modes are the
caller's; `own_settings` sets them aside. `threads` gives an operation what its size earns: on a
busy machine threads that wait for each other cost far more than they save.
"""

from __future__ import annotations

__all__ = ["own_settings", "threads"]

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

# Multiply-adds of one evaluation for each thread. ``examples/benchmarks/cost/threads.py`` on a busy
# machine with two cores: 5e6 of them take 2 ms with one thread and 10 to 237 with two, 7e7 take 17
# and 414; at 3e8, 60 and 173, the cost comes near to what two threads save on an idle one.
EARNED = 1e8
DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def own_settings() -> Iterator[None]:
    """Compute in float32 on the CPU unless told otherwise, with gradients, whoever calls."""
    with ExitStack() as stack:
        stack.enter_context(np.errstate(all="warn", under="ignore"))  # numpy's own
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_precision)
        yield


class _Precision:
    """torch's default dtype and matmul precision, which all threads share.

    The first that enters sets them, the last that leaves puts them back.
    """

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.before: tuple[Any, str] = (torch.float32, "highest")

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = (torch.get_default_dtype(), torch.get_float32_matmul_precision())
                _set_precision(torch.float32, "highest")
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                _set_precision(*self.before)


def _set_precision(dtype: Any, matmul: str) -> None:
    if torch.get_default_dtype() != dtype:
        torch.set_default_dtype(dtype)
    if torch.get_float32_matmul_precision() != matmul:
        torch.set_float32_matmul_precision(matmul)


_precision = _Precision()
_threads = threading.local()


@contextmanager
def threads(multiply_adds: float, *, blas: bool = False) -> Iterator[None]:
    """Compute with the threads that an operation of this size earns, at most the caller's.

    Parameters
    ----------
    multiply_adds : float
        Of the largest operation.
    blas : bool
        Limit numpy's and scikit-learn's too, which takes a tenth of a millisecond.
    """
    before, outer = torch.get_num_threads(), getattr(_threads, "allowed", None)
    allowed = before if outer is None else outer
    earned = int(min(allowed, 1 + multiply_adds / EARNED))
    _threads.allowed = allowed
    with ExitStack() as stack:
        if blas and earned < allowed:
            stack.enter_context(_pools().limit(limits=earned))
        try:
            _set_threads(earned)
            yield
        finally:
            _threads.allowed = outer
            _set_threads(before)


def _set_threads(n: int) -> None:
    if torch.get_num_threads() != n:
        torch.set_num_threads(n)


@functools.cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def _after_fork() -> None:
    """Leave a forked child one thread: those of its parent, for which it would wait, are gone."""
    global _precision
    _threads.allowed = None
    _precision.lock = threading.Lock()  # another thread may have held it
    torch.set_num_threads(1)
    if _pools.cache_info().currsize:
        _pools().limit(limits=1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

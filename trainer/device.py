"""Where a run computes: CUDA if there is one, else as many threads as this process may really use."""

import ctypes
import math
import os
from pathlib import Path

import faiss
import torch

from shared.errors import UsageError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` as a device; torch and faiss are told how many cores there are.

    Raises:
        UsageError: CUDA is asked for and there is none, or the name is none of the three.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name}: choose auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu or auto")
    threads = usable_cores()
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    if name != "cpu" and available:
        return torch.device("cuda")
    _keep_freed_memory()
    return torch.device("cpu")


def usable_cores() -> int:
    """Cores by OMP_NUM_THREADS, else by affinity and the container's CPU limit; at least 1."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return max(1, min(len(os.sched_getaffinity(0)), _container_limit()))


def _keep_freed_memory() -> None:
    """Have glibc keep freed blocks of up to 1 GB for the next step instead of handing them back to the system.

    A step allocates the same large tensors as the one before. Fetching their pages anew took a third of the time
    of a step on Amazon Sports at width 128. Does nothing under another C library.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30)


def _container_limit() -> int:
    try:
        quota, period = _CGROUP_LIMIT.read_text().split()
    except (OSError, ValueError):
        return os.cpu_count() or 1
    return os.cpu_count() or 1 if quota == "max" else math.ceil(int(quota) / int(period))

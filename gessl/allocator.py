"""The C library's memory allocator, set for what training does."""

import ctypes

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, for the next step frees and asks for the same activations again.

    By default glibc hands large blocks back to the kernel, which must then zero them page by page: up to a third of an
    outer step's time on a CPU. The process then stays at its peak size. Numbers do not change.

    Returns:
        Whether the C library took it; others than glibc are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))

"""Freed memory stays with the process, counted in page faults."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import torch
from gessl.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("refused")
    raise SystemExit
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(24):
    if step == 16:  # the heap takes some rounds to settle
        before = faults()
    torch.empty(10_000_000).fill_(1.0)  # 40 MB: above 32, glibc asks the kernel each time
print(faults() - before)
"""


def faults(how: str) -> str:
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, encoding="utf-8", check=True)
    return done.stdout.strip()


def test_large_blocks_are_zeroed_by_the_kernel_only_once() -> None:
    kept = faults("keep")
    if kept == "refused":
        pytest.skip("not glibc: its allocator is left as it is")
    assert int(faults("default")) > 100
    assert int(kept) < 20

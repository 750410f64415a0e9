"""How a process that computes is set up; tests/test_bad_input.py has what cannot be."""

import platform
import resource

import pytest
import torch

from small import ONE


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep what is freed")
def test_memory_that_was_freed_is_taken_again():
    """An array of 64 MiB takes 16,384 pages; after some rounds the system has none of them to fill with zeros."""
    ONE.start()
    pages = []
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)
        pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    # glibc before 2.38 does not find at once what fits exactly.
    assert min(pages) < 1000

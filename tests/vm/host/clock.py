"""How fast the time stamp counter of this machine runs.

An emulated guest reads this counter as it is. Left alone, its kernel measures the counter against an emulated timer,
and on a busy host comes out wrong by any factor: all its clocks and time limits would be wrong with it.
"""

import ctypes
import mmap
import time

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ = bytes.fromhex("0f3148c1e2204809d0c3")
_PERIOD = 0.3  # seconds


def kilohertz():
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_READ)
        start = ctypes.c_char.from_buffer(page)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
        first = _together(read)
        time.sleep(_PERIOD)
        second = _together(read)
        del start
    return round((second[1] - first[1]) * 1_000_000 / (second[0] - first[0]))


def _together(read):
    """Both clocks at one moment: the pair that was read without a pause in between."""
    pairs = []
    for _ in range(50):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        ticks = read()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        pairs.append((after - before, before, ticks))
    _, moment, ticks = min(pairs)
    return moment, ticks

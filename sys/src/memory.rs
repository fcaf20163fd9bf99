//! Telling malloc to be frugal. Every pod on a node has a shim, so what one keeps for later is kept a thousand times.

/// Makes blocks from 16 KiB on come from the kernel and go back to it, and keeps no slack at the top of the heap.
pub fn be_frugal() {
    // SAFETY: these only set thresholds of glibc's allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 16 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 10);
        libc::mallopt(libc::M_TOP_PAD, 4 << 10);
    }
}

/// Gives unused heap pages back to the kernel. Takes some microseconds; for idle moments.
pub fn trim() {
    // SAFETY: has no effect on live allocations.
    unsafe {
        libc::malloc_trim(0);
    }
}

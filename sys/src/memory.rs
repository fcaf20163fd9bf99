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

/// Makes large blocks come from the kernel and go back to it at once, and the ends of all heaps too, for a process that
/// uses much at times and little in between. glibc does so by itself until the first large block is freed; from then on
/// it keeps up to 64 MiB for each of its heaps, of which there is one for each busy thread.
pub fn keep_little() {
    const KEPT: libc::c_int = 128 << 10;
    // SAFETY: these only set thresholds of glibc's allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives unused heap pages back to the kernel. Takes some microseconds; for idle moments.
pub fn trim() {
    // SAFETY: has no effect on live allocations.
    unsafe {
        libc::malloc_trim(0);
    }
}

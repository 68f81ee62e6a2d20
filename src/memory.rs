//! The allocator, and when it gives memory back to the system.
//!
//! Ticks allocate and free batches of megabytes on several threads. The allocator keeps freed memory for a second or more unless told otherwise,
//! and by then other threads have taken new memory instead: a third of a bulk load's peak was memory that nobody used.

use std::ffi::{c_int, c_long};

/// Batches are allocated on one thread and freed on another; the system's allocator keeps such memory for each thread apart.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's options.
const PURGE_DELAY: c_int = 15;
/// Milliseconds that freed memory is kept for.
const KEPT: c_long = 5;

unsafe extern "C" {
    /// Part of the library that the allocator is.
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// Lets freed memory go back soon. MIMALLOC_PURGE_DELAY in the environment, in milliseconds, goes before.
pub fn give_back_soon() {
    // SAFETY: the function only stores a number, and may be called at any time.
    unsafe { mi_option_set_default(PURGE_DELAY, KEPT) }
}

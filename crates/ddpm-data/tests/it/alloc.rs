//! An allocator that remembers the largest block that a thread asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Recorder;

#[global_allocator]
static ALLOCATOR: Recorder = Recorder;

// SAFETY: every call is passed to the system's allocator as it is.
#[allow(unsafe_code, reason = "there is no other way to see an allocation")]
unsafe impl GlobalAlloc for Recorder {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        record(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        record(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        record(new_size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

fn record(size: usize) {
    // A thread that is ending has no thread-local storage any more.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

/// The result of `run` and the bytes of the largest block it asked for.
pub(crate) fn largest_allocation<T>(run: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.set(0);
    let result = run();
    (result, LARGEST.get())
}

#[test]
fn allocations_are_seen() {
    let (block, largest) = largest_allocation(|| Vec::<u8>::with_capacity(12_345));
    assert_eq!(largest, block.capacity());
}

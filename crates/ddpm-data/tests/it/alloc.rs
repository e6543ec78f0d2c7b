//! An allocator that records the largest block that each thread allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Recorder;

#[global_allocator]
static ALLOCATOR: Recorder = Recorder;

// SAFETY: each method passes its arguments unchanged to the system's allocator.
#[allow(unsafe_code, reason = "only a global allocator can record allocations")]
unsafe impl GlobalAlloc for Recorder {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        record(layout.size());
        // SAFETY: the caller upholds the contract of this method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        record(layout.size());
        // SAFETY: the caller upholds the contract of this method.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        record(new_size);
        // SAFETY: the caller upholds the contract of this method.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of this method.
        unsafe { System.dealloc(block, layout) }
    }
}

fn record(size: usize) {
    // Fails if the thread is ending and has dropped its thread-local storage.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

/// The result of `run`, and the size in bytes of the largest block that it allocated.
pub(crate) fn largest_allocation<T>(run: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.set(0);
    let result = run();
    (result, LARGEST.get())
}

#[test]
fn allocations_are_recorded() {
    let (block, largest) = largest_allocation(|| Vec::<u8>::with_capacity(12_345));
    assert_eq!(largest, block.capacity());
}

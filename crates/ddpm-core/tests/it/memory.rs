//! The memory of a sampler does not grow with the number of steps.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use candle_core::{DType, Device};
use ddpm_core::{CounterRng, Purpose, Timesteps};

use crate::{schedule, toy::all_samplers};

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// An allocator that records the largest number of bytes a thread has had allocated.
struct Recorder;

#[global_allocator]
static ALLOCATOR: Recorder = Recorder;

// SAFETY: every call is passed unchanged to the system's allocator.
#[allow(unsafe_code, reason = "there is no other way to see an allocation")]
unsafe impl GlobalAlloc for Recorder {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        record(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        record(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

fn record(bytes: isize) {
    // A thread that is ending may have no thread-local storage.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

/// The peak memory of a run, in bytes. It runs on one thread, so that the same thread allocates and frees a block.
fn peak(run: impl FnOnce() + Send) -> isize {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one_thread.install(|| {
        let before = LIVE.get();
        PEAK.set(before);
        run();
        PEAK.get() - before
    })
}

#[test]
fn the_recorder_sees_a_peak() {
    let seen = peak(|| drop(vec![0_u8; 1_000_000]));
    assert!((1_000_000..1_010_000).contains(&seen), "{seen}");
}

#[test]
fn no_sampler_keeps_more_images_for_more_steps() {
    let schedule = schedule(|c| *c = ddpm_core::NoiseScheduleConfig::ho2020());
    let (rng, images) = (CounterRng::new(1), [0, 1, 2, 3]);
    let x_t = rng.normal(Purpose::SAMPLE_START, &images, 0, &[10_000], DType::F32, &Device::Cpu).unwrap();
    for (name, sampler) in all_samplers() {
        let of_steps = |n: usize| {
            let timesteps = Timesteps::spaced(&schedule, n).unwrap();
            let plan = sampler.plan(&schedule, &timesteps).unwrap();
            peak(|| {
                let noise =
                    |x: &_, noise_index| rng.normal_like(Purpose::SAMPLE_STEP, &images, noise_index, x);
                let model = |x: &candle_core::Tensor, _| x * 0.5;
                plan.sample(x_t.clone(), model, noise).unwrap();
            })
        };
        let (few, many) = (of_steps(10), of_steps(200));
        // One more image would need 160,000 bytes.
        assert!((many - few).abs() < 10_000, "{name}: {few} bytes for 10 steps, {many} for 200");
        assert!((160_000..160_000 * 12).contains(&few), "{name}: {few}");
    }
}

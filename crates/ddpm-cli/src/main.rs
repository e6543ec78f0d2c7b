//! `ddpm-cli`: sample, train and inspect small diffusion models.

mod args;
mod commands;
mod loss_plot;
mod model;
mod output;
mod picture;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    // Exits with 2 on a wrong command line.
    let args = Args::parse();
    set_threads(args.common.threads, &args.command);
    if matches!(args.command, Command::TrainFeatures(_)) {
        keep_memory();
    }
    let result = match &args.command {
        Command::Sample(options) => commands::sample::run(options, &args.common),
        Command::Train(options) => commands::train::run(options, &args.common),
        Command::Eval(options) => commands::eval::run(options, &args.common),
        Command::Likelihood(options) => commands::likelihood::run(options, &args.common),
        Command::Classify(options) => commands::classify::run(options, &args.common),
        Command::TrainFeatures(options) => commands::train_features::run(options, &args.common),
        Command::Data(options) => commands::data::run(options, &args.common),
        Command::Info(options) => commands::info::run(options, &args.common),
        Command::Bench(options) => commands::bench::run(options, &args.common),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Frees one block of 31 MiB, so that glibc's allocator keeps smaller ones for reuse: it returns freed memory to the
/// system by thresholds that rise to the largest block ever freed. Without it, the buffers of every training step of a
/// feature net would be paged in anew, which takes as long as the arithmetic.
fn keep_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(31 << 20)));
}

/// Tells the thread pools of rayon and candle how many threads to start. Both read their variable when they
/// are first used, and candle has no other way.
///
/// A feature net is trained with a part of the batch on each of rayon's threads, which would wait for each other
/// at candle's pool: it takes twice as long, or five times on a busy machine.
#[allow(unsafe_code, reason = "the environment is changed before any thread is started")]
fn set_threads(threads: Option<usize>, command: &Command) {
    let candle = if matches!(command, Command::TrainFeatures(_)) { Some(1) } else { threads };
    for (name, threads) in [("RAYON_NUM_THREADS", threads), ("CANDLE_NUM_THREADS", candle)] {
        if let Some(threads) = threads {
            // SAFETY: the process has one thread yet, so nothing can read the environment meanwhile.
            unsafe { std::env::set_var(name, threads.to_string()) };
        }
    }
}

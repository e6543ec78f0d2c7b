//! `ddpm-cli`: sample, train and inspect small diffusion models.

mod args;
mod commands;
mod data;
mod event_file;
mod interrupt;
mod loss_plot;
mod model;
mod output;
mod picture;
mod plot_style;
mod progress;
mod recipe;

use std::{process::ExitCode, sync::Mutex, thread};

use anyhow::{Context, Result};
use clap::{ArgMatches, parser::ValueSource};

use args::{Args, Command};
use interrupt::Interrupted;

fn main() -> ExitCode {
    let (args, matches) = match Args::of_command_line() {
        Ok(parsed) => parsed,
        Err(error) => {
            output::error(&error);
            return ExitCode::FAILURE;
        }
    };
    warn_of_options_without_effect(&matches, &args.command);
    output::print_warnings();
    set_threads(args.common.threads, &args.command);
    if matches!(args.command, Command::TrainFeatures(_)) {
        keep_memory();
    }
    let result = check_threads(args.common.threads).and_then(|()| run(&args));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            let interrupted = error.chain().find_map(|cause| cause.downcast_ref::<Interrupted>());
            interrupted.map_or(ExitCode::FAILURE, |interrupted| interrupted.exit_code().into())
        }
    }
}

fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Sample(options) => commands::sample::run(options, &args.common),
        Command::Train(options) => commands::train::run(options, &args.common),
        Command::Average(options) => commands::average::run(options, &args.common),
        Command::Eval(options) => commands::eval::run(options, &args.common),
        Command::Likelihood(options) => commands::likelihood::run(options, &args.common),
        Command::Classify(options) => commands::classify::run(options, &args.common),
        Command::FitPlan(options) => commands::fit_plan::run(options, &args.common),
        Command::TrainFeatures(options) => commands::train_features::run(options, &args.common),
        Command::Data(options) => commands::data::run(options, &args.common),
        Command::Export(options) => commands::export::run(options, &args.common),
        Command::Import(options) => commands::import::run(options, &args.common),
        Command::Merge(options) => commands::merge::run(options, &args.common),
        Command::Info(options) => commands::info::run(options, &args.common),
        Command::Bench(options) => commands::bench::run(options, &args.common),
        Command::Report(options) => commands::report::run(options, &args.common),
        Command::Doctor => commands::doctor::run(&args.common),
        Command::Completions(options) => commands::shell::completions(options),
        Command::Man(options) => commands::shell::man(options, &args.common),
        Command::Push(options) => commands::push::run(options, &args.common),
        Command::Pull(options) => commands::pull::run(options, &args.common),
        #[cfg(feature = "serve")]
        Command::Serve(options) => commands::serve::run(options, &args.common),
    }
}

/// Checks that the system starts as many threads as the thread pools of rayon and candle have together. The pools
/// themselves would panic.
fn check_threads(threads: Option<usize>) -> Result<()> {
    let each = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    // Each thread lives until this lock is free.
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let _closed = gate.lock();
        (0..2 * each).try_for_each(|_| {
            let started = thread::Builder::new().spawn_scoped(scope, || drop(gate.lock()));
            started.map(drop)
        })
    })
    .with_context(|| format!("the system does not start {} threads; pass a smaller --threads", 2 * each))
}

/// Warns of common options that a command does not use.
fn warn_of_options_without_effect(matches: &ArgMatches, command: &Command) {
    let without_effect: &[&str] = match command {
        Command::Info(_) | Command::Doctor => &["seed"],
        Command::Average(_)
        | Command::Data(_)
        | Command::Export(_)
        | Command::Import(_)
        | Command::Merge(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Pull(_) => &["seed", "device"],
        _ => &[],
    };
    let Some((name, matches)) = matches.subcommand() else { return };
    for option in without_effect {
        if matches.value_source(option) == Some(ValueSource::CommandLine) {
            output::warning(&format!("--{option} has no effect on `{name}`"));
        }
    }
}

/// Frees one block of 31 MiB, so that glibc's allocator keeps smaller blocks for reuse. The allocator returns freed
/// memory to the system above a threshold, which rises to the size of the largest block freed so far. Below that
/// threshold, each training step of a feature net would allocate new pages for its buffers, which takes as long as
/// the arithmetic.
fn keep_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(31 << 20)));
}

/// Sets the environment variables that give the number of threads to the thread pools of rayon and candle. Each pool
/// reads its variable when it is first used; candle has no other interface for it.
///
/// `train-features` gives a part of the batch to each of rayon's threads. Candle gets one thread then, because these
/// parts would otherwise wait for each other in candle's pool.
#[allow(unsafe_code, reason = "the environment is changed before any thread is started")]
fn set_threads(threads: Option<usize>, command: &Command) {
    let candle = if matches!(command, Command::TrainFeatures(_)) { Some(1) } else { threads };
    for (name, threads) in [("RAYON_NUM_THREADS", threads), ("CANDLE_NUM_THREADS", candle)] {
        if let Some(threads) = threads {
            // SAFETY: the process still has one thread, so no other thread can read the environment.
            unsafe { std::env::set_var(name, threads.to_string()) };
        }
    }
}

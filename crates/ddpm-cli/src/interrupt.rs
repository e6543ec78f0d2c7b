//! Interruption of `train` and `sample` by SIGINT (Ctrl-C) and SIGTERM.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// The program was interrupted, and has cleaned up.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted {
    signal: u8,
}

impl Interrupted {
    /// The exit code that a shell gives to a program that the signal ended.
    pub(crate) fn exit_code(&self) -> u8 {
        128 + self.signal
    }
}

#[derive(Default)]
struct Received {
    any: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

static RECEIVED: OnceLock<Received> = OnceLock::new();

/// From now on the first signal is noted only, for [`check`]; the second one ends the program at once.
pub(crate) fn listen() -> Result<()> {
    let received = RECEIVED.get_or_init(Received::default);
    let register = |signal: i32| -> io::Result<()> {
        // In this order: the first signal sets the flag that makes the second one end the program.
        flag::register_conditional_shutdown(signal, 128 + signal, received.any.clone())?;
        flag::register_usize(signal, received.signal.clone(), usize::try_from(signal).unwrap_or_default())?;
        flag::register(signal, received.any.clone())?;
        Ok(())
    };
    [SIGINT, SIGTERM].into_iter().try_for_each(register).context("cannot listen to signals")
}

/// Whether a signal has come, as a flag that becomes true.
pub(crate) fn received() -> &'static AtomicBool {
    &RECEIVED.get_or_init(Received::default).any
}

/// Fails if a signal has come.
pub(crate) fn check() -> Result<(), Interrupted> {
    if !received().load(Ordering::Relaxed) {
        return Ok(());
    }
    let signal = RECEIVED.get().map_or(0, |received| received.signal.load(Ordering::Relaxed));
    Err(Interrupted { signal: u8::try_from(signal).unwrap_or_default() })
}

//! The phases of a job, with the time of each.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::process;

/// A finished phase.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Phase {
    pub(crate) phase: String,
    /// Wall time in seconds, rounded to hundredths.
    pub(crate) seconds: f64,
}

/// Runs phases one after the other and records their wall time.
#[derive(Debug)]
pub(crate) struct Phases {
    started: Instant,
    done: Vec<Phase>,
}

impl Phases {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), done: Vec::new() }
    }

    /// Prints the name of a phase and runs its work.
    ///
    /// # Errors
    /// The work fails; the error names the phase.
    pub(crate) fn run<T>(&mut self, phase: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        process::say(&format!("== {phase}"));
        let started = Instant::now();
        let value = work().with_context(|| format!("the phase \"{phase}\" failed"))?;
        self.done.push(Phase { phase: phase.to_owned(), seconds: seconds_since(started) });
        Ok(value)
    }

    pub(crate) fn done(&self) -> &[Phase] {
        &self.done
    }

    /// Wall time since [`Phases::start`], in seconds.
    pub(crate) fn total_seconds(&self) -> f64 {
        seconds_since(self.started)
    }
}

/// A duration in words: `48 s`, `12 min 3 s`, `2 h 5 min`.
pub(crate) fn in_words(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round();
    let (hours, minutes, rest) =
        ((seconds / 3600.0).floor(), (seconds / 60.0).floor() % 60.0, seconds % 60.0);
    if hours > 0.0 {
        format!("{hours} h {minutes} min")
    } else if minutes > 0.0 {
        format!("{minutes} min {rest} s")
    } else {
        format!("{rest} s")
    }
}

fn seconds_since(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_put_in_words() {
        assert_eq!(in_words(0.4), "0 s");
        assert_eq!(in_words(59.6), "1 min 0 s");
        assert_eq!(in_words(723.0), "12 min 3 s");
        assert_eq!(in_words(7500.0), "2 h 5 min");
    }

    #[test]
    fn an_error_names_its_phase_and_the_phase_is_not_done() {
        let mut phases = Phases::start();
        phases.run("data", || Ok(())).unwrap();
        let error = phases.run("train", || -> Result<()> { anyhow::bail!("no luck") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "the phase \"train\" failed: no luck");
        let done: Vec<_> = phases.done().iter().map(|p| p.phase.as_str()).collect();
        assert_eq!(done, ["data"]);
    }
}

//! What Linux tells about memory and processors in `/proc`.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process;

/// How often the memory of a program is looked at. The system keeps the highest value, so only what happens
/// in the last moment of a program is missed.
const EVERY: Duration = Duration::from_millis(10);

/// Runs a program and returns what it writes to stdout and the most memory it had, in bytes; `None` where the
/// system does not tell.
pub(crate) fn run_for_stdout_and_memory(command: &mut Command) -> Result<(String, Option<u64>)> {
    let failed = |what: &str, command: &Command| format!("cannot {what} `{}`", process::show(command));
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| failed("start", command))?;
    let mut stdout = child.stdout.take().context("a piped stdout is there")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let (status_file, mut memory) = (format!("/proc/{}/status", child.id()), None);
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| failed("wait for", command))? {
            break status;
        }
        let now = fs::read_to_string(&status_file).ok().and_then(|text| peak_memory(&text));
        memory = memory.max(now);
        thread::sleep(EVERY);
    };
    ensure!(status.success(), "`{}` failed: {status}", process::show(command));
    let text = reader.join().ok().context("the thread that reads stdout ends")?;
    Ok((text.with_context(|| failed("read the stdout of", command))?, memory))
}

/// `VmHWM` of a `/proc/PID/status`, in bytes.
fn peak_memory(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Watches what the processors do while both sides rest, which is what others do.
#[derive(Debug, Default)]
pub(crate) struct Bystanders {
    busy: f64,
    total: f64,
}

impl Bystanders {
    /// Sleeps and watches, after a moment in which threads that were at work may still spin.
    pub(crate) fn rest(&mut self, pause: Duration) {
        thread::sleep(pause.mul_f64(0.2));
        let before = processor_time();
        thread::sleep(pause.mul_f64(0.8));
        if let (Some(before), Some(after)) = (before, processor_time()) {
            self.busy += after.0 - before.0;
            self.total += after.1 - before.1;
        }
    }

    /// The part of all processors that others used, `None` if nothing was seen.
    pub(crate) fn share(&self) -> Option<f64> {
        (self.total > 0.0).then(|| self.busy / self.total)
    }
}

fn processor_time() -> Option<(f64, f64)> {
    times(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of a `/proc/stat`: the time that all processors were busy, and all time.
fn times(stat: &str) -> Option<(f64, f64)> {
    /// user, nice, system, idle, waiting for files, interrupts (two kinds), and the time of other guests.
    const KINDS: usize = 8;
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<f64> =
        line.split_whitespace().take(KINDS).map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let total: f64 = times.iter().sum();
    Some((total - times.get(3)? - times.get(4)?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_read() {
        assert_eq!(peak_memory("Name:\tx\nVmPeak:\t 99 kB\nVmHWM:\t    2048 kB\n"), Some(2_097_152));
        assert_eq!(peak_memory("Name:\tx\nState:\tZ (zombie)\n"), None, "a program that has ended");
    }

    #[test]
    fn busy_time_is_all_but_idle_and_waiting() {
        let stat = "cpu  10 1 5 70 4 2 3 5 1000 0\ncpu0 1 2 3\n";
        assert_eq!(times(stat), Some((26.0, 100.0)), "the time of guests is in that of users already");
        assert_eq!(times("intr 5\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_program_is_run_and_its_memory_seen() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 0.1; echo done"]);
        let (text, memory) = run_for_stdout_and_memory(&mut command).unwrap();
        assert_eq!(text, "done\n");
        assert!(memory.is_some_and(|bytes| bytes > 100_000), "{memory:?}");
        let error = run_for_stdout_and_memory(Command::new("sh").args(["-c", "exit 4"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'exit 4'` failed: exit status: 4");
    }
}

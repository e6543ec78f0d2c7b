//! The calls that a program made to the pretend driver, and what must hold for them.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};

/// A call in the log of the pretend driver.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call<'a> {
    /// Its line in the log, from 1.
    line: usize,
    thread: &'a str,
    pub(super) kind: Kind,
    stream: &'a str,
    bytes: u64,
    name: &'a str,
}

/// The kinds of calls that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Kernel,
    Product,
    Upload,
    Read,
    Copy,
    Fill,
    Memory,
    Wait,
    /// Calls without work on the device, such as the creation of a handle.
    Other,
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, thread, stream, bytes, name, .. } = self;
        write!(f, "line {line}: {name}, {bytes} bytes, thread {thread}, stream {stream}")
    }
}

impl Call<'_> {
    /// Whether the device works for it.
    fn is_launch(&self) -> bool {
        matches!(self.kind, Kind::Kernel | Kind::Product | Kind::Copy | Kind::Fill)
    }
}

/// Reads a log: lines of thread, kind, stream, bytes and name.
pub(super) fn calls(log: &str) -> Result<Vec<Call<'_>>> {
    std::iter::zip(1.., log.lines()).map(|(line, text)| call(line, text)).collect()
}

fn call(line: usize, text: &str) -> Result<Call<'_>> {
    let mut words = text.splitn(5, ' ');
    let mut next = || words.next().unwrap_or_default();
    let (thread, kind, stream, bytes, name) = (next(), next(), next(), next(), next());
    let kind = match kind {
        "kernel" => Kind::Kernel,
        "product" => Kind::Product,
        "upload" => Kind::Upload,
        "read" => Kind::Read,
        "copy" => Kind::Copy,
        "fill" => Kind::Fill,
        "allocate" | "free" => Kind::Memory,
        "wait" => Kind::Wait,
        "other" => Kind::Other,
        found => bail!("line {line} of the log is a call of the kind `{found}`"),
    };
    let bytes = bytes.parse().with_context(|| format!("line {line} of the log has no size: {text}"))?;
    Ok(Call { line, thread, kind, stream, bytes, name })
}

pub(super) fn count(calls: &[Call<'_>], kind: Kind) -> usize {
    calls.iter().filter(|call| call.kind == kind).count()
}

/// The first of the calls that are wrong, for an error.
fn list(calls: &[&Call<'_>]) -> String {
    let shown: Vec<_> = calls.iter().take(5).map(|call| call.to_string()).collect();
    let more = calls.len().saturating_sub(shown.len());
    shown.join("; ") + &if more > 0 { format!("; and {more} more") } else { String::new() }
}

/// Checks that all work comes from one thread and is in one stream: otherwise nothing orders it.
pub(super) fn one_stream(calls: &[Call<'_>]) -> Result<String> {
    let work: Vec<_> = calls.iter().filter(|call| call.kind != Kind::Other).collect();
    let first = work.first().context("no call reached the driver")?;
    let others: Vec<_> = work
        .iter()
        .copied()
        .filter(|call| (call.thread, call.stream) != (first.thread, first.stream))
        .collect();
    let threads: BTreeSet<_> = work.iter().map(|call| call.thread).collect();
    let streams: BTreeSet<_> = work.iter().map(|call| call.stream).collect();
    ensure!(
        others.is_empty(),
        "{} threads and {} streams, expected one of each, as in {first}: {}",
        threads.len(),
        streams.len(),
        list(&others)
    );
    Ok(format!("{} calls on one thread and one stream", work.len()))
}

/// The steps of a run: the calls from each upload of `bytes` bytes, the noise of a step, to the next one. The last step ends
/// with the log.
pub(super) fn steps<'a, 'b>(calls: &'b [Call<'a>], bytes: u64) -> Vec<&'b [Call<'a>]> {
    let is_start = |call: &Call<'_>| call.kind == Kind::Upload && call.bytes == bytes;
    let starts: Vec<_> = (0..calls.len()).filter(|&at| is_start(&calls[at])).collect();
    let ends = starts.iter().skip(1).copied().chain([calls.len()]);
    std::iter::zip(&starts, ends).map(|(&start, end)| &calls[start..end]).collect()
}

/// Checks that the host reads nothing, and waits for nothing, from the first step to the last product.
pub(super) fn no_read(steps: &[&[Call<'_>]]) -> Result<String> {
    let calls: Vec<_> = steps.iter().copied().flatten().collect();
    let is_read = |call: &&&Call<'_>| [Kind::Read, Kind::Wait].contains(&call.kind);
    let last =
        calls.iter().rposition(|call| call.kind == Kind::Product).context("the steps have no product")?;
    let found: Vec<_> = calls[..last].iter().filter(is_read).copied().collect();
    ensure!(found.is_empty(), "{} reads or waits before the last product: {}", found.len(), list(&found));
    let after = calls[last..].iter().filter(is_read).count();
    Ok(format!("no read in {} steps, {after} after the last product", steps.len()))
}

/// Checks that at most every `every`-th step of a training run reads something.
pub(super) fn few_reads(steps: &[&[Call<'_>]], every: usize) -> Result<String> {
    let reads = |step: &&&[Call<'_>]| step.iter().any(|call| [Kind::Read, Kind::Wait].contains(&call.kind));
    let reading: Vec<_> = steps.iter().filter(reads).collect();
    let allowed = steps.len().div_euclid(every);
    let first = reading.iter().filter_map(|step| step.iter().find(|call| call.kind == Kind::Read));
    ensure!(
        reading.len() <= allowed,
        "{} of {} steps read from the device, expected at most {allowed}, one in {every}: {}",
        reading.len(),
        steps.len(),
        list(&first.collect::<Vec<_>>())
    );
    Ok(format!("{} of {} steps read from the device", reading.len(), steps.len()))
}

/// Checks the launches, which are kernels, products, copies and fills, of the step with the most of them.
pub(super) fn launches(steps: &[&[Call<'_>]], limit: usize) -> Result<String> {
    let launches = |step: &[Call<'_>]| step.iter().filter(|call| call.is_launch()).count();
    let most = steps.iter().max_by_key(|step| launches(step)).context("no step in the log")?;
    let found = launches(most);
    ensure!(
        found <= limit,
        "{found} launches in a step, expected at most {limit}; the most frequent: {}",
        frequent(most)
    );
    Ok(format!("{found} launches in a step, {limit} allowed; {} products", count(most, Kind::Product)))
}

/// The names of the launches of a step, with the number of each, the most frequent first.
fn frequent(step: &[Call<'_>]) -> String {
    let mut names: Vec<&str> = step.iter().filter(|call| call.is_launch()).map(|call| call.name).collect();
    names.sort_unstable();
    let mut counted: Vec<_> = names.chunk_by(|a, b| a == b).map(|same| (same.len(), same[0])).collect();
    counted.sort_by_key(|(count, name)| (std::cmp::Reverse(*count), *name));
    let shown = counted.iter().take(8).map(|(count, name)| format!("{count} {name}"));
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "7 other (nil) 0 cublasCreate\n7 upload 0x2 80 weights\n7 upload 0x2 16 noise\n\
        7 kernel 0x2 0 add\n7 kernel 0x2 0 mul\n7 kernel 0x2 0 add\n7 product 0x2 0 gemm\n7 upload 0x2 16 noise\n\
        7 kernel 0x2 0 add\n7 product 0x2 0 gemm\n7 read 0x2 16 cuMemcpyDtoHAsync\n";

    #[test]
    fn calls_are_read_and_a_broken_log_is_refused() {
        let calls = calls(LOG).unwrap();
        assert_eq!(calls.len(), 11);
        assert_eq!(calls[2].to_string(), "line 3: noise, 16 bytes, thread 7, stream 0x2");
        let refused = |log| super::calls(log).unwrap_err().to_string();
        assert_eq!(refused("7 dance 0x2 0 x"), "line 1 of the log is a call of the kind `dance`");
        assert!(refused("7 read").contains("no size"));
    }

    #[test]
    fn a_second_thread_or_stream_is_found() {
        one_stream(&calls(LOG).unwrap()).unwrap();
        for (from, to) in
            [("7 read 0x2", "8 read 0x2"), ("7 read 0x2", "7 read 0x3"), ("7 read 0x2", "7 read (nil)")]
        {
            let log = LOG.replace(from, to);
            let error = one_stream(&calls(&log).unwrap()).unwrap_err().to_string();
            assert!(error.contains("line 11: cuMemcpyDtoHAsync"), "{error}");
        }
        assert!(one_stream(&calls("7 other (nil) 0 cublasCreate").unwrap()).is_err(), "nothing was done");
    }

    #[test]
    fn a_read_between_steps_is_found() {
        no_read(&steps(&calls(LOG).unwrap(), 16)).unwrap();
        assert!(no_read(&steps(&calls(LOG).unwrap(), 17)).is_err(), "no step");
        for early in ["7 read 0x2 4 early\n", "7 wait 0x2 0 early\n"] {
            let log = LOG.replacen("7 kernel", &format!("{early}7 kernel"), 1);
            let error = no_read(&steps(&calls(&log).unwrap(), 16)).unwrap_err().to_string();
            assert!(error.contains("1 reads or waits") && error.contains("line 4: early"), "{error}");
        }
    }

    #[test]
    fn launches_of_the_largest_step_are_limited() {
        let calls = calls(LOG).unwrap();
        let steps = steps(&calls, 16);
        assert_eq!(steps.iter().map(|step| step.len()).collect::<Vec<_>>(), [5, 4]);
        assert!(launches(&steps, 4).unwrap().starts_with("4 launches in a step, 4 allowed; 1 products"));
        let error = launches(&steps, 3).unwrap_err().to_string();
        assert!(
            error.contains("4 launches in a step, expected at most 3")
                && error.contains("2 add, 1 gemm, 1 mul")
        );
        assert!(launches(&[], 3).is_err());
    }

    #[test]
    fn reads_of_a_training_run_are_rare() {
        let calls = calls(LOG).unwrap();
        let steps = steps(&calls, 16);
        few_reads(&steps, 2).unwrap();
        let error = few_reads(&steps, 3).unwrap_err().to_string();
        assert!(error.contains("1 of 2 steps") && error.contains("line 11"), "{error}");
    }
}

//! The comparison as Markdown.

use super::rounds::{InTurn, Outcome, flops, median, speed};
use super::server::Info;
use super::whole::{Cold, Scale, TrainingMemory};
use crate::provenance::Provenance;

/// Wall time of drawing 50 digits, at most, in seconds, and how many times that of the peer is longer.
const COLD: (f64, f64) = (0.3, 10.0);
/// Memory of a training run: so many times what is needed, and a constant, in bytes.
const MEMORY: (f64, f64) = (1.2, 100e6);
/// Weights, gradients, two moments and the moving average, in bytes of a parameter.
const STATE: f64 = 5.0 * 4.0;
/// The training images of MNIST, in bytes.
const IMAGES: f64 = 60_000.0 * 784.0;
/// The lowest of the speeds of the scaling series over the highest, at least.
const FLAT_SPEED: f64 = 0.95;
/// The highest of its memories over the lowest, at most.
const FLAT_MEMORY: f64 = 1.1;
/// The part of the processors that others may use before the results are in doubt.
const QUIET: f64 = 0.03;

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) provenance: &'a Provenance,
    /// Ours and the peer.
    pub(crate) infos: &'a [Info; 2],
    pub(crate) in_turn: &'a InTurn,
    pub(crate) cold: Cold,
    pub(crate) memory: TrainingMemory,
    pub(crate) scaling: Vec<Scale>,
}

impl Report<'_> {
    pub(crate) fn markdown(&self) -> String {
        let sections = [
            self.heading(),
            self.table(),
            self.variants(),
            cold(&self.cold, &self.infos[1].name),
            memory(&self.memory),
            scaling(&self.scaling),
        ];
        sections.join("\n\n") + "\n"
    }

    fn heading(&self) -> String {
        let (from, [ours, peer]) = (self.provenance, self.infos);
        let rounds = self.in_turn.outcomes.first().map_or(0, |outcome| outcome.ours.len());
        let bystanders = match self.in_turn.bystanders {
            None => "not measured".to_owned(),
            Some(share) if share <= QUIET => percent(share, 1),
            Some(share) => format!("{}, **too much to trust the ratios**", percent(share, 1)),
        };
        format!(
            "# Speed beside {peer_name}\n\n\
             - Command: `{}`\n- Version: {}, commit {}\n- Machine: {}\n\
             - {peer_name} {}, {} threads on each side, f32, the network of {} parameters described in \
             [xtask/peer](../xtask/peer/README.md)\n\
             - Rounds: {rounds}, in each of which both sides do every job in turn. All figures are medians, and a \
             ratio is the median of the ratios of the rounds (the lowest and the highest in brackets)\n\
             - Peak: {:.0} GFLOP/s, the best product of two large matrices, by the `gemm` crate or by {peer_name}; each took one \
             in every round. The share of it counts matrix products only\n\
             - Processors used by other programs in the pauses: {bystanders}",
            from.command,
            from.version,
            from.commit.as_deref().unwrap_or("unknown"),
            from.machine,
            peer.version,
            ours.threads,
            grouped(ours.parameters as f64),
            self.in_turn.peak / 1e9,
            peer_name = peer.name,
        )
    }

    fn table(&self) -> String {
        let mut text = format!(
            "| job | images/s | {peer} | ratio | target | share of the peak | {peer} | target | |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
            peer = self.infos[1].name
        );
        for outcome in &self.in_turn.outcomes {
            text += "\n";
            text += &row(outcome, self.in_turn.peak);
        }
        text
    }

    fn variants(&self) -> String {
        let mut text = format!(
            "{} was tried in several ways in the round before the first, and the fastest did the work \
             (images/s of each):\n",
            self.infos[1].name
        );
        for Outcome { job, peer, .. } in &self.in_turn.outcomes {
            let Some(piece) = peer.first() else { continue };
            let speeds =
                piece.images_per_second.iter().map(|(name, &speed)| format!("{name} {}", grouped(speed)));
            let failed = piece.failed.iter().map(|(name, why)| format!("{name} failed ({why})"));
            let all: Vec<_> = speeds.chain(failed).collect();
            let variant = piece.variant.as_deref().unwrap_or("only one way");
            text += &format!("\n- {}: **{variant}** ({})", job.title, all.join("; "));
        }
        text
    }
}

fn row(outcome: &Outcome, peak: f64) -> String {
    let Outcome { job, ours, peer } = outcome;
    let ratios = outcome.ratios();
    let ratio = median(ratios.iter().copied());
    let share = |pieces: &[_]| median(pieces.iter().map(flops)) / peak;
    let (lowest, highest) = ratios.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), &r| (l.min(r), h.max(r)));
    let mut missed = Vec::new();
    if ratio < job.ratio {
        missed.push("ratio");
    }
    if job.share.is_some_and(|least| share(ours) < least) {
        missed.push("share");
    }
    format!(
        "| {} | {} | {} | {ratio:.2} ({lowest:.2}–{highest:.2}) | {} | {} | {} | {} | {} |",
        job.title,
        grouped(median(ours.iter().map(speed))),
        grouped(median(peer.iter().map(speed))),
        job.ratio,
        percent(share(ours), 0),
        percent(share(peer), 0),
        job.share.map_or("–".to_owned(), |least| percent(least, 0)),
        if missed.is_empty() { "met".to_owned() } else { format!("**missed: {}**", missed.join(", ")) },
    )
}

fn cold(cold: &Cold, peer: &str) -> String {
    let ours = median(cold.ours.iter().copied());
    let ratio = median(std::iter::zip(&cold.ours, &cold.peer).map(|(ours, peer)| peer / ours));
    format!(
        "## Fifty digits, from the start of the process to its end\n\n\
         `ddpm-cli sample --classes 0-9 --per-class 5` takes {ours:.2} s (target: at most {} s, {}). The script \
         [`sample.py`](../xtask/peer/sample.py) takes {:.2} s with {peer}, {ratio:.1} times as long (target: at least \
         {} times, {}).",
        COLD.0,
        verdict(ours <= COLD.0),
        median(cold.peer.iter().copied()),
        COLD.1,
        verdict(ratio >= COLD.1),
    )
}

fn memory(memory: &TrainingMemory) -> String {
    let needed = STATE * memory.parameters as f64 + IMAGES;
    let most = MEMORY.0 * needed + MEMORY.1;
    let found = memory.peak.map_or("It was not measured on this system".to_owned(), |peak| {
        format!("It has {} at most ({})", megabytes(peak as f64), verdict(peak as f64 <= most))
    });
    format!(
        "## Memory of a training run\n\n\
         `ddpm-cli train --preset quick --epochs 1` would need {} for weights, gradients, moments and moving average of \
         {} parameters and for the images. The target is {} × that + {} = {}. {found}.",
        megabytes(needed),
        grouped(memory.parameters as f64),
        MEMORY.0,
        megabytes(MEMORY.1),
        megabytes(most),
    )
}

fn scaling(series: &[Scale]) -> String {
    let mut text = "## Sampling more and more images\n\n\
        `ddpm-cli sample --number N --format idx --guidance 1` with the built-in model:\n\n\
        | images | images/s | runs | memory at most |\n| ---: | ---: | ---: | ---: |"
        .to_owned();
    for Scale { images, images_per_second, peak } in series {
        let memory = peak.map_or("not measured".to_owned(), |peak| megabytes(peak as f64));
        let (images, speed) = (grouped(*images as f64), grouped(median(images_per_second.iter().copied())));
        text += &format!("\n| {images} | {speed} | {} | {memory} |", images_per_second.len());
    }
    let speeds = series.iter().map(|scale| median(scale.images_per_second.iter().copied()));
    text += &format!(
        "\n\nThe lowest speed is {} of the highest (target: at least {}, {})",
        percent(1.0 / spread(speeds.clone()), 0),
        percent(FLAT_SPEED, 0),
        verdict(spread(speeds) <= 1.0 / FLAT_SPEED),
    );
    let memories: Option<Vec<f64>> = series.iter().map(|scale| Some(scale.peak? as f64)).collect();
    text += &memories.map_or(".".to_owned(), |memories| {
        let spread = spread(memories.into_iter());
        format!(
            ", and the most memory is {spread:.2} times the least (target: at most {FLAT_MEMORY} times, {}).",
            verdict(spread <= FLAT_MEMORY)
        )
    });
    text
}

/// The highest over the lowest.
fn spread(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().fold(0.0, f64::max) / values.fold(f64::INFINITY, f64::min)
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

fn percent(share: f64, digits: usize) -> String {
    format!("{:.digits$} %", share * 100.0)
}

fn megabytes(bytes: f64) -> String {
    format!("{} MB", grouped(bytes / 1e6))
}

/// A whole number with a comma before each three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

//! Both sides do the same jobs in turn, so that what disturbs the one disturbs the other.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::server::{Piece, Server};
use super::usage::Bystanders;
use crate::process;

/// A job and what is expected of it.
#[derive(Debug)]
pub(crate) struct Job {
    /// What the servers know it as.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Our images per second over those of the peer, at least.
    pub(crate) ratio: f64,
    /// Our share of the peak, at least.
    pub(crate) share: Option<f64>,
}

pub(crate) const JOBS: [Job; 5] = [
    Job { name: "train-128", title: "training, batch 128", ratio: 1.35, share: Some(0.75) },
    Job { name: "train-512", title: "training, batch 512", ratio: 1.15, share: Some(0.88) },
    Job { name: "sample-1000", title: "sampling 1,000 images, 20 steps", ratio: 1.15, share: Some(0.90) },
    Job { name: "sample-50", title: "sampling 50 images, 20 steps", ratio: 1.3, share: None },
    Job { name: "sample-1", title: "sampling 1 image, 20 steps", ratio: 2.0, share: None },
];

/// The job of which the best piece of either side is the machine's peak: a large product of matrices.
const PEAK: &str = "gemm";

/// The rounds that count of one job, in order.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) job: &'static Job,
    pub(crate) ours: Vec<Piece>,
    pub(crate) peer: Vec<Piece>,
}

/// All rounds.
#[derive(Debug)]
pub(crate) struct InTurn {
    pub(crate) outcomes: Vec<Outcome>,
    /// The most operations per second of the large products.
    pub(crate) peak: f64,
    /// The part of all processors that other programs used between the turns, where the system tells.
    pub(crate) bystanders: Option<f64>,
}

impl Outcome {
    /// Images per second of ours over those of the peer, for each round.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        std::iter::zip(&self.ours, &self.peer).map(|(ours, peer)| speed(ours) / speed(peer)).collect()
    }
}

/// Images per second.
pub(crate) fn speed(piece: &Piece) -> f64 {
    piece.images / piece.seconds
}

/// Operations per second.
pub(crate) fn flops(piece: &Piece) -> f64 {
    piece.flops / piece.seconds
}

/// The median of a list that is not empty.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len().div_euclid(2);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// One round that is not counted, in which both sides get ready, and then `rounds` that are.
pub(crate) fn run(ours: &mut Server, peer: &mut Server, rounds: usize, pause: Duration) -> Result<InTurn> {
    let mut outcomes = JOBS.each_ref().map(|job| Outcome { job, ours: Vec::new(), peer: Vec::new() });
    let mut peak: f64 = 0.0;
    let mut bystanders = Bystanders::default();
    for round in 0..=rounds {
        process::say(&match round {
            0 => "getting ready; PyTorch compiles".to_owned(),
            _ => format!("round {round} of {rounds}"),
        });
        for side in [&mut *ours, &mut *peer] {
            bystanders.rest(pause);
            peak = peak.max(flops(&side.measure(PEAK)?));
        }
        for outcome in &mut outcomes {
            let name = outcome.job.name;
            let mut turn = |server: &mut Server| {
                bystanders.rest(pause);
                server.measure(name)
            };
            // Neither is always the first.
            let (mine, theirs) = if round % 2 == 0 {
                (turn(ours)?, turn(peer)?)
            } else {
                let theirs = turn(peer)?;
                (turn(ours)?, theirs)
            };
            same_work(name, &mine, &theirs)?;
            if round == 0 {
                process::say(&choice(name, &theirs));
            } else {
                outcome.ours.push(mine);
                outcome.peer.push(theirs);
            }
        }
    }
    Ok(InTurn { outcomes: outcomes.into(), peak, bystanders: bystanders.share() })
}

/// # Errors
/// The operations for an image differ, so images per second cannot be compared.
fn same_work(job: &str, ours: &Piece, peer: &Piece) -> Result<()> {
    ensure!(ours.images > 0.0 && peer.images > 0.0, "a side did no image in `{job}`");
    let (ours, peer) = (ours.flops / ours.images, peer.flops / peer.images);
    ensure!(
        (ours - peer).abs() <= 1e-6 * peer,
        "the sides do not do the same in `{job}`: {ours} operations an image here, {peer} by the peer"
    );
    Ok(())
}

fn choice(job: &str, piece: &Piece) -> String {
    let speeds = piece.images_per_second.iter().map(|(name, speed)| format!("{name} {speed:.0}"));
    let speeds: Vec<_> =
        speeds.chain(piece.failed.iter().map(|(name, why)| format!("{name} {why}"))).collect();
    let variant = piece.variant.as_deref().unwrap_or("one way");
    format!("  {job}: PyTorch takes {variant} ({})", speeds.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(seconds: f64, images: f64, flops: f64) -> Piece {
        serde_json::from_value(serde_json::json!({ "seconds": seconds, "images": images, "flops": flops }))
            .unwrap()
    }

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_ratio_is_of_one_round() {
        let ours = [(1.0, 100.0), (2.0, 100.0), (1.0, 90.0)].map(|(s, n)| piece(s, n, 1.0)).to_vec();
        let peer = [(1.0, 50.0), (4.0, 100.0), (1.0, 60.0)].map(|(s, n)| piece(s, n, 1.0)).to_vec();
        let outcome = Outcome { job: &JOBS[0], ours, peer };
        assert_eq!(outcome.ratios(), [2.0, 2.0, 1.5]);
        assert_eq!(median(outcome.ratios()), 2.0, "and not 90 / 50, that of the medians");
    }

    #[test]
    fn other_work_is_noticed() {
        assert!(same_work("train-128", &piece(1.0, 10.0, 20.0), &piece(2.0, 30.0, 60.0)).is_ok());
        let error = same_work("train-128", &piece(1.0, 10.0, 20.0), &piece(1.0, 10.0, 21.0)).unwrap_err();
        assert!(error.to_string().contains("2 operations an image here, 2.1 by the peer"), "{error}");
        assert!(same_work("train-128", &piece(1.0, 0.0, 20.0), &piece(1.0, 10.0, 20.0)).is_err());
    }
}

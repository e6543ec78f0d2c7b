//! The average of any length, from the snapshots of a run.

use std::{
    collections::{BTreeMap, HashMap},
    iter::zip,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use ddpm_model::{Denoiser, decode_weights};

use super::{
    FOLDER, SIGMA_RELS,
    profile::{Basis, MAX_SIGMA_REL, Profile},
};
use crate::{
    Error, Result, TrainConfig,
    part::Part,
    state_folder::{TENSORS, check_same, list, read, read_progress},
};

/// The largest error of a power function, relative to its norm. With it, one snapshot is enough for all lengths between those
/// of its two averages.
pub(super) const MAX_ERROR: f64 = 0.06;

/// A network with an average of the weights of a run, made from its snapshots.
#[derive(Debug)]
pub struct SnapshotAverage {
    /// The network, on a CPU.
    pub denoiser: Denoiser,
    /// The configuration of the run.
    pub config: TrainConfig,
    /// The step up to which the weights are averaged.
    pub step: u64,
    /// The number of snapshots from which the average was made.
    pub snapshots: usize,
    /// The difference between the power function of the average and the sum of the snapshots' power functions: the norm,
    /// relative to the norm of the former; 0 to 0.06.
    pub error: f64,
}

/// Makes the average of relative length `sigma_rel` from the snapshots in the folder of a run, which was trained with
/// [`TrainConfig::ema_snapshots`]. The weights of step τ have the weight τ^γ up to `step`, the step of a snapshot, by
/// default the last one; `sigma_rel` is the standard deviation of this power function, divided by `step` (Karras et al.
/// 2023, arXiv 2312.02696, section 3.1).
///
/// # Errors
///
/// [`Error::NoSnapshot`] if there are none, [`Error::OutOfRange`] if the snapshots cannot represent the length (the error
/// names the lengths that they can represent) or there is no snapshot of the step, [`Error::DamagedSnapshot`], and
/// [`Error::OtherConfig`] if the snapshots are from different runs.
pub fn average_snapshots(run: &Path, sigma_rel: f64, step: Option<u64>) -> Result<SnapshotAverage> {
    let folder = run.join(FOLDER);
    let damaged = |path: &PathBuf| Error::DamagedSnapshot { path: path.clone() };
    let paths = list(&folder)?;
    let mut saved = Vec::new();
    for path in &paths {
        saved.push(read_progress(path)?.ok_or_else(|| damaged(path))?);
    }
    let Some(newest) = saved.last() else { return Err(Error::NoSnapshot { path: folder }) };
    for (path, saved) in zip(&paths, &saved) {
        check_same(path, saved, newest)?;
    }
    let steps: Vec<u64> = saved.iter().map(|saved| saved.step).collect();
    let step = step.unwrap_or(newest.step);
    if !steps.contains(&step) {
        return Err(Error::out_of_range("the step of an average", step, nearest(&steps, step)));
    }
    let t = step as f64;
    let profiles = |&step: &u64| SIGMA_RELS.map(|sigma_rel| Profile::new(step as f64, sigma_rel));
    let basis = Basis::new(steps.iter().flat_map(profiles).collect());
    // Far below any length that snapshots can represent, and far above those whose γ overflows.
    let is_length = (1e-9..=MAX_SIGMA_REL).contains(&sigma_rel);
    let sum = is_length.then(|| basis.sum(Profile::new(t, sigma_rel)));
    let Some(sum) = sum.filter(|sum| sum.error <= MAX_ERROR) else {
        let [shortest, longest] = basis.lengths(t, MAX_ERROR);
        let (count, shortest, longest) =
            (steps.len(), (shortest * 1e4).ceil() / 1e4, (longest * 1e4).floor() / 1e4);
        let expected = format!("{shortest} to {longest}, the lengths that {count} snapshots can represent");
        return Err(Error::out_of_range("sigma_rel", sigma_rel, expected));
    };

    let parameters = newest.config.denoiser.parameters();
    let shapes = (0..SIGMA_RELS.len()).flat_map(|index| {
        parameters.iter().map(move |p| (Part::PowerAverage(index).tensor_name(&p.name), p.shape.clone()))
    });
    let shapes: Vec<(String, Vec<usize>)> = shapes.collect();
    let mut sums: BTreeMap<&str, Vec<f64>> =
        parameters.iter().map(|p| (p.name.as_str(), vec![0.0; p.len()])).collect();
    for (path, factors) in zip(&paths, sum.factors.chunks(SIGMA_RELS.len())) {
        let (_, bytes) = read(path)?.ok_or_else(|| damaged(path))?;
        let file = path.join(TENSORS);
        let tensors = decode_weights(&file, &bytes, shapes.clone(), Some(DType::F16), &Device::Cpu)?;
        for (index, factor) in factors.iter().enumerate() {
            for (name, sum) in &mut sums {
                let values = tensors[&Part::PowerAverage(index).tensor_name(name)].flatten_all()?;
                for (sum, value) in zip(sum, values.to_vec1::<f32>()?) {
                    *sum += factor * f64::from(value);
                }
            }
        }
    }
    let weight = |p: &ddpm_model::Parameter| {
        let values = Tensor::from_slice(&sums[p.name.as_str()], p.shape.as_slice(), &Device::Cpu)?;
        Ok((p.name.clone(), values.to_dtype(DType::F32)?))
    };
    let weights = parameters.iter().map(weight).collect::<Result<HashMap<_, _>>>()?;
    let config = newest.config.clone();
    let denoiser = Denoiser::new(&config.denoiser, &config.schedule, weights)?;
    Ok(SnapshotAverage { denoiser, config, step, snapshots: steps.len(), error: sum.error })
}

/// The steps of snapshots next to a step, as the values that are expected.
fn nearest(steps: &[u64], step: u64) -> String {
    let below = steps.iter().copied().filter(|&found| found < step).max();
    let above = steps.iter().copied().filter(|&found| found > step).min();
    let near: Vec<String> = below.into_iter().chain(above).map(|step| step.to_string()).collect();
    format!("the step of a snapshot, such as {}", near.join(" or "))
}

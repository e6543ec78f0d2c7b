//! The state of a run as named tensors.

use std::collections::{HashMap, VecDeque};

use candle_core::{Device, Tensor};

use super::{Run, like, noise_index};
use crate::{Error, Plan, Result, plan::Operation};

impl Plan {
    /// Continues a run from its [`Run::state`]. The results are the same bits as without the interruption. A request that
    /// was open is made again.
    ///
    /// # Errors
    ///
    /// If [`Plan::check`] fails, or the state is of another plan or incomplete.
    pub fn resume(&self, state: &HashMap<String, Tensor>) -> Result<Run> {
        self.check()?;
        let get = |name: &str| {
            let missing = || {
                let found = format!("without {name}");
                Error::out_of_range("the state of a run", found, "all tensors of Run::state")
            };
            state.get(name).ok_or_else(missing)
        };
        let numbers: Vec<i64> = get("position")?.to_vec1()?;
        let fits = match numbers[..] {
            [position, id] if id == self.id() => {
                usize::try_from(position).ok().filter(|&at| at <= self.operations().len())
            }
            _ => None,
        };
        let position = fits.ok_or_else(|| {
            let found = format!("of another plan: {numbers:?}");
            Error::out_of_range("the state of a run", found, "a state of this plan")
        })?;
        let x_t = get("x_t")?;
        let image = |name: &str| like(get(name)?, x_t);
        let images = |kind: &str, count: usize| -> Result<VecDeque<Tensor>> {
            (0..count).map(|age| image(&format!("{kind}.{age}"))).collect()
        };
        let (done, left) = self.operations().split_at(position);
        let is_evaluation = |operation: &&Operation| matches!(operation, Operation::Evaluate { .. });
        let evaluations = done.iter().filter(is_evaluation).count();
        let has_kept = done.contains(&Operation::Keep);
        let pending = left.iter().take_while(|operation| !is_evaluation(operation)).filter_map(noise_index);
        let [x_starts, eps] = self.depths();
        Ok(Run {
            plan: self.clone(),
            position,
            x_t: x_t.clone(),
            kept: has_kept.then(|| image("kept")).transpose()?,
            x_starts: images("x_start", x_starts.min(evaluations))?,
            eps: images("eps", eps.min(evaluations))?,
            variance: (self.learned_variance() && evaluations > 0).then(|| image("variance")).transpose()?,
            pending: images("noise", pending.count())?,
            dtype: get("dtype")?.dtype(),
            asked: false,
        })
    }
}

impl Run {
    /// The state of the run as named tensors, for candle's `safetensors::save`. [`Plan::resume`] continues from it, in
    /// this process or in another.
    ///
    /// # Errors
    ///
    /// If candle fails.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let position = i64::try_from(self.position).unwrap_or(i64::MAX);
        let mut state = HashMap::from([
            ("position".to_owned(), Tensor::new(&[position, self.plan.id()], &Device::Cpu)?),
            ("dtype".to_owned(), Tensor::zeros(1, self.dtype, &Device::Cpu)?),
            ("x_t".to_owned(), self.x_t.clone()),
        ]);
        let mut add = |name: &str, tensor: Option<&Tensor>| {
            state.extend(tensor.map(|tensor| (name.to_owned(), tensor.clone())));
        };
        add("kept", self.kept.as_ref());
        add("variance", self.variance.as_ref());
        for (kind, tensors) in [("x_start", &self.x_starts), ("eps", &self.eps), ("noise", &self.pending)] {
            for (age, tensor) in tensors.iter().enumerate() {
                add(&format!("{kind}.{age}"), Some(tensor));
            }
        }
        Ok(state)
    }
}

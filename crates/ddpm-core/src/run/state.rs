//! The state of a run as named tensors.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::Run;
use crate::{Error, Plan, Result};

impl Plan {
    /// Continues a run from its [`Run::state`]. The results are the same bits as without the interruption.
    ///
    /// # Errors
    ///
    /// If the state is of another plan, or incomplete.
    pub fn resume(&self, state: &HashMap<String, Tensor>) -> Result<Run> {
        let get = |name: &str| {
            let found = state.get(name).cloned();
            found.ok_or_else(|| {
                Error::out_of_range(
                    "the state of a run",
                    format!("without {name}"),
                    "all tensors of Run::state",
                )
            })
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
        let all = |kind: &str| (0..).map_while(|age| state.get(&format!("{kind}.{age}")).cloned()).collect();
        Ok(Run {
            plan: self.clone(),
            position,
            x_t: get("x_t")?,
            kept: state.get("kept").cloned(),
            x_starts: all("x_start"),
            eps: all("eps"),
            variance: state.get("variance").cloned(),
            pending: all("noise"),
            dtype: get("dtype")?.dtype(),
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

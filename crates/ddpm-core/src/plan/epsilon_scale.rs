//! ε-scaling of a plan.

use std::sync::Arc;

use super::{Operation, Plan, Register};
use crate::{Error, Result};

impl Plan {
    /// Divides each predicted ε by λ = `scale` (ε-scaling, Ning et al. 2023, arXiv 2308.15321). x̂₀ before clipping
    /// follows from the smaller ε̂:
    ///
    /// ```text
    /// ε̂′ = ε̂/λ,   x̂₀′ = (xₜ − noise ε̂′)/signal = x̂₀/λ + (1 − 1/λ) xₜ/signal
    /// ```
    ///
    /// where xₜ = signal x₀ + noise ε. The images of a run differ from those of training by the errors of the earlier
    /// predictions, and a network finds too much noise in them. The paper uses values from 1.001 to 1.02. With 1 the plan
    /// stays as it is.
    ///
    /// # Errors
    ///
    /// If `scale` is not a positive number, or the plan evaluates the network where the signal is 0: there ε does not
    /// determine x₀.
    pub fn epsilon_scaled(mut self, scale: f64) -> Result<Self> {
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(Error::out_of_range("epsilon scale", scale, "a positive number; 1 is no scaling"));
        }
        if scale == 1.0 {
            return Ok(self);
        }
        for operation in Arc::make_mut(&mut self.operations) {
            let Operation::Evaluate { timestep, x_start, eps } = operation else { continue };
            let signal = timestep.signal();
            if signal == 0.0 {
                let name = format!("the signal at timestep {}", timestep.t());
                return Err(Error::out_of_range(name, signal, "above 0, to scale ε"));
            }
            x_start.iter_mut().chain(eps).for_each(|(factor, _)| *factor /= scale);
            let added = (1.0 - 1.0 / scale) / signal;
            match x_start.iter_mut().find(|(_, register)| *register == Register::X) {
                Some((factor, _)) => *factor += added,
                None => x_start.insert(0, (added, Register::X)),
            }
        }
        Ok(self)
    }
}

//! The best n timesteps for a trained network, by dynamic programming (Watson et al. 2021).

use std::f64::consts::LN_2;

#[cfg(feature = "candle")]
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Error, NoiseSchedule, Result, Timesteps,
    likelihood::{check_mse, optimal_variances, prior_bits},
    timesteps::check_count,
};
#[cfg(feature = "candle")]
use crate::{
    Timestep,
    error::BoxError,
    likelihood::{Bound, Levels, RunningMean, floored, host, predict_noised},
};

/// The cost of any list of timesteps for one network, in bits per dimension. The cost is the variational bound with
/// [`optimal_variances`], which is a sum over the steps t → s of the list (Watson et al. 2021, arXiv 2106.03802):
///
/// ```text
/// bound = prior(first) + Σ cost(t, s) + decoder(last)
///
/// prior(t)   = ½ [ᾱₜ (E x₀² − 1) − ln(1−ᾱₜ)] / ln 2
/// cost(t, s) = ½ log₂ (1 + mse(t) · (snr(s) − snr(t))),   snr = ᾱ/(1−ᾱ)
/// decoder(t) = E −log₂ p(x₀ given xₜ),  p of variance mse(t)
/// ```
///
/// `cost(t, s)` is the KL term at the optimal variance, ½ log₂(σ*²/β̃). The factor c²/β̃ of its squared error is the
/// difference of the two signal-to-noise ratios (Kingma et al. 2021, arXiv 2107.00630).
///
/// The costs belong to one network and one schedule. A [`TimestepCostEstimator`] computes them once; save them with
/// serde.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimestepCosts {
    mse: Vec<f64>,
    decoder_bits_per_dim: Vec<f64>,
    mean_square: f64,
}

impl TimestepCosts {
    /// Makes the costs from known values, each a mean over images and dimensions: `mse` is (x₀ − x̂₀)² at each
    /// t = 0 … T − 1, `decoder_bits_per_dim` is the cost in bits of a step from t to x₀ with the variance `mse[t]`, and
    /// `mean_square` is x₀².
    ///
    /// # Errors
    ///
    /// If the tables differ in length, a value of `mse` or `mean_square` is negative, or a value is not finite.
    pub fn new(mse: Vec<f64>, decoder_bits_per_dim: Vec<f64>, mean_square: f64) -> Result<Self> {
        let costs = Self { mse, decoder_bits_per_dim, mean_square };
        costs.check(costs.mse.len())?;
        Ok(costs)
    }

    /// Checks the tables. Deserialized costs may have any values, so this runs before each search too.
    fn check(&self, expected: usize) -> Result<()> {
        let (mse, decoder) = (&self.mse, &self.decoder_bits_per_dim);
        for (table, found) in [("mse", mse.len()), ("decoder_bits_per_dim", decoder.len())] {
            if found != expected {
                return Err(Error::TableLength { table, found, expected });
            }
        }
        mse.iter().enumerate().try_for_each(|(t, &mse)| check_mse(t, mse))?;
        if let Some((index, &found)) = decoder.iter().enumerate().find(|(_, bits)| !bits.is_finite()) {
            let name = format!("decoder_bits_per_dim[{index}]");
            return Err(Error::out_of_range(name, found, "a finite number"));
        }
        if !(self.mean_square >= 0.0 && self.mean_square.is_finite()) {
            return Err(Error::out_of_range("mean_square", self.mean_square, "0 or more"));
        }
        Ok(())
    }

    /// Finds the list of `n` timesteps with the smallest bound. Returns the list and its bound in bits per dimension.
    /// Among lists with equal bounds it returns the lexicographically smallest.
    ///
    /// The list is optimal for the likelihood, not for how samples look. If the last steps cost the network more bits
    /// than they save, the list skips them: its last step goes from a noisy image directly to the mean of x₀, which is
    /// blurred.
    ///
    /// Both ends are free. A list may start below T − 1, if the image has already vanished there, and end above 0. The
    /// search computes T²/2 logarithms and n T²/2 additions, and stores n T values of 8 bytes.
    ///
    /// # Errors
    ///
    /// If `n` is 0 or above T, or the costs are for another number of timesteps than T.
    pub fn best(&self, schedule: &NoiseSchedule, n: usize) -> Result<(Timesteps, f64)> {
        self.best_of(schedule, n, std::iter::once(n))?.pop().ok_or(Error::NoTimesteps)
    }

    /// Finds the best lists, as in [`TimestepCosts::best`], for the lengths 1 to 20, 32, 64, 128 and 256 that are at
    /// most T. One search for the longest list serves all lengths, so it stores at most 256 T values of 8 bytes.
    ///
    /// # Errors
    ///
    /// As [`TimestepCosts::best`].
    pub fn best_lists(&self, schedule: &NoiseSchedule) -> Result<Vec<(Timesteps, f64)>> {
        let total = schedule.num_train_timesteps();
        let lengths = || (1..=20).chain([32, 64, 128, 256]).filter(|&length| length <= total);
        self.best_of(schedule, lengths().max().unwrap_or(1), lengths())
    }

    /// Finds the best list for each of `lengths`. `n` is the largest of them.
    fn best_of(
        &self,
        schedule: &NoiseSchedule,
        n: usize,
        lengths: impl Iterator<Item = usize>,
    ) -> Result<Vec<(Timesteps, f64)>> {
        check_count(schedule, n)?;
        self.check(schedule.num_train_timesteps())?;
        let alphas_cumprod = schedule.alphas_cumprod();
        let snr: Vec<f64> =
            alphas_cumprod.iter().map(|&alpha_cumprod| alpha_cumprod / (1.0 - alpha_cumprod)).collect();
        let step = |t: usize, s: usize| 0.5 * (self.mse[t] * (snr[s] - snr[t])).ln_1p() / LN_2;
        let first = |t: usize| prior_bits(alphas_cumprod[t], self.mean_square);
        let paths = Paths::new(n, &self.decoder_bits_per_dim, step, first);
        let best = |length| {
            let (list, bits) = paths.best_list(length);
            Ok((Timesteps::explicit(schedule, list)?, bits))
        };
        lengths.map(best).collect()
    }

    /// The [`optimal_variances`] of a list. With these variances the bound of the list is the one that
    /// [`TimestepCosts::best`] returns. For a fractional timestep it uses the error at the nearest integer timestep.
    ///
    /// # Errors
    ///
    /// If the list has a timestep for which there is no cost.
    pub fn optimal_variances(&self, timesteps: &Timesteps) -> Result<Vec<f64>> {
        let last = self.mse.len().saturating_sub(1);
        let refuse = |t| Error::out_of_range("timestep", t, format!("0 to {last}"));
        let mse = |t: usize| self.mse.get(t).copied().ok_or_else(|| refuse(t));
        let mse = timesteps.indices().into_iter().map(mse).collect::<Result<Vec<_>>>()?;
        optimal_variances(timesteps, &mse)
    }
}

impl Timesteps {
    /// The best `num_inference_steps` timesteps of the schedule for the network that `costs` was computed from. Any
    /// sampler accepts the list, but it is optimal for [`Sampler::Ddpm`](crate::Sampler::Ddpm) with
    /// [`TimestepCosts::optimal_variances`].
    ///
    /// ```
    /// # use ddpm_core::{NoiseSchedule, NoiseScheduleConfig, TimestepCosts, Timesteps};
    /// let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20())?;
    /// // A network whose error is a tenth of the noise variance, so it is most accurate at the cleanest timestep.
    /// let mse: Vec<f64> = schedule.alphas_cumprod().iter().map(|alpha| 0.1 * (1.0 - alpha)).collect();
    /// let decoder = mse.iter().map(|mse| 9.0 + 0.5 * mse.log2()).collect();
    /// let costs = TimestepCosts::new(mse, decoder, 0.9)?;
    /// assert_eq!(Timesteps::searched(&schedule, &costs, 3)?.len(), 3);
    /// # Ok::<(), ddpm_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`TimestepCosts::best`].
    pub fn searched(
        schedule: &NoiseSchedule,
        costs: &TimestepCosts,
        num_inference_steps: usize,
    ) -> Result<Self> {
        Ok(costs.best(schedule, num_inference_steps)?.0)
    }
}

/// Dynamic programming over descending lists of numbers below T. It minimizes the cost
/// first(t₀) + Σ step(tᵢ, tᵢ₊₁) + last(tₙ₋₁).
struct Paths<S, F> {
    /// The length of the longest list.
    n: usize,
    /// `cheapest[t·n + k]` is the cost of the cheapest path from t through k more entries below it.
    cheapest: Vec<f64>,
    step: S,
    first: F,
}

impl<S: Fn(usize, usize) -> f64, F: Fn(usize) -> f64> Paths<S, F> {
    fn new(n: usize, last: &[f64], step: S, first: F) -> Self {
        // Filling row by row computes the cost of each step only once.
        let mut cheapest = vec![f64::INFINITY; last.len() * n];
        for (t, &last) in last.iter().enumerate() {
            let (below, row) = cheapest.split_at_mut(t * n);
            row[0] = last;
            for (s, from) in below.chunks(n).enumerate() {
                let cost = step(t, s);
                for (path, rest) in std::iter::zip(&mut row[1..n], from) {
                    *path = path.min(cost + rest);
                }
            }
        }
        Self { n, cheapest, step, first }
    }

    /// The cheapest list of `length` entries and its cost; `length` is at most n.
    fn best_list(&self, length: usize) -> (Vec<usize>, f64) {
        let path = |t: usize, k: usize| self.cheapest[t * self.n + k];
        // `min_by` returns the first of several equal minima.
        let cheapest = |candidates: usize, cost: &dyn Fn(usize) -> f64| {
            let costs = (0..candidates).map(|t| (t, cost(t)));
            costs.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, f64::INFINITY))
        };
        let all = self.cheapest.chunks(self.n).len();
        let (mut t, total) = cheapest(all, &|t| (self.first)(t) + path(t, length - 1));
        let mut list = vec![t];
        for k in (0..length - 1).rev() {
            t = cheapest(t, &|s| (self.step)(t, s) + path(s, k)).0;
            list.push(t);
        }
        (list, total)
    }
}

/// Computes the [`TimestepCosts`] of a network in a second pass over images. The first pass estimates a [`Bound`] over
/// all timesteps. Its squared errors are the variances of the decoder term in the second pass.
#[cfg(feature = "candle")]
#[derive(Clone, Debug)]
pub struct TimestepCostEstimator {
    schedule: NoiseSchedule,
    mse: Vec<f64>,
    decoder: Vec<RunningMean>,
    mean_square: RunningMean,
}

#[cfg(feature = "candle")]
impl TimestepCostEstimator {
    /// Starts from a bound over [`Timesteps::all`] with any variances.
    ///
    /// # Errors
    ///
    /// If the bound has other timesteps.
    pub fn new(schedule: &NoiseSchedule, bound: &Bound) -> Result<Self> {
        let all = Timesteps::all(schedule);
        let levels = all.as_slice().iter().map(|timestep| (timestep.t(), timestep.alpha_cumprod()));
        if !levels.eq(bound.steps.iter().map(|step| (step.t, step.alpha_cumprod))) {
            let (found, expected) = (bound.steps.len(), format!("all {} of the schedule", all.len()));
            return Err(Error::out_of_range("the number of timesteps of the bound", found, expected));
        }
        let mse: Vec<f64> = bound.steps.iter().rev().map(|step| step.mse).collect();
        let decoder = vec![RunningMean::default(); mse.len()];
        Ok(Self { schedule: schedule.clone(), mse, decoder, mean_square: RunningMean::default() })
    }

    /// Adds a batch of images. The arguments are the same as in
    /// [`BoundEstimator::add`](crate::likelihood::BoundEstimator::add).
    ///
    /// # Errors
    ///
    /// If a pixel value is not one of the 256 levels, the network or the noise source fails, or the shapes do not fit.
    pub fn add<E: Into<BoxError>, F: Into<BoxError>>(
        &mut self,
        x_start: &Tensor,
        mut network: impl FnMut(&Tensor, Timestep) -> std::result::Result<Tensor, E>,
        mut noise: impl FnMut(&Tensor, usize) -> std::result::Result<Tensor, F>,
    ) -> Result<()> {
        let levels = Levels::of(x_start)?;
        let mut decoder = Vec::with_capacity(self.mse.len());
        for (step, &mse) in
            std::iter::zip(Timesteps::all(&self.schedule).transitions(), self.mse.iter().rev())
        {
            let prediction = predict_noised(&self.schedule, x_start, step, &mut network, &mut noise)?;
            decoder.push(levels.bits(&host(&prediction.x_start)?, |_| floored(mse)));
        }
        self.mean_square.extend(&levels.mean_squares());
        std::iter::zip(self.decoder.iter_mut().rev(), decoder).for_each(|(sum, bits)| sum.extend(&bits));
        Ok(())
    }

    /// The costs over all images that were added.
    ///
    /// # Errors
    ///
    /// If no images were added, or the network emitted values that are not finite.
    pub fn finish(&self) -> Result<TimestepCosts> {
        if self.mean_square.count() == 0 {
            return Err(Error::NoImages);
        }
        let decoder = self.decoder.iter().map(RunningMean::mean).collect();
        TimestepCosts::new(self.mse.clone(), decoder, self.mean_square.mean())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CounterRng, Purpose};

    /// The costs are small integers, so many lists have equal costs and sums are exact.
    #[test]
    fn dynamic_programming_finds_the_first_of_the_cheapest_lists() {
        const T: usize = 8;
        let rng = CounterRng::new(3);
        let mut ties = 0;
        for table in 0..50 {
            let random = |t: usize, s: usize| {
                f64::from(rng.below(Purpose::EVALUATION, table, (T * t + s).try_into().unwrap(), 6)) - 2.0
            };
            let last: Vec<f64> = (0..T).map(|t| random(t, 100)).collect();
            let first = |t: usize| random(t, 200);
            let cost = |list: &[usize]| {
                let steps: f64 = list.windows(2).map(|pair| random(pair[0], pair[1])).sum();
                first(list[0]) + steps + last[list[list.len() - 1]]
            };
            let paths = Paths::new(T, &last, random, first);
            for n in 1..=T {
                let subsets = (0_usize..1 << T).filter(|set| set.count_ones() as usize == n);
                let lists = subsets.map(|set| (0..T).rev().filter(|t| set >> t & 1 == 1).collect::<Vec<_>>());
                let mut lists: Vec<_> = lists.map(|list| (cost(&list), list)).collect();
                lists.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
                ties += usize::from(lists.len() > 1 && lists[0].0 == lists[1].0);
                // One table is made for this length, the other for the longest.
                for (list, total) in [Paths::new(n, &last, random, first).best_list(n), paths.best_list(n)] {
                    assert_eq!((total, list), lists[0], "table {table}, {n} of {T}");
                }
            }
        }
        assert!(ties > 50, "{ties}");
    }
}

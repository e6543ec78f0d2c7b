//! Noise along one path: the same picture at any number of steps.

use candle_core::Tensor;

use crate::{
    CounterRng, Error, ImageNoise, Operation, Plan, Purpose, Register, Result, weighted_sum::weighted_sum,
};

/// The smallest and the largest ln SNR of a path; noise levels beyond them count as the nearest one.
const RANGE: [f64; 2] = [-24.0, 24.0];

/// The number of times that the range is halved: noise levels are told apart to 2⁻²² of it.
const DEPTH: u32 = 22;

/// The increments of a Brownian motion for each image of a batch, as the noise of a run ([`ImageNoise::along_path`]).
///
/// The images of one seed get the same motion in any plan. A stochastic sampler adds noise in each step, and a sum of many
/// small noises should be what one large noise is in a run of fewer steps. It is, if time is the signal-to-noise ratio:
/// multiplied by √ᾱ/(1−ᾱ), the noise in xₜ is a martingale of variance SNR(t) in the reverse process of DDPM, of which its
/// solvers take samples. So the noise of a step from t to s is
///
/// ```text
/// z = (W(SNR(s)) − W(SNR(t))) / √(SNR(s) − SNR(t))
/// ```
///
/// W is a virtual Brownian tree (Li et al. 2020, arXiv 2001.01328, section 4): the value at the middle of an interval of
/// ln SNR follows from those at its ends by Lévy's bridge and a random number that is addressed by the node, so nothing is
/// stored and no order of calls counts. Distinct steps get independent standard normal noise.
#[derive(Clone, Debug)]
pub struct BrownianPath {
    rng: CounterRng,
    images: Vec<u64>,
    /// For each noise index, the cells of the noise levels before and after its step.
    steps: Vec<Option<[u32; 2]>>,
}

impl ImageNoise {
    /// The noise of a plan along the images' path.
    ///
    /// # Errors
    ///
    /// If a step of the plan adds noise twice, or leads to more noise instead of less, as those with jumps or churn do; or
    /// the noise levels of a step differ by less than 10⁻⁵ in ln SNR.
    pub fn along_path(&self, plan: &Plan) -> Result<BrownianPath> {
        let mut steps = Vec::new();
        let (mut before, mut drawn): (Option<u32>, Vec<usize>) = (None, Vec::new());
        for operation in plan.operations() {
            match operation {
                Operation::Evaluate { timestep, .. } => {
                    before.get_or_insert_with(|| cell(2.0 * timestep.half_log_snr()));
                }
                Operation::Update(terms) => {
                    drawn.extend(terms.iter().filter_map(|(_, register)| match register {
                        Register::Noise(index) | Register::LearnedNoise { index, .. } => Some(*index),
                        _ => None,
                    }))
                }
                Operation::EndStep { index: step, signal, noise, .. } => {
                    let after = cell(2.0 * (signal / noise).ln());
                    let from = before.replace(after).filter(|from| *from < after);
                    match (std::mem::take(&mut drawn).as_slice(), from) {
                        ([], _) => {}
                        (&[index], Some(from)) => {
                            steps.resize(steps.len().max(index + 1), None);
                            steps[index] = Some([from, after]);
                        }
                        _ => {
                            let expected =
                                "one that adds noise once and leads to less noise, for a Brownian path";
                            return Err(Error::out_of_range("a step of the plan", step, expected));
                        }
                    }
                }
                Operation::Keep => {}
            }
        }
        Ok(BrownianPath { rng: self.rng(), images: self.indices().to_vec(), steps })
    }
}

impl BrownianPath {
    /// The noise that a run adds, as the closure that it takes.
    pub fn noise(&self) -> impl Fn(&Tensor, usize) -> Result<Tensor> + Send + Sync + use<> {
        let path = self.clone();
        move |x_t, noise_index| path.increment(x_t, noise_index)
    }

    /// The noise with this index, in the shape of `x_t`.
    fn increment(&self, x_t: &Tensor, noise_index: usize) -> Result<Tensor> {
        let ends = self.steps.get(noise_index).copied().flatten().ok_or_else(|| {
            Error::out_of_range("the noise index", noise_index, "one of the plan of this path")
        })?;
        let top = Node { first: 0, last: 1 << DEPTH, index: 1 };
        let zero = x_t.zeros_like()?;
        let last = (self.normal(1, x_t)? * (snr(top.last) - snr(top.first)).sqrt())?;
        let [before, after] = self.values(top, [&zero, &last], ends, x_t)?;
        let factor = (snr(ends[1]) - snr(ends[0])).sqrt().recip();
        weighted_sum(&[(factor, &after), (-factor, &before)])
    }

    /// W at two cells of a node, of which the first is before the second.
    fn values(&self, node: Node, [a, b]: [&Tensor; 2], ends: [u32; 2], x_t: &Tensor) -> Result<[Tensor; 2]> {
        let value = |cell: u32| match cell {
            cell if cell == node.first => Some(a.clone()),
            cell if cell == node.last => Some(b.clone()),
            _ => None,
        };
        if let [Some(before), Some(after)] = ends.map(value) {
            return Ok([before, after]);
        }
        let (middle, [left, right]) = node.halves();
        let [start, at, end] = [node.first, middle, node.last].map(snr);
        let share = (at - start) / (end - start);
        let deviation = ((at - start) * (end - at) / (end - start)).sqrt();
        let normal = self.normal(2 * node.index, x_t)?;
        let m = weighted_sum(&[(1.0 - share, a), (share, b), (deviation, &normal)])?;
        let in_left = |cells: [u32; 2]| self.values(left, [a, &m], cells, x_t);
        let in_right = |cells: [u32; 2]| self.values(right, [&m, b], cells, x_t);
        match ends {
            [_, after] if after <= middle => in_left(ends),
            [before, _] if before >= middle => in_right(ends),
            [before, after] => {
                let ([before, _], [_, after]) = (in_left([before, middle])?, in_right([middle, after])?);
                Ok([before, after])
            }
        }
    }

    /// The random numbers of a node.
    fn normal(&self, node: usize, x_t: &Tensor) -> Result<Tensor> {
        self.rng.normal_like(Purpose::BROWNIAN, &self.images, node, x_t)
    }
}

/// An interval of cells, with its number in the tree: 1 at the top, 2n and 2n + 1 below n.
#[derive(Clone, Copy)]
struct Node {
    first: u32,
    last: u32,
    index: usize,
}

impl Node {
    fn halves(self) -> (u32, [Self; 2]) {
        let middle = self.first.midpoint(self.last);
        let left = Self { last: middle, index: 2 * self.index, ..self };
        (middle, [left, Self { first: middle, index: 2 * self.index + 1, ..self }])
    }
}

/// The cell of a ln SNR, 0 to 2²².
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range")]
fn cell(log_snr: f64) -> u32 {
    let [low, high] = RANGE;
    let share = (log_snr.clamp(low, high) - low) / (high - low);
    (share * f64::from(1_u32 << DEPTH)).round() as u32
}

/// The SNR of a cell.
fn snr(cell: u32) -> f64 {
    let [low, high] = RANGE;
    (low + (high - low) * f64::from(cell) / f64::from(1_u32 << DEPTH)).exp()
}

//! Power functions as averages of weights, and the least squares that make one of them from others.

use super::SIGMA_RELS;

/// The largest relative length, 1/√12: that of γ = 0, the plain mean over the whole training.
pub(super) const MAX_SIGMA_REL: f64 = 0.288_675_134_594_812_9;

/// The exponent γ ≥ 0 of the power function whose relative length is `sigma_rel`, above 0 and at most 1/√12. The length is
/// the standard deviation of the power function, divided by the time of its end (Karras et al. 2023, arXiv 2312.02696,
/// section 3.1):
///
/// ```text
/// σ_rel² = (γ+1) / ((γ+2)² (γ+3))
/// γ³ + 7γ² + (16 − s)γ + (12 − s) = 0   with s = σ_rel⁻²
/// ```
pub(super) fn gamma(sigma_rel: f64) -> f64 {
    let s = sigma_rel.powi(-2);
    // The cubic is convex for γ ≥ 0 and positive at √s, so Newton's method descends to its only positive root.
    let mut gamma = s.sqrt();
    for _ in 0..100 {
        let value = ((gamma + 7.0) * gamma + 16.0 - s) * gamma + 12.0 - s;
        let slope = (3.0 * gamma + 14.0) * gamma + 16.0 - s;
        gamma = (gamma - value / slope).max(0.0);
    }
    gamma
}

/// The density over the time τ of the weights that an average up to the time `t` takes them from:
///
/// ```text
/// p(τ) = (γ+1)/t · (τ/t)^γ   for 0 ≤ τ ≤ t, and 0 later
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Profile {
    pub(super) t: f64,
    pub(super) gamma: f64,
}

impl Profile {
    pub(super) fn new(t: f64, sigma_rel: f64) -> Self {
        Self { t, gamma: gamma(sigma_rel) }
    }

    /// The inner product ∫ p(τ) q(τ) dτ in closed form; with p the one that ends first,
    ///
    /// ```text
    /// (γ_p+1)(γ_q+1) / ((γ_p+γ_q+1) t_q) · (t_p/t_q)^γ_q
    /// ```
    pub(super) fn inner(self, other: Self) -> f64 {
        let (p, q) = if self.t <= other.t { (self, other) } else { (other, self) };
        (p.gamma + 1.0) * (q.gamma + 1.0) * (p.t / q.t).powf(q.gamma) / ((p.gamma + q.gamma + 1.0) * q.t)
    }
}

/// A power function as a sum of others.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    /// The factor of each of the others; together 1.
    pub(super) factors: Vec<f64>,
    /// The norm of the difference between the power function and the sum, divided by the norm of the power function.
    pub(super) error: f64,
}

/// The profiles of stored averages, from which others are made.
pub(super) struct Basis {
    profiles: Vec<Profile>,
    /// The norm of each profile.
    norms: Vec<f64>,
    /// L of the decomposition L Lᵀ of the inner products between the profiles, each divided by its norm.
    factor: Vec<Vec<f64>>,
    /// The solution for the right-hand side of ones, which adds to the sum of the factors.
    ones: Vec<f64>,
}

impl Basis {
    /// A basis of distinct profiles, at least one.
    pub(super) fn new(profiles: Vec<Profile>) -> Self {
        let norms: Vec<f64> = profiles.iter().map(|&p| p.inner(p).sqrt()).collect();
        let mut factor: Vec<Vec<f64>> = Vec::new();
        for (i, &p) in profiles.iter().enumerate() {
            let mut row = Vec::new();
            for (j, &q) in profiles[..=i].iter().enumerate() {
                let of_j = factor.get(j).unwrap_or(&row);
                let rest = p.inner(q) / (norms[i] * norms[j]) - dot(&row[..j], &of_j[..j]);
                // Positive for distinct profiles; the limit is far below that of any run.
                let value = if i == j { rest.max(1e-15).sqrt() } else { rest / of_j[j] };
                row.push(value);
            }
            factor.push(row);
        }
        let mut basis = Self { profiles, norms, factor, ones: Vec::new() };
        basis.ones = basis.solve(basis.norms.iter().map(|norm| 1.0 / norm).collect());
        basis
    }

    /// The sum nearest to a power function: the factors x that minimise
    ///
    /// ```text
    /// ∫ (p(τ) − Σ xᵢ pᵢ(τ))² dτ   with Σ xᵢ = 1
    /// ```
    ///
    /// These are the least squares of Karras et al. 2023 (appendix C) with one condition more: weights that did not change
    /// in training come out unchanged.
    pub(super) fn sum(&self, target: Profile) -> Sum {
        let right: Vec<f64> = self
            .profiles
            .iter()
            .zip(&self.norms)
            .map(|(&profile, norm)| profile.inner(target) / norm)
            .collect();
        let free = self.solve(right.clone());
        let total = |x: &[f64]| x.iter().zip(&self.norms).map(|(x, norm)| x / norm).sum::<f64>();
        // Lagrange's multiplier of the condition.
        let multiplier = (1.0 - total(&free)) / total(&self.ones);
        let x: Vec<f64> = free.iter().zip(&self.ones).map(|(x, one)| x + multiplier * one).collect();
        let square = target.inner(target);
        // ‖p − Σ xᵢpᵢ‖² = ‖p‖² − 2 xᵀb + xᵀAx, where Ax = b + multiplier · ones and Σ xᵢ = 1.
        let rest = square - dot(&x, &right) + multiplier;
        let factors = x.iter().zip(&self.norms).map(|(x, norm)| x / norm).collect();
        Sum { factors, error: (rest.max(0.0) / square).sqrt() }
    }

    /// Solves L Lᵀ x = b.
    fn solve(&self, mut b: Vec<f64>) -> Vec<f64> {
        for (i, row) in self.factor.iter().enumerate() {
            b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
        }
        for (i, row) in self.factor.iter().enumerate().rev() {
            b[i] /= row[i];
            for j in 0..i {
                b[j] -= row[j] * b[i];
            }
        }
        b
    }

    /// The shortest and the longest relative length at the time `t` whose sum has at most this error. All lengths between
    /// them have such a sum, too, if the basis has averages up to `t` of all [`SIGMA_RELS`].
    pub(super) fn lengths(&self, t: f64, error: f64) -> [f64; 2] {
        let [first, .., last] = SIGMA_RELS;
        [(first, first / 1000.0), (last, MAX_SIGMA_REL)].map(|(mut good, mut bad)| {
            for _ in 0..40 {
                let middle = (good * bad).sqrt();
                let is_good = self.sum(Profile::new(t, middle)).error <= error;
                *(if is_good { &mut good } else { &mut bad }) = middle;
            }
            good
        })
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;

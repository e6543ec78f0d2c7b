//! Against integrals by the midpoint rule, which share no formula with the code.

use super::*;

/// ∫ f(τ) dτ from 0 to `end`.
fn integral(end: f64, f: impl Fn(f64) -> f64) -> f64 {
    const PARTS: u32 = 20_000;
    let width = end / f64::from(PARTS);
    (0..PARTS).map(|part| f((f64::from(part) + 0.5) * width) * width).sum()
}

impl Profile {
    fn at(self, tau: f64) -> f64 {
        if tau > self.t { 0.0 } else { (self.gamma + 1.0) / self.t * (tau / self.t).powf(self.gamma) }
    }
}

/// ∫ p(τ) q(τ) dτ. Power functions end with a jump, so the integral ends there.
fn product(p: Profile, q: Profile) -> f64 {
    integral(p.t.min(q.t), |tau| p.at(tau) * q.at(tau))
}

/// Snapshots of both averages at `n` equal distances up to 1000.
fn basis(n: u32) -> Basis {
    let t = |i| 1000.0 * f64::from(i) / f64::from(n);
    Basis::new((1..=n).flat_map(|i| SIGMA_RELS.map(|sigma_rel| Profile::new(t(i), sigma_rel))).collect())
}

#[test]
fn the_exponent_gives_the_relative_length() {
    for sigma_rel in [0.001, 0.01, 0.05, 0.1, 0.2, 0.28, MAX_SIGMA_REL] {
        let profile = Profile::new(40.0, sigma_rel);
        let moment = |about: f64, k: i32| integral(40.0, |tau| (tau - about).powi(k) * profile.at(tau));
        let total = moment(0.0, 0);
        let deviation = (moment(moment(0.0, 1) / total, 2) / total).sqrt() / 40.0;
        assert!((total - 1.0).abs() < 2e-4, "{sigma_rel}: {total}");
        assert!((deviation / sigma_rel - 1.0).abs() < 2e-4, "{sigma_rel}: {deviation}");
    }
    // The values of the paper, section 3.1.
    assert!((gamma(0.05) - 16.97).abs() < 0.005 && (gamma(0.10) - 6.94).abs() < 0.005);
    assert!(gamma(MAX_SIGMA_REL).abs() < 1e-9);
}

#[test]
fn inner_products_are_those_of_integrals() {
    let profiles = [(10.0, 0.05), (10.0, 0.1), (7.0, 0.05), (3.0, 0.2), (10.0, 0.03)];
    for p in profiles.map(|(t, sigma_rel)| Profile::new(t, sigma_rel)) {
        for q in profiles.map(|(t, sigma_rel)| Profile::new(t, sigma_rel)) {
            let (found, expected) = (p.inner(q), product(p, q));
            assert!((found - expected).abs() < 1e-6 * expected.max(1e-3), "{p:?} {q:?}: {found} {expected}");
        }
    }
}

/// At the minimum under the condition Σ x = 1, the derivatives by all factors are equal. The derivative by xᵢ is
/// −2 ∫ pᵢ (p − Σ xⱼ pⱼ).
#[test]
fn the_factors_are_the_least_squares() {
    let basis = basis(8);
    for sigma_rel in [0.03, 0.08, 0.15, 0.25] {
        let target = Profile::new(1000.0, sigma_rel);
        let Sum { factors, error } = basis.sum(target);
        assert!((factors.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let against = |p: Profile| {
            let of_sum = basis.profiles.iter().zip(&factors).map(|(&q, x)| x * product(p, q)).sum::<f64>();
            product(p, target) - of_sum
        };
        let derivatives: Vec<f64> = basis.profiles.iter().map(|&p| against(p)).collect();
        let scale = target.inner(target);
        for derivative in &derivatives {
            assert!((derivative - derivatives[0]).abs() < 1e-6 * scale, "{sigma_rel}: {derivatives:?}");
        }
        // Over each part between two jumps.
        let square = |i: u32| {
            let (start, end) = (125.0 * f64::from(i), 125.0 * f64::from(i + 1));
            integral(end - start, |tau| {
                let sum = basis.profiles.iter().zip(&factors).map(|(p, x)| x * p.at(start + tau));
                (target.at(start + tau) - sum.sum::<f64>()).powi(2)
            })
        };
        let expected = ((0..8).map(square).sum::<f64>() / scale).sqrt();
        assert!((error - expected).abs() < 1e-5, "{sigma_rel}: {error} {expected}");
    }
}

/// A stored average is itself, at any time.
#[test]
fn the_sum_for_a_stored_average_is_that_average() {
    let basis = basis(32);
    for (index, &target) in basis.profiles.iter().enumerate() {
        let Sum { factors, error } = basis.sum(target);
        assert!(error < 1e-6, "{target:?}: {error}");
        for (i, factor) in factors.iter().enumerate() {
            let expected = if i == index { 1.0 } else { 0.0 };
            assert!((factor - expected).abs() < 1e-6, "{target:?}: {factors:?}");
        }
    }
}

#[test]
fn more_snapshots_represent_more_lengths() {
    let error = super::super::average::MAX_ERROR;
    let mut before = SIGMA_RELS;
    for n in [1, 4, 16, 32, 128, 256] {
        let basis = basis(n);
        let [shortest, longest] = basis.lengths(1000.0, error);
        assert!(shortest < before[0] && longest > before[1], "{n}: {shortest} {longest}");
        for (sigma_rel, good) in [
            (shortest * 1.001, true),
            (0.07, true),
            (longest * 0.999, true),
            (shortest * 0.99, false),
            ((longest * 1.01).min(MAX_SIGMA_REL), false),
        ] {
            let found = basis.sum(Profile::new(1000.0, sigma_rel)).error;
            assert_eq!(found <= error, good, "{n}: {sigma_rel} {found}");
        }
        before = [shortest, longest];
    }
}

use candle_core::Device;

use super::{components::Bell, *};
use crate::{AddressedRng, PosteriorStep, PredictionType, Purpose, likelihood::BoundEstimator};

/// Frequencies that are far apart, as those of drawings are.
fn frequencies() -> Vec<f64> {
    let counts: Vec<f64> = (0..256).map(|g| if g == 0 { 1e5 } else { f64::from(1 + g * 37 % 101) }).collect();
    let total: f64 = counts.iter().sum();
    counts.into_iter().map(|count| count / total).collect()
}

fn schedule() -> NoiseSchedule {
    let config = ScheduleConfig { prediction_type: PredictionType::Sample, ..ScheduleConfig::mnist20() };
    NoiseSchedule::new(&config).unwrap()
}

fn step(t: usize) -> Step {
    Step::new(Timesteps::all(&schedule()).transitions().nth(19 - t).unwrap())
}

#[test]
fn the_sum_over_levels_is_that_of_exponentials() {
    let frequencies = frequencies();
    for centre in [-1.4, -1.0, -0.9981, 0.0, 0.123, 0.999, 3.0] {
        for precision in [1e-9, 0.5, 30.0, 1e3, 1e5, 1e7] {
            let terms: Vec<f64> = std::iter::zip(&frequencies, 0..=255_u8)
                .map(|(f, g)| f.ln() - 0.5 * precision * (f64::from(g) * 2.0 / 255.0 - 1.0 - centre).powi(2))
                .collect();
            let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let expected = most + terms.iter().map(|term| (term - most).exp()).sum::<f64>().ln();
            let found = Bell::new(centre, precision).log_sum(&frequencies);
            assert!(
                (found - expected).abs() < 1e-9 * expected.abs().max(1.0),
                "{centre} {precision}: {found} {expected}"
            );
        }
    }
}

/// Doubt 1 is what the network says, and the largest leaves what the pixel's own noised value says.
#[test]
fn a_doubt_is_bayes_rule_with_less_of_the_network() {
    let (step, x_t, mean, variance) = (step(1), 0.3, 0.2, 0.01);
    let beliefs = step.beliefs(x_t, mean, variance);
    assert!((beliefs[2].0 - mean).abs() < 1e-12 && (beliefs[2].1 - 100.0).abs() < 1e-9);
    let alpha_bar = schedule().alphas_cumprod()[1];
    let (own, own_variance) = (x_t / alpha_bar.sqrt(), (1.0 - alpha_bar) / alpha_bar);
    let last = beliefs[DOUBTS.len() - 1];
    assert!((last.0 - own).abs() < 1e-3 && (last.1 * own_variance - 1.0).abs() < 1e-3);
    // A network that is less sure than xₜ alone is believed in its mean.
    assert!((step.beliefs(x_t, mean, 9.0)[2].0 - mean).abs() < 1e-12);
}

/// Each component is a distribution: nothing is won by one that adds up to more than 1.
#[test]
fn every_component_adds_up_to_one() {
    let frequencies = frequencies();
    for (mean, variance) in [(-0.99, 1e-5), (0.1, 2e-3), (0.9, 0.03)] {
        let beliefs = step(0).beliefs(mean + 0.02, mean, variance);
        let mut totals = [0.0; COMPONENTS];
        for level in 0..=255 {
            let said = LevelBeliefs::new(beliefs, level).log_probabilities(&frequencies);
            totals.iter_mut().zip(said).for_each(|(total, said)| *total += said.exp());
        }
        assert!(totals.iter().all(|total| (total - 1.0).abs() < 1e-9), "{totals:?}");
        for t in [1, 2, 10, 19] {
            // ∫ p dx_prev = ∫ (p/q) q dx_prev, as a sum over z of small steps; q's density is that of z.
            let (step, x_start, width) = (step(t), 0.1, 0.002);
            let beliefs = step.beliefs(mean + 0.02, mean, variance);
            let mut totals = [0.0; COMPONENTS];
            let reach = 2.5 * step.posterior.x_start_coef / step.posterior.variance.sqrt() + 12.0;
            let mut z = -reach;
            while z < reach {
                z += width;
                let density = -0.5 * (z * z + (2.0 * std::f64::consts::PI).ln());
                let said = step.log_ratios(beliefs, x_start, z, &frequencies);
                totals
                    .iter_mut()
                    .zip(said)
                    .for_each(|(total, said)| *total += (said + density).exp() * width);
            }
            let (normal, levels) = totals.split_at(DOUBTS.len());
            assert!(normal.iter().all(|total| (total - 1.0).abs() < 1e-6), "t = {t}: {totals:?}");
            // In steps that cannot tell levels apart these components are not there.
            let expected = if t > 5 { 0.0 } else { 1.0 };
            assert!(levels.iter().all(|total| (total - expected).abs() < 1e-6), "t = {t}: {totals:?}");
        }
    }
}

/// Against the sum over levels of the posteriors q(x_prev given xₜ, level), written out.
#[test]
fn a_step_of_levels_is_the_mixture_of_posteriors() {
    let (frequencies, step, noise, x_start) = (frequencies(), step(3), -0.7, 0.4);
    let PosteriorStep { x_start_coef: c, variance, .. } = step.posterior;
    let beliefs = step.beliefs(0.5, 0.45, 0.004);
    let said = step.log_ratios(beliefs, x_start, noise, &frequencies);
    for (j, (mean, precision)) in beliefs.into_iter().enumerate() {
        let (mut sum, mut total) = (0.0, 0.0);
        for (g, f) in frequencies.iter().enumerate() {
            let level = g as f64 * 2.0 / 255.0 - 1.0;
            let belief = f * (-0.5 * precision * (level - mean).powi(2)).exp();
            let apart = c * (level - x_start) / variance.sqrt() - noise;
            sum += belief * (-0.5 * apart * apart).exp();
            total += belief;
        }
        let expected = (sum / total).ln() + 0.5 * noise * noise;
        assert!(
            (said[j + DOUBTS.len()] - expected).abs() < 1e-9,
            "{j}: {} {expected}",
            said[j + DOUBTS.len()]
        );
    }
}

fn palettes(x_start: &Tensor) -> Palettes {
    let levels = Levels::of(x_start).unwrap();
    Palettes::fit(levels.all(), levels.dimensions(), 1).unwrap()
}

/// Pixels that are independent and of known frequencies, and a network that knows these and nothing else: whatever
/// the steps from t = 2 on, they cost what is not known about x₀ where x₂ is, H(x₀ given x₂), here by an integral.
#[test]
fn the_steps_of_independent_pixels_cost_their_entropy() {
    let (schedule, levels, shares) = (schedule(), [0_u8, 254, 230], [0.7, 0.2, 0.1]);
    let rng = AddressedRng::new(3);
    let value = |level: u8| f64::from(level) * 2.0 / 255.0 - 1.0;
    let images = |first: u64| {
        let pixel = |at: u64| {
            let at = rng.uniform(Purpose::EVALUATION, first + at, 7);
            value(levels[usize::from(at > shares[0]) + usize::from(at > shares[0] + shares[1])])
        };
        Tensor::from_vec((0..40_000).map(pixel).collect(), (10, 4000), &Device::Cpu).unwrap()
    };
    let alpha_bar = schedule.alphas_cumprod()[2];
    let (mut entropy, width) = (0.0, 0.001);
    for (level, share) in std::iter::zip(levels, shares) {
        for i in -8000..=8000 {
            let z = f64::from(i) * width;
            let density = |other: u8| {
                let apart = alpha_bar.sqrt() * (value(level) - value(other)) / (1.0 - alpha_bar).sqrt() + z;
                (-0.5 * apart * apart).exp()
            };
            let all: f64 = std::iter::zip(levels, shares).map(|(other, share)| share * density(other)).sum();
            let weight = density(level) * width / (2.0 * std::f64::consts::PI).sqrt();
            entropy -= share * weight * (share * density(level) / all).log2();
        }
    }
    let indices: Vec<u64> = (0..10).collect();
    // It always says grey; that is wrong by as much on average as its variance says.
    let model = |x_t: &Tensor, _: Timestep| x_t.zeros_like();
    let noise = |x: &Tensor, draw: usize| rng.normal_like(Purpose::EVALUATION, &indices, draw, x);
    let training = images(1 << 20);
    for list in [vec![2, 1, 0], vec![2, 0], vec![2]] {
        let (timesteps, mode) = (Timesteps::explicit(&schedule, list).unwrap(), NoiseMode::Posterior);
        let fitted =
            Mixtures::fit(&schedule, &timesteps, &mode, palettes(&training), &training, model, noise)
                .unwrap();
        let mut bound = BoundEstimator::with_mixtures(&schedule, &timesteps, &fitted).unwrap();
        bound.add(&images(0), model, noise).unwrap();
        let found = bound.finish().unwrap();
        let (bits, error) = (
            found.total_bits_per_dim.mean - found.prior_bits_per_dim.mean,
            found.total_bits_per_dim.standard_error,
        );
        assert!((bits - entropy).abs() < 4.0 * error + 0.002, "{bits} ± {error}, entropy {entropy}");
        assert!(entropy > 0.05 && error < 0.01, "{entropy} {error}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (schedule, images) = (schedule(), Tensor::new(&[[-1.0_f64, 1.0]], &Device::Cpu).unwrap());
    let timesteps = Timesteps::explicit(&schedule, vec![5, 0]).unwrap();
    let model = |x_t: &Tensor, _: Timestep| Ok(x_t.clone());
    let noise = |x: &Tensor, _: usize| Ok(x.zeros_like()?);
    let known = palettes(&images);
    let fit = |images: &Tensor, mode: &NoiseMode| {
        Mixtures::fit(&schedule, &timesteps, mode, known.clone(), images, model, noise)
    };
    let fitted = fit(&images, &NoiseMode::Posterior).unwrap();
    assert!(fitted.weights().iter().all(|weights| (weights.iter().sum::<f64>() - 1.0).abs() < 1e-9));
    let grey = Tensor::new(&[[0.0_f64]], &Device::Cpu).unwrap();
    assert!(matches!(fit(&grey, &NoiseMode::Posterior), Err(Error::Level { .. })));
    let none = Tensor::zeros((0, 2), candle_core::DType::F64, &Device::Cpu).unwrap();
    assert!(matches!(fit(&none, &NoiseMode::Posterior), Err(Error::NoImages)));
    assert!(matches!(fit(&images, &NoiseMode::LearnedRange), Err(Error::NoLearnedVariance)));
    assert!(matches!(fit(&images, &NoiseMode::Learned), Err(Error::NetworkOutput { .. })));
    let other = BoundEstimator::with_mixtures(&schedule, &Timesteps::all(&schedule), &fitted);
    assert!(matches!(other, Err(Error::TableLength { found: 2, expected: 20, .. })));
}

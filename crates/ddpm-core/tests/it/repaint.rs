//! Inpainting by resampling, on data of two correlated values. The first value is known.

use std::cell::Cell;

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, Error, NoiseSchedule, PredictionType, Purpose, StepInfo, Timestep, Timesteps,
    sampler::{RePaint, repaint},
};

use crate::{
    assert_out_of_range, largest_difference,
    toy::{fine_schedule, log_uniform, moments},
    values,
};

/// x₀ ~ N(0, s² [[1, ρ], [ρ, 1]]).
const DEVIATION: f64 = 0.5;
const CORRELATION: f64 = 0.8;
const KNOWN: f64 = 0.6;
const ROWS: u64 = 20;
const COLUMNS: usize = 500;

/// The optimal denoiser. Sum and difference of the two values, divided by √2, are independent with variances s² (1 ± ρ).
fn network(x: &Tensor, timestep: Timestep) -> candle_core::Result<Tensor> {
    let alpha_cumprod = timestep.alpha_cumprod();
    let gain = |correlation: f64| {
        let variance = DEVIATION.powi(2) * (1.0 + correlation);
        alpha_cumprod.sqrt() * variance / (alpha_cumprod * variance + 1.0 - alpha_cumprod)
    };
    let (of_sum, of_difference) = (gain(CORRELATION) / 2.0, gain(-CORRELATION) / 2.0);
    let (first, second) = (x.narrow(1, 0, 1)?, x.narrow(1, 1, 1)?);
    let sum = ((&first + &second)? * of_sum)?;
    let difference = ((first - second)? * of_difference)?;
    Tensor::cat(&[(&sum + &difference)?, (sum - difference)?], 1)
}

fn images(seed: u64) -> Tensor {
    let rows: Vec<u64> = (0..ROWS).collect();
    let rng = CounterRng::new(seed);
    rng.normal(Purpose::SAMPLE_START, &rows, 0, &[2, COLUMNS], DType::F64, &Device::Cpu).unwrap()
}

/// The first value of each pair.
fn mask() -> Tensor {
    let one = Tensor::ones((ROWS as usize, 1, COLUMNS), DType::F64, &Device::Cpu).unwrap();
    Tensor::cat(&[&one, &one.zeros_like().unwrap()], 1).unwrap()
}

struct Run {
    x: Tensor,
    asked: usize,
    noise_indices: Vec<usize>,
    seen: Vec<(usize, usize, usize)>,
}

fn run(schedule: &NoiseSchedule, timesteps: &Timesteps, [jump_length, jump_n_sample]: [usize; 2]) -> Run {
    let (known, mask) = ((mask() * KNOWN).unwrap(), mask());
    // Values where the mask is 0 have no effect.
    let known = (known + ((1.0 - &mask).unwrap() * 9.0).unwrap()).unwrap();
    let options = RePaint { known: &known, mask: &mask, jump_length, jump_n_sample };
    let asked = Cell::new(0);
    let (mut noise_indices, mut seen) = (Vec::new(), Vec::new());
    let rows: Vec<u64> = (0..ROWS).collect();
    let x = repaint(
        schedule,
        timesteps,
        &options,
        images(1),
        |x, at| {
            asked.set(asked.get() + 1);
            network(x, at)
        },
        |x, noise_index| {
            noise_indices.push(noise_index);
            CounterRng::new(2).normal_like(Purpose::SAMPLE_STEP, &rows, noise_index, x)
        },
        |step: StepInfo<'_>| {
            seen.push((step.index, step.total, step.timestep.index()));
            Ok(())
        },
    )
    .unwrap();
    Run { x, asked: asked.get(), noise_indices, seen }
}

/// Mean and standard deviation of the second value.
fn second(run: &Run) -> (f64, f64) {
    moments(&values(&run.x.narrow(1, 1, 1).unwrap()))
}

/// The exact distribution is N(ρ known, s² (1 − ρ²)). The error decreases with the number of resamplings.
#[test]
fn resampling_recovers_the_conditional_law_of_the_unknown_and_its_absence_does_not() {
    let schedule = fine_schedule(PredictionType::Sample);
    let timesteps = log_uniform(&schedule, [20.0, 0.02], 100);
    let (mean, deviation) = (CORRELATION * KNOWN, DEVIATION * (1.0 - CORRELATION.powi(2)).sqrt());
    let [once, five, ten] = [1, 5, 10].map(|times| second(&run(&schedule, &timesteps, [10, times])));
    let off = |found: (f64, f64)| mean - found.0;
    assert!(off(once) > 0.15, "without resampling the two numbers do not fit: {once:?}");
    assert!(off(five) < 0.4 * off(once) && off(ten) < 0.6 * off(five), "{once:?} {five:?} {ten:?}");
    assert!(
        off(ten).abs() < 0.03 && (ten.1 - deviation).abs() < 0.02,
        "{ten:?}, expected {mean} {deviation}"
    );
}

#[test]
fn known_pixels_are_left_exactly_as_they_are() {
    let schedule = fine_schedule(PredictionType::Sample);
    let timesteps = Timesteps::spaced(&schedule, 12).unwrap();
    for jumps in [[1, 1], [3, 2], [5, 3]] {
        let run = run(&schedule, &timesteps, jumps);
        assert!(values(&run.x.narrow(1, 0, 1).unwrap()).iter().all(|x| *x == KNOWN), "{jumps:?}");
    }
}

#[test]
fn steps_are_counted_the_network_is_asked_once_for_each_and_no_noise_is_used_twice() {
    let schedule = fine_schedule(PredictionType::Sample);
    let timesteps = Timesteps::explicit(&schedule, vec![900, 600, 300, 100, 0]).unwrap();
    for (jumps, levels) in [
        ([1, 1], vec![900, 600, 300, 100, 0]),
        // Jumps happen at an even number of steps left, if a jump of two steps stays within the list.
        ([2, 2], vec![900, 600, 300, 600, 300, 100, 0, 100, 0]),
        // There is no jump of the length of the whole list.
        ([5, 7], vec![900, 600, 300, 100, 0]),
        ([4, 3], vec![900, 600, 300, 100, 0, 600, 300, 100, 0, 600, 300, 100, 0]),
    ] {
        let run = run(&schedule, &timesteps, jumps);
        let expected: Vec<_> =
            std::iter::zip(0.., &levels).map(|(index, &t)| (index, levels.len(), t)).collect();
        assert_eq!(run.seen, expected, "{jumps:?}");
        assert_eq!(run.asked, levels.len());
        assert_eq!(run.noise_indices, (0..run.noise_indices.len()).collect::<Vec<_>>());
    }
}

/// A jump applies several steps of the forward process at once, with ᾱ of both levels.
#[test]
fn going_back_is_the_forward_process_between_the_two_levels() {
    let schedule = fine_schedule(PredictionType::Sample);
    let timesteps = Timesteps::explicit(&schedule, vec![900, 600, 500, 300, 100]).unwrap();
    let ones = Tensor::ones((1, 1), DType::F64, &Device::Cpu).unwrap();
    let mask = ones.zeros_like().unwrap();
    let options = RePaint { known: &ones, mask: &mask, jump_length: 2, jump_n_sample: 2 };
    let at = |t: usize| schedule.alphas_cumprod()[t];
    let mut asked = Vec::new();
    // All predictions of x₀ are 1, and all noise is −1.
    repaint(
        &schedule,
        &timesteps,
        &options,
        ones.clone(),
        |x, timestep| {
            asked.push((timestep.index(), values(x)[0]));
            x.ones_like()
        },
        |x, _| Ok(x.ones_like()?.neg()?),
        |_| Ok(()),
    )
    .unwrap();
    let order: Vec<usize> = asked.iter().map(|(t, _)| *t).collect();
    assert_eq!(order, [900, 600, 500, 600, 500, 300, 100, 300, 100]);
    // The value after three steps, by the formula of one step.
    let step = |x: f64, t: usize, to: usize| {
        let posterior = schedule.posterior_coefs(t, Some(to)).unwrap();
        posterior.x_start_coef + posterior.x_t_coef * x - posterior.variance.sqrt()
    };
    let reached = step(asked[2].1, 500, 300);
    let alpha = at(600) / at(300);
    let expected = alpha.sqrt() * reached - (1.0 - alpha).sqrt();
    assert!((asked[3].1 - expected).abs() < 1e-12, "{asked:?}, expected {expected}");
    // The jump from x₀ itself, which is 1.
    let expected = at(300).sqrt() - (1.0 - at(300)).sqrt();
    assert!((asked[7].1 - expected).abs() < 1e-12, "{asked:?}, expected {expected}");
}

/// A mask of all ones or all zeros.
#[test]
fn an_empty_mask_is_ancestral_sampling_and_a_full_one_gives_back_the_image() {
    let schedule = fine_schedule(PredictionType::Sample);
    let timesteps = Timesteps::spaced(&schedule, 6).unwrap();
    let rows: Vec<u64> = (0..ROWS).collect();
    let full = images(1).ones_like().unwrap();
    let known = (&full * 0.3).unwrap();
    let sample = |mask: &Tensor| {
        let options = RePaint { known: &known, mask, jump_length: 2, jump_n_sample: 1 };
        // Each step requests noise twice, first for the unknown part.
        let noise = |x: &Tensor, noise_index: usize| {
            CounterRng::new(3).normal_like(Purpose::SAMPLE_STEP, &rows, noise_index / 2, x)
        };
        repaint(&schedule, &timesteps, &options, images(1), network, noise, |_| Ok(())).unwrap()
    };
    assert_eq!(values(&sample(&full)), values(&known));
    let steps = timesteps.indices();
    let ancestral = ddpm_core::sampler::ddpm(
        &schedule,
        &timesteps,
        &ddpm_core::ReverseVariance::FixedSmall,
        images(1),
        network,
        |x, t| {
            let noise_index = steps.iter().position(|step| *step == t).unwrap();
            CounterRng::new(3).normal_like(Purpose::SAMPLE_STEP, &rows, noise_index, x)
        },
        |_| Ok(()),
    );
    let difference =
        largest_difference(&values(&sample(&full.zeros_like().unwrap())), &values(&ancestral.unwrap()));
    assert!(difference < 1e-12, "{difference}");
}

#[test]
fn options_of_zero_and_errors_of_the_caller_end_the_run() {
    let schedule = fine_schedule(PredictionType::Sample);
    let timesteps = Timesteps::spaced(&schedule, 6).unwrap();
    let (x, mask) = (images(1), mask());
    let zeros = |x: &Tensor, _| Ok(x.zeros_like()?);
    for (option, [jump_length, jump_n_sample]) in [("jump_length", [0, 1]), ("jump_n_sample", [1, 0])] {
        let options = RePaint { known: &x, mask: &mask, jump_length, jump_n_sample };
        let refused = repaint(&schedule, &timesteps, &options, x.clone(), network, zeros, |_| Ok(()));
        assert_out_of_range(refused, option, 0);
    }
    let options = RePaint { known: &x, mask: &mask, jump_length: 1, jump_n_sample: 1 };
    let run = |observed: fn(StepInfo<'_>) -> ddpm_core::Result<()>| {
        repaint(&schedule, &timesteps, &options, x.clone(), network, zeros, observed)
    };
    assert!(matches!(run(|_| Err(Error::NoTimesteps)), Err(Error::NoTimesteps)));
    let small = mask.narrow(0, 0, 1).unwrap();
    let options = RePaint { mask: &small, ..options };
    assert!(repaint(&schedule, &timesteps, &options, x.clone(), network, zeros, |_| Ok(())).is_err());
}

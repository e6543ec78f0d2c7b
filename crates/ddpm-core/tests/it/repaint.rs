//! Inpainting by resampling, on data of two correlated values. The first value is known.

use std::cell::Cell;

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, Error, FlowMatchEuler, Inpainting, NoiseSchedule, Plan, PredictionType, Purpose, Sampler,
    Steps, Timestep, Timesteps, no_noise,
};

use crate::{
    assert_out_of_range,
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

struct Record {
    x: Tensor,
    asked: usize,
    noise_indices: Vec<usize>,
    seen: Vec<(usize, usize, usize)>,
}

fn run(schedule: &NoiseSchedule, timesteps: &Timesteps, [jump_length, jump_n_sample]: [usize; 2]) -> Record {
    let (known, mask) = ((mask() * KNOWN).unwrap(), mask());
    // Values where the mask is 0 have no effect.
    let known = (known + ((1.0 - &mask).unwrap() * 9.0).unwrap()).unwrap();
    let asked = Cell::new(0);
    let (mut noise_indices, mut seen) = (Vec::new(), Vec::new());
    let rows: Vec<u64> = (0..ROWS).collect();
    let known_noise = CounterRng::new(2).images(0..ROWS).for_purpose(Purpose::INPAINTING).noise();
    let inpainting = Inpainting::new(&known, &mask).unwrap();
    let plan = Sampler::RePaint { jump_length, jump_n_sample }.plan(schedule, timesteps).unwrap();
    let x = plan
        .sample_with(
            images(1),
            |x, at| {
                asked.set(asked.get() + 1);
                network(x, at)
            },
            |x, noise_index| {
                noise_indices.push(noise_index);
                CounterRng::new(2).normal_like(Purpose::SAMPLE_STEP, &rows, noise_index, x)
            },
            |run| {
                let step = run.step().unwrap();
                seen.push((step.index, step.total, step.timestep.index()));
                Ok(inpainting.blend(run, &known_noise)?)
            },
        )
        .unwrap();
    Record { x, asked: asked.get(), noise_indices, seen }
}

/// Mean and standard deviation of the second value.
fn second(run: &Record) -> (f64, f64) {
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
    let at = |t: usize| schedule.alphas_cumprod()[t];
    let mut asked = Vec::new();
    // All predictions of x₀ are 1, and all noise is −1.
    let plan = Sampler::RePaint { jump_length: 2, jump_n_sample: 2 }.plan(&schedule, &timesteps).unwrap();
    plan.sample(
        ones,
        |x, timestep| {
            asked.push((timestep.index(), values(x)[0]));
            x.ones_like()
        },
        |x: &Tensor, _| x.ones_like()?.neg(),
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
    let full = images(1).ones_like().unwrap();
    let known = (&full * 0.3).unwrap();
    let noise = CounterRng::new(3).images(0..ROWS);
    let plan = Sampler::ddpm().plan(&schedule, &timesteps).unwrap();
    let sample = |mask: &Tensor| {
        let known_noise = noise.clone().for_purpose(Purpose::INPAINTING).noise();
        let known = Inpainting::new(&known, mask).unwrap();
        plan.sample_with(images(1), network, noise.noise(), |run| Ok(known.blend(run, &known_noise)?))
            .unwrap()
    };
    assert_eq!(values(&sample(&full)), values(&known));
    let ancestral = plan.sample(images(1), network, noise.noise()).unwrap();
    assert_eq!(values(&sample(&full.zeros_like().unwrap())), values(&ancestral));
}

/// After each step the known pixels have the noise level of the run: √ᾱ x₀ + √(1−ᾱ) ε for a schedule, (1−σ) x₀ + σ ε with
/// flow matching. Masks and images may be of another type than the run.
#[test]
fn known_pixels_have_the_noise_level_of_the_run() {
    let flow = FlowMatchEuler::new(3.0);
    let sigmas = flow.sigmas(4, None).unwrap();
    let schedule = fine_schedule(PredictionType::Sample);
    let timesteps = Timesteps::spaced(&schedule, 4).unwrap();
    let left = |plan: &Plan, dtype: DType| {
        let ones = Tensor::ones((2, 3), dtype, &Device::Cpu).unwrap();
        let known = Inpainting::new(&(&ones * 0.5).unwrap(), &ones.to_dtype(DType::U8).unwrap()).unwrap();
        let (mut noisy, start) = (Vec::new(), ones.to_dtype(DType::F64).unwrap());
        let sampled = plan.sample_with(
            start,
            |x, _| x.zeros_like(),
            |x, _| x.zeros_like(),
            |run| {
                known.blend(run, |x: &Tensor, _| (x.ones_like()? * 2.0)?.to_dtype(DType::F32))?;
                noisy.push(values(run.x_t())[5]);
                Ok(())
            },
        );
        assert_eq!(values(&sampled.unwrap()), [0.5; 6]);
        noisy
    };
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let by_flow = left(&flow.plan(&sigmas).unwrap(), dtype);
        let expected = sigmas[1..].iter().chain([&0.0]).map(|sigma| 0.5 * (1.0 - sigma) + 2.0 * sigma);
        assert!(crate::largest_difference(&by_flow, &expected.collect::<Vec<_>>()) < 1e-12, "{by_flow:?}");
        for sampler in [Sampler::ddpm(), Sampler::unipc(), Sampler::heun(), Sampler::euler()] {
            let noisy = left(&sampler.plan(&schedule, &timesteps).unwrap(), dtype);
            let levels = timesteps.as_slice()[1..].iter().map(|timestep| timestep.alpha_cumprod());
            let expected: Vec<f64> =
                levels.chain([1.0]).map(|at| 0.5 * at.sqrt() + 2.0 * (1.0 - at).sqrt()).collect();
            assert!(crate::largest_difference(&noisy, &expected) < 1e-12, "{sampler:?}: {noisy:?}");
        }
    }
    // The start of image-to-image sampling is at the noise level too.
    let one = Tensor::ones((1, 1), DType::F64, &Device::Cpu).unwrap();
    let at =
        flow.plan(&[0.6]).unwrap().start(one.clone(), no_noise).unwrap().ask().unwrap().unwrap().timestep;
    assert!((values(&at.q_sample(&one, &(&one * 2.0).unwrap()).unwrap())[0] - 1.6).abs() < 1e-12);
    assert!((at.signal() - 0.4).abs() < 1e-15 && (at.noise() - 0.6).abs() < 1e-15);
}

#[test]
fn options_of_zero_and_masks_of_another_shape_are_refused() {
    let schedule = fine_schedule(PredictionType::Sample);
    for (option, [jump_length, jump_n_sample]) in [("jump_length", [0, 1]), ("jump_n_sample", [1, 0])] {
        let refused = Sampler::RePaint { jump_length, jump_n_sample }.plan(&schedule, Steps::Spaced(6));
        assert_out_of_range(refused, option, 0);
    }
    let small = mask().narrow(0, 0, 1).unwrap();
    assert!(matches!(Inpainting::new(&images(1), &small), Err(Error::Shapes { .. })));
}

//! Multistep methods with factors of their own, and their fit to a longer run.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, Error, Multistep, MultistepStep, NoiseSchedule, PredictionType, Purpose, Result, Sampler,
    Steps, Timestep, Timesteps, no_noise,
};

use crate::{
    assert_out_of_range, largest_difference, network, schedule,
    toy::{Mixture, NORMAL, TWO, fine_schedule},
    values,
};

/// Standard normal values, [200, `columns`].
fn start(seed: u64, columns: usize) -> Tensor {
    let images: Vec<u64> = (0..200).collect();
    let rng = CounterRng::new(seed);
    rng.normal(Purpose::SAMPLE_START, &images, 0, &[columns], DType::F64, &Device::Cpu).unwrap()
}

/// The noise levels ᾱ of a list, and 1.
fn levels(schedule: &NoiseSchedule, list: &[usize]) -> Vec<f64> {
    list.iter().map(|&t| schedule.alphas_cumprod()[t]).chain([1.0]).collect()
}

/// The standard deviation of xₜ for normal data.
fn spread(alpha_cumprod: f64, deviation: f64) -> f64 {
    (alpha_cumprod * deviation * deviation + 1.0 - alpha_cumprod).sqrt()
}

const LIST: [usize; 4] = [999, 700, 400, 100];

/// For normal data x̂₀ and the exact flow are affine in xₜ, so the two factors of each step can be exact.
#[test]
fn a_fit_to_the_exact_flow_of_normal_data_is_exact_for_other_images_too() {
    let &[(_, mean, deviation)] = NORMAL.0 else { panic!("one component") };
    for kind in [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction] {
        let schedule = fine_schedule(kind);
        let levels = levels(&schedule, &LIST);
        let flow = |x: &Tensor, to: f64| {
            let factor = spread(to, deviation) / spread(levels[0], deviation);
            x.affine(factor, mean * (to.sqrt() - factor * levels[0].sqrt())).unwrap()
        };
        let targets: Vec<Tensor> = levels[1..].iter().map(|&to| flow(&start(1, 8), to)).collect();
        let fitted = Multistep::fit(&schedule, &LIST, start(1, 8), &targets, NORMAL.network(&schedule));
        let (method, errors) = fitted.unwrap();
        assert!(errors.iter().all(|error| *error < 1e-9), "{errors:?}");
        let (other, mut step) = (start(2, 8), 0);
        let plan = method.plan(&schedule).unwrap();
        let compare = |run: &mut ddpm_core::Run| {
            step += 1;
            let difference = largest_difference(&values(run.x_t()), &values(&flow(&other, levels[step])));
            assert!(difference < 1e-9, "{kind:?} after step {step}: {difference}");
            Ok(())
        };
        plan.sample_with(other.clone(), NORMAL.network(&schedule), no_noise, compare).unwrap();
        let ddim = Sampler::ddim(0.0).plan(&schedule, Steps::Explicit(LIST.to_vec())).unwrap();
        let ddim = ddim.sample(other.clone(), NORMAL.network(&schedule), no_noise).unwrap();
        let difference = largest_difference(&values(&ddim), &values(&flow(&other, 1.0)));
        assert!(difference > 0.1, "DDIM: {difference}");
    }
}

/// Three standard deviations need three factors. The first step has two, so it cannot be exact, and the second repairs it.
#[test]
fn a_later_step_corrects_the_errors_of_an_earlier_one() {
    const DEVIATIONS: [f64; 3] = [0.2, 0.6, 1.5];
    const LIST: [usize; 4] = [600, 300, 120, 20];
    let schedule = fine_schedule(PredictionType::Sample);
    let each = |x: &Tensor, factor: &dyn Fn(f64) -> f64| {
        let factors = Tensor::new(&DEVIATIONS.map(factor), &Device::Cpu)?;
        x.broadcast_mul(&factors)
    };
    let network = |x: &Tensor, at: Timestep| {
        let level = at.alpha_cumprod();
        each(x, &|deviation| level.sqrt() * (deviation / spread(level, deviation)).powi(2))
    };
    let levels = levels(&schedule, &LIST);
    let flow =
        |to: f64| each(&start(1, 3), &|deviation| spread(to, deviation) / spread(levels[0], deviation));
    let targets: Vec<Tensor> = levels[1..].iter().map(|&to| flow(to).unwrap()).collect();
    let (method, errors) = Multistep::fit(&schedule, &LIST, start(1, 3), &targets, network).unwrap();
    assert!(errors[0] > 1e-4, "{errors:?}");
    assert!(errors[1..].iter().all(|error| *error < 1e-7), "{errors:?}");
    // Four tensors of three dimensions: the last depends on the others.
    assert_eq!(method.steps.iter().map(|step| step.x_start.len()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(method.steps[2].x_start[2], 0.0);
}

/// The images of a long run, at the timesteps of `list` after the first, and at the end.
fn long_run(schedule: &NoiseSchedule, list: &[usize], x: &Tensor, data: &Mixture) -> Vec<Tensor> {
    let all: Vec<usize> = (0..1000).rev().step_by(10).chain(list.iter().copied()).collect();
    let mut all: Vec<usize> = all;
    all.sort_unstable();
    all.dedup();
    all.reverse();
    let plan = Sampler::heun().plan(schedule, Steps::Explicit(all.clone())).unwrap();
    let mut images = Vec::new();
    let keep = |run: &mut ddpm_core::Run| {
        images.push(run.x_t().clone());
        Ok(())
    };
    let end = plan.sample_with(x.clone(), data.network(schedule), no_noise, keep).unwrap();
    let after = |t: &usize| images[all.iter().position(|other| other == t).unwrap() - 1].clone();
    list[1..].iter().map(after).chain([end]).collect()
}

#[test]
fn few_fitted_steps_are_closer_to_a_long_run_than_those_of_solvers() {
    let schedule = fine_schedule(PredictionType::Sample);
    let targets = long_run(&schedule, &LIST, &start(1, 20), &TWO);
    let fitted = Multistep::fit(&schedule, &LIST, start(1, 20), &targets, TWO.network(&schedule));
    let fitted = fitted.unwrap().0.plan(&schedule).unwrap();
    let other = start(2, 20);
    let end = long_run(&schedule, &LIST, &other, &TWO).pop().unwrap();
    let error = |plan: ddpm_core::Plan| {
        let sampled = plan.sample(other.clone(), TWO.network(&schedule), no_noise).unwrap();
        let squares = (sampled - &end).unwrap().sqr().unwrap().mean_all().unwrap();
        squares.to_scalar::<f64>().unwrap().sqrt()
    };
    let solver = |sampler: Sampler| error(sampler.plan(&schedule, Steps::Explicit(LIST.to_vec())).unwrap());
    let (fitted, ddim, second) = (error(fitted), solver(Sampler::ddim(0.0)), solver(Sampler::dpmpp_2m()));
    assert!(fitted < 0.7 * ddim && fitted < 0.9 * second, "{fitted}, DDIM {ddim}, 2M {second}");
}

/// The factors of DDIM (Song et al. 2021, eq. 12) as a table.
#[test]
fn with_the_factors_of_ddim_it_is_ddim() {
    let schedule = schedule(|_| {});
    let list = [19, 11, 6, 2];
    let levels = levels(&schedule, &list);
    let step = |(i, &t): (usize, &usize)| {
        let x_t = ((1.0 - levels[i + 1]) / (1.0 - levels[i])).sqrt();
        MultistepStep { t, x_t, x_start: vec![levels[i + 1].sqrt() - x_t * levels[i].sqrt()] }
    };
    let method = Multistep { steps: list.iter().enumerate().map(step).collect() };
    let ddim = Sampler::ddim(0.0).plan(&schedule, Steps::Explicit(list.to_vec())).unwrap();
    let sample = |plan: &ddpm_core::Plan| values(&plan.sample(start(1, 5), network, no_noise).unwrap());
    let difference = largest_difference(&sample(&method.plan(&schedule).unwrap()), &sample(&ddim));
    assert!(difference < 1e-12, "{difference}");
}

#[test]
fn a_method_is_the_same_after_a_round_trip_through_json() {
    let steps = vec![
        MultistepStep { t: 19, x_t: 0.1 + 0.2, x_start: vec![-1.0 / 3.0] },
        MultistepStep { t: 0, x_t: 5e-324, x_start: vec![1e300, std::f64::consts::PI] },
    ];
    let method = Multistep { steps };
    let json = serde_json::to_string(&method).unwrap();
    assert_eq!(serde_json::from_str::<Multistep>(&json).unwrap(), method);
    let unknown = json.replacen("\"x_t\"", "\"x_s\"", 1);
    assert!(serde_json::from_str::<Multistep>(&unknown).unwrap_err().to_string().contains("x_s"));
}

#[test]
fn a_table_that_cannot_be_carried_out_is_refused() {
    let schedule = schedule(|_| {});
    let step = |t, x_t, x_start: &[f64]| MultistepStep { t, x_t, x_start: x_start.to_vec() };
    let plan = |steps: Vec<MultistepStep>| Multistep { steps }.plan(&schedule);
    assert!(matches!(plan(vec![]), Err(Error::NoTimesteps)));
    assert_out_of_range(plan(vec![step(20, 1.0, &[0.0])]), "timesteps[0]", 20);
    assert_out_of_range(plan(vec![step(5, 1.0, &[0.0]), step(5, 1.0, &[0.0])]), "timesteps[1]", 5);
    for (steps, expected) in [
        (vec![step(19, 1.0, &[0.0, 0.5])], "XStart(1), expected an evaluation"),
        (vec![step(19, f64::NAN, &[0.0])], "NaN times X, expected a finite factor"),
        (vec![step(19, 1.0, &[0.0]), step(3, 1.0, &[f64::INFINITY])], "inf times XStart(0)"),
    ] {
        let message = plan(steps).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn targets_that_do_not_fit_are_refused() {
    let schedule = schedule(|_| {});
    let x = start(1, 4);
    let fit = |list: &[usize], targets: &[Tensor]| -> Result<_> {
        Multistep::fit(&schedule, list, x.clone(), targets, network)
    };
    let few = fit(&[19, 5], std::slice::from_ref(&x));
    assert!(matches!(few, Err(Error::TableLength { table: "targets", found: 1, expected: 2 })));
    assert_out_of_range(fit(&[5, 19], &[x.clone(), x.clone()]), "timesteps[1]", 19);
    assert!(matches!(fit(&[19], &[start(1, 3)]), Err(Error::Shapes { .. })));
    let infinite = (&x * f64::INFINITY).unwrap();
    let message = fit(&[19], &[infinite]).unwrap_err().to_string();
    assert!(message.contains("expected a finite number"), "{message}");
    let failing = |_: &Tensor, _: Timestep| -> candle_core::Result<Tensor> { candle_core::bail!("no") };
    let failed = Multistep::fit(&schedule, &[19], x.clone(), std::slice::from_ref(&x), failing);
    assert!(matches!(failed, Err(Error::Network(_))));
}

/// The fit and its plan take the same steps: in f32 too, to the bit.
#[test]
fn the_plan_reaches_the_images_of_the_fit() {
    let schedule = schedule(|config| config.prediction_type = PredictionType::Sample);
    let list = Timesteps::spaced(&schedule, 4).unwrap().indices();
    let x = start(3, 50).to_dtype(DType::F32).unwrap();
    let targets: Vec<Tensor> = (0..4).map(|i| (&x * (0.5 + 0.1 * f64::from(i))).unwrap()).collect();
    let (method, errors) = Multistep::fit(&schedule, &list, x.clone(), &targets, network).unwrap();
    let mut found = Vec::new();
    let compare = |run: &mut ddpm_core::Run| {
        let target = &targets[found.len()];
        let squares = (run.x_t() - target)?.to_dtype(DType::F64)?.sqr()?.mean_all()?;
        found.push(squares.to_scalar::<f64>()?.sqrt());
        Ok(())
    };
    method.plan(&schedule).unwrap().sample_with(x, network, no_noise, compare).unwrap();
    let difference = largest_difference(&found, &errors);
    assert!(difference < 1e-7, "{found:?} {errors:?}");
}

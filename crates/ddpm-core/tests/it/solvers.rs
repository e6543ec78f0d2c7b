//! The order of convergence of the deterministic solvers: halving the step length must divide the error by 2^order.
//!
//! In one dimension the exact probability flow is known for any data. It keeps the order of points, so it maps each
//! quantile of xₜ to the same quantile of x_s. For normal data this is an affine map.

use candle_core::{Device, Tensor};
use ddpm_core::{
    NoiseSchedule, PredictionType, ReverseVariance, Sampler, Timesteps, no_noise,
    sampler::{Bh, Churn, DpmSolver, SolverType, UniPc},
};

use crate::{
    largest_difference,
    toy::{Mixture, NORMAL, TWO, fine_schedule, log_uniform, samplers},
    values,
};

/// P(xₜ ≤ x) at the noise level ᾱ.
fn cdf(data: &Mixture, x: f64, alpha_cumprod: f64) -> f64 {
    let noised = |&(weight, mean, deviation): &(f64, f64, f64)| {
        let spread = (alpha_cumprod * deviation * deviation + 1.0 - alpha_cumprod).sqrt();
        weight * libm::erfc((alpha_cumprod.sqrt() * mean - x) / spread / 2.0_f64.sqrt()) / 2.0
    };
    data.0.iter().map(noised).sum()
}

/// The image of `x` under the exact flow from one noise level to another, by bisection.
fn flow(data: &Mixture, x: f64, [from, to]: [f64; 2]) -> f64 {
    let quantile = cdf(data, x, from);
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if cdf(data, middle, to) < quantile { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

const POINTS: [f64; 6] = [-1.5, -0.7, -0.1, 0.2, 0.9, 1.6];

/// The error at the last level of a list that starts at σ = 5.
fn error(
    sampler: &Sampler,
    schedule: &NoiseSchedule,
    timesteps: &Timesteps,
    data: &Mixture,
    at: usize,
) -> f64 {
    let mut reached = Vec::new();
    let x = Tensor::from_slice(&POINTS, (POINTS.len(), 1), &Device::Cpu).unwrap();
    let callback = |run: &mut ddpm_core::Run| {
        let step = run.step().unwrap();
        if step.index == at {
            reached = values(step.x_t);
        }
        Ok(())
    };
    sampler
        .plan(schedule, timesteps)
        .unwrap()
        .sample_with(x, data.network(schedule), no_noise, callback)
        .unwrap();
    let next = timesteps.as_slice().get(at + 1).map(|timestep| timestep.alpha_cumprod());
    let levels = [timesteps.first().alpha_cumprod(), next.unwrap_or(timesteps.last_alpha_cumprod())];
    let exact: Vec<f64> = POINTS.iter().map(|&x| flow(data, x, levels)).collect();
    largest_difference(&reached, &exact)
}

/// log₂ of the ratios of successive errors.
fn orders(errors: &[f64]) -> Vec<f64> {
    errors.windows(2).map(|pair| (pair[0] / pair[1]).log2()).collect()
}

/// The accepted range of a sampler's order. `None` for samplers that add noise.
fn expected(name: &str) -> Option<(f64, f64)> {
    match name {
        "ddim 0" | "euler" => Some((0.9, 1.15)),
        "dpm-solver++ 2M midpoint" | "dpm-solver++ 2M heun" | "heun" => Some((1.85, 2.5)),
        // The start is of lower order than the four steps that follow.
        "pndm" => Some((1.85, 4.5)),
        // The corrector has one order more than the predictor of order 2.
        "uni-pc bh1" | "uni-pc bh2" => Some((2.8, 3.3)),
        "ddpm posterior"
        | "ddpm beta"
        | "ddim 0.5"
        | "ddim 1"
        | "sde-dpm-solver++ 2M midpoint"
        | "sde-dpm-solver++ 2M heun"
        | "euler with churn"
        | "euler ancestral"
        | "heun with churn" => None,
        _ => panic!("no expected order for the sampler {name}"),
    }
}

fn assert_order(name: &str, errors: &[f64]) {
    let Some((low, high)) = expected(name) else { panic!("{name} adds noise, so it has no order") };
    let orders = orders(errors);
    assert!(orders.iter().all(|order| (low..high).contains(order)), "{name}: {orders:.2?} from {errors:.7?}");
}

/// Checks the orders between two noise levels with doubling numbers of steps. The last step, to x₀, does not count.
fn assert_orders<const N: usize>(data: &Mixture, steps: [usize; N]) {
    let schedule = fine_schedule(PredictionType::VPrediction);
    for (name, sampler) in samplers().into_iter().filter(|(name, _)| expected(name).is_some()) {
        let error = |n: usize| {
            let timesteps = log_uniform(&schedule, [5.0, 0.1], n + 1);
            error(&sampler, &schedule, &timesteps, data, n - 1)
        };
        assert_order(name, &steps.map(error));
    }
}

#[test]
fn deterministic_solvers_show_their_order_on_normal_data() {
    assert_orders(&NORMAL, [40, 80, 160, 320]);
}

#[test]
fn deterministic_solvers_show_their_order_on_a_mixture() {
    assert_orders(&TWO, [80, 160, 320]);
}

/// Each step is half or twice as long as the step before. The multistep methods must account for that.
#[test]
fn deterministic_solvers_show_their_order_with_steps_of_uneven_length() {
    let schedule = fine_schedule(PredictionType::VPrediction);
    // The weights of PNDM are for steps of equal length.
    let has_order = |name: &str| expected(name).is_some() && name != "pndm";
    for (name, sampler) in samplers().into_iter().filter(|(name, _)| has_order(name)) {
        let error = |n: usize| {
            // The second and third of every three equal steps are merged into one.
            let levels = log_uniform(&schedule, [5.0, 0.1], 3 * n / 2 + 1);
            let kept = levels.as_slice().iter().enumerate().filter(|(i, _)| i % 3 != 2);
            let sigmas: Vec<f64> = kept.map(|(_, timestep)| timestep.sigma()).collect();
            let timesteps = Timesteps::from_sigmas(&schedule, &sigmas).unwrap();
            error(&sampler, &schedule, &timesteps, &TWO, n - 1)
        };
        assert_order(name, &[80, 160, 320].map(error));
    }
}

/// The order with `Timesteps::ending_at_sigma_min`, where the last step is a regular step of the solver.
#[test]
fn solvers_of_order_two_keep_it_to_the_smallest_noise_level() {
    let schedule = fine_schedule(PredictionType::Epsilon);
    let options = DpmSolver { lower_order_final: false, ..DpmSolver::plus_plus_2m() };
    for (name, sampler) in [
        ("heun", Sampler::Heun(Churn::NONE)),
        ("dpm-solver++ 2M midpoint", Sampler::DpmSolverMultistep(options)),
        (
            "dpm-solver++ 2M heun",
            Sampler::DpmSolverMultistep(DpmSolver { solver_type: SolverType::Heun, ..options }),
        ),
    ] {
        let error = |n: usize| {
            let end = Timesteps::explicit(&schedule, vec![0]).unwrap().first().sigma();
            let shorter = (5.0_f64 / end).powf(-1.0 / n as f64);
            let timesteps = log_uniform(&schedule, [5.0, end / shorter], n).ending_at_sigma_min(&schedule);
            error(&sampler, &schedule, &timesteps, &NORMAL, n - 1)
        };
        assert_order(name, &[80, 160, 320].map(error));
    }
}

/// The documentation of `solver_order` states that the corrector raises the order by one.
#[test]
fn the_corrector_raises_uni_pc_of_order_one_to_two() {
    let schedule = fine_schedule(PredictionType::VPrediction);
    for solver_type in [Bh::Bh1, Bh::Bh2] {
        let sampler = Sampler::UniPc(UniPc { solver_order: 1, solver_type, lower_order_final: true });
        let error = |n: usize| {
            // The callback receives a predicted image. It has the error of one step of order 1, which is O(h²) too.
            let timesteps = log_uniform(&schedule, [5.0, 0.1], n + 1);
            error(&sampler, &schedule, &timesteps, &TWO, n - 1)
        };
        let orders = orders(&[80, 160, 320].map(error));
        assert!(orders.iter().all(|order| (1.85..2.5).contains(order)), "{solver_type:?}: {orders:.3?}");
    }
}

/// Pairs of solvers that are mathematically equivalent.
#[test]
fn first_order_dpm_solver_is_ddim_and_its_sde_is_ddpm_and_euler_is_ddim() {
    let schedule = fine_schedule(PredictionType::Epsilon);
    let timesteps = Timesteps::explicit(&schedule, vec![999, 700, 333, 30, 2]).unwrap();
    let run = |sampler: &Sampler| {
        let x = crate::toy::start(1).narrow(1, 0, 3).unwrap().contiguous().unwrap();
        let network = TWO.network(&schedule);
        values(
            &sampler.plan(&schedule, &timesteps).unwrap().sample(x, network, crate::toy::noise(2)).unwrap(),
        )
    };
    let first = |options| Sampler::DpmSolverMultistep(DpmSolver { solver_order: 1, ..options });
    for (one, other) in [
        (first(DpmSolver::plus_plus_2m()), Sampler::Ddim(0.0)),
        (first(DpmSolver::sde_2m()), Sampler::Ddpm(ReverseVariance::FixedSmall)),
        (Sampler::Euler(Churn::NONE), Sampler::Ddim(0.0)),
        (Sampler::EulerAncestral, Sampler::Ddim(1.0)),
        (Sampler::Heun(Churn { s_tmin: 1e9, s_churn: 9.0, ..Churn::NONE }), Sampler::Heun(Churn::NONE)),
    ] {
        let difference = largest_difference(&run(&one), &run(&other));
        assert!(difference < 1e-11, "{one:?} and {other:?}: {difference}");
    }
    let differ = largest_difference(&run(&Sampler::UniPc(UniPc::order_2())), &run(&Sampler::Ddim(0.0)));
    assert!(differ > 1e-3, "UniPC must differ from DDIM: {differ}");
}

//! The contract of every sampler: the calls and arguments of the network, the noise source and the callback.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    Compat, CounterRng, DiffusersConfig, Error, NoiseSchedule, Operation, PredictionType, Purpose, Sampler,
    Scheduler, Steps, Timestep, Timesteps, sampler::DpmSolver,
};

use crate::{
    schedule,
    toy::{NORMAL, fine_schedule, log_uniform, samplers},
    values,
};

/// The calls of a run.
#[derive(Default)]
struct Record {
    asked: Vec<Timestep>,
    noise_indices: Vec<usize>,
    /// Index, total and timestep of each step.
    seen: Vec<(usize, usize, Timestep)>,
}

/// Records a run on a few values. The last image that the callback receives must be the result.
fn record(sampler: &Sampler, schedule: &NoiseSchedule, timesteps: &Timesteps) -> Record {
    let mut record = Record::default();
    let network = NORMAL.network(schedule);
    let mut last = Vec::new();
    let sampled = sampler.plan(schedule, timesteps).unwrap().sample_with(
        Tensor::new(&[[0.5_f64, -1.0, 2.0]], &Device::Cpu).unwrap(),
        |x, timestep| {
            record.asked.push(timestep);
            network(x, timestep)
        },
        |x, noise_index| {
            record.noise_indices.push(noise_index);
            CounterRng::new(3).normal_like(Purpose::SAMPLE_STEP, &[0], noise_index, x)
        },
        |run| {
            let step = run.step().unwrap();
            record.seen.push((step.index, step.total, step.timestep));
            assert_eq!(step.x_start.dims(), [1, 3]);
            last = values(step.x_t);
            Ok(())
        },
    );
    assert_eq!(values(&sampled.unwrap()), last);
    record
}

#[test]
fn the_observer_sees_each_timestep_of_the_list_once_and_in_order() {
    let schedule = schedule(|_| {});
    for list in [vec![19, 12, 4, 3], vec![17, 0], vec![8]] {
        let timesteps = Timesteps::explicit(&schedule, list.clone()).unwrap();
        for (name, sampler) in samplers() {
            let seen = record(&sampler, &schedule, &timesteps).seen;
            let expected: Vec<_> = std::iter::zip(0.., timesteps.as_slice())
                .map(|(index, &timestep)| (index, list.len(), timestep))
                .collect();
            assert_eq!(seen, expected, "{name} {list:?}");
        }
    }
}

#[test]
fn the_network_is_asked_once_for_each_step_and_by_heun_twice_but_for_the_last() {
    let schedule = schedule(|_| {});
    for n in [1, 2, 7, 20] {
        let timesteps = Timesteps::spaced(&schedule, n).unwrap();
        for (name, sampler) in samplers() {
            let asked = record(&sampler, &schedule, &timesteps).asked;
            // From σ = 136 to the second of two timesteps, Heun's correction would do harm, and so would PNDM's.
            let expected = match sampler {
                Sampler::Heun(_) if n > 2 => 2 * n - 1,
                // PNDM evaluates at both ends of the first step, and again.
                Sampler::Pndm if n > 2 => n + 1,
                _ => n,
            };
            assert_eq!(asked.len(), expected, "{name} in {n} steps");
            // Churn evaluates at levels between the list's. Heun evaluates twice at each level except the first.
            if !name.ends_with("churn") {
                let mut levels = asked;
                levels.dedup();
                assert_eq!(levels, timesteps.as_slice(), "{name} in {n} steps");
            }
        }
    }
}

/// A deterministic sampler requests no noise. Others request it once for each step that does not end at x₀.
#[test]
fn noise_is_requested_only_where_it_is_added_and_its_index_is_the_timestep() {
    let schedule = schedule(|_| {});
    let timesteps = Timesteps::explicit(&schedule, vec![19, 12, 4, 3]).unwrap();
    for (name, sampler) in samplers() {
        let expected: &[usize] = match name {
            "ddim 0" | "euler" | "heun" | "pndm" => &[],
            "euler with churn" | "heun with churn" => &[12, 4, 3], // σ is 136 at 19, above s_tmax
            _ if name.starts_with("dpm") || name.starts_with("uni") => &[],
            _ => &[19, 12, 4],
        };
        assert_eq!(record(&sampler, &schedule, &timesteps).noise_indices, expected, "{name}");
    }
}

fn assert_distinct(name: &str, noise_indices: &[usize]) {
    let distinct: BTreeSet<&usize> = noise_indices.iter().collect();
    assert_eq!(distinct.len(), noise_indices.len(), "{name}: {noise_indices:?}");
}

/// The same noise in two steps would correlate them. The timestep alone does not distinguish steps: levels beyond the
/// schedule all have the timestep of its end, and diffusers rounds timesteps.
#[test]
fn the_noise_indices_of_a_run_are_distinct() {
    let schedule = fine_schedule(PredictionType::Sample);
    let all = Timesteps::all(&schedule);
    let beyond = Timesteps::from_sigmas(&schedule, &[400.0, 300.0, 200.0, 0.005, 0.004, 0.003]).unwrap();
    let between = log_uniform(&schedule, [100.0, 0.1], 30);
    for timesteps in [all, beyond, between] {
        for (name, sampler) in samplers() {
            assert_distinct(name, &record(&sampler, &schedule, &timesteps).noise_indices);
        }
    }
    let sampler = Sampler::DpmSolverMultistep(DpmSolver::sde_2m());
    let mut config = DiffusersConfig::new(schedule.config().clone(), sampler.clone());
    (config.use_karras_sigmas, config.schedule.compat) = (true, Compat::Diffusers);
    let scheduler = Scheduler::new(&config).unwrap();
    let rounded = scheduler.timesteps(50).unwrap();
    assert_distinct("rounded Karras", &record(&sampler, scheduler.schedule(), &rounded).noise_indices);
}

#[test]
fn an_error_of_the_network_the_noise_or_the_observer_ends_the_run_at_once() {
    let schedule = schedule(|_| {});
    let timesteps = Timesteps::all(&schedule);
    let x = || Tensor::ones((1, 3), DType::F64, &Device::Cpu).unwrap();
    let network = NORMAL.network(&schedule);
    let zeros = |x: &Tensor, _| x.zeros_like();
    for (name, sampler) in samplers() {
        let mut calls = 0;
        let observed = sampler.plan(&schedule, &timesteps).unwrap().sample_with(x(), &network, zeros, |_| {
            calls += 1;
            Err(Error::NoTimesteps.into())
        });
        assert!(matches!(observed, Err(Error::Callback(_))) && calls == 1, "{name}");
        let failing = |_: &Tensor, _| candle_core::bail!("the network");
        let failed = sampler.plan(&schedule, &timesteps).unwrap().sample(x(), failing, zeros);
        assert!(
            matches!(failed, Err(Error::Network(source)) if source.to_string().contains("the network")),
            "{name}"
        );
        let noise_indices = record(&sampler, &schedule, &timesteps).noise_indices.len();
        let failed = sampler
            .plan(&schedule, &timesteps)
            .unwrap()
            .sample(x(), &network, |_: &Tensor, _| Err::<Tensor, _>(Error::NoTimesteps));
        assert_eq!(matches!(failed, Err(Error::Noise(_))), noise_indices > 0, "{name}");
    }
}

#[test]
fn an_option_outside_its_range_is_refused_by_name() {
    use ddpm_core::{
        ReverseVariance,
        sampler::{Churn, Lcm, Tcd, UniPc},
    };
    let lcm = |timestep_scaling| Sampler::Lcm(Lcm { timestep_scaling, original_inference_steps: 5 });
    let schedule = schedule(|_| {});
    let timesteps = Timesteps::all(&schedule);
    let churn = |change: fn(&mut Churn)| {
        let mut churn = Churn::NONE;
        change(&mut churn);
        churn
    };
    let variances = |value: f64| Sampler::Ddpm(ReverseVariance::PerStep(vec![value; 20]));
    for (sampler, expected) in [
        (Sampler::Ddim(-0.1), "eta is -0.1"),
        (Sampler::Ddim(1.5), "eta is 1.5"),
        (Sampler::Ddim(f64::NAN), "eta is NaN"),
        (Sampler::Euler(churn(|c| c.s_churn = -1.0)), "s_churn is -1"),
        (Sampler::Heun(churn(|c| c.s_noise = f64::INFINITY)), "s_noise is inf"),
        (Sampler::Heun(churn(|c| c.s_tmin = f64::NAN)), "s_tmin is NaN"),
        (Sampler::Euler(churn(|c| (c.s_tmin, c.s_tmax) = (2.0, 1.0))), "s_tmax is 1"),
        (Sampler::Euler(churn(|c| c.s_tmax = f64::NAN)), "s_tmax is NaN"),
        (
            Sampler::DpmSolverMultistep(DpmSolver { solver_order: 3, ..DpmSolver::plus_plus_2m() }),
            "solver_order is 3",
        ),
        (Sampler::UniPc(UniPc { solver_order: 0, ..UniPc::order_2() }), "solver_order is 0"),
        (variances(-1.0), "a variance is -1"),
        (variances(f64::NAN), "a variance is NaN"),
        (Sampler::Ddpm(ReverseVariance::PerStep(vec![0.1; 19])), "19 values of variances, expected 20"),
        (Sampler::Ddpm(ReverseVariance::LearnedRange), "learned_range"),
        (lcm(0.0), "timestep_scaling is 0"),
        (lcm(f64::NAN), "timestep_scaling is NaN"),
        (Sampler::Tcd(Tcd { eta: 1.1, original_inference_steps: 5 }), "eta is 1.1"),
    ] {
        let refused = sampler.plan(&schedule, &timesteps);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(expected), "{sampler:?}: {message}");
    }
    let between = Steps::Sigmas(vec![3.0, 1.0, 0.3]);
    let message = Sampler::tcd().plan(&schedule, between).unwrap_err().to_string();
    assert!(message.contains("a timestep of TCD is") && message.contains("an integer"), "{message}");
    let message = Sampler::lcm().plan(&schedule, Steps::Spaced(4)).unwrap_err().to_string();
    assert!(message.contains("original_inference_steps is 50, expected 1 to 20"), "{message}");
}

/// The samplers of distilled models take the timesteps of the distillation. LCM ends at x₀ even if the list does not.
#[test]
fn distilled_models_are_sampled_at_the_timesteps_of_their_distillation() {
    let schedule = fine_schedule(PredictionType::Epsilon);
    for sampler in [Sampler::lcm(), Sampler::tcd()] {
        let plan = |steps: Steps| sampler.plan(&schedule, steps).unwrap();
        let distilled = Timesteps::distilled(&schedule, 50, 4).unwrap();
        assert_eq!(distilled.indices(), [999, 759, 499, 259]);
        assert_eq!(plan(Steps::Spaced(4)), plan(distilled.into()));
    }
    let short = Timesteps::all(&schedule).ending_at_sigma_min(&schedule);
    let plan = Sampler::lcm().plan(&schedule, short).unwrap();
    let Some(Operation::EndStep { signal, noise, .. }) = plan.operations().last() else { panic!("no end") };
    assert_eq!((*signal, *noise), (1.0, 0.0));
}

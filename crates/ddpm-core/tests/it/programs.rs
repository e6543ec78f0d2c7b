//! Programs as a stranger writes them: each must compile and do what it says.

use std::{collections::HashMap, error::Error as _, thread};

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, Error, Guidance, ImageNoise, Pass, Plan, Run, Sampler, Steps, Timestep, no_noise,
};

use crate::{network, schedule, toy::samplers, values};

fn plan(sampler: &Sampler) -> Plan {
    sampler.plan(&schedule(|_| {}), Steps::Spaced(6)).unwrap()
}

fn start() -> Tensor {
    CounterRng::new(1).images(0..3).start(&[4], &Device::Cpu).unwrap()
}

fn noise() -> impl Fn(&Tensor, usize) -> ddpm_core::Result<Tensor> {
    CounterRng::new(1).images(0..3).noise()
}

/// A model with `anyhow`, one with an error of its own, closures in variables, a boxed closure, and `&mut`.
#[test]
fn networks_have_the_errors_of_their_own() {
    #[derive(Debug, thiserror::Error)]
    #[error("out of memory on chip {0}")]
    struct Chip(u32);
    let x = start;
    let mut model = |x_t: &Tensor, timestep: Timestep| -> anyhow::Result<Tensor> {
        anyhow::ensure!(timestep.t() > 8.0, "too clean");
        Ok((x_t * 0.5)?)
    };
    let failed = plan(&Sampler::ddpm()).sample(x(), &mut model, noise()).unwrap_err();
    assert_eq!(failed.to_string(), "the network failed");
    assert_eq!(failed.source().unwrap().to_string(), "too clean");
    let failing = |_: &Tensor, _: Timestep| Err::<Tensor, _>(Chip(3));
    let failed = plan(&Sampler::ddpm()).sample(x(), failing, noise()).unwrap_err();
    let source = failed.source().unwrap();
    assert!(source.downcast_ref::<Chip>().is_some_and(|chip| chip.0 == 3), "{source}");
    type Network = dyn FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>;
    let mut boxed: Box<Network> = Box::new(network);
    let by_box = plan(&Sampler::ddpm()).sample(x(), &mut boxed, noise()).unwrap();
    assert_eq!(values(&by_box), values(&plan(&Sampler::ddpm()).sample(x(), network, noise()).unwrap()));
}

/// This crate's errors pass through `?` in a closure that returns candle's.
#[test]
fn results_of_this_crate_work_in_closures_of_candle() {
    let model = |x_t: &Tensor, timestep: Timestep| -> candle_core::Result<Tensor> {
        let t = timestep.to_tensor(x_t.dim(0)?, DType::F32, x_t.device())?;
        x_t.broadcast_mul(&(t.unsqueeze(1)? / 40.0)?)
    };
    assert_eq!(plan(&Sampler::euler()).sample(start(), model, no_noise).unwrap().dims(), [3, 4]);
}

/// `randn_like` as noise, and none where a sampler adds none.
#[test]
fn noise_is_any_closure_or_none() {
    let sampled = plan(&Sampler::ddpm()).sample(start(), network, |x_t, _| x_t.randn_like(0.0, 1.0));
    assert_eq!(sampled.unwrap().dims(), [3, 4]);
    for (name, sampler) in samplers() {
        let plan = plan(&sampler);
        let noisy = plan.operations().iter().any(|operation| format!("{operation:?}").contains("Noise("));
        let sampled = plan.sample(start(), network, no_noise);
        assert_eq!(sampled.is_ok(), !noisy, "{name}");
    }
    let other = plan(&Sampler::ddpm()).sample(start(), network, |x_t, _| x_t.narrow(0, 0, 1)?.contiguous());
    assert!(matches!(other, Err(Error::Shapes { .. })));
}

/// Guidance over one network that is borrowed mutably, in two passes and as one batch.
#[test]
fn guidance_takes_one_mutable_network() {
    let (mut calls, guidance) = (0, Guidance::new(2.0).within(5.0..=12.0));
    let shift = |x_t: &Tensor, class: f64| x_t.affine(0.5, class);
    let two = plan(&Sampler::ddim(0.0)).sample(
        start(),
        guidance.network(|x_t, _, pass| -> ddpm_core::Result<Tensor> {
            calls += 1;
            Ok(shift(x_t, if pass == Pass::Conditional { 0.1 } else { -0.1 })?)
        }),
        no_noise,
    );
    let mut rows = Vec::new();
    let one = plan(&Sampler::ddim(0.0)).sample(
        start(),
        guidance.network_in_one_batch(|x_t, _, passes| -> ddpm_core::Result<Tensor> {
            rows.push(x_t.dim(0)?);
            let shifts: Vec<f32> = [vec![0.05_f32; 3], vec![-0.05_f32; 3]].concat();
            let shifts = Tensor::new(&shifts[..3 * passes], x_t.device())?.unsqueeze(1)?;
            Ok((x_t * 0.5)?.broadcast_add(&(shifts * 2.0)?)?)
        }),
        no_noise,
    );
    assert_eq!(values(&two.unwrap()), values(&one.unwrap()));
    let guided = rows.iter().filter(|rows| **rows == 6).count();
    assert!(guided > 0 && rows.iter().all(|rows| [3, 6].contains(rows)), "{rows:?}");
    assert_eq!(calls, rows.len() + guided);
}

/// A callback that keeps tensors, changes xₜ, is not `Send`, and fails with an error of its own.
#[test]
fn a_callback_may_keep_and_change_the_images() {
    let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let inner = kept.clone();
    plan(&Sampler::heun())
        .sample_with(start(), network, no_noise, move |run| {
            let step = run.step().ok_or("within a step")?;
            inner.borrow_mut().push((step.index, step.x_t.clone(), step.x_start.clone()));
            run.set_x_t(&run.x_t().zeros_like()?)?;
            Ok(())
        })
        .map(|last| assert_eq!(values(&last), [0.0; 12]))
        .unwrap();
    assert_eq!(kept.borrow().len(), 6);
    let failed = plan(&Sampler::heun()).sample_with(start(), network, no_noise, |_| Err("enough".into()));
    assert_eq!(failed.unwrap_err().source().unwrap().to_string(), "enough");
}

/// Answers a run to its end.
fn finish(mut run: Run) -> Vec<f64> {
    let noise = noise();
    while let Some(ask) = run.ask().unwrap() {
        run.answer(&network(&ask.x_t, ask.timestep).unwrap(), &noise).unwrap();
    }
    values(&run.into_x_t().unwrap())
}

/// Step by step, with a pause after every answer: the state is saved, read, and gives the same bits.
#[test]
fn a_run_continues_from_a_saved_state_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let more = [Sampler::DdimInverse(2), Sampler::RePaint { jump_length: 2, jump_n_sample: 2 }];
    for (name, sampler) in samplers().into_iter().chain(more.map(|sampler| ("other", sampler))) {
        let plan = plan(&sampler);
        let expected = values(&plan.sample(start(), network, noise()).unwrap());
        let mut run = plan.start(start(), noise()).unwrap();
        let mut pauses = 0;
        while let Some(ask) = run.ask().unwrap() {
            run.answer(&network(&ask.x_t, ask.timestep).unwrap(), noise()).unwrap();
            candle_core::safetensors::save(&run.state().unwrap(), &path).unwrap();
            let state: HashMap<String, Tensor> = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
            assert!(finish(plan.resume(&state).unwrap()) == expected, "{name} after {pauses}");
            run = plan.resume(&state).unwrap();
            pauses += 1;
        }
        assert_eq!((pauses, values(run.x_t())), (plan.evaluations(), expected), "{name}");
        let other = Sampler::ddim(0.3).plan(&schedule(|_| {}), Steps::Spaced(7)).unwrap();
        let refused = other.resume(&run.state().unwrap()).unwrap_err().to_string();
        assert!(refused.contains("of another plan"), "{refused}");
        let mut less = run.state().unwrap();
        less.remove("x_t");
        assert!(plan.resume(&less).unwrap_err().to_string().contains("without x_t"));
    }
}

/// Without an answer the request stays; an answer without a request, or of the wrong shape, changes nothing.
#[test]
fn a_run_waits_for_a_right_answer() {
    let mut run = plan(&Sampler::heun()).start(start(), no_noise).unwrap();
    assert!(run.step().is_none() && run.x_start().is_none());
    let [first, again] = [run.ask().unwrap().unwrap(), run.ask().unwrap().unwrap()];
    assert_eq!((values(&first.x_t), first.timestep), (values(&again.x_t), again.timestep));
    let wrong = run.answer(&first.x_t.narrow(0, 0, 1).unwrap(), no_noise).unwrap_err();
    assert!(wrong.to_string().contains("the shape of the network's output"), "{wrong}");
    assert!(run.set_x_t(&first.x_t.narrow(0, 0, 1).unwrap()).is_err());
    run.answer(&network(&first.x_t, first.timestep).unwrap(), no_noise).unwrap();
    assert!(run.step().is_none(), "Heun's step has two answers");
    run.ask().unwrap();
    let mut finished = run.clone();
    while let Some(ask) = finished.ask().unwrap() {
        finished.answer(&ask.x_t, no_noise).unwrap();
    }
    assert!(matches!(finished.answer(&first.x_t, no_noise), Err(Error::NothingAsked)));
    // A source that fails is asked again.
    let mut noisy = plan(&Sampler::ddpm()).start(start(), no_noise).unwrap();
    let ask = noisy.ask().unwrap().unwrap();
    let output = network(&ask.x_t, ask.timestep).unwrap();
    assert!(matches!(noisy.answer(&output, no_noise), Err(Error::Noise(_))));
    noisy.answer(&output, noise()).unwrap();
    assert_eq!(finish(noisy), values(&plan(&Sampler::ddpm()).sample(start(), network, noise()).unwrap()));
}

/// x̂₀ may be replaced after a step: a sampler with history uses it in the next step.
#[test]
fn an_edited_prediction_counts_in_the_next_step() {
    let edited = |edit: bool| {
        let mut run = plan(&Sampler::dpmpp_2m()).start(start(), no_noise).unwrap();
        while let Some(ask) = run.ask().unwrap() {
            run.answer(&network(&ask.x_t, ask.timestep).unwrap(), no_noise).unwrap();
            if edit && run.step().is_some_and(|step| step.index == 2) {
                run.set_x_start(&run.x_start().unwrap().zeros_like().unwrap()).unwrap();
            }
        }
        values(&run.into_x_t().unwrap())
    };
    assert!(edited(true) != edited(false));
}

/// Several users at different steps, answered in one batch, get the same bits as alone.
#[test]
fn requests_at_different_steps_are_answered_in_one_batch() {
    struct User {
        run: Run,
        noise: ImageNoise,
    }
    let samplers = [Sampler::ddpm(), Sampler::heun(), Sampler::dpmpp_2m_sde()];
    let user = |index: u64| {
        let noise = CounterRng::new(1).images([index]);
        let x_t = noise.start(&[4], &Device::Cpu).unwrap();
        User { run: plan(&samplers[index as usize]).start(x_t, noise.noise()).unwrap(), noise }
    };
    let mut users: Vec<User> = (0..3).map(user).collect();
    let mut batches = Vec::new();
    loop {
        // The third user comes later.
        let present = if batches.len() < 2 { 2 } else { 3 };
        let mut asks = Vec::new();
        for user in &mut users[..present] {
            asks.extend(user.run.ask().unwrap().map(|ask| (user, ask)));
        }
        if asks.is_empty() {
            break;
        }
        batches.push(asks.len());
        // A network of one timestep for each image.
        let x_t = Tensor::cat(&asks.iter().map(|(_, ask)| &ask.x_t).collect::<Vec<_>>(), 0).unwrap();
        let rows = asks.iter().enumerate();
        let rows =
            rows.map(|(row, (_, ask))| network(&x_t.narrow(0, row, 1).unwrap(), ask.timestep).unwrap());
        for (output, (user, _)) in rows.collect::<Vec<_>>().iter().zip(asks) {
            user.run.answer(output, user.noise.noise()).unwrap();
        }
    }
    assert!(batches.contains(&3) && batches.contains(&1), "{batches:?}");
    for (index, user) in users.iter().enumerate() {
        let noise = CounterRng::new(1).images([index as u64]);
        let x_t = noise.start(&[4], &Device::Cpu).unwrap();
        let alone = plan(&samplers[index]).sample(x_t, network, noise.noise()).unwrap();
        assert_eq!(values(user.run.x_t()), values(&alone));
    }
}

/// A run moves to another thread, and a plan is shared by threads.
#[test]
fn plans_and_runs_are_send_and_sync() {
    fn assert_send_sync<T: Send + Sync>(_: &T) {}
    let plan = plan(&Sampler::ddpm());
    let run = plan.start(start(), noise()).unwrap();
    assert_send_sync(&plan);
    assert_send_sync(&run);
    assert_send_sync(&CounterRng::new(1).images(0..3).noise());
    let here = values(&plan.sample(start(), network, noise()).unwrap());
    let there = thread::scope(|scope| {
        [scope.spawn(|| finish(run.clone())), scope.spawn(|| finish(plan.start(start(), noise()).unwrap()))]
            .map(|thread| thread.join().unwrap())
    });
    assert_eq!(there, [here.clone(), here]);
}

/// The list of timesteps must belong to the schedule of the plan.
#[test]
fn a_list_of_another_schedule_is_refused() {
    let (small, large) = (schedule(|_| {}), schedule(|c| *c = ddpm_core::NoiseScheduleConfig::ho2020()));
    for (list, other) in [
        (Steps::Spaced(10).timesteps(&large).unwrap(), &small),
        (Steps::Explicit(vec![15, 3]).timesteps(&large).unwrap(), &small),
        (Steps::All.timesteps(&small).unwrap(), &large),
    ] {
        let refused = Sampler::ddpm().plan(other, list).unwrap_err().to_string();
        assert!(refused.contains("expected a timestep of the plan's schedule"), "{refused}");
    }
    let beyond = Steps::Sigmas(vec![500.0, 10.0, 0.001]).timesteps(&small).unwrap();
    Sampler::ddpm().plan(&small, &beyond).unwrap();
}

//! Programs as a stranger writes them: each must compile and do what it says.

use std::{
    collections::{BTreeSet, HashMap},
    error::Error as _,
    thread,
};

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    Clip, CounterRng, Error, Guidance, ImageNoise, Pass, Plan, PredictionType, ReverseVariance, Run, Sampler,
    Steps, Timestep, no_noise,
};

use crate::{network, network_of, schedule, toy::all_samplers, values};

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
    for (name, sampler) in all_samplers() {
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
        guidance.network(|x_t, _, pass| {
            calls += 1;
            shift(x_t, if pass == Pass::Conditional { 0.1 } else { -0.1 })
        }),
        no_noise,
    );
    let mut rows = Vec::new();
    let one = plan(&Sampler::ddim(0.0)).sample(
        start(),
        guidance.network_in_one_batch(|x_t, _, passes| {
            rows.push(x_t.dim(0)?);
            let shifts: Vec<f32> = [vec![0.05_f32; 3], vec![-0.05_f32; 3]].concat();
            let shifts = Tensor::new(&shifts[..3 * passes], x_t.device())?.unsqueeze(1)?;
            (x_t * 0.5)?.broadcast_add(&(shifts * 2.0)?)
        }),
        no_noise,
    );
    assert_eq!(values(&two.unwrap()), values(&one.unwrap()));
    let guided = rows.iter().filter(|rows| **rows == 6).count();
    assert!(guided > 0 && rows.iter().all(|rows| [3, 6].contains(rows)), "{rows:?}");
    assert_eq!(calls, rows.len() + guided);
    // A network with guidance outlives the guidance, and its own error is the source.
    let guided = |scale| Guidance::new(scale).network(|_, _, _| Err(std::io::Error::other("unplugged")));
    let failed = plan(&Sampler::ddim(0.0)).sample(start(), guided(2.0), no_noise).unwrap_err();
    let source = failed.source().unwrap();
    assert!(source.is::<std::io::Error>() && source.to_string() == "unplugged", "{source}");
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
    for (name, sampler) in all_samplers() {
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
    }
}

/// Without one of its tensors a state is refused, at any point of a run; also with a learned variance.
#[test]
fn a_state_without_one_of_its_tensors_is_refused() {
    let learned = schedule(|c| c.variance_type = ReverseVariance::LearnedRange);
    let plans = all_samplers().into_iter().map(|(_, sampler)| (plan(&sampler), schedule(|_| {})));
    let learned_plan = Sampler::Ddpm(ReverseVariance::LearnedRange).plan(&learned, Steps::Spaced(6)).unwrap();
    let mut names = BTreeSet::new();
    for (plan, schedule) in plans.chain([(learned_plan, learned)]) {
        let network = network_of(&schedule);
        let expected = values(&plan.sample(start(), &network, noise()).unwrap());
        let mut run = plan.start(start(), noise()).unwrap();
        while let Some(ask) = run.ask().unwrap() {
            run.answer(&network(&ask.x_t, ask.timestep).unwrap(), noise()).unwrap();
            let state = run.state().unwrap();
            for name in state.keys() {
                let mut less = state.clone();
                less.remove(name);
                let refused = plan.resume(&less).unwrap_err().to_string();
                assert!(refused.contains(&format!("without {name}")), "{refused}");
                names.insert(name.clone());
            }
            run = plan.resume(&state).unwrap();
        }
        assert_eq!(values(run.x_t()), expected);
        let mut other = run.state().unwrap();
        other.insert("x_start.0".to_owned(), Tensor::zeros((3, 5), DType::F32, &Device::Cpu).unwrap());
        assert!(matches!(plan.resume(&other), Err(Error::Shapes { .. })));
        let clipped = plan.clone().clipped(Clip::Range(0.5));
        let refused = clipped.resume(&run.state().unwrap()).unwrap_err().to_string();
        assert!(refused.contains("of another plan"), "{refused}");
    }
    for name in ["kept", "variance", "eps.3", "x_start.2", "noise.0"] {
        assert!(names.contains(name), "{name} of {names:?}");
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
    // An answer needs a request, and belongs to the images of that request.
    assert!(matches!(run.answer(&first.x_t, no_noise), Err(Error::NothingAsked)));
    run.ask().unwrap();
    run.set_x_t(&run.x_t().clone()).unwrap();
    assert!(matches!(run.answer(&first.x_t, no_noise), Err(Error::NothingAsked)));
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

/// A change of xₜ between two steps counts in every sampler: with a network that always predicts the same image, the next
/// xₜ changes too.
#[test]
fn edited_images_count_in_the_next_step() {
    let schedule = schedule(|c| c.prediction_type = PredictionType::Sample);
    for (name, sampler) in all_samplers() {
        let after_edit = |edit: f64| {
            let plan = sampler.plan(&schedule, Steps::Spaced(8)).unwrap();
            let mut run = plan.start(start(), noise()).unwrap();
            while let Some(ask) = run.ask().unwrap() {
                run.answer(&ask.x_t.zeros_like().unwrap(), noise()).unwrap();
                match run.step().map(|step| step.index) {
                    Some(4) => run.set_x_t(&(run.x_t() + edit).unwrap()).unwrap(),
                    Some(5) => return values(run.x_t())[0],
                    _ => {}
                }
            }
            panic!("{name} has no step 5")
        };
        let change = after_edit(1.0) - after_edit(0.0);
        // LCM, whose step starts almost from x̂₀ alone, forgets xₜ.
        assert_eq!(change.abs() > 0.1, name != "lcm", "{name}: {change}");
    }
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

/// Images of integers cannot be denoised.
#[test]
fn integers_and_plans_that_cannot_be_carried_out_do_not_start() {
    for dtype in [DType::U8, DType::U32, DType::I64] {
        let refused = plan(&Sampler::ddpm()).start(start().to_dtype(dtype).unwrap(), no_noise).unwrap_err();
        assert!(refused.to_string().contains(&format!("{dtype:?}")), "{refused}");
    }
    let empty = Plan::new(&schedule(|_| {}));
    assert!(empty.start(start(), no_noise).unwrap_err().to_string().contains("steps of a plan is 0"));
    assert!(empty.resume(&HashMap::new()).is_err());
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

//! Plans that are fitted to a model, and their files.

use std::{fs, path::Path};

use ddpm_core::Guidance;
use ddpm_model::{
    Denoiser, Error, FittedPlan, GuidanceOptions, PlanFit, PlanFitConfig, read_model, write_model,
};

use crate::{bits, denoiser, small_mlp, small_plain};

fn fit(denoiser: &Denoiser) -> PlanFit<'_> {
    let guidance = Guidance::new(1.5).within(3.0..=12.0).annealed(11.0..=16.0).into();
    PlanFit::new(denoiser, &PlanFitConfig { seed: 1, num_images: 40, guidance }, &[]).unwrap()
}

fn plan(denoiser: &Denoiser) -> FittedPlan {
    let fit = fit(denoiser);
    let (method, _) = fit.fit(&[19, 13, 8, 2]).unwrap();
    fit.plan(method).unwrap()
}

#[test]
fn the_search_ends_at_a_list_that_no_neighbour_improves() {
    let denoiser = denoiser(&small_mlp());
    let fit = fit(&denoiser);
    let error = |list: &[usize]| *fit.fit(list).unwrap().1.last().unwrap();
    let mut tried = Vec::new();
    let observe = |list: &[usize], error: f64| {
        tried.push((list.to_vec(), error));
        Ok(())
    };
    let found = fit.search(3, observe).unwrap();
    let least = error(&found);
    assert_eq!(tried[0].0, [19, 13, 6]);
    assert!(tried.iter().all(|(list, tried)| *tried == error(list) && least <= *tried));
    assert!(least < error(&[19, 13, 6]));
    for place in [1, 2] {
        for t in [found[place].saturating_sub(1), found[place] + 1] {
            let mut list = found.clone();
            list[place] = t;
            if list.is_sorted_by(|a, b| a > b) {
                assert!(error(&list) >= least, "{list:?} is better than {found:?}");
            }
        }
    }
    let stopped = fit.search(3, |_, _| Err("stopped".into())).unwrap_err();
    assert!(matches!(stopped, Error::Core(ddpm_core::Error::Callback(_))));
}

#[test]
fn a_plan_is_the_same_after_a_round_trip_through_its_file() {
    let denoiser = denoiser(&small_mlp());
    let plan = plan(&denoiser);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    fs::write(&path, plan.encode(&path).unwrap()).unwrap();
    let read = FittedPlan::read(&path).unwrap();
    assert_eq!(read, plan);
    let config = read.config(1, &denoiser).unwrap();
    assert_eq!(config, plan.config(1, &denoiser).unwrap());
    let expected = Guidance::new(1.5).within(3.0..=12.0).annealed(11.0..=16.0);
    assert_eq!((config.guidance, config.plan.evaluations()), (expected.into(), 4));
    let guided = crate::denoiser(&small_mlp()).guided_by(crate::denoiser(&small_plain())).unwrap();
    let guidance =
        GuidanceOptions { guide_scale: Some(1.7), ..GuidanceOptions::default() }.guidance(&guided).unwrap();
    let config = PlanFitConfig { seed: 1, num_images: 3, guidance: guidance.clone() };
    let fit = PlanFit::new(&guided, &config, &[]).unwrap();
    let plan = fit.plan(fit.fit(&[19]).unwrap().0).unwrap();
    let read = FittedPlan::parse(&path, &plan.encode(&path).unwrap()).unwrap();
    assert_eq!(read.config(1, &guided).unwrap().guidance, guidance);
    // Guidance at all timesteps has an end that JSON can hold.
    let everywhere = PlanFitConfig { seed: 1, num_images: 2, guidance: Guidance::new(2.0).into() };
    let fit = PlanFit::new(&denoiser, &everywhere, &[]).unwrap();
    let plan = fit.plan(fit.fit(&[19]).unwrap().0).unwrap();
    assert_eq!(FittedPlan::parse(&path, &plan.encode(&path).unwrap()).unwrap(), plan);
}

/// The digest is that of the model, wherever its weights are stored, and differs with each part of it.
#[test]
fn a_plan_is_refused_for_another_model_or_guide() {
    let model = denoiser(&small_mlp());
    let plan = plan(&model);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    write_model(&path, &model, ddpm_model::WeightType::F32, "").unwrap();
    plan.config(1, &read_model(&path, model.device()).unwrap()).unwrap();
    let schedule = ddpm_core::NoiseScheduleConfig { beta_end: 0.6, ..model.schedule_config() };
    let other_schedule = Denoiser::new(model.config(), &schedule, model.weights().clone()).unwrap();
    let mut weights = model.weights().clone();
    let changed = (&weights["output.bias"] + 1e-6).unwrap();
    weights.insert("output.bias".to_owned(), changed);
    let other_weights = Denoiser::new(model.config(), &model.schedule_config(), weights).unwrap();
    let guided = denoiser(&small_mlp()).guided_by(denoiser(&small_mlp())).unwrap();
    let others = [other_schedule, other_weights, guided, denoiser(&small_plain())];
    for other in &others {
        let error = plan.config(1, other).unwrap_err();
        let (found, expected) = (other.sha256().unwrap(), model.sha256().unwrap());
        assert_eq!(
            error.to_string(),
            format!(
                "the plan was fitted to the model with SHA-256 {expected}, but this model, with its guide if it has one, \
                 has {found}"
            )
        );
    }
}

#[test]
fn files_that_are_no_plans_and_plans_that_cannot_be_carried_out_are_refused() {
    let denoiser = denoiser(&small_mlp());
    let path = Path::new("some/plan.json");
    let error = FittedPlan::read(path).unwrap_err();
    assert_eq!(error.to_string(), "some/plan.json: cannot read the plan");
    let json = String::from_utf8(plan(&denoiser).encode(path).unwrap()).unwrap();
    for (from, to) in [
        ("\"model_sha256\"", "\"model\""),
        ("\"steps\"", "\"guidance\""),
        ("\"t\": 19", "\"t\": -19"),
        ("\"t\": 19", "\"t\": 19, \"t\": 19"),
    ] {
        let error = FittedPlan::parse(path, json.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "some/plan.json: invalid JSON content");
    }
    for (from, to, message) in [
        ("\"t\": 19", "\"t\": 20", "timesteps[0] is 20, expected strictly descending values below 20"),
        ("\"t\": 13", "\"t\": 19", "timesteps[1] is 19"),
        ("\"t\": 19", "\"t\": 2", "timesteps[1] is 13"),
        ("\"scale\": 1.5", "\"scale\": 1e400", "invalid JSON"),
        ("3.0,", "13.0,", "the guidance interval is 13-12"),
        ("11.0,", "17.0,", "the annealing interval is 17-16"),
    ] {
        let changed = json.replacen(from, to, 1);
        assert_ne!(changed, json, "{from}");
        let plan = FittedPlan::parse(path, changed.as_bytes());
        let error = plan.and_then(|plan| plan.config(1, &denoiser)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_fit_that_cannot_be_made_is_refused() {
    let denoiser = denoiser(&small_mlp());
    let config =
        |num_images, guidance: Guidance| PlanFitConfig { seed: 1, num_images, guidance: guidance.into() };
    let failed = |config: PlanFitConfig, list: &[usize]| {
        PlanFit::new(&denoiser, &config, list).unwrap_err().to_string()
    };
    assert_eq!(
        failed(config(0, Guidance::new(1.0)), &[]),
        "the number of images of a fit is 0, expected 1 or more"
    );
    let beyond = config(1, Guidance::new(2.0).within(3.0..=20.0));
    assert!(failed(beyond, &[]).contains("the guidance interval is 3-20"));
    assert!(failed(config(1, Guidance::new(1.0)), &[20]).contains("timesteps[0] is 20"));
    let fit = fit(&denoiser);
    for list in [&[5, 5][..], &[5, 19], &[19, 20], &[]] {
        let error = fit.fit(list).unwrap_err().to_string();
        assert!(error.contains("timesteps") || error.contains("targets"), "{list:?}: {error}");
    }
    for n in [0, 21] {
        let error = fit.search(n, |_, _| Ok(())).unwrap_err().to_string();
        assert_eq!(error, format!("the number of steps is {n}, expected 1 to 20"));
    }
}

/// A long schedule has a teacher of 50 steps, and of the timesteps that are asked for.
#[test]
fn the_teacher_of_a_long_schedule_also_takes_the_given_timesteps() {
    let schedule = ddpm_core::NoiseScheduleConfig {
        num_train_timesteps: 1000,
        ..ddpm_core::NoiseScheduleConfig::ho2020()
    };
    let config = small_mlp();
    let denoiser =
        Denoiser::new(&config, &schedule, crate::weights(&config, candle_core::DType::F32)).unwrap();
    let guidance = Guidance::new(1.0).into();
    let config = PlanFitConfig { seed: 1, num_images: 3, guidance };
    let list = [999, 633, 171, 4];
    assert!(PlanFit::new(&denoiser, &config, &[]).unwrap().fit(&list).is_err());
    let fit = PlanFit::new(&denoiser, &config, &list).unwrap();
    let (method, errors) = fit.fit(&list).unwrap();
    assert!(errors.iter().all(|error| error.is_finite()));
    let config = fit.plan(method).unwrap().config(1, &denoiser).unwrap();
    let images = denoiser.sample(&config, &[0], &[0], |_| Ok(())).unwrap();
    assert!(bits(&images) == bits(&denoiser.sample(&config, &[0], &[0], |_| Ok(())).unwrap()));
}

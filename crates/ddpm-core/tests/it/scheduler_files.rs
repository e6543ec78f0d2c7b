//! Files that others wrote: reading them, writing them back, and converting them to other classes as diffusers does.
//! `fixtures/README.md` describes the fixtures.

use ddpm_core::{Compat, DiffusersConfig, FlowMatchEuler, Scheduler};
use serde_json::{Map, Value, json};

const FILES: &str = include_str!("../fixtures/scheduler_files.json");
const CONVERSIONS: &str = include_str!("../fixtures/from_config.json");

/// Files that are refused, with the option or value that the error names.
const REFUSED: [(&str, &str); 1] = [("KELISBU/HMPDM (SVD-like)", "sigma_min")];

/// Options that this crate does not implement. They are written only if the file has them.
const NOT_WRITTEN: [&str; 16] = [
    "disable_corrector",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "predict_x0",
    "shift_terminal",
    "sigma_max",
    "sigma_min",
    "solver_p",
    "time_shift_type",
    "timestep_type",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_lu_lambdas",
];

type Options = Map<String, Value>;

/// JSON, in which −∞ is a bare word.
fn parse(json: &str) -> Options {
    serde_json::from_str(&json.replace(": -Infinity", r#": "-Infinity""#)).unwrap()
}

fn try_read(file: &Options) -> ddpm_core::Result<DiffusersConfig> {
    let text = Value::from(file.clone()).to_string();
    DiffusersConfig::from_diffusers_json(&text.replace(r#""-Infinity""#, "-Infinity"))
}

fn read(file: &Options) -> DiffusersConfig {
    try_read(file).unwrap_or_else(|error| panic!("{error}: {file:?}"))
}

fn written(config: &DiffusersConfig) -> Options {
    parse(&config.to_diffusers_json().unwrap())
}

fn object(value: &Value) -> &Options {
    value.as_object().unwrap()
}

/// The files of the fixture that can be read.
fn files() -> Vec<(String, Options)> {
    let is_read = |name: &str| REFUSED.iter().all(|(refused, _)| *refused != name);
    let files = parse(FILES).into_iter().filter(|(name, _)| is_read(name));
    files.map(|(name, file)| (name, object(&file).clone())).collect()
}

#[test]
fn every_file_is_read_and_written_back_with_all_it_holds() {
    let conversions = parse(CONVERSIONS);
    for (name, file) in files() {
        let config = read(&file);
        Scheduler::new(&config).unwrap().timesteps(10).unwrap();
        let written = written(&config);
        let class = file["_class_name"].as_str().unwrap();
        let changes = &conversions["changes"][&name][class];
        for (option, value) in &file {
            let expected = changes.get(option).unwrap_or(value);
            assert_eq!(written.get(option), Some(expected), "{name}: {option}");
        }
        for (option, value) in written.iter().filter(|(option, _)| !file.contains_key(*option)) {
            assert_eq!(value, &conversions["defaults"][class][option], "{name}: {option}");
        }
        assert_eq!(read(&written), config, "{name}");
    }
}

#[test]
fn a_file_that_would_change_a_number_is_refused() {
    let files = parse(FILES);
    for (name, part) in REFUSED {
        let message = try_read(object(&files[name])).unwrap_err().to_string();
        assert!(message.contains(part), "{name}: {message}");
    }
}

/// The file that diffusers writes after `from_config`, from the fixture. `name` is that of `file` there.
fn as_diffusers_has_it(conversions: &Options, name: &str, file: &Options, class: &str) -> Options {
    let mut expected = object(&conversions["defaults"][class]).clone();
    expected.extend(file.clone());
    if let Some(changes) = conversions["changes"].get(name).and_then(|changes| changes.get(class)) {
        expected.extend(object(changes).clone());
    }
    expected.insert("_class_name".to_owned(), class.into());
    expected
}

fn assert_converted(file: &Options, config: &DiffusersConfig, mut expected: Options, about: &str) {
    let written = written(config);
    expected.retain(|option, _| {
        file.contains_key(option) || written.contains_key(option) || !NOT_WRITTEN.contains(&option.as_str())
    });
    assert_eq!(written, expected, "{about}");
}

#[test]
fn conversions_between_classes_are_those_of_diffusers() {
    let conversions = parse(CONVERSIONS);
    let classes: Vec<&String> = object(&conversions["defaults"]).keys().collect();
    let mut files = files();
    for class in &classes {
        files.push((format!("{class}, no options"), parse(&json!({ "_class_name": class }).to_string())));
        files.push((format!("{class}, all options"), object(&conversions["defaults"][*class]).clone()));
    }
    // Runge-Kutta steps, the default of PNDM, are refused.
    let has_runge_kutta = |file: &Options, class: &str| {
        class == "PNDMScheduler" && file.get("skip_prk_steps").is_none_or(|skip| *skip == false)
    };
    files.retain(|(_, file)| !has_runge_kutta(file, file["_class_name"].as_str().unwrap()));
    for (name, file) in &files {
        for class in &classes {
            let about = format!("{name} as {class}");
            if has_runge_kutta(file, class) {
                let refused = read(file).to_class(class).unwrap_err().to_string();
                assert!(refused.contains("`skip_prk_steps` of PNDMScheduler is false"), "{about}: {refused}");
                continue;
            }
            let config = read(file).to_class(class).unwrap_or_else(|error| panic!("{about}: {error}"));
            assert_eq!(config.sampler.diffusers_class(), *class);
            let expected = as_diffusers_has_it(&conversions, name, file, class);
            assert_converted(file, &config, expected, &about);
        }
    }
    for chain in conversions["chains"].as_array().unwrap() {
        let [start, via, end] = [0, 1, 2].map(|at| chain[at].as_str().unwrap());
        let file = parse(&json!({ "_class_name": start, "beta_end": 0.013 }).to_string());
        let config = read(&file).to_class(via).unwrap().to_class(end).unwrap();
        let expected = as_diffusers_has_it(&conversions, "", &file, end);
        assert_converted(&file, &config, expected, &chain.to_string());
    }
}

#[test]
fn every_option_of_every_scheduler_of_diffusers_is_known() {
    let conversions = parse(CONVERSIONS);
    let options = conversions["options"].as_array().unwrap();
    assert!(options.len() > 100);
    let class = "EulerAncestralDiscreteScheduler";
    let own = object(&conversions["defaults"][class]);
    for option in options.iter().filter(|option| !own.contains_key(option.as_str().unwrap())) {
        let file = parse(&format!(r#"{{ "_class_name": "{class}", {option}: [true, null, "a"] }}"#));
        let config = read(&file);
        assert_eq!(written(&config)[option.as_str().unwrap()], json!([true, null, "a"]));
        assert_ne!(config, read(&parse(&format!(r#"{{ "_class_name": "{class}" }}"#))));
    }
}

/// An option that was changed after reading counts as set, and so does every option of a configuration made in code.
#[test]
fn a_conversion_keeps_what_was_set_in_code() {
    let file = parse(r#"{ "_class_name": "DDPMScheduler" }"#);
    let heun = |config: &DiffusersConfig| config.to_class("HeunDiscreteScheduler").unwrap().schedule;
    let mut config = read(&file);
    config.schedule.compat = Compat::Diffusers;
    assert_eq!((heun(&config).beta_start, heun(&config).compat), (0.00085, Compat::Diffusers));
    config.schedule.beta_start = 0.001;
    assert_eq!((heun(&config).beta_start, heun(&config).beta_end), (0.001, 0.012));
    let made = DiffusersConfig::new(config.schedule, config.sampler);
    assert_eq!((heun(&made).beta_start, heun(&made).beta_end), (0.001, 0.02));
}

#[test]
fn a_conversion_to_a_class_that_would_use_a_kept_option_is_refused() {
    let file = parse(r#"{ "_class_name": "DDIMScheduler", "use_karras_sigmas": true, "sigma_min": 0.1 }"#);
    let config = read(&file);
    assert_eq!(written(&config.to_class("DDPMScheduler").unwrap())["sigma_min"], 0.1);
    for class in ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler"] {
        let message = config.to_class(class).unwrap_err().to_string();
        assert!(message.contains(&format!("`sigma_min` of {class} is 0.1")), "{message}");
    }
    assert!(config.to_class("PNDM").unwrap_err().to_string().contains("_class_name"));
}

/// Regression: writing must not bring back a value of the file that was changed since.
#[test]
fn writing_keeps_the_spelling_of_a_file_but_not_a_value_that_was_changed() {
    let file = parse(
        r#"{ "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "rescale_betas_zero_snr": null,
             "timestep_type": "continuous", "prediction_type": "original_sample", "sigma_max": 80 }"#,
    );
    let mut config = read(&file);
    let before = written(&config);
    assert_eq!((&before["prediction_type"], &before["sigma_max"]), (&json!("original_sample"), &json!(80)));
    config.schedule.beta_end = 0.013;
    config.schedule.rescale_betas_zero_snr = true;
    config.schedule.prediction_type = ddpm_core::PredictionType::VPrediction;
    config.use_karras_sigmas = true;
    let after = written(&config);
    assert_eq!(after["beta_end"], 0.013);
    assert_eq!(after["rescale_betas_zero_snr"], true);
    assert_eq!(after["prediction_type"], "v_prediction");
    // diffusers would use these two now, and this crate does not.
    assert!(!after.contains_key("timestep_type") && !after.contains_key("sigma_max"));
    assert_eq!(read(&after).schedule, config.schedule);
}

/// The scheduler files of Stable Diffusion 3 and FLUX.1.
#[test]
fn files_of_flow_matching_are_read_and_written_back() {
    let plain = json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.29.0.dev0",
        "num_train_timesteps": 1000, "shift": 3.0,
    });
    let dynamic = json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.30.0.dev0",
        "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15,
        "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": true, "clip_sample": false,
    });
    for file in [&plain, &dynamic] {
        let flow = FlowMatchEuler::from_diffusers_json(&file.to_string()).unwrap();
        let written: Value = serde_json::from_str(&flow.to_diffusers_json().unwrap()).unwrap();
        for (option, value) in object(file) {
            assert_eq!(&written[option], value, "{option}");
        }
        assert_eq!(FlowMatchEuler::from_diffusers_json(&written.to_string()).unwrap(), flow);
    }
    let flow = FlowMatchEuler::from_diffusers_json(&dynamic.to_string()).unwrap();
    let missing = flow.sigmas(4, None).unwrap_err().to_string();
    assert!(missing.contains("mu is missing, expected a number, for use_dynamic_shifting"), "{missing}");
    for (option, value, part) in [
        ("use_beta_sigmas", json!(true), "`use_beta_sigmas`"),
        ("shifts", json!(3.0), "`shifts`"),
        ("_class_name", json!("EulerDiscreteScheduler"), "FlowMatchEulerDiscreteScheduler"),
        ("time_shift_type", json!("cubic"), "`time_shift_type`"),
    ] {
        let mut file = plain.clone();
        file[option] = value;
        let refused = FlowMatchEuler::from_diffusers_json(&file.to_string()).unwrap_err().to_string();
        assert!(refused.contains(part), "{refused}");
    }
    for (sigmas, part) in [
        (&[][..], "empty"),
        (&[0.5, 0.5], "sigmas[1] is 0.5"),
        (&[1.5], "sigmas[0] is 1.5"),
        (&[0.0], "sigmas[0] is 0"),
        (&[f64::NAN], "sigmas[0] is NaN"),
    ] {
        let refused = flow.plan(sigmas).unwrap_err().to_string();
        assert!(refused.contains(part), "{refused}");
    }
    for shift in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(FlowMatchEuler::new(shift).sigmas(4, None).is_err(), "{shift}");
    }
}

//! Reading, keeping, writing and rejecting options of a `scheduler_config.json`.

use ddpm_core::{
    BetaSchedule, DiffusersConfig, FinalSigma, NoiseScheduleConfig, PredictionType, ReverseVariance, Sampler,
    Scheduler, TimestepSpacing,
    sampler::{Bh, Churn, DpmSolver, SolverType, UniPc},
};
use serde_json::{Map, Value};

fn read(json: &str) -> DiffusersConfig {
    DiffusersConfig::from_diffusers_json(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn map(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap()
}

/// All options of each class with its defaults, as diffusers 0.42.1 writes them.
const DEFAULTS: [(&str, &str); 7] = [
    (
        "DDPMScheduler",
        r#""beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001, "clip_sample": true,
           "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
           "num_train_timesteps": 1000, "prediction_type": "epsilon",
           "rescale_betas_zero_snr": false, "sample_max_value": 1.0, "steps_offset": 0,
           "thresholding": false, "timestep_spacing": "leading", "trained_betas": null,
           "variance_type": "fixed_small""#,
    ),
    (
        "DDIMScheduler",
        r#""beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001, "clip_sample": true,
           "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
           "num_train_timesteps": 1000, "prediction_type": "epsilon",
           "rescale_betas_zero_snr": false, "sample_max_value": 1.0, "set_alpha_to_one": true,
           "steps_offset": 0, "thresholding": false, "timestep_spacing": "leading",
           "trained_betas": null"#,
    ),
    (
        "DPMSolverMultistepScheduler",
        r#""algorithm_type": "dpmsolver++", "beta_end": 0.02, "beta_schedule": "linear",
           "beta_start": 0.0001, "dynamic_thresholding_ratio": 0.995, "euler_at_final": false,
           "final_sigmas_type": "zero", "flow_shift": 1.0, "lambda_min_clipped": -Infinity,
           "lower_order_final": true, "num_train_timesteps": 1000, "prediction_type": "epsilon",
           "rescale_betas_zero_snr": false, "sample_max_value": 1.0, "solver_order": 2,
           "solver_type": "midpoint", "steps_offset": 0, "thresholding": false,
           "time_shift_type": "exponential", "timestep_spacing": "linspace", "trained_betas": null,
           "use_beta_sigmas": false, "use_dynamic_shifting": false, "use_exponential_sigmas": false,
           "use_flow_sigmas": false, "use_karras_sigmas": false, "use_lu_lambdas": false,
           "variance_type": null"#,
    ),
    (
        "EulerDiscreteScheduler",
        r#""beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
           "final_sigmas_type": "zero", "interpolation_type": "linear", "num_train_timesteps": 1000,
           "prediction_type": "epsilon", "rescale_betas_zero_snr": false, "sigma_max": null,
           "sigma_min": null, "steps_offset": 0, "timestep_spacing": "linspace",
           "timestep_type": "discrete", "trained_betas": null, "use_beta_sigmas": false,
           "use_exponential_sigmas": false, "use_karras_sigmas": false"#,
    ),
    (
        "EulerAncestralDiscreteScheduler",
        r#""beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
           "num_train_timesteps": 1000, "prediction_type": "epsilon",
           "rescale_betas_zero_snr": false, "steps_offset": 0, "timestep_spacing": "linspace",
           "trained_betas": null"#,
    ),
    (
        "HeunDiscreteScheduler",
        r#""beta_end": 0.012, "beta_schedule": "linear", "beta_start": 0.00085,
           "clip_sample": false, "clip_sample_range": 1.0, "num_train_timesteps": 1000,
           "prediction_type": "epsilon", "steps_offset": 0, "timestep_spacing": "linspace",
           "trained_betas": null, "use_beta_sigmas": false, "use_exponential_sigmas": false,
           "use_karras_sigmas": false"#,
    ),
    (
        "UniPCMultistepScheduler",
        r#""beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
           "disable_corrector": [], "dynamic_thresholding_ratio": 0.995,
           "final_sigmas_type": "zero", "flow_shift": 1.0, "lower_order_final": true,
           "num_train_timesteps": 1000, "predict_x0": true, "prediction_type": "epsilon",
           "rescale_betas_zero_snr": false, "sample_max_value": 1.0, "shift_terminal": null,
           "sigma_max": null, "sigma_min": null, "solver_order": 2, "solver_p": null,
           "solver_type": "bh2", "steps_offset": 0, "thresholding": false,
           "time_shift_type": "exponential", "timestep_spacing": "linspace", "trained_betas": null,
           "use_beta_sigmas": false, "use_dynamic_shifting": false, "use_exponential_sigmas": false,
           "use_flow_sigmas": false, "use_karras_sigmas": false"#,
    ),
];

#[test]
fn absent_options_have_the_defaults_of_diffusers() {
    for (class, options) in DEFAULTS {
        let nothing = format!(r#"{{ "_class_name": "{class}" }}"#);
        let all = format!(r#"{{ "_class_name": "{class}", {options} }}"#);
        assert_eq!(read(&nothing), read(&all), "{class}");
        Scheduler::new(&read(&nothing)).unwrap().timesteps(10).unwrap();
    }
}

/// The configurations that these defaults are read as.
#[test]
fn defaults_are_the_samplers_of_the_papers() {
    let classes = DEFAULTS.map(|(class, _)| read(&format!(r#"{{ "_class_name": "{class}" }}"#)));
    let samplers = classes.each_ref().map(|config| config.sampler.clone());
    let expected = [
        Sampler::Ddpm(ReverseVariance::FixedSmall),
        Sampler::Ddim(0.0),
        Sampler::DpmSolverMultistep(DpmSolver::plus_plus_2m()),
        Sampler::Euler(Churn::NONE),
        Sampler::EulerAncestral,
        Sampler::Heun(Churn::NONE),
        Sampler::UniPc(UniPc::order_2()),
    ];
    assert_eq!(samplers, expected);
    for config in classes {
        let by_t = matches!(config.sampler, Sampler::Ddpm(_) | Sampler::Ddim(_));
        let heun = matches!(config.sampler, Sampler::Heun(_));
        let schedule = NoiseScheduleConfig {
            beta_start: if heun { 0.00085 } else { 1e-4 },
            beta_end: if heun { 0.012 } else { 0.02 },
            clip_sample: by_t,
            timestep_spacing: if by_t { TimestepSpacing::Leading } else { TimestepSpacing::Linspace },
            ..NoiseScheduleConfig::ho2020()
        };
        assert_eq!(config.schedule, schedule);
        assert!(!config.use_karras_sigmas && config.final_sigma == FinalSigma::Zero);
    }
}

/// Every option of a class with a value other than its default, and some options of other classes.
const OTHERS: [(&str, &str); 7] = [
    (
        "DDPMScheduler",
        r#""clip_sample": false, "clip_sample_range": 2.5, "thresholding": true, "dynamic_thresholding_ratio": 0.9,
           "sample_max_value": 1.5, "variance_type": "learned_range", "rescale_betas_zero_snr": true,
           "set_alpha_to_one": false, "skip_prk_steps": true"#,
    ),
    (
        "DDIMScheduler",
        r#""clip_sample": false, "clip_sample_range": 2.5, "thresholding": true, "dynamic_thresholding_ratio": 0.9,
           "sample_max_value": 1.5, "set_alpha_to_one": false, "rescale_betas_zero_snr": true,
           "skip_prk_steps": true"#,
    ),
    (
        "DPMSolverMultistepScheduler",
        r#""thresholding": true, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5, "solver_order": 1,
           "algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "lower_order_final": false,
           "euler_at_final": true, "variance_type": "learned_range", "use_karras_sigmas": true,
           "final_sigmas_type": "sigma_min", "rescale_betas_zero_snr": true, "clip_sample": false,
           "set_alpha_to_one": false, "skip_prk_steps": true"#,
    ),
    (
        "EulerDiscreteScheduler",
        r#""use_karras_sigmas": true, "final_sigmas_type": "sigma_min", "rescale_betas_zero_snr": true,
           "clip_sample": false, "set_alpha_to_one": false, "skip_prk_steps": true, "sample_max_value": 1.0"#,
    ),
    (
        "EulerAncestralDiscreteScheduler",
        r#""rescale_betas_zero_snr": true, "clip_sample": false, "set_alpha_to_one": false,
           "skip_prk_steps": true, "sample_max_value": 1.0"#,
    ),
    (
        "HeunDiscreteScheduler",
        r#""clip_sample": true, "clip_sample_range": 2.5, "use_karras_sigmas": true, "set_alpha_to_one": false,
           "skip_prk_steps": true, "sample_max_value": 1.0"#,
    ),
    (
        "UniPCMultistepScheduler",
        r#""thresholding": true, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5, "solver_order": 1,
           "solver_type": "bh1", "lower_order_final": false, "use_karras_sigmas": true,
           "final_sigmas_type": "sigma_min", "rescale_betas_zero_snr": true, "clip_sample": false,
           "set_alpha_to_one": false, "skip_prk_steps": true"#,
    ),
];

const OF_ALL: &str = r#""_diffusers_version": "0.19.0.dev0", "num_train_timesteps": 4, "beta_start": 0.1,
    "beta_end": 0.7, "beta_schedule": "squaredcos_cap_v2", "trained_betas": [0.1, 0.25, 0.5, 0.7],
    "prediction_type": "v_prediction", "timestep_spacing": "trailing", "steps_offset": 1"#;

#[test]
fn every_option_of_every_class_is_read_and_written_back() {
    for (class, options) in OTHERS {
        let text = format!(r#"{{ "_class_name": "{class}", {OF_ALL}, {options} }}"#);
        let config = read(&text);
        let written = config.to_diffusers_json().unwrap();
        assert_eq!(map(&written), map(&text), "{class}");
        assert_eq!(read(&written), config, "{class}");
        assert_eq!(read(&written).to_diffusers_json().unwrap(), written, "{class}");
        assert!(written.ends_with("}\n"), "{class}");
        // Each option has an effect: without it the configuration differs.
        for option in map(&text).keys().filter(|option| *option != "_class_name") {
            let mut without = map(&text);
            without.remove(option);
            assert_ne!(read(&Value::from(without).to_string()), config, "{class} without {option}");
        }
    }
}

#[test]
fn defaults_are_written_with_all_options_that_are_implemented_and_read_back() {
    for (class, options) in DEFAULTS {
        let all =
            map(&format!(r#"{{ "_class_name": "{class}", {} }}"#, options.replace("-Infinity", "null")));
        let config = read(&Value::from(all.clone()).to_string());
        let written = config.to_diffusers_json().unwrap();
        assert_eq!(read(&written), config, "{class}");
        assert!(
            map(&written).iter().all(|(option, value)| all.get(option) == Some(value)),
            "{class}: {written}"
        );
    }
}

#[test]
fn every_name_of_a_value_is_that_of_diffusers() {
    let schedule = |option: &str, value: &str| {
        read(&format!(r#"{{ "_class_name": "DDPMScheduler", "{option}": "{value}" }}"#)).schedule
    };
    for (name, value) in [
        ("linear", BetaSchedule::Linear),
        ("scaled_linear", BetaSchedule::ScaledLinear),
        ("squaredcos_cap_v2", BetaSchedule::SquaredcosCapV2),
        ("sigmoid", BetaSchedule::Sigmoid),
    ] {
        assert_eq!(schedule("beta_schedule", name).beta_schedule, value);
    }
    for (name, value) in [
        ("epsilon", PredictionType::Epsilon),
        ("sample", PredictionType::Sample),
        ("v_prediction", PredictionType::VPrediction),
    ] {
        assert_eq!(schedule("prediction_type", name).prediction_type, value);
    }
    for (name, value) in [
        ("leading", TimestepSpacing::Leading),
        ("trailing", TimestepSpacing::Trailing),
        ("linspace", TimestepSpacing::Linspace),
    ] {
        assert_eq!(schedule("timestep_spacing", name).timestep_spacing, value);
    }
    for (name, value) in [
        ("fixed_small", ReverseVariance::FixedSmall),
        ("fixed_small_log", ReverseVariance::FixedSmall),
        ("fixed_large", ReverseVariance::FixedLarge),
        ("fixed_large_log", ReverseVariance::FixedLarge),
        ("learned_range", ReverseVariance::LearnedRange),
    ] {
        let config = read(&format!(r#"{{ "_class_name": "DDPMScheduler", "variance_type": "{name}" }}"#));
        assert_eq!(config.schedule.variance_type, value);
        assert_eq!(config.sampler, Sampler::Ddpm(value));
        let written = config.to_diffusers_json().unwrap();
        assert!(written.contains(&format!(r#""variance_type": "{name}""#)), "as found: {written}");
    }
    // The alias from the file is dropped if the variance is changed.
    let mut config = read(r#"{ "_class_name": "DDPMScheduler", "variance_type": "fixed_small_log" }"#);
    config.schedule.variance_type = ReverseVariance::FixedLarge;
    config.sampler = Sampler::Ddpm(ReverseVariance::FixedLarge);
    assert!(config.to_diffusers_json().unwrap().contains(r#""variance_type": "fixed_large""#));
    let solver = |class: &str, value: &str| {
        read(&format!(r#"{{ "_class_name": "{class}", "solver_type": "{value}" }}"#)).sampler
    };
    let Sampler::DpmSolverMultistep(heun) = solver("DPMSolverMultistepScheduler", "heun") else { panic!() };
    let Sampler::UniPc(bh1) = solver("UniPCMultistepScheduler", "bh1") else { panic!() };
    assert_eq!((heun.solver_type, bh1.solver_type), (SolverType::Heun, Bh::Bh1));
}

/// The scheduler of Stable Diffusion XL.
#[test]
fn the_file_of_stable_diffusion_xl_is_read_and_written_back_with_all_it_holds() {
    let text = r#"{ "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0",
        "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
        "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon",
        "sample_max_value": 1.0, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
        "timestep_spacing": "leading", "trained_betas": null, "use_karras_sigmas": false }"#;
    let config = read(text);
    let schedule = NoiseScheduleConfig {
        beta_start: 0.00085,
        beta_end: 0.012,
        beta_schedule: BetaSchedule::ScaledLinear,
        steps_offset: 1,
        timestep_spacing: TimestepSpacing::Leading,
        clip_sample: false,
        ..NoiseScheduleConfig::ho2020()
    };
    assert_eq!((&config.schedule, &config.sampler), (&schedule, &Sampler::Euler(Churn::NONE)));
    let written = map(&config.to_diffusers_json().unwrap());
    for (option, value) in map(text) {
        assert_eq!(written.get(&option), Some(&value), "{option}");
    }
    let timesteps = Scheduler::new(&config).unwrap().timesteps(30).unwrap().indices();
    assert_eq!((timesteps[0], timesteps[1], timesteps[29]), (958, 925, 1));
}

/// The scheduler of Stable Diffusion 2.1: DDIM with an option of the PNDM class.
#[test]
fn the_file_of_stable_diffusion_2_1_is_read_and_written_back_with_all_it_holds() {
    let text = r#"{ "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
        "num_train_timesteps": 1000, "prediction_type": "v_prediction", "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null }"#;
    let config = read(text);
    assert_eq!((config.sampler.clone(), config.final_sigma), (Sampler::Ddim(0.0), FinalSigma::SigmaMin));
    let written = map(&config.to_diffusers_json().unwrap());
    for (option, value) in map(text) {
        assert_eq!(written.get(&option), Some(&value), "{option}");
    }
}

#[test]
fn no_clipping_of_lambda_is_the_word_infinity_or_null() {
    for value in ["-Infinity", "null"] {
        let text =
            format!(r#"{{ "_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": {value} }}"#);
        assert_eq!(read(&text), read(r#"{ "_class_name": "DPMSolverMultistepScheduler" }"#));
    }
}

/// DPM-Solver ignores a variance that is not learned.
#[test]
fn a_fixed_variance_of_dpm_solver_is_kept_and_a_learnt_one_is_read() {
    let text = |variance: &str| {
        format!(r#"{{ "_class_name": "DPMSolverMultistepScheduler", "variance_type": "{variance}" }}"#)
    };
    for (variance, read_as) in
        [("fixed_small", ReverseVariance::FixedSmall), ("learned_range", ReverseVariance::LearnedRange)]
    {
        let config = read(&text(variance));
        assert_eq!(config.schedule.variance_type, read_as);
        assert_eq!(map(&config.to_diffusers_json().unwrap())["variance_type"], variance);
    }
}

//! Reading a `scheduler_config.json` rejects options that this crate does not implement, and the error names class,
//! option and value. Writing rejects settings that diffusers does not have.

use ddpm_core::{
    DiffusersConfig, FinalSigma, NoiseScheduleConfig, PredictionType, ReverseVariance, Sampler, Scheduler,
    sampler::{Churn, DpmSolver, UniPc},
};
use serde_json::Value;

const DDPM: &str = "DDPMScheduler";
const DDIM: &str = "DDIMScheduler";
const DPM: &str = "DPMSolverMultistepScheduler";
const EULER: &str = "EulerDiscreteScheduler";
const ANCESTRAL: &str = "EulerAncestralDiscreteScheduler";
const HEUN: &str = "HeunDiscreteScheduler";
const UNI_PC: &str = "UniPCMultistepScheduler";
const PNDM: &str = "PNDMScheduler";

/// Class, option, value.
const REFUSED: [(&str, &str, &str); 48] = [
    (DPM, "algorithm_type", r#""dpmsolver""#),
    (DPM, "algorithm_type", r#""sde-dpmsolver""#),
    (DPM, "algorithm_type", "2"),
    (DPM, "solver_order", "3"),
    (DPM, "use_lu_lambdas", "true"),
    (DPM, "use_flow_sigmas", "true"),
    (DPM, "lambda_min_clipped", "-5.0"),
    (DPM, "use_exponential_sigmas", "true"),
    (DPM, "use_beta_sigmas", "true"),
    (DPM, "final_sigmas_type", r#""sigma_max""#),
    (DPM, "variance_type", r#""learned""#),
    (DPM, "prediction_type", r#""flow_prediction""#),
    (EULER, "interpolation_type", r#""log_linear""#),
    (EULER, "use_exponential_sigmas", "true"),
    (EULER, "use_beta_sigmas", "true"),
    (HEUN, "use_exponential_sigmas", "true"),
    (HEUN, "use_beta_sigmas", "true"),
    (HEUN, "beta_schedule", r#""exp""#),
    (UNI_PC, "predict_x0", "false"),
    (UNI_PC, "disable_corrector", "[0]"),
    (UNI_PC, "solver_order", "3"),
    (UNI_PC, "solver_p", r#"{"_class_name":"DDIMScheduler"}"#),
    (UNI_PC, "shift_terminal", "0.02"),
    (UNI_PC, "use_flow_sigmas", "true"),
    (UNI_PC, "use_beta_sigmas", "true"),
    (DDPM, "variance_type", r#""learned""#),
    (DDPM, "beta_schedule", r#""laplace""#),
    (DDPM, "prediction_type", r#""eps""#),
    (DDPM, "timestep_spacing", r#""karras""#),
    (DDIM, "eta", "0.5"),
    (DDIM, "predict_epsilon", "false"),
    (DDIM, "timestep_values", "[3,2,1]"),
    (UNI_PC, "use_dynamic_shifting", "true"),
    (UNI_PC, "lower_order_final", "1"),
    // Unknown options, and values of the wrong type.
    (DDPM, "num_train_timestep", "1000"),
    (EULER, "Beta_Start", "0.1"),
    (DDPM, "num_train_timesteps", "1000.5"),
    (DDPM, "num_train_timesteps", r#""1000""#),
    (DDPM, "num_train_timesteps", "-1"),
    (DDPM, "beta_start", r#""0.1""#),
    (DDPM, "beta_end", "null"),
    (DDPM, "trained_betas", "0.1"),
    (DDPM, "trained_betas", r#"["a"]"#),
    (DDIM, "set_alpha_to_one", "1"),
    (DDIM, "steps_offset", "-1"),
    (UNI_PC, "solver_order", "2.5"),
    (PNDM, "skip_prk_steps", "false"),
    (PNDM, "prediction_type", r#""sample""#),
];

#[test]
fn an_option_or_value_that_is_not_implemented_is_refused_by_class_option_and_value() {
    for (class, option, value) in REFUSED {
        let text = format!(r#"{{ "_class_name": "{class}", "{option}": {value} }}"#);
        let message = match DiffusersConfig::from_diffusers_json(&text) {
            Ok(config) => panic!("{class} {option} {value}: {config:?}"),
            Err(error) => error.to_string(),
        };
        for part in [class, &format!("`{option}`"), &format!("is {value}, ")] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
}

/// Class, option, value: without effect in diffusers, which ignores an option of another class. Some options have an effect
/// only together with others, such as `sigma_min` with `use_karras_sigmas`.
const KEPT: [(&str, &str, &str); 31] = [
    (DPM, "flow_shift", "3.0"),
    (DPM, "use_dynamic_shifting", "true"),
    (DPM, "time_shift_type", r#""linear""#),
    (DPM, "clip_sample", "true"),
    (EULER, "timestep_type", r#""continuous""#),
    (EULER, "sigma_min", "0.1"),
    (EULER, "sigma_max", "80"),
    (EULER, "clip_sample", "true"),
    (EULER, "thresholding", "true"),
    (ANCESTRAL, "use_karras_sigmas", "true"),
    (ANCESTRAL, "final_sigmas_type", r#""zero""#),
    (HEUN, "rescale_betas_zero_snr", "true"),
    (UNI_PC, "sigma_min", "0.1"),
    (UNI_PC, "flow_shift", "3.0"),
    (DDPM, "variance_type", "null"),
    (DDPM, "use_karras_sigmas", "true"),
    (DDIM, "variance_type", r#""fixed_small""#),
    (DPM, "lambda_min_clipped", "-5.1"),
    (DDIM, "eta", "0.0"),
    (DDIM, "predict_epsilon", "true"),
    (DDIM, "tensor_format", r#""pt""#),
    (DDIM, "timestep_values", "null"),
    (DDPM, "thresholding", "null"),
    (DDPM, "sample_max_value", "null"),
    (HEUN, "clip_sample_range", "null"),
    (EULER, "use_karras_sigmas", "null"),
    (EULER, "steps_offset", "null"),
    (UNI_PC, "flow_shift", "null"),
    (DPM, "sigma_max", "80.0"),
    (EULER, "_name_or_path", r#""a/b""#),
    (EULER, "solver_p", r#"{"_class_name":"DDIMScheduler"}"#),
];

#[test]
fn an_option_without_effect_is_kept_and_changes_nothing() {
    for (class, option, value) in KEPT {
        let read = |options: &str| {
            let text = format!(r#"{{ "_class_name": "{class}"{options} }}"#);
            DiffusersConfig::from_diffusers_json(&text).unwrap_or_else(|error| panic!("{error}"))
        };
        let (config, plain) = (read(&format!(r#", "{option}": {value}"#)), read(""));
        let written: Value = serde_json::from_str(&config.to_diffusers_json().unwrap()).unwrap();
        assert_eq!(written[option], serde_json::from_str::<Value>(value).unwrap(), "{class} {option}");
        let parts = |config: &DiffusersConfig| {
            let DiffusersConfig { schedule, sampler, use_karras_sigmas, final_sigma, .. } = config.clone();
            let scheduler = Scheduler::new(config).unwrap();
            let tables = scheduler.schedule().alphas_cumprod().to_vec();
            let timesteps = scheduler.timesteps(10).unwrap();
            (schedule, sampler, use_karras_sigmas, final_sigma, tables, timesteps)
        };
        assert_eq!(parts(&config), parts(&plain), "{class} {option}");
    }
}

/// diffusers replaces the names of other solvers when it makes the scheduler, and writes the new value.
#[test]
fn a_solver_type_of_another_class_is_replaced() {
    for (class, found, replaced) in [
        (DPM, "bh1", "midpoint"),
        (DPM, "bh2", "midpoint"),
        (DPM, "logrho", "midpoint"),
        (UNI_PC, "midpoint", "bh2"),
        (UNI_PC, "heun", "bh2"),
        (UNI_PC, "logrho", "bh2"),
    ] {
        let text = |solver: &str| format!(r#"{{ "_class_name": "{class}", "solver_type": "{solver}" }}"#);
        let [config, expected] =
            [found, replaced].map(|solver| DiffusersConfig::from_diffusers_json(&text(solver)).unwrap());
        assert_eq!(config, expected);
        assert_eq!(config.to_diffusers_json().unwrap(), expected.to_diffusers_json().unwrap());
    }
}

#[test]
fn a_name_that_is_nearly_an_option_is_refused_with_the_option() {
    for (found, nearest) in [
        ("num_train_timestep", "num_train_timesteps"),
        ("Beta_Start", "beta_start"),
        ("timesteps_spacing", "timestep_spacing"),
        ("use_karras_sigma", "use_karras_sigmas"),
    ] {
        let text = format!(r#"{{ "_class_name": "{DDPM}", "{found}": 1 }}"#);
        let message = DiffusersConfig::from_diffusers_json(&text).unwrap_err().to_string();
        assert!(message.ends_with(&format!("no such option, the nearest is `{nearest}`")), "{message}");
    }
    let text = format!(r#"{{ "_class_name": "{DDPM}", "unheard_of": 1 }}"#);
    let message = DiffusersConfig::from_diffusers_json(&text).unwrap_err().to_string();
    assert!(message.ends_with("no such option"), "{message}");
}

#[test]
fn what_would_be_supported_is_said() {
    for (class, option, value, supported) in [
        (DPM, "algorithm_type", r#""dpmsolver""#, r#""dpmsolver++", "sde-dpmsolver++""#),
        (DPM, "use_lu_lambdas", "true", "false"),
        (UNI_PC, "use_flow_sigmas", "true", "false, null"),
        (EULER, "interpolation_type", r#""log_linear""#, r#""linear""#),
        (DDPM, "variance_type", r#""learned""#, "`learned_range`"),
        (DDPM, "beta_schedule", r#""laplace""#, "`squaredcos_cap_v2`"),
        (DDPM, "unheard_of", "1", "no such option"),
    ] {
        let text = format!(r#"{{ "_class_name": "{class}", "{option}": {value} }}"#);
        let message = DiffusersConfig::from_diffusers_json(&text).unwrap_err().to_string();
        assert!(message.contains("supported: ") && message.contains(supported), "{message}");
    }
}

#[test]
fn a_file_without_a_known_class_or_without_json_is_refused() {
    for (text, found) in [
        ("{}", "null"),
        (r#"{ "_class_name": 3 }"#, "3"),
        (r#"{ "_class_name": "DEISMultistepScheduler" }"#, r#""DEISMultistepScheduler""#),
        (r#"{ "_class_name": "FlowMatchEulerDiscreteScheduler" }"#, "FlowMatch"),
    ] {
        let message = DiffusersConfig::from_diffusers_json(text).unwrap_err().to_string();
        assert!(message.contains("_class_name") && message.contains(found), "{message}");
        assert!(message.contains(UNI_PC) && message.contains(DDPM), "{message}");
    }
    for text in ["", "[]", "null", "{ \"_class_name\": ", "3"] {
        let message = DiffusersConfig::from_diffusers_json(text).unwrap_err().to_string();
        assert!(message.starts_with("scheduler configuration: not a JSON object"), "{message}");
    }
}

/// Otherwise the scheduler of diffusers would behave differently.
#[test]
fn what_a_class_of_diffusers_has_no_option_for_is_not_written() {
    let plain = || NoiseScheduleConfig {
        clip_sample: false,
        prediction_type: PredictionType::VPrediction,
        ..NoiseScheduleConfig::ho2020()
    };
    let churn = Churn { s_churn: 1.0, ..Churn::NONE };
    let euler = || Sampler::Euler(Churn::NONE);
    let new = |schedule: NoiseScheduleConfig, sampler: Sampler| DiffusersConfig::new(schedule, sampler);
    let clipped = || NoiseScheduleConfig { clip_sample: true, ..plain() };
    let thresholding = || NoiseScheduleConfig { thresholding: true, ..plain() };
    let learned = || NoiseScheduleConfig { variance_type: ReverseVariance::LearnedRange, ..plain() };
    let zero_snr = || NoiseScheduleConfig { rescale_betas_zero_snr: true, ..plain() };
    let changed = |sampler: Sampler, change: fn(&mut DiffusersConfig)| {
        let mut config = new(plain(), sampler);
        change(&mut config);
        config
    };
    let karras = |sampler| changed(sampler, |config| config.use_karras_sigmas = true);
    let ending = |sampler| changed(sampler, |config| config.final_sigma = FinalSigma::SigmaMin);
    for (config, option) in [
        (new(plain(), Sampler::Ddpm(ReverseVariance::Zero)), "reverse variance"),
        (new(plain(), Sampler::Ddpm(ReverseVariance::FixedLarge)), "reverse variance"),
        (new(plain(), Sampler::Ddpm(ReverseVariance::PerStep(vec![0.1]))), "reverse variance"),
        (new(plain(), Sampler::Euler(churn)), "churn"),
        (new(plain(), Sampler::Heun(churn)), "churn"),
        (new(clipped(), euler()), "clip_sample"),
        (new(clipped(), Sampler::EulerAncestral), "clip_sample"),
        (new(clipped(), Sampler::UniPc(UniPc::order_2())), "clip_sample"),
        (new(clipped(), Sampler::DpmSolverMultistep(DpmSolver::sde_2m())), "clip_sample"),
        (new(thresholding(), Sampler::Heun(Churn::NONE)), "thresholding"),
        (new(learned(), Sampler::Ddim(0.0)), "variance_type"),
        (new(learned(), Sampler::UniPc(UniPc::order_2())), "variance_type"),
        (new(zero_snr(), Sampler::Heun(Churn::NONE)), "rescale_betas_zero_snr"),
        (karras(Sampler::Ddim(0.0)), "use_karras_sigmas"),
        (karras(Sampler::EulerAncestral), "use_karras_sigmas"),
        (ending(Sampler::Heun(Churn::NONE)), "final_sigmas_type"),
        (ending(Sampler::Ddpm(ReverseVariance::FixedSmall)), "final_sigmas_type"),
    ] {
        let message = match config.to_diffusers_json() {
            Ok(text) => panic!("{option}: {text}"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(&format!("`{option}`")), "{message}");
    }
    // Settings for which the class has an option are written.
    for config in [
        new(clipped(), Sampler::Heun(Churn::NONE)),
        new(thresholding(), Sampler::Ddim(0.0)),
        new(learned(), Sampler::Ddpm(ReverseVariance::LearnedRange)),
        new(learned(), Sampler::DpmSolverMultistep(DpmSolver::sde_2m())),
        new(zero_snr(), Sampler::EulerAncestral),
        karras(Sampler::UniPc(UniPc::order_2())),
        ending(Sampler::Ddim(0.0)),
        ending(euler()),
    ] {
        let text = config.to_diffusers_json().unwrap();
        assert_eq!(DiffusersConfig::from_diffusers_json(&text).unwrap(), config, "{text}");
    }
}

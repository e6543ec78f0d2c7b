//! The options of each class of diffusers, and their defaults. To add a class, add its sampler to [`samplers`], its
//! defaults to [`defaults`] and its options to [`describe`].

use serde_json::{Value, json};

use super::codec::Codec;
use super::{DIFFUSERS_TERMINAL, DiffusersConfig, FinalSigma};
use crate::{
    BetaSchedule, Error, NoiseSchedule, NoiseScheduleConfig, PredictionType, Result, ReverseVariance,
    Sampler, TimestepSpacing,
    sampler::{Churn, DpmSolver, UniPc},
};

/// One sampler of each class, with the defaults of the class.
fn samplers() -> [Sampler; 10] {
    [
        Sampler::Ddpm(ReverseVariance::FixedSmall),
        Sampler::Ddim(0.0),
        Sampler::DpmSolverMultistep(DpmSolver::plus_plus_2m()),
        Sampler::Euler(Churn::NONE),
        Sampler::EulerAncestral,
        Sampler::Heun(Churn::NONE),
        Sampler::UniPc(UniPc::order_2()),
        Sampler::Pndm,
        Sampler::lcm(),
        Sampler::tcd(),
    ]
}

/// The default configuration of a class.
///
/// # Errors
///
/// If `class` is not the name of one of the classes.
pub(super) fn defaults(class: &Value) -> Result<DiffusersConfig> {
    let is_found = |sampler: &Sampler| class == sampler.diffusers_class();
    let Some(sampler) = samplers().into_iter().find(is_found) else {
        let mut expected = samplers().map(|sampler| format!("{:?}", sampler.diffusers_class())).join(", ");
        expected.push_str("; FlowMatchEuler reads \"FlowMatchEulerDiscreteScheduler\"");
        return Err(Error::scheduler_option("a scheduler", "_class_name", class.to_string(), expected));
    };
    let mut schedule =
        NoiseScheduleConfig { timestep_spacing: TimestepSpacing::Linspace, ..NoiseScheduleConfig::ho2020() };
    match sampler {
        Sampler::Ddpm(_) | Sampler::Ddim(_) => schedule.timestep_spacing = TimestepSpacing::Leading,
        Sampler::Heun(_) => (schedule.beta_start, schedule.beta_end) = (0.00085, 0.012),
        Sampler::Pndm => schedule.timestep_spacing = TimestepSpacing::Leading,
        Sampler::Lcm(_) | Sampler::Tcd(_) => {
            (schedule.beta_start, schedule.beta_end) = (0.00085, 0.012);
            schedule.beta_schedule = BetaSchedule::ScaledLinear;
            schedule.timestep_spacing = TimestepSpacing::Leading;
        }
        _ => {}
    }
    schedule.clip_sample = matches!(sampler, Sampler::Ddpm(_) | Sampler::Ddim(_));
    let mut config = DiffusersConfig::new(schedule, sampler);
    if matches!(config.sampler, Sampler::Pndm) {
        config.final_sigma = FinalSigma::SigmaMin;
    }
    Ok(config)
}

/// Reads or writes all options of the class.
pub(super) fn describe(codec: &mut Codec, config: &mut DiffusersConfig) -> Result<()> {
    let DiffusersConfig { schedule, sampler, use_karras_sigmas, final_sigma, .. } = config;
    let off = [json!(false), Value::Null];
    codec.field("num_train_timesteps", &mut schedule.num_train_timesteps)?;
    codec.field("beta_schedule", &mut schedule.beta_schedule)?;
    codec.field("beta_start", &mut schedule.beta_start)?;
    codec.field("beta_end", &mut schedule.beta_end)?;
    codec.field("trained_betas", &mut schedule.trained_betas)?;
    if matches!(sampler, Sampler::Euler(_)) {
        codec.renamed("prediction_type", &mut schedule.prediction_type, "original_sample", "sample")?;
    } else {
        codec.field("prediction_type", &mut schedule.prediction_type)?;
    }
    codec.spacing(schedule)?;
    if !matches!(sampler, Sampler::Heun(_) | Sampler::Pndm) {
        codec.flag("rescale_betas_zero_snr", &mut schedule.rescale_betas_zero_snr)?;
    }
    match sampler {
        Sampler::Ddpm(_)
        | Sampler::Ddim(_)
        | Sampler::EulerAncestral
        | Sampler::Pndm
        | Sampler::Lcm(_)
        | Sampler::Tcd(_) => {}
        _ => {
            codec.flag("use_karras_sigmas", use_karras_sigmas)?;
            codec.only("use_exponential_sigmas", &off)?;
            codec.only("use_beta_sigmas", &off)?;
            // DPM-Solver and Heun do not have these two options, but use them if another class has left them in the file.
            codec.only_if(*use_karras_sigmas, "sigma_min", &[Value::Null])?;
            codec.only_if(*use_karras_sigmas, "sigma_max", &[Value::Null])?;
        }
    }
    if matches!(sampler, Sampler::DpmSolverMultistep(_) | Sampler::Euler(_) | Sampler::UniPc(_)) {
        codec.field("final_sigmas_type", final_sigma)?;
    }
    match sampler {
        Sampler::Ddpm(variance) => {
            codec.clipping(schedule)?;
            codec.thresholding(schedule)?;
            codec.nullable("variance_type", &mut schedule.variance_type, "fixed_small".into())?;
            *variance = schedule.variance_type.clone();
        }
        Sampler::Ddim(_) => {
            codec.clipping(schedule)?;
            codec.thresholding(schedule)?;
            codec.set_alpha_to_one(final_sigma)?;
            // RePaint has this option. In DDIM η is an argument, so an option would mislead.
            codec.only("eta", &[json!(0.0), json!(0)])?;
        }
        Sampler::DpmSolverMultistep(options) => {
            codec.thresholding(schedule)?;
            codec.order(&mut options.solver_order)?;
            if *final_sigma == FinalSigma::SigmaMin {
                codec.replace("algorithm_type", &["deis"], "dpmsolver++");
            }
            let mut algorithm = if options.sde { "sde-dpmsolver++" } else { "dpmsolver++" }.to_owned();
            codec.field("algorithm_type", &mut algorithm)?;
            options.sde = algorithm == "sde-dpmsolver++";
            if !options.sde && algorithm != "dpmsolver++" {
                let supported = "\"dpmsolver++\", \"sde-dpmsolver++\"";
                return Err(codec.error("algorithm_type", &algorithm.into(), supported));
            }
            codec.replace("solver_type", &["logrho", "bh1", "bh2"], "midpoint");
            codec.field("solver_type", &mut options.solver_type)?;
            codec.flag("lower_order_final", &mut options.lower_order_final)?;
            codec.flag("euler_at_final", &mut options.euler_at_final)?;
            learned_variance(codec, schedule)?;
            let lambda_min = codec.found("lambda_min_clipped").and_then(Value::as_f64);
            let clips = match lambda_min {
                Some(least) if !*use_karras_sigmas => exceeds_lambda(schedule, least)?,
                least => least.is_none(),
            };
            codec.only_if(clips, "lambda_min_clipped", &["-Infinity".into(), Value::Null])?;
            codec.only_if(!*use_karras_sigmas, "use_lu_lambdas", &off)?;
            codec.flow()?;
            codec.unused("use_dynamic_shifting");
        }
        Sampler::Euler(_) => {
            codec.only("interpolation_type", &["linear".into()])?;
            let is_v = schedule.prediction_type == PredictionType::VPrediction;
            codec.only_if(is_v, "timestep_type", &["discrete".into(), Value::Null])?;
        }
        Sampler::EulerAncestral | Sampler::DdimInverse(_) | Sampler::RePaint { .. } => {}
        Sampler::Heun(_) => codec.clipping(schedule)?,
        Sampler::Pndm => {
            codec.set_alpha_to_one(final_sigma)?;
            if schedule.prediction_type == PredictionType::Sample {
                return Err(codec.error(
                    "prediction_type",
                    &"sample".into(),
                    "\"epsilon\", \"v_prediction\"",
                ));
            }
            let mut skip = !codec.reading;
            codec.flag("skip_prk_steps", &mut skip)?;
            if !skip {
                return Err(codec.error(
                    "skip_prk_steps",
                    &skip.into(),
                    "true, the form without Runge-Kutta steps",
                ));
            }
        }
        Sampler::Lcm(options) => {
            codec.clipping(schedule)?;
            codec.thresholding(schedule)?;
            codec.field("original_inference_steps", &mut options.original_inference_steps)?;
            codec.field("timestep_scaling", &mut options.timestep_scaling)?;
            codec.without_effect("set_alpha_to_one", true.into())?;
        }
        Sampler::Tcd(options) => {
            codec.clipping(schedule)?;
            codec.thresholding(schedule)?;
            codec.field("original_inference_steps", &mut options.original_inference_steps)?;
            codec.without_effect("timestep_scaling", json!(10.0))?;
            codec.without_effect("set_alpha_to_one", true.into())?;
        }
        Sampler::UniPc(options) => {
            codec.thresholding(schedule)?;
            codec.order(&mut options.solver_order)?;
            codec.replace("solver_type", &["midpoint", "heun", "logrho"], "bh2");
            codec.field("solver_type", &mut options.solver_type)?;
            codec.flag("lower_order_final", &mut options.lower_order_final)?;
            codec.only("predict_x0", &[true.into()])?;
            codec.only("disable_corrector", &[json!([])])?;
            codec.only("solver_p", &[Value::Null])?;
            codec.only("shift_terminal", &[Value::Null])?;
            codec.flow()?;
            codec.only("use_dynamic_shifting", &off)?;
        }
    }
    Ok(())
}

/// DPM-Solver uses `variance_type` only for a learned variance. Otherwise it is null, or a value that another class has
/// left in the file.
fn learned_variance(codec: &mut Codec, schedule: &mut NoiseScheduleConfig) -> Result<()> {
    let is_learned = |found: &&Value| **found == "learned_range" || **found == "learned";
    let found = codec.found("variance_type");
    let learned = match codec.reading {
        true => found.is_some_and(|found| is_learned(&found)),
        false => schedule.variance_type == ReverseVariance::LearnedRange,
    };
    if learned {
        return codec.field("variance_type", &mut schedule.variance_type);
    }
    let mut unused = found.filter(|found| !is_learned(found)).cloned().unwrap_or_default();
    codec.field("variance_type", &mut unused)
}

/// Whether a bound on λ, half the log-SNR, is above the λ of the last timestep, so that diffusers starts later.
fn exceeds_lambda(schedule: &NoiseScheduleConfig, bound: f64) -> Result<bool> {
    let schedule = NoiseSchedule::new(schedule)?;
    let last = schedule.alphas_cumprod()[schedule.num_train_timesteps() - 1].max(DIFFUSERS_TERMINAL);
    Ok(bound > 0.5 * (last / (1.0 - last)).ln())
}

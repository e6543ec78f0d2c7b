//! Sampling with a third-party network: guidance, a scheduler file of diffusers, image to image, and inpainting.
//!
//! ```sh
//! cargo run -p ddpm-core --example 05_foreign_network
//! ```
//!
//! `network.rs` holds the network. It takes images [B, 1, 16, 16], integer timesteps and classes as tensors and predicts
//! v. Its images are random textures with a known distribution, so the example prints the exact value next to each
//! sampled value.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

mod network;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use ddpm_core::{
    CounterRng, DiffusersConfig, Guidance, Inpainting, Pass, Purpose, Sampler, Scheduler, Timestep,
};
use network::{CLASS_MEANS, DEVIATION, SIDE, SpectralNet, measure};

/// The content of a model's scheduler/scheduler_config.json.
const SCHEDULER_CONFIG: &str = r#"{
  "_class_name": "DPMSolverMultistepScheduler",
  "_diffusers_version": "0.30.0",
  "beta_end": 0.02,
  "beta_schedule": "linear",
  "beta_start": 0.0001,
  "num_train_timesteps": 1000,
  "prediction_type": "v_prediction",
  "timestep_spacing": "trailing"
}"#;
const IMAGES: u64 = 128;
const STEPS: usize = 50;
const BRIGHT: u32 = 1;
const NO_CLASS: u32 = 2;

fn main() -> Result<()> {
    let config = DiffusersConfig::from_diffusers_json(SCHEDULER_CONFIG)?;
    let scheduler = Scheduler::new(&config)?;
    let alphas_cumprod = scheduler.schedule().alphas_cumprod();
    let weights = VarBuilder::from_tensors(network::weights(alphas_cumprod)?, DType::F32, &Device::Cpu);
    let network = SpectralNet::new(weights, alphas_cumprod.len())?;
    guidance(&network, &scheduler)?;
    samplers(&network, &config)?;
    image_to_image(&network, &scheduler)?;
    inpainting(&network, &scheduler)
}

/// Evaluates the network for one class, with the timestep as the tensor that the network takes.
fn evaluate(
    network: &SpectralNet,
    x_t: &Tensor,
    timestep: Timestep,
    class: u32,
) -> candle_core::Result<Tensor> {
    let batch = x_t.dim(0)?;
    let t = timestep.to_tensor(batch, DType::U32, x_t.device())?;
    network.forward(x_t, &t, &Tensor::full(class, batch, x_t.device())?)
}

fn normal(purpose: Purpose) -> Result<Tensor> {
    let images = Vec::from_iter(0..IMAGES);
    Ok(CounterRng::new(1).normal(purpose, &images, 0, &[1, SIDE, SIDE], DType::F32, &Device::Cpu)?)
}

fn noise(x_t: &Tensor, noise_index: usize) -> ddpm_core::Result<Tensor> {
    CounterRng::new(1).images(0..IMAGES).noise()(x_t, noise_index)
}

fn known_noise(x_t: &Tensor, noise_index: usize) -> ddpm_core::Result<Tensor> {
    CounterRng::new(1).images(0..IMAGES).for_purpose(Purpose::INPAINTING).noise()(x_t, noise_index)
}

/// Combines two passes of the network: prediction = none + scale · (class − none). For these images guidance changes only the mean.
fn guidance(network: &SpectralNet, scheduler: &Scheduler) -> Result<()> {
    println!("Guidance                                  mean      exact   deviation      exact");
    for scale in [1.0, 2.0, 3.0] {
        let guidance = Guidance::new(scale);
        let model = guidance.network(|x_t: &Tensor, timestep, pass| match pass {
            Pass::Conditional => evaluate(network, x_t, timestep, BRIGHT),
            Pass::Unconditional => evaluate(network, x_t, timestep, NO_CLASS),
        });
        let x_t = normal(Purpose::SAMPLE_START)?;
        let sampled = scheduler.plan(STEPS)?.sample(x_t, model, noise)?;
        let [mean, deviation, _] = measure(&sampled)?;
        let expected = scale * CLASS_MEANS[BRIGHT as usize];
        println!("  scale {scale:3}   {mean:32.3}   {expected:8.3}   {deviation:9.3}   {DEVIATION:8.3}");
    }
    println!(
        "  The scale multiplies the difference between class and no class, which is only the mean here.\n"
    );
    Ok(())
}

fn samplers(network: &SpectralNet, config: &DiffusersConfig) -> Result<()> {
    println!("Samplers, for the bright class          mean   deviation   neighbours   calls");
    for (name, sampler) in [
        ("sampler of the file", config.sampler.clone()),
        ("DDPM", Sampler::ddpm()),
        ("DDIM", Sampler::ddim(0.0)),
        ("Euler", Sampler::euler()),
        ("Heun", Sampler::heun()),
        ("UniPC", Sampler::unipc()),
    ] {
        let scheduler = Scheduler::new(&DiffusersConfig::new(config.schedule.clone(), sampler))?;
        let mut calls = 0;
        let counted = |x_t: &Tensor, timestep| {
            calls += 1;
            evaluate(network, x_t, timestep, BRIGHT)
        };
        let x_t = normal(Purpose::SAMPLE_START)?;
        let sampled = scheduler.plan(STEPS)?.sample(x_t, counted, noise)?;
        let [mean, deviation, neighbours] = measure(&sampled)?;
        println!("  {name:30}{mean:12.3}{deviation:12.3}{neighbours:13.3}{calls:8}");
    }
    let neighbours = network::neighbour_correlation();
    println!("  {:30}{:12.3}{DEVIATION:12.3}{neighbours:13.3}", "exact", CLASS_MEANS[BRIGHT as usize]);
    println!(
        "  The difference is the finest detail, which the last step, from t = 19 to x₀, cannot recover.\n"
    );
    Ok(())
}

fn image_to_image(network: &SpectralNet, scheduler: &Scheduler) -> Result<()> {
    println!("Image to image    first t   correlation with the image      exact");
    let images = network.images(&normal(Purpose::EVALUATION)?, NO_CLASS)?;
    for strength in [0.1, 0.3, 0.5, 0.8] {
        let timesteps = scheduler.timesteps(STEPS)?.strength(strength)?;
        let first = timesteps.first();
        let x_t =
            scheduler.schedule().q_sample(&images, &[first.index()], &normal(Purpose::SAMPLE_START)?)?;
        let again = scheduler.config().sampler.plan(scheduler.schedule(), &timesteps)?.sample(
            x_t,
            |x_t, timestep| evaluate(network, x_t, timestep, NO_CLASS),
            noise,
        )?;
        let (found, expected) =
            (network::correlation(&images, &again)?, network::kept(first.alpha_cumprod()));
        println!("  strength {strength:3}   {:10}   {found:26.3}   {expected:8.3}", first.index());
    }
    println!("  A larger strength keeps less of the image. At strength 1 the image has no effect.\n");
    Ok(())
}

/// Inpaints the right half. Across the border, neighbouring pixels must correlate as they do elsewhere.
fn inpainting(network: &SpectralNet, scheduler: &Scheduler) -> Result<()> {
    println!("Inpainting the right half                 correlation over the border      exact");
    let known = network.images(&normal(Purpose::EVALUATION)?, NO_CLASS)?;
    let halves = known.chunk(2, 3)?;
    let mask = Tensor::cat(&[halves[0].ones_like()?, halves[1].zeros_like()?], 3)?;
    let (inpainting, expected) = (Inpainting::new(&known, &mask)?, network::neighbour_correlation());
    for (jump_length, jump_n_sample) in [(1, 1), (2, 3), (2, 8)] {
        let plan = Sampler::RePaint { jump_length, jump_n_sample }
            .plan(scheduler.schedule(), scheduler.timesteps(STEPS)?)?;
        let painted = plan.sample_with(
            normal(Purpose::SAMPLE_START)?,
            |x_t, timestep| evaluate(network, x_t, timestep, NO_CLASS),
            noise,
            |run| Ok(inpainting.blend(run, known_noise)?),
        )?;
        let found = network::correlation(&painted.narrow(3, 7, 1)?, &painted.narrow(3, 8, 1)?)?;
        println!("  jumps of {jump_length}, {jump_n_sample:2} times   {found:37.3}   {expected:8.3}");
    }
    println!("  Without jumps back (1 time) the two halves are not consistent.");
    Ok(())
}

//! A plan carried out on plain vectors, without candle or any other tensor library.
//!
//! ```sh
//! cargo run -p ddpm-core --no-default-features --example 07_plan_without_candle
//! ```
//!
//! The data is normal, with a known best network. So the example prints the exact mean and standard deviation below the
//! values of the samples.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

mod vectors;

use ddpm_core::{CounterRng, Error, NoiseSchedule, NoiseScheduleConfig, Purpose, Sampler, Steps, Timestep};

/// Mean and standard deviation of the data.
const DATA: (f32, f32) = (0.3, 0.5);
const SAMPLES: usize = 20_000;

fn main() -> Result<(), Error> {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020())?;
    println!("{:14} evaluations   mean   deviation", "");
    for (name, sampler) in [
        ("DDPM", Sampler::ddpm()),
        ("DDIM", Sampler::ddim(0.0)),
        ("Heun", Sampler::heun()),
        ("DPM-Solver++", Sampler::dpmpp_2m()),
        ("UniPC", Sampler::unipc()),
    ] {
        let plan = sampler.plan(&schedule, Steps::Spaced(50))?;
        let normal = |purpose, index: usize| {
            let mut values = vec![0.0; SAMPLES];
            CounterRng::new(1).fill_normal(purpose, &[0], index, &mut values).map(|()| values)
        };
        let x_t = normal(Purpose::SAMPLE_START, 0)?;
        let steps = vectors::run(&plan, x_t, network, |index| normal(Purpose::SAMPLE_STEP, index))?;
        let samples = &steps[steps.len() - 1];
        let mean = samples.iter().sum::<f32>() / SAMPLES as f32;
        let deviation = (samples.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / SAMPLES as f32).sqrt();
        println!("{name:14} {:11} {mean:6.3} {deviation:11.3}", plan.evaluations());
    }
    println!("{:14} {:11} {:6.3} {:11.3}", "exact", "", DATA.0, DATA.1);
    Ok(())
}

/// The best prediction of ε for normal data.
#[allow(clippy::cast_possible_truncation, reason = "single precision")]
fn network(x_t: &[f32], timestep: Timestep) -> Vec<f32> {
    let alpha_cumprod = timestep.alpha_cumprod() as f32;
    let noise = (1.0 - alpha_cumprod).sqrt();
    let variance = alpha_cumprod * DATA.1.powi(2) + 1.0 - alpha_cumprod;
    x_t.iter().map(|x| noise * (x - alpha_cumprod.sqrt() * DATA.0) / variance).collect()
}

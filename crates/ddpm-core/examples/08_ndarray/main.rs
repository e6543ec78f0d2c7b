//! Plans carried out with the arrays of ndarray, and with candle's tensors.
//!
//! ```sh
//! cargo run --release -p ddpm-core --example 08_ndarray
//! ```
//!
//! Network and random numbers are the same, so the images are, too. The example prints the largest difference.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

mod run;

use candle_core::{Device, Tensor};
use ddpm_core::{
    BoxError, CounterRng, NoiseSchedule, NoiseScheduleConfig, Purpose, Sampler, Steps, Timestep,
};
use run::Array;

/// Number of images, channels, rows and columns.
const SHAPE: [usize; 4] = [8, 3, 16, 16];
const IMAGES: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

fn main() -> Result<(), BoxError> {
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020())?;
    println!("{:16} evaluations   largest value   largest difference", "");
    for (name, sampler) in [
        ("DDPM", Sampler::ddpm()),
        ("DDIM", Sampler::ddim(0.0)),
        ("Heun", Sampler::heun()),
        ("DPM-Solver++", Sampler::dpmpp_2m()),
        ("DPM-Solver++ SDE", Sampler::dpmpp_2m_sde()),
        ("UniPC", Sampler::unipc()),
    ] {
        let plan = sampler.plan(&schedule, Steps::Spaced(50))?;
        let x_t = normal(Purpose::SAMPLE_START, 0)?;
        let arrays = run::run(&plan, x_t, network, |index| normal(Purpose::SAMPLE_STEP, index))?;

        let images = CounterRng::new(1).images(IMAGES);
        let x_t = images.start(&SHAPE[1..], &Device::Cpu)?;
        let tensors = plan.sample(x_t, network_of_candle, images.noise())?.flatten_all()?.to_vec1::<f32>()?;

        let largest = |values: &mut dyn Iterator<Item = f32>| values.map(f32::abs).fold(0.0, f32::max);
        let difference = largest(&mut std::iter::zip(&arrays, &tensors).map(|(a, b)| a - b));
        let value = largest(&mut arrays.iter().copied());
        println!("{name:16} {:11} {value:15.2} {difference:20.1e}", plan.evaluations());
    }
    Ok(())
}

/// The random numbers of the images of seed 1, those that `images.start` and `images.noise` give as tensors.
fn normal(purpose: Purpose, index: usize) -> Result<Array, BoxError> {
    let mut values = vec![0.0; SHAPE.iter().product()];
    CounterRng::new(1).fill_normal(purpose, &IMAGES, index, &mut values)?;
    Ok(Array::from_shape_vec(&SHAPE[..], values)?)
}

/// A prediction of ε that is not exact, in place of a network.
#[allow(clippy::cast_possible_truncation, reason = "single precision")]
fn network(x_t: &Array, timestep: Timestep) -> Result<Array, BoxError> {
    let noise = (1.0 - timestep.alpha_cumprod()).sqrt() as f32;
    Ok(x_t.mapv(|x| (x * noise).tanh()))
}

fn network_of_candle(x_t: &Tensor, timestep: Timestep) -> candle_core::Result<Tensor> {
    (x_t * (1.0 - timestep.alpha_cumprod()).sqrt())?.tanh()
}

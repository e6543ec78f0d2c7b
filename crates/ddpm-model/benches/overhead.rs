//! The overhead of each sampler relative to the network evaluations, for 50 images of the built-in model. The samplers
//! take turns, and the table shows medians over the rounds.
//!
//! ```sh
//! cargo bench -p ddpm-model --bench overhead
//! ```

use std::{
    cell::Cell,
    error::Error,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use candle_core::{Device, Tensor};
use ddpm_core::{CounterRng, Purpose, Sampler, Timesteps};
use ddpm_model::{SampleConfig, read_model};

const ROUNDS: usize = 21;
const IMAGES: u64 = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ddpm-cli/assets/models/mnist");
    let denoiser = read_model(&folder, &Device::Cpu)?;
    let schedule = denoiser.schedule();
    let timesteps = Timesteps::all(schedule);
    let images: Vec<u64> = (0..IMAGES).collect();
    let labels: Vec<u32> = (0..10).cycle().take(images.len()).collect();
    let rng = CounterRng::new(1);
    let run = denoiser.start(&SampleConfig::ancestral(1, &denoiser)?, &images)?;
    let start = run.x_t();

    let samplers = [
        ("ddpm", Sampler::ddpm()),
        ("ddim", Sampler::ddim(0.0)),
        ("dpmpp-2m", Sampler::dpmpp_2m()),
        ("dpmpp-2m-sde", Sampler::dpmpp_2m_sde()),
        ("euler", Sampler::euler()),
        ("euler-ancestral", Sampler::EulerAncestral),
        ("heun", Sampler::heun()),
        ("unipc", Sampler::unipc()),
    ];
    let mut times = vec![Vec::new(); samplers.len()];
    for round in 0..=ROUNDS {
        for ((_, sampler), times) in std::iter::zip(&samplers, &mut times) {
            let (network, noise) = (Cell::new(Duration::ZERO), Cell::new(Duration::ZERO));
            let timed = |spent: &Cell<Duration>, started: Instant| spent.set(spent.get() + started.elapsed());
            let started = Instant::now();
            sampler.plan(schedule, &timesteps)?.sample(
                start.clone(),
                |x_t: &Tensor, timestep| {
                    let started = Instant::now();
                    let prediction = denoiser.output(x_t, timestep.index(), &labels, 1.0);
                    timed(&network, started);
                    prediction.map_err(candle_core::Error::wrap)
                },
                |x_t, noise_index| {
                    let started = Instant::now();
                    let sample = rng.normal_like(Purpose::SAMPLE_STEP, &images, noise_index, x_t);
                    timed(&noise, started);
                    sample
                },
            )?;
            let (all, network) = (started.elapsed().as_secs_f64(), network.get().as_secs_f64());
            // The first round is a warm-up: threads start and memory is touched for the first time.
            if round > 0 {
                times.push([network, noise.get().as_secs_f64() / network, all / network - 1.0]);
            }
        }
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{IMAGES} images, {} steps, no guidance; noise and overhead relative to the network's time:",
        timesteps.len()
    )?;
    writeln!(out, "{:16} {:>12} {:>12} {:>12}", "sampler", "network", "noise", "overhead")?;
    for ((name, _), times) in std::iter::zip(&samplers, &times) {
        let [network, noise, all] = [0, 1, 2].map(|i| median(times.iter().map(|time| time[i]).collect()));
        let (milliseconds, noise, all) = (network * 1e3, noise * 100.0, all * 100.0);
        writeln!(out, "{name:16} {milliseconds:>9.1} ms {noise:>10.2} % {all:>10.2} %")?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().div_euclid(2)).copied().unwrap_or(f64::NAN)
}

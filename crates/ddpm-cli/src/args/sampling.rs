//! The options of sampling, and of `fit-plan`, which shares some of them.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use ddpm_model::{ComputeType, GuidanceOptions, NoisePath, SamplerName};

use super::{
    paths,
    values::{ClassList, Interval, Noise, Variance, count},
};

/// The options that a fitted plan replaces, by the names that clap has for them: all that say how to sample. Requests to
/// `serve` may have them, so none names a file.
pub(crate) const REPLACED_BY_PLAN: [&str; 13] = [
    "sampler",
    "steps",
    "timesteps",
    "variance",
    "noise",
    "eta",
    "epsilon_scale",
    "guidance_scale",
    "guidance_interval",
    "class_annealing",
    "guide_scale",
    "guide_interval",
    "noise_path",
];

/// The sampling options of `sample` and `eval`.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct Sampling {
    /// The model: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
    /// The classes to generate, such as 0-9 or 3,5,7 [default: all classes of the model]
    #[arg(long, value_name = "LIST")]
    pub(crate) classes: Option<ClassList>,
    /// A file of `fit-plan` for this model: its steps and its guidance
    #[arg(long, value_name = "FILE", conflicts_with_all = REPLACED_BY_PLAN)]
    pub(crate) plan: Option<PathBuf>,
    /// The sampling method [default: dpmpp-2m-sde; ddpm with --variance or --noise, ddim with --eta]
    #[arg(long, value_enum)]
    pub(crate) sampler: Option<SamplerName>,
    /// The number of sampling steps [default: one for each timestep of the model's schedule]
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<usize>,
    /// The timesteps in descending order, such as 19,14,9,4 (`likelihood` prints optimal lists)
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "steps")]
    pub(crate) timesteps: Option<Vec<usize>>,
    /// The reverse-step variance of the sampler ddpm: fixed_small, fixed_large, zero, or one number for each
    /// timestep, in the order of the timesteps (`likelihood` prints the optimal ones)
    /// [default: variance_type of the model's schedule]
    #[arg(long, value_name = "NAME|LIST")]
    pub(crate) variance: Option<Variance>,
    /// --noise none is the same as --variance zero: the images are cleanest and far less varied
    #[arg(long, value_enum, conflicts_with = "variance")]
    pub(crate) noise: Option<Noise>,
    /// η of the sampler ddim, 0 to 1: 0 is deterministic, 1 is ddpm with variance fixed_small [default: 0]
    #[arg(long)]
    pub(crate) eta: Option<f64>,
    /// The noise of the steps of a sampler with noise. brownian: along one path for each image, so that 10 and 20 steps of
    /// a seed show the same picture, finer or coarser
    #[arg(long, value_enum, default_value_t = NoisePath::Independent)]
    pub(crate) noise_path: NoisePath,
    /// Divide each predicted ε by this number, such as 1.005, so that the steps remove less noise (ε-scaling)
    /// [default: 1]
    #[arg(long, value_name = "LAMBDA")]
    pub(crate) epsilon_scale: Option<f64>,
    /// The number type of the network. f16, bf16: half precision, for GPUs, with the sampler still in f32. On a CPU they are
    /// slower than f32, and show what half precision does to the images
    #[arg(long, value_enum, default_value_t = ComputeType::F32)]
    pub(crate) compute: ComputeType,
    #[command(flatten)]
    pub(crate) guiding: Guiding,
}

/// The options of guidance.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Guidance")]
pub(crate) struct Guiding {
    /// The scale of guidance by the class, which extrapolates from the prediction without the class: 1 is no guidance;
    /// larger values follow the class more closely and give less variety [default: 1.5 if the model has
    /// classes]
    #[arg(long, value_name = "W")]
    pub(crate) guidance_scale: Option<f64>,
    /// The timesteps with guidance by the class, both ends included. The network runs twice at each of them
    /// [default: 0.2 to 0.5 of the schedule, 4-10 for 20 timesteps]
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) guidance_interval: Option<Interval>,
    /// A weaker model to guide by (autoguidance): a smaller one, or one that was trained for a shorter time on the same data
    /// [default: the guide of the model, if it has one]
    #[arg(long, value_name = "DIR|hf://OWNER/NAME")]
    pub(crate) guide: Option<String>,
    /// The scale of guidance by the guide. A scale of 1 is no guidance; a larger one moves each prediction away from that of
    /// the guide, which gives more variety [default: 1.5 if there is a guide]
    #[arg(long, value_name = "W")]
    pub(crate) guide_scale: Option<f64>,
    /// The timesteps with guidance by the guide, both ends included
    /// [default: 0.2 to 0.75 of the schedule, 4-15 for 20 timesteps]
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) guide_interval: Option<Interval>,
    /// Fade the class in: ignored from timestep LAST on, it reaches its full effect at FIRST. The guidance scale is multiplied
    /// by a factor from 0 to 1 (condition annealing)
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) class_annealing: Option<Interval>,
}

impl Guiding {
    /// The options of guidance, without the guide.
    pub(crate) fn options(&self) -> GuidanceOptions {
        let interval = |interval: &Interval| interval.0.into()..=interval.1.into();
        GuidanceOptions {
            scale: self.guidance_scale,
            interval: self.guidance_interval.as_ref().map(interval),
            annealing: self.class_annealing.as_ref().map(interval),
            guide_scale: self.guide_scale,
            guide_interval: self.guide_interval.as_ref().map(interval),
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct FitPlan {
    /// The model: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
    /// The number of steps. Their timesteps are searched for
    #[arg(long, value_name = "N", required_unless_present = "timesteps", value_parser = count(1..))]
    pub(crate) steps: Option<usize>,
    /// The timesteps in descending order, such as 19,14,9,4, instead of a search
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "steps")]
    pub(crate) timesteps: Option<Vec<usize>>,
    /// The number of images to fit on, 1 to 10000. They are generated, and differ from those of `sample` with any seed
    #[arg(short, long, value_name = "N", default_value_t = 1000, value_parser = count(1..=10_000))]
    pub(crate) num_images: usize,
    /// The output file, for `sample --plan` and `eval --plan`
    #[arg(short, long, value_name = "FILE", default_value = "plan.json", value_parser = paths::out())]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) guiding: Guiding,
}

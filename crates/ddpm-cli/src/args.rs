//! The command line.

use std::{fmt, ops::RangeInclusive, path::PathBuf, str::FromStr};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use ddpm_core::{LossWeighting, PredictionType, ReverseVariance};
use ddpm_data::Source;
use ddpm_eval::{ErrorWeighting, Metric};
use ddpm_model::{DeviceChoice, SamplerName, WeightType};
use ddpm_train::Preset;

/// Sample, train and inspect small denoising diffusion models.
///
/// Exit codes: 0 done, 1 failed, 2 wrong command line.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What all commands take.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Where to compute: cpu, cuda, cuda:N or metal
    #[arg(long, global = true, default_value = "cpu")]
    pub(crate) device: DeviceChoice,
    /// Threads of a CPU; the result does not depend on it [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,
    /// The seed of all randomness
    #[arg(long, global = true, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print the result as one JSON object on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on standard error
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// No progress and no summary
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Draw images from a model
    Sample(Sample),
    /// Train a model
    Train(Train),
    /// Measure how good a model's images are, beside real test images
    Eval(Eval),
    /// Measure the variational bound on test images, in bits per dimension
    Likelihood(Likelihood),
    /// Classify test images by how well the model denoises them as each class
    Classify(Classify),
    /// Train a feature net, with which `eval` measures images of a data set
    TrainFeatures(TrainFeatures),
    /// Read, verify and describe a data set
    Data(Data),
    /// Describe a model and this program
    Info(Info),
    /// Measure how fast this machine trains and samples
    Bench(Bench),
}

/// How to sample, for `sample` and `eval`.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct Sampling {
    /// The model: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
    /// The classes, such as 0-9 or 3,5,7 [default: all of the model]
    #[arg(long, value_name = "LIST")]
    pub(crate) classes: Option<ClassList>,
    /// The sampler
    #[arg(long, value_enum, default_value_t = SamplerName::Ddpm)]
    pub(crate) sampler: SamplerName,
    /// The number of steps [default: all of the model's schedule]
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<usize>,
    /// The timesteps themselves, falling, such as 19,14,9,4 (`likelihood` prints the best ones)
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "steps")]
    pub(crate) timesteps: Option<Vec<usize>>,
    /// The variance of the steps of ddpm: fixed_small, fixed_large, zero, or a number for each timestep in their
    /// order (`likelihood` prints the optimal ones) [default: variance_type of the model's schedule]
    #[arg(long, value_name = "NAME|LIST")]
    pub(crate) variance: Option<Variance>,
    /// Another way to write --variance zero: the cleanest images, and far less variety
    #[arg(long, value_enum, conflicts_with = "variance")]
    pub(crate) noise: Option<Noise>,
    /// η of ddim: 0 is deterministic, 1 is ddpm with variance fixed_small [default: 0]
    #[arg(long)]
    pub(crate) eta: Option<f64>,
    /// The scale of classifier-free guidance: 1 is no guidance, larger is truer to the class and less varied
    /// [default: 1.5 if the model has classes]
    #[arg(long, value_name = "W")]
    pub(crate) guidance_scale: Option<f64>,
    /// The timesteps with guidance, where the network runs twice
    /// [default: the middle, which is 8-15 of 20]
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) guidance_interval: Option<Interval>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Sample {
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Images of each class
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "num_images")]
    pub(crate) per_class: usize,
    /// The number of images, whose classes take turns, instead of --per-class; at most 20 million
    #[arg(short, long, value_name = "N")]
    pub(crate) num_images: Option<usize>,
    /// Only the I-th of K equal parts of the job; image 17 is the same picture in any part
    #[arg(long, value_name = "I/K")]
    pub(crate) shard: Option<Shard>,
    /// What to write: a labelled grid (png), the grid being denoised (gif), or all images (idx, safetensors)
    #[arg(long, value_enum, default_value_t = Format::Png)]
    pub(crate) format: Format,
    /// The file to write; idx writes OUT-images-idx3-ubyte and OUT-labels-idx1-ubyte. Until it is complete its
    /// name is .tmp-…, which stays only if the program is killed
    /// [default: samples with the format's ending]
    #[arg(short, long, value_name = "OUT")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Train {
    /// The data: mnist, a folder of IDX files, or hf://datasets/OWNER/NAME
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// A set of options, which those below change
    #[arg(long, value_enum, default_value_t = Preset::Standard)]
    pub(crate) preset: Preset,
    /// The folder for model, log, loss curve (loss.svg), checkpoints and previews
    #[arg(short, long, value_name = "DIR", default_value = "runs/train")]
    pub(crate) out_dir: PathBuf,
    /// Go on from the newest checkpoint in the folder
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) resume: bool,
    /// Replace a run that is in the folder
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// The type of the weights in the model folder
    #[arg(long, value_enum, default_value_t = WeightType::F32)]
    pub(crate) dtype: WeightType,
    /// Passes over the training images
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<u64>,
    /// Images in a step
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<usize>,
    /// The highest learning rate
    #[arg(long, value_name = "X")]
    pub(crate) learning_rate: Option<f64>,
    /// The architecture: patch-mlp is the built-in model's; mlp is residual and reads and emits the image as a
    /// whole; plain is the network of the original recipe
    #[arg(long, value_enum)]
    pub(crate) network: Option<NetworkName>,
    /// The space in which the squared error is measured, or a weighting by signal-to-noise ratio
    #[arg(long, value_enum)]
    pub(crate) loss: Option<LossWeighting>,
    /// What the network emits: x0 (sample), ε (epsilon) or v (v_prediction)
    #[arg(long, value_enum)]
    pub(crate) parameterization: Option<PredictionType>,
    /// Any other option by its name in the configuration, for example ema_decay=0.9999 or
    /// denoiser.network.blocks=3; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Eval {
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// The data to compare with: mnist, a folder, or hf://datasets/OWNER/NAME
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// The number of images to generate, whose classes take turns; metrics of different numbers do not compare
    #[arg(short, long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(10..=1_000_000))]
    pub(crate) num_images: usize,
    /// What to measure [default: all]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub(crate) metrics: Option<Vec<Metric>>,
    /// The feature net to measure by, written by `train-features` [default: the built-in one if the data is MNIST]
    #[arg(long, value_name = "DIR")]
    pub(crate) features: Option<PathBuf>,
    /// A folder for the table, quality.md, and two pictures: closest-pairs.png, generated images of each
    /// class above the training images most like them, and quality.svg, accuracy by class and features in two
    /// dimensions
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out_dir: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Likelihood {
    /// The model: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
    /// The data: mnist, a folder of IDX files, or hf://datasets/OWNER/NAME
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// The number of test images to measure, and of training images to fit variances and timesteps on
    #[arg(short, long, value_name = "N", default_value_t = 1000,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..))]
    pub(crate) num_images: usize,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Classify {
    /// The model: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
    /// The data: mnist, a folder of IDX files, or hf://datasets/OWNER/NAME
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// The number of test images
    #[arg(short, long, value_name = "N", default_value_t = 1000,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..))]
    pub(crate) num_images: usize,
    /// Numbers of noise samples for each image; the accuracy is measured for each number
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "20,50,100",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub(crate) num_noise: Vec<usize>,
    /// How much the error at each timestep counts: as in the variational bound or in a loss
    #[arg(long, value_enum, default_value_t = ErrorWeighting::BEST)]
    pub(crate) weighting: ErrorWeighting,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TrainFeatures {
    /// The data: mnist, a folder of IDX files, or hf://datasets/OWNER/NAME
    ///
    /// Without labels, the net learns to tell whether an image was flipped.
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// The folder to write; replaces a feature net that is there
    #[arg(short, long, value_name = "DIR", default_value = "features")]
    pub(crate) out_dir: PathBuf,
    /// Passes over the training images [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) epochs: Option<u32>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Data {
    /// The data: mnist, a folder of IDX files, or hf://datasets/OWNER/NAME
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// Write a picture of the first images of each class
    #[arg(short, long, value_name = "PNG")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Info {
    /// The model: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Bench {
    /// The model whose architecture is measured: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
    /// What to measure: train-B is training with batches of B images, sample-N is sampling N images at once
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "train-128,train-512,sample-1,sample-50,sample-1000"
    )]
    pub(crate) only: Vec<Work>,
    /// Pieces of work measured of each kind, half a second each; the result is their median
    #[arg(long, value_name = "N", default_value_t = 5,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub(crate) rounds: usize,
    /// Measure the product of two large matrices, too, and print each speed as a share of it
    #[arg(long)]
    pub(crate) peak: bool,
}

/// The only value of --noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Noise {
    None,
}

/// The value of --variance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variance(pub(crate) ReverseVariance);

impl FromStr for Variance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let list = || text.split(',').map(|number| number.trim().parse().ok()).collect::<Option<_>>();
        Ok(Self(match text {
            "fixed_small" => ReverseVariance::FixedSmall,
            "fixed_large" => ReverseVariance::FixedLarge,
            "zero" => ReverseVariance::Zero,
            _ => {
                let expected = "expected fixed_small, fixed_large, zero or a number for each timestep";
                ReverseVariance::PerStep(list().ok_or(expected)?)
            }
        }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Png,
    Gif,
    Idx,
    Safetensors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkName {
    PatchMlp,
    Mlp,
    Plain,
}

fn threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "expected 1 to 1024".to_owned())
}

/// Work that `bench` measures, such as `train-128` or `sample-50`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Training steps with this many images each.
    Train(usize),
    /// Samples of this many images at once.
    Sample(usize),
}

impl FromStr for Work {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, count) = text.split_once('-').unwrap_or_default();
        match (kind, count.parse()) {
            ("train", Ok(count @ 1..=100_000)) => Ok(Self::Train(count)),
            ("sample", Ok(count @ 1..=100_000)) => Ok(Self::Sample(count)),
            _ => Err(format!("`{text}`: expected train-B or sample-N with a number from 1 to 100000")),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Train(count) => write!(f, "train-{count}"),
            Self::Sample(count) => write!(f, "sample-{count}"),
        }
    }
}

/// From one timestep to another, both included, such as `5-15`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) u32, pub(crate) u32);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('-')
            .and_then(|(first, last)| Some(Self(first.parse().ok()?, last.parse().ok()?)))
            .filter(|interval| interval.0 <= interval.1)
            .ok_or_else(|| format!("`{text}`: expected FIRST-LAST, such as 5-15"))
    }
}

/// Classes in the order given, such as `0-9` or `3,5,7-8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassList(pub(crate) Vec<u32>);

impl FromStr for ClassList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`: expected classes such as 0-9 or 3,5,7");
        let number = |text: &str| text.parse::<u8>().map(u32::from).map_err(|_| expected());
        let mut list = Vec::new();
        for part in text.split(',') {
            let range: RangeInclusive<u32> = match part.split_once('-') {
                Some((first, last)) => number(first)?..=number(last)?,
                None => number(part)?..=number(part)?,
            };
            if range.is_empty() {
                return Err(expected());
            }
            list.extend(range);
        }
        Ok(Self(list))
    }
}

/// One of several equal parts, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// The part's place in a list; the parts of all shards are the list.
    pub(crate) fn range(self, len: usize) -> std::ops::Range<usize> {
        let end = |i: usize| (len * i).div_euclid(self.count);
        end(self.index - 1)..end(self.index)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('/')
            .and_then(|(index, count)| Some(Self { index: index.parse().ok()?, count: count.parse().ok()? }))
            .filter(|shard| (1..=shard.count).contains(&shard.index) && shard.count <= 1_000_000)
            .ok_or_else(|| format!("`{text}`: expected I/K with I from 1 to K, such as 3/16"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Args, ClassList, Interval, Shard, Work};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn class_lists_are_read() {
        assert_eq!("0-3,7".parse::<ClassList>().unwrap().0, [0, 1, 2, 3, 7]);
        for wrong in ["", "3-", "5-3", "a", "1,,2", "300"] {
            assert!(wrong.parse::<ClassList>().unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn intervals_are_read() {
        assert_eq!("5-15".parse::<Interval>().unwrap(), Interval(5, 15));
        for wrong in ["", "5", "9-5", "a-b", "-1-3"] {
            assert!(wrong.parse::<Interval>().unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn work_is_read_and_written_back() {
        for (text, work) in [("train-128", Work::Train(128)), ("sample-1", Work::Sample(1))] {
            assert_eq!(text.parse::<Work>().unwrap(), work);
            assert_eq!(work.to_string(), text);
        }
        for wrong in ["", "train", "train-", "train-0", "sample-x", "sample-100001", "draw-5"] {
            assert!(wrong.parse::<Work>().unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn shards_are_a_partition() {
        for len in [0, 1, 7, 50, 1000] {
            for count in [1, 2, 3, 16] {
                let parts =
                    (1..=count).flat_map(|i| format!("{i}/{count}").parse::<Shard>().unwrap().range(len));
                assert!(parts.eq(0..len), "{len} in {count}");
            }
        }
        for wrong in ["0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}

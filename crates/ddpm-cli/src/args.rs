//! The command-line arguments, as clap parses them.

mod like;
mod paths;
mod sampling;
#[cfg(feature = "serve")]
mod serve;
mod train;
mod values;

use std::{env, ffi::OsString, path::PathBuf};

use clap::{
    ArgMatches, Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource,
};
use ddpm_data::Source;
use ddpm_eval::{ErrorWeighting, Metric};
use ddpm_model::{DeviceChoice, WeightType};

pub(crate) use sampling::{FitPlan, Sampling};
#[cfg(feature = "serve")]
pub(crate) use serve::Serve;
pub(crate) use train::Train;
pub(crate) use values::{Format, Interval, NetworkName, Noise, Shard, Variance, Work};
use values::{count, threads};

use crate::recipe::Recipe;

/// Sample, train and inspect small denoising diffusion models.
///
/// Exit codes: 0 done, 1 failed, 2 wrong command line, 130 and 143 interrupted by SIGINT and SIGTERM.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Args {
    /// Parses the command line, also in the form that tells where a value comes from. Exits with code 2 if it is wrong.
    ///
    /// # Errors
    /// The file of --like has no recipe.
    pub(crate) fn of_command_line() -> anyhow::Result<(Self, ArgMatches)> {
        let words: Vec<OsString> = env::args_os().collect();
        let (args, matches) = Self::parsed(&words);
        let Command::Sample(Sample { like: Some(path), .. }) = &args.command else {
            return Ok((args, matches));
        };
        let words = like::with_recipe(words, &matches, &Recipe::read(path)?);
        Ok(Self::parsed(&words))
    }

    fn parsed(words: &[OsString]) -> (Self, ArgMatches) {
        let matches = Self::options().get_matches_from(words);
        let mut args = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let source = matches.subcommand().and_then(|(_, matches)| matches.value_source("seed"));
        args.common.seed_is_given = source == Some(ValueSource::CommandLine);
        (args, matches)
    }

    /// The arguments of other words than those of the command line.
    ///
    /// # Errors
    /// A word is wrong.
    #[cfg(feature = "serve")]
    pub(crate) fn of_words(words: &[String]) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::options().try_get_matches_from(words)?)
    }

    /// All options. A value may be a negative number: it is not taken for an option, and its own error says what is
    /// expected.
    fn options() -> clap::Command {
        let negative = |arg: clap::Arg| {
            let takes_value = arg.get_action().takes_values();
            arg.allow_negative_numbers(takes_value)
        };
        Self::command().mut_args(negative).mut_subcommands(move |command| command.mut_args(negative))
    }
}

/// The options that every command has.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// The device to compute on: cpu, cuda, cuda:N or metal
    #[arg(long, global = true, default_value = "cpu")]
    pub(crate) device: DeviceChoice,
    /// The number of CPU threads, 1 to 1024. It does not change the result [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,
    /// The seed of all random numbers
    #[arg(long, global = true, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Whether the seed is on the command line.
    #[arg(skip)]
    pub(crate) seed_is_given: bool,
    /// Print the result as one JSON object on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print more details on standard error
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// Print no progress bar and no summary
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Generate images with a model
    Sample(Sample),
    /// Train a model
    Train(Train),
    /// Make a model of another length of the weights' average from the snapshots of a training run (post-hoc EMA)
    Average(Average),
    /// Measure the quality of generated images and compare it with real test images
    Eval(Eval),
    /// Compute the variational bound of test images, in bits per dimension
    #[command(mut_arg("num_images", |arg| arg.help(
        "The number of test images, 2 or more, and of training images on which variances and timesteps are fitted"
    )))]
    Likelihood(TestImages),
    /// Classify test images: the class for which the model's denoising error is smallest
    Classify(Classify),
    /// Fit a plan of few sampling steps to a long run of the same model
    FitPlan(FitPlan),
    /// Train a feature net, the classifier whose features `eval` uses for its metrics
    TrainFeatures(TrainFeatures),
    /// Load, check and describe a data set
    Data(Data),
    /// Describe a model and this build of the program, or how a file of `sample` was made
    Info(Info),
    /// Measure the speed of training and sampling on this machine
    Bench(Bench),
    /// Serve a page on this machine to play with a model and to watch a training
    #[cfg(feature = "serve")]
    Serve(Serve),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Sample {
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Sample again as the PNG, GIF, IDX or safetensors file of an earlier `sample` was made: all options are those of its
    /// recipe, except the ones that are given here
    #[arg(long, value_name = "FILE")]
    pub(crate) like: Option<PathBuf>,
    /// The number of images of each class
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "num_images")]
    pub(crate) per_class: usize,
    /// The total number of images, at most 20 million, instead of --per-class; the classes alternate
    #[arg(short, long, value_name = "N")]
    pub(crate) num_images: Option<usize>,
    /// Generate only part I of K equal parts of the images. Each image is the same as without --shard
    #[arg(long, value_name = "I/K")]
    pub(crate) shard: Option<Shard>,
    /// The output format: a labelled grid (png), an animation of at most 100 of its steps (gif), or an array of all images
    /// (idx, safetensors) [default: the extension of --out, or png]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// The output file; idx writes OUT-images-idx3-ubyte, OUT-labels-idx1-ubyte and
    /// OUT-recipe.json. The program writes to a
    /// temporary file, .tmp-…, and renames it when it is complete
    /// [default: samples with the extension of the format]
    #[arg(short, long, value_name = "OUT", value_parser = paths::out())]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Average {
    /// The run folder of a training with snapshots (`train --set ema_snapshots=32`)
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// The relative length of the average: its standard deviation in time as a share of the training so far. Lengths from
    /// 0.02 to 0.25 can be had from 32 snapshots
    #[arg(long, value_name = "X")]
    pub(crate) sigma_rel: f64,
    /// The step at which the average ends, that of a snapshot [default: that of the last snapshot]
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u64>,
    /// The model folder to write; an existing model in it is replaced
    #[arg(short, long, value_name = "DIR", value_parser = paths::out())]
    pub(crate) out_dir: PathBuf,
    /// The number type in which the model folder stores weights
    #[arg(long, value_enum, default_value_t = WeightType::F32)]
    pub(crate) dtype: WeightType,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Eval {
    /// Measure these grey images instead of samples of a model: a folder of PNG images, or an IDX, .npz, .npy or
    /// .safetensors file
    ///
    /// A folder holds the images themselves, or a folder for each class, which is named by its number, or one IDX file.
    /// `sample --format idx` and `sample --format safetensors` write such files. An array of images has the shape [N, rows,
    /// cols], [N, 1, rows, cols], [N, rows, cols, 1] or [N, rows·cols]; its numbers are grey levels (uint8), or floats from
    /// 0 to 1 or from -1 to 1. Labels are the numbers of the classes, in the array `labels`, `label` or `y`, or in an IDX
    /// file beside the images. Without labels there is no class accuracy.
    #[arg(
        long,
        value_name = "DIR|FILE",
        conflicts_with_all = [
            "model", "num_images", "classes", "sampler", "steps", "timesteps", "variance", "noise", "eta", "guidance_scale",
            "guidance_interval", "plan", "epsilon_scale", "guide", "class_annealing", "guide_scale",
            "guide_interval", "noise_path"
        ]
    )]
    pub(crate) images: Option<PathBuf>,
    /// The data set to compare with: mnist, a folder of IDX files (or FOLDER/PREFIX of one of several data sets), or
    /// hf://datasets/OWNER/NAME[/CONFIG]
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// The number of images to generate, 1 to 1000000; the classes alternate. Metrics are comparable only between
    /// equal numbers of images, and a few images have not all of them
    #[arg(short, long, value_name = "N", default_value_t = 10_000, value_parser = count(1..=1_000_000))]
    pub(crate) num_images: usize,
    /// The metrics to compute [default: all]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub(crate) metrics: Option<Vec<Metric>>,
    /// The folder of the feature net, written by `train-features` [default: the built-in one if the data is MNIST]
    #[arg(long, value_name = "DIR")]
    pub(crate) features: Option<PathBuf>,
    /// A folder for three files: quality.md, the table; closest-pairs.png, the generated images nearest to a
    /// training image, each above that image; and quality.svg, plots of the accuracy by class and of the features
    /// in two dimensions
    #[arg(short, long, value_name = "DIR", value_parser = paths::out())]
    pub(crate) out_dir: Option<PathBuf>,
    // Last, since its heading would also stand above the options that follow.
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

// The model and the images of `likelihood` and `classify`. Not a comment of documentation: it would be their help.
#[derive(Debug, ClapArgs)]
pub(crate) struct TestImages {
    /// The model: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
    /// The data set: mnist, a folder of IDX files (or FOLDER/PREFIX of one of several data sets), or
    /// hf://datasets/OWNER/NAME[/CONFIG]
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// The number of test images, 2 or more
    #[arg(short, long, value_name = "N", default_value_t = 1000, value_parser = count(2..))]
    pub(crate) num_images: usize,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Classify {
    #[command(flatten)]
    pub(crate) of: TestImages,
    /// The numbers of noise samples for each image, 1 to 100000; the accuracy is computed for each number
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "20,50,100",
        value_parser = count(1..=100_000))]
    pub(crate) num_noise: Vec<usize>,
    /// The weight of the denoising error at each timestep, from the variational bound or from a training loss
    #[arg(long, value_enum, default_value_t = ErrorWeighting::BEST)]
    pub(crate) weighting: ErrorWeighting,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TrainFeatures {
    /// The data set: mnist, a folder of IDX files (or FOLDER/PREFIX of one of several data sets), or
    /// hf://datasets/OWNER/NAME[/CONFIG]
    ///
    /// Without labels, the net learns to recognise whether an image was flipped, and how.
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// The output folder; an existing feature net in it is replaced
    #[arg(short, long, value_name = "DIR", default_value = "features", value_parser = paths::out())]
    pub(crate) out_dir: PathBuf,
    /// The number of passes over the training images, 1 to 10000 [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) epochs: Option<u32>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Data {
    /// The data set: mnist, a folder of IDX files (or FOLDER/PREFIX of one of several data sets), or
    /// hf://datasets/OWNER/NAME[/CONFIG]
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// Write a PNG of the first images of each class
    #[arg(short, long, value_name = "PNG", value_parser = paths::out())]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Info {
    /// The model: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
    /// A PNG, GIF, IDX or safetensors file of `sample`: describe it instead, with the command that made it
    #[arg(value_name = "FILE", conflicts_with = "model")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Bench {
    /// The model whose architecture is timed: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
    /// The kinds of work to time: train-B is training with batches of B images, sample-N is sampling N images at once
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "train-128,train-512,sample-1,sample-50,sample-1000"
    )]
    pub(crate) only: Vec<Work>,
    /// The number of measurements of each kind of work, 1 to 1000. A measurement takes half a second; the result is
    /// the median
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count(1..=1000))]
    pub(crate) rounds: usize,
    /// Also time fused multiply-adds in registers of the CPU, the speed that no product can exceed, and print each speed
    /// as a share of that speed
    #[arg(long)]
    pub(crate) peak: bool,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::Args::options().debug_assert();
    }
}

//! The command-line arguments, as clap parses them.

mod eval;
mod examples;
mod exchange;
mod hub;
mod like;
mod paths;
mod sample;
mod sampling;
#[cfg(feature = "serve")]
mod serve;
mod shard;
mod train;
mod values;

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{
    ArgMatches, Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind,
    parser::ValueSource,
};
use ddpm_data::Source;
use ddpm_model::{DeviceChoice, WeightType};

pub(crate) use eval::{Classify, Eval, TestImages, TrainFeatures};
pub(crate) use exchange::{Export, ImageFormat, Import, Merge, MergedFormat, SplitName};
pub(crate) use hub::{Pull, Push};
pub(crate) use sample::{Given, Images, Sample, Strip, is_option_of_recipe};
#[cfg(feature = "serve")]
pub(crate) use sampling::REPLACED_BY_PLAN;
pub(crate) use sampling::{FitPlan, Sampling};
#[cfg(feature = "serve")]
pub(crate) use serve::Serve;
pub(crate) use shard::Shard;
pub(crate) use train::Train;
pub(crate) use values::{Format, Interval, NetworkName, Noise, Variance, Work};
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
        let (mut args, mut matches) = Self::parsed(&words);
        if let Command::Sample(Sample { like: Some(path), .. }) = &args.command {
            let recipe = Recipe::read(path)?;
            (args, matches) = Self::parsed(&like::with_recipe(words, &matches, &recipe));
            if let Command::Sample(sample) = &mut args.command {
                sample.like_recipe = Some(recipe.into());
            }
        }
        if let Command::Sample(sample) = &mut args.command
            && let Err(error) = sample.resolve_shard()
        {
            Self::options().error(ErrorKind::ValueValidation, error).exit();
        }
        Ok((args, matches))
    }

    fn parsed(words: &[OsString]) -> (Self, ArgMatches) {
        let matches = Self::options().get_matches_from(words);
        let mut args = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let source = matches.subcommand().and_then(|(_, matches)| matches.value_source("seed"));
        args.common.seed_is_given = source == Some(ValueSource::CommandLine);
        if args.common.json && matches!(args.command, Command::Sample(Sample { show: true, .. })) {
            let error = "the argument '--show' cannot be used with '--json'";
            Self::options().error(ErrorKind::ArgumentConflict, error).exit();
        }
        (args, matches)
    }

    /// Parses words that do not come from the command line.
    ///
    /// # Errors
    /// A word is wrong.
    #[cfg(feature = "serve")]
    pub(crate) fn of_words(words: &[String]) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::options().try_get_matches_from(words)?)
    }

    /// All options. A value may be a negative number: it is not taken for an option, and its own error says what is
    /// expected.
    pub(crate) fn options() -> clap::Command {
        let negative = |arg: clap::Arg| {
            let takes_value = arg.get_action().takes_values();
            arg.allow_negative_numbers(takes_value)
        };
        let options =
            Self::command().mut_args(negative).mut_subcommands(move |command| command.mut_args(negative));
        examples::add_to(options)
    }
}

/// The arguments of a command, from its name and its words.
///
/// # Errors
/// The words are not arguments of the command.
fn parsed<A: ClapArgs>(words: &[&OsStr]) -> Result<A, clap::Error> {
    A::from_arg_matches(&A::augment_args(clap::Command::new("ddpm-cli")).try_get_matches_from(words)?)
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
    /// Write a data set, or images of `sample`, in formats of other programs
    Export(Export),
    /// Make a data set, for --data, of images that other programs wrote
    Import(Import),
    /// Put the parts of a job (`sample --shard`) together into one file, or name the parts that are missing
    Merge(Merge),
    /// Describe a model and this build of the program, or how a file of `sample` was made
    Info(Info),
    /// Measure the speed of training and sampling on this machine, beside the machine of results/
    Bench(Bench),
    /// Describe a training run in one HTML file: curves, images over the epochs, quality, configuration
    Report(Report),
    /// Check this machine and this build: devices, instructions, threads, folders, access to the Hub
    Doctor,
    /// Print a file for the shell that completes commands and options
    Completions(Completions),
    /// Write a manual page for each command
    Man(Man),
    /// Publish a model on the Hugging Face Hub, with a model card and a picture of its samples
    Push(Push),
    /// Copy a model of the Hugging Face Hub into a folder
    Pull(Pull),
    /// Serve a page on this machine to play with a model and to watch a training
    #[cfg(feature = "serve")]
    Serve(Serve),
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
pub(crate) struct Report {
    /// The run folder of `train`
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// The number of images to generate and to measure as `eval` does, up to 1000000; 0 for no measurement
    #[arg(short, long, value_name = "N", default_value_t = 2_000, value_parser = count(0..=1_000_000))]
    pub(crate) num_images: usize,
    /// The data set to compare with [default: the data set of the run]
    #[arg(long, value_name = "SOURCE")]
    pub(crate) data: Option<Source>,
    /// The folder of the feature net, written by `train-features` [default: the built-in one if the data is MNIST]
    #[arg(long, value_name = "DIR")]
    pub(crate) features: Option<PathBuf>,
    /// The output file [default: report.html in the run folder]
    #[arg(short, long, value_name = "HTML", value_parser = paths::out())]
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
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Man {
    /// The folder of the pages, which are ddpm-cli.1, ddpm-cli-sample.1 and so on
    #[arg(value_name = "DIR", value_parser = paths::out())]
    pub(crate) folder: PathBuf,
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

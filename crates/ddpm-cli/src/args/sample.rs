//! The arguments of `sample`.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, ValueEnum};

use super::{
    Format, Sampling, paths,
    shard::{JobArray, Shard},
    values::count,
};
use crate::recipe::Recipe;

#[derive(Debug, ClapArgs)]
pub(crate) struct Sample {
    /// The output file; idx writes OUT-images-idx3-ubyte, OUT-labels-idx1-ubyte and
    /// OUT-recipe.json. The program writes to a
    /// temporary file, .tmp-…, and renames it when it is complete
    /// [default: samples with the extension of the format]
    #[arg(short, long, value_name = "OUT", value_parser = paths::out())]
    pub(crate) out: Option<PathBuf>,
    /// Sample again as the PNG, GIF, IDX or safetensors file of an earlier `sample` was made: all options are those of its
    /// recipe, except the ones that are given here
    #[arg(long, value_name = "FILE")]
    pub(crate) like: Option<PathBuf>,
    /// The recipe of --like.
    #[arg(skip)]
    pub(crate) like_recipe: Option<Box<Recipe>>,
    /// Also print the picture on the terminal, with a character for each two pixels
    #[arg(long)]
    pub(crate) show: bool,
    #[command(flatten)]
    pub(crate) images: Images,
    #[command(flatten)]
    pub(crate) given: Given,
    #[command(flatten)]
    pub(crate) array: JobArray,
    // Last, since its heading would also stand above the options that follow.
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

impl Sample {
    /// Replaces --shard-index and --shards by the same part in the form of --shard, the only one that the program uses.
    ///
    /// # Errors
    /// The index is not one of the parts, or --skip-verified has no part.
    pub(super) fn resolve_shard(&mut self) -> Result<(), String> {
        if let Some(shard) = self.array.shard()? {
            self.images.shard = Some(shard);
        }
        if self.array.skip_verified && self.images.shard.is_none() {
            return Err(
                "--skip-verified is for a part of a job, expected --shard or --shard-index".to_owned()
            );
        }
        Ok(())
    }
}

/// The options that say which images a file has.
#[derive(Debug, ClapArgs)]
pub(crate) struct Images {
    /// The number of images of each class
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "num_images")]
    pub(crate) per_class: usize,
    /// The total number of images, at most 20 million, instead of --per-class; the classes alternate
    #[arg(short, long, value_name = "N")]
    pub(crate) num_images: Option<usize>,
    /// Generate only part I of K equal parts of the images. Each image is the same as without --shard. `merge` puts the parts
    /// of idx and safetensors together, which have a file OUT-recipe.json with their SHA-256
    #[arg(long, value_name = "I/K")]
    pub(crate) shard: Option<Shard>,
    /// The output format: a labelled grid (png), an animation of at most 100 of its steps (gif, apng), or an array of all
    /// images (idx, safetensors) [default: the extension of --out, or png]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// A row of at most 12 stages for each image instead of a grid of images
    #[arg(long, value_enum)]
    pub(crate) strip: Option<Strip>,
    /// A row for each class instead of a column: its images, with N images on the way from each to the next. The noise of
    /// these is interpolated
    #[arg(
        long,
        value_name = "N",
        value_parser = count(1..=100),
        conflicts_with_all = ["strip", "num_images", "shard", "shard_index", "noise_path"]
    )]
    pub(crate) interpolate: Option<usize>,
}

/// The rows of --strip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strip {
    /// xₜ from noise to image
    Reverse,
    /// x̂₀, the image that the network predicts at each of these steps
    Predictions,
    /// The forward process, from the generated image to noise
    Forward,
}

/// The options of an image to start from.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "A given image", group = ArgGroup::new("use_of_given").multiple(true).args(["strength", "mask"]))]
pub(crate) struct Given {
    /// Make all images from this one: a grey PNG, or another file of one image, with the size of the model's images
    #[arg(long, value_name = "IMAGE", requires = "use_of_given")]
    pub(crate) from: Option<PathBuf>,
    /// How much of the image is made anew, above 0 to 1: the share of the sampling steps that are carried out, after noise
    /// was added to the image (SDEdit)
    #[arg(long, value_name = "X", requires = "from", conflicts_with = "plan")]
    pub(crate) strength: Option<f64>,
    /// Paint only the white pixels of this image and keep the black ones (inpainting). --sampler repaint fits the two best
    #[arg(long, value_name = "IMAGE", requires = "from")]
    pub(crate) mask: Option<PathBuf>,
}

/// Whether a recipe may have this option. A file may come from anywhere, so it chooses no output file.
pub(crate) fn is_option_of_recipe(option: &str) -> bool {
    let options = clap::Command::new("");
    let options = Given::augment_args(Images::augment_args(Sampling::augment_args(options)));
    let mut names = options.get_arguments().filter_map(clap::Arg::get_long).chain(["seed"]);
    option.strip_prefix("--").is_some_and(|option| names.any(|name| name == option))
}

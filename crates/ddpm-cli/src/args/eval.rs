//! The arguments of the commands that measure: `eval`, `likelihood`, `classify`, and `train-features`, which makes what
//! `eval` measures with.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use clap::Args as ClapArgs;
use ddpm_data::Source;
use ddpm_eval::{ErrorWeighting, Metric};

use super::{Sampling, parsed, paths, values::count};

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

impl Eval {
    /// The evaluation of samples of a model, otherwise with the defaults.
    pub(crate) fn of_model(
        model: &Path,
        data: &Source,
        num_images: usize,
        features: Option<&Path>,
    ) -> Result<Self, clap::Error> {
        let (data, number) = (data.to_string(), num_images.to_string());
        let mut words: Vec<&OsStr> =
            ["eval", "--data", &data, "-n", &number, "--model"].map(OsStr::new).to_vec();
        words.push(model.as_os_str());
        words.extend(
            features.map(|folder| [OsStr::new("--features"), folder.as_os_str()]).into_iter().flatten(),
        );
        parsed(&words)
    }
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

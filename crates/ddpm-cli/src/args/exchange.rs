//! The arguments of `export`, `import` and `merge`.

use std::{path::PathBuf, str::FromStr};

use clap::{Args as ClapArgs, ValueEnum};
use ddpm_data::Source;

use super::paths;

/// A format in which `export` writes images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageFormat {
    /// A NumPy archive with the arrays images, uint8 of shape [N, rows, cols], and labels, N numbers of uint8
    Npz,
    /// Tensors of the same names, types and shapes
    Safetensors,
    /// The uncompressed files of MNIST
    Idx,
    /// A file CLASS/INDEX.png for each image, or INDEX.png without labels
    PngFolder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SplitName {
    Train,
    Test,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Export {
    /// The data set to export: mnist, a folder of IDX files (or FOLDER/PREFIX of one of several data sets), or
    /// hf://datasets/OWNER/NAME[/CONFIG]
    #[arg(long, value_name = "SOURCE", default_value = "mnist")]
    pub(crate) data: Source,
    /// Export only the training images or only the test images, to OUT itself
    #[arg(long, value_enum)]
    pub(crate) split: Option<SplitName>,
    /// Export these images instead of a data set, to OUT itself: an IDX or .safetensors file of `sample`, or any others that
    /// `eval --images` reads
    #[arg(long, value_name = "DIR|FILE", conflicts_with_all = ["data", "split"])]
    pub(crate) images: Option<PathBuf>,
    /// The format of the files
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) to: ImageFormat,
    /// For a whole data set, a new folder with train.npz and test.npz, or train and test in the other formats; a folder of
    /// IDX files is read by --data OUT. With --split or --images, the file itself; idx writes OUT-images-idx3-ubyte and
    /// OUT-labels-idx1-ubyte, png-folder the new folder OUT
    #[arg(short, long, value_name = "OUT", value_parser = paths::out())]
    pub(crate) out: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Import {
    /// The images of a data set: a folder of PNG images, which lie in folders named by the numbers of their classes, or an
    /// IDX, .npz, .npy or .safetensors file. A folder that `export` wrote gives training and test images
    ///
    /// `eval --help` describes the arrays and the labels that are read.
    #[arg(value_name = "DIR|FILE")]
    pub(crate) images: PathBuf,
    /// The test images, if they lie elsewhere
    #[arg(long, value_name = "DIR|FILE")]
    pub(crate) test: Option<PathBuf>,
    /// The size of an image, such as 28x28. Only an array of shape [N, rows·cols] needs it
    #[arg(long, value_name = "ROWSxCOLS")]
    pub(crate) size: Option<ImageSize>,
    /// The new folder for the IDX files, which --data DIR reads
    #[arg(short, long, value_name = "DIR", value_parser = paths::out())]
    pub(crate) out_dir: PathBuf,
}

/// A format in which `merge` writes images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MergedFormat {
    /// OUT-images-idx3-ubyte, OUT-labels-idx1-ubyte and OUT-recipe.json, as `sample` writes them
    Idx,
    /// One file, as `sample` writes it
    Safetensors,
    /// One file as the Hugging Face Hub has data sets of images: PNG images in the column image, classes in the column label
    /// (needs the feature hub)
    Parquet,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Merge {
    /// The parts, in any order: a file or the common name of the files of each part, or folders with all files of the parts
    #[arg(value_name = "PART", required = true)]
    pub(crate) parts: Vec<PathBuf>,
    /// The output file; an existing one is replaced when the new one is complete
    #[arg(short, long, value_name = "OUT", value_parser = paths::out())]
    pub(crate) out: PathBuf,
    /// The output format [default: the extension of OUT, or the format of the parts]
    #[arg(long, value_enum)]
    pub(crate) format: Option<MergedFormat>,
}

/// The rows and columns of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageSize(pub(crate) [usize; 2]);

impl FromStr for ImageSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|side| (1..=4096).contains(side));
        text.split_once('x')
            .and_then(|(rows, cols)| Some(Self([number(rows)?, number(cols)?])))
            .ok_or_else(|| format!("`{text}`: expected ROWSxCOLS with numbers from 1 to 4096, such as 28x28"))
    }
}

#[cfg(test)]
mod tests {
    use super::ImageSize;

    #[test]
    fn sizes_are_read() {
        assert_eq!("28x32".parse::<ImageSize>().unwrap(), ImageSize([28, 32]));
        for wrong in ["", "28", "28x", "0x28", "28x28x1", "28X28", "5000x1", "-1x2"] {
            assert!(wrong.parse::<ImageSize>().unwrap_err().contains(wrong), "{wrong}");
        }
    }
}

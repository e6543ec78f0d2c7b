//! The error type of this crate.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use crate::idx::IdxKind;

/// An error of a library that this crate calls.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A data set or file that cannot be read, written or used, or an argument out of range.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant names its fields")]
pub enum Error {
    /// A number or size is outside its range.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange { name: Cow<'static, str>, found: String, expected: Cow<'static, str> },

    // --- IDX files ---
    /// A file or folder is missing or cannot be read.
    #[error("cannot read {file}")]
    Read { file: PathBuf, source: io::Error },
    /// The gzip stream is truncated or corrupt.
    #[error("{file} is not a valid gzip file")]
    Gzip { file: PathBuf, source: io::Error },
    /// The file is of another format, or is IDX data of another type.
    #[error("{file} is {found}, expected an IDX file of {expected}")]
    NotIdx { file: PathBuf, found: String, expected: IdxKind },
    /// The file holds labels where images are expected, or the reverse.
    #[error("{file}: holds {found}, expected {expected}")]
    WrongKind { file: PathBuf, found: IdxKind, expected: IdxKind },
    /// The file ends inside its header.
    #[error("{file}: has {found} bytes of IDX data, expected at least {expected} for the header")]
    ShortHeader { file: PathBuf, found: u64, expected: u64 },
    /// The header gives images a height or width of 0.
    #[error("{file}: the IDX header gives images of {rows}x{cols} pixels, expected at least 1x1")]
    ZeroSize { file: PathBuf, rows: u32, cols: u32 },
    /// The uncompressed data is larger than this crate loads into memory.
    #[error("{file}: needs {claimed} bytes of memory, expected at most {limit}")]
    TooLarge { file: PathBuf, claimed: u128, limit: u64 },
    /// The file has fewer bytes than its header says.
    #[error("{file}: has {found} bytes of IDX data, expected {expected} according to its header")]
    Short { file: PathBuf, found: u64, expected: u64 },
    /// The file has more bytes than its header says.
    #[error("{file}: has at least {found} bytes of IDX data, expected {expected} according to its header")]
    TrailingBytes { file: PathBuf, found: u64, expected: u64 },

    // --- sets ---
    /// The file holds no images.
    #[error("{file}: holds no images, expected at least one")]
    Empty { file: PathBuf },
    /// The numbers of images and labels differ.
    #[error(
        "{images_file} holds {images} images, but {labels_file} holds {labels} labels, expected one for each image"
    )]
    CountMismatch { images_file: PathBuf, images: usize, labels_file: PathBuf, labels: usize },
    /// Test images have another size than training images.
    #[error(
        "{file}: images of {}x{}, expected {}x{} as in the training set",
        found[0], found[1], expected[0], expected[1]
    )]
    SplitSize { file: PathBuf, found: [usize; 2], expected: [usize; 2] },
    /// A label is outside the range of classes.
    #[error("{file}: label {label} at index {index}, expected 0 to {max}")]
    LabelOutOfRange { file: PathBuf, index: usize, label: i64, max: usize },
    /// The operation needs labels, and the data set has none.
    #[error("data set {name} has no labels")]
    NoLabels { name: String },
    /// The content differs from the expected one.
    #[error("{file}: SHA-256 is {found}, expected {expected}")]
    Checksum { file: PathBuf, found: String, expected: String },

    // --- sources ---
    /// There is no file or folder of this name.
    #[error(
        "{path}: no such folder; expected mnist (the built-in one), a folder of IDX files, FOLDER/PREFIX of one of \
         several data sets, or hf://datasets/OWNER/NAME{}",
        if path.starts_with("~") { "; `~` in quotes or after `=` is not your home folder, write its whole path" } else { "" }
    )]
    NoSource { path: PathBuf },
    /// The path is a file, and its name is not of an IDX file.
    #[error("{path} is a file, which is {found}; expected a folder of IDX files, or one of them")]
    NotAFolder { path: PathBuf, found: String },
    /// An address of the web, which is not read.
    #[error("{address}: addresses of the web are not read, expected {instead}")]
    WebAddress { address: String, instead: String },
    /// The folder holds no data set.
    #[error(
        "found no data set in {folder}, but {found}; expected train-images-idx3-ubyte, and optionally \
         train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each with or without .gz"
    )]
    NoDataSet { folder: PathBuf, found: String },
    /// The folder holds several data sets.
    #[error("{folder}: expected one data set, found several; choose one: {}", candidates.join(", "))]
    Ambiguous { folder: PathBuf, candidates: Vec<String> },
    /// The folder holds several files for the same part of a data set.
    #[error("{folder}: {} are for the same part of the data set, expected one of them", files.join(", "))]
    SeveralFiles { folder: PathBuf, files: Vec<String> },
    /// A file that may be the missing one is not read, because of its name.
    #[error(
        "there is {file}, but no {missing}: give the file its usual name, or move it to another folder to do without"
    )]
    Unread { file: PathBuf, missing: PathBuf },
    /// The text is not a valid address of the Hub.
    #[error("{address} is not a valid Hub address: {reason}")]
    BadAddress { address: String, reason: &'static str },
    /// The crate was built without the feature `mnist`.
    #[error("this build does not contain MNIST; build with the feature `mnist`")]
    MnistFeature,
    /// A parquet file, or a folder of such files, and the crate was built without the feature `hub`.
    #[error("{path}: this build neither reads nor writes parquet files; build with the feature `hub`")]
    ParquetFeature { path: PathBuf },
    /// The crate was built without the feature `hub`.
    #[error("{address}: this build cannot use the Hub; build with the feature `hub`")]
    HubFeature { address: String },

    // --- the Hub ---
    /// The configuration names no cache folder.
    #[error("no cache folder for downloads from the Hub: set HF_HOME or HF_HUB_CACHE")]
    NoCacheFolder,
    /// The endpoint is not the address of a server.
    #[error("HF_ENDPOINT is {endpoint}, expected http:// or https:// and the name of a server")]
    HubEndpoint { endpoint: String },
    /// The cache folder cannot be written.
    #[error(
        "cannot write to the cache {cache}: set HF_HUB_CACHE to a folder that you can write, or HF_HUB_OFFLINE=1 if \
         the cache already holds all files"
    )]
    CacheNotWritable { cache: PathBuf, source: ddpm_files::Error },
    /// A link in the cache leads out of it.
    #[error("{path}: a link leads out of {cache}; remove it, or set HF_HUB_CACHE to another folder")]
    OutsideCache { path: PathBuf, cache: PathBuf },
    /// The repository has no such file.
    #[error("{repo} has no file {file} at revision {revision}")]
    NotOnHub { repo: String, revision: String, file: String },
    /// The repository has no layout that this crate can read.
    #[error("found no data set in {repo} at revision {revision}: expected one of the files {}", expected.join(", "))]
    NoHubDataSet { repo: String, revision: String, expected: Vec<String> },
    /// Offline mode is on, and the file is not in the cache.
    #[error(
        "{file} of {repo} at revision {revision} is not in the cache {cache}, and offline mode is on: \
         download it once with HF_HUB_OFFLINE unset, or copy the cache from a machine that has it"
    )]
    NotCached { repo: String, revision: String, file: String, cache: PathBuf },
    /// The repository is private, gated, or does not exist.
    #[error(
        "no access to {file} of {repo}: it is private, gated or does not exist; check the name and HF_TOKEN"
    )]
    HubAccess { repo: String, file: String, source: Cause },
    /// The request failed.
    #[error("cannot download {file} of {repo}")]
    HubRequest { repo: String, file: String, source: Cause },
    /// The size of a download is not the size that the Hub announced.
    #[error("{file}: downloaded {found} bytes, expected {expected} as the Hub announced")]
    DownloadSize { file: PathBuf, found: u64, expected: u64 },

    /// Offline mode is on, and a push sends requests.
    #[error("cannot push to {repo}: offline mode is on; unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE")]
    PushOffline { repo: String },
    /// There is no access token.
    #[error(
        "pushing to {repo} needs an access token that may write, from {endpoint}/settings/tokens; set HF_TOKEN to it{}",
        match file {
            Some(file) => format!(", or write it to {}", file.display()),
            None => ", as HF_HUB_DISABLE_IMPLICIT_TOKEN is set or there is no home folder".to_owned(),
        }
    )]
    NoToken { repo: String, endpoint: String, file: Option<PathBuf> },
    /// The access token must not do this.
    #[error(
        "no permission for {action} of {repo}: check the owner's name, and that the access token is valid and may write"
    )]
    PushAccess { repo: String, action: String, source: Cause },
    /// A request of a push failed.
    #[error("{action} of {repo} failed")]
    Push { repo: String, action: String, source: Cause },
    /// The repository was to be private.
    #[error(
        "{repo} is not private, as was asked for; make it private on the Hub, or push to a new repository"
    )]
    NotPrivate { repo: String },

    // --- images of other programs ---
    /// The file is of no format with images.
    #[error(
        "{file} is {found}; expected a folder of PNG images or of IDX files, or a PNG, IDX, .npz, .npy or .safetensors \
         file of images"
    )]
    NotImages { file: PathBuf, found: String },
    /// The folder holds no images.
    #[error(
        "found no images in {folder}, but {found}; expected PNG images, a folder of PNG images for each class, named \
         by its number, or IDX files such as samples-images-idx3-ubyte"
    )]
    NoImages { folder: PathBuf, found: String },
    /// The folder holds images and folders.
    #[error("{folder} holds PNG images and the folder {below}, expected one or the other")]
    MixedFolder { folder: PathBuf, below: String },
    /// A folder is not named by a class.
    #[error("the name of {folder} is not the number of a class, expected 0 to 255")]
    ClassFolder { folder: PathBuf },
    /// Images have another size than those to compare with.
    #[error("{file}: images of {}x{} pixels, expected {}x{}", found[0], found[1], expected[0], expected[1])]
    Size { file: PathBuf, found: [usize; 2], expected: [usize; 2] },
    /// A picture has another size than the images to compare with.
    #[error(
        "{file}: the picture has {}x{} pixels, expected {}x{}; a picture of many images is not taken apart: save each \
         image by itself, or all in an IDX, .npz or .safetensors file",
        found[0], found[1], expected[0], expected[1]
    )]
    PictureSize { file: PathBuf, found: [usize; 2], expected: [usize; 2] },
    /// The file is not a PNG image.
    #[error("{file} is not a valid PNG image")]
    Png { file: PathBuf, source: Cause },
    /// The picture has colours, transparency, or more than 8 bits.
    #[error("{file}: the picture has {found}, expected grey levels of at most 8 bits")]
    NotGrey { file: PathBuf, found: String },
    /// The ZIP archive is corrupt, or uses an unsupported feature of the format.
    #[error("cannot read {file} as a ZIP archive of NumPy arrays")]
    Npz { file: PathBuf, source: Cause },
    /// The safetensors file is corrupt.
    #[error("cannot read {file} as a safetensors file")]
    Safetensors { file: PathBuf, source: Cause },
    /// An array has a wrong header, type, shape, value or number of bytes.
    #[error("{file}: the array {array} has {found}, expected {expected}")]
    Array { file: PathBuf, array: Box<str>, found: Box<str>, expected: Cow<'static, str> },
    /// Several arrays may hold the images, or the labels.
    #[error("{file}: the {content} may be in any of the arrays {}; name one of them `{content}`", arrays.join(", "))]
    SeveralArrays { file: PathBuf, content: &'static str, arrays: Vec<String> },

    // --- parquet files ---
    /// The parquet file is corrupt, or uses an unsupported feature of the format.
    #[error("cannot read {file} as a parquet file")]
    Parquet { file: PathBuf, source: Cause },
    /// The parquet file cannot be written.
    #[error("cannot write {file} as a parquet file")]
    ParquetWrite { file: PathBuf, source: Cause },
    /// The file does not begin as a parquet file does.
    #[error("{file} is {found}, expected a parquet file")]
    NotParquet { file: PathBuf, found: String },
    /// A column is missing.
    #[error("{file} has no column {column}; its columns are {}", columns.join(", "))]
    NoColumn { file: PathBuf, column: String, columns: Vec<String> },
    /// A column has the wrong type.
    #[error("{file}: column {column} is {found}, expected {expected}")]
    Column { file: PathBuf, column: String, found: String, expected: &'static str },
    /// Several columns may hold the labels.
    #[error("{file}: the labels may be in any of the columns {}; rename one of them to `label`", columns.join(", "))]
    SeveralLabels { file: PathBuf, columns: Vec<String> },
    /// A cell has no value.
    #[error("{file}: row {row} of column {column} is null, expected a value")]
    Null { file: PathBuf, column: String, row: usize },
    /// The image of a row is not a PNG or a JPEG.
    #[error("{file}: the image of row {row} is not a valid PNG or JPEG")]
    Image { file: PathBuf, row: usize, source: Cause },
    /// Parts of a split are missing.
    #[error("{folder}: found {found} of the {expected} parquet files of the split {split}")]
    Parts { folder: PathBuf, split: &'static str, found: usize, expected: usize },
    /// The image of a row has another size than the image of row 0.
    #[error(
        "{file}: row {row} is {}x{}, expected {}x{} as in row 0",
        found[0], found[1], expected[0], expected[1]
    )]
    ImageSize { file: PathBuf, row: usize, found: [usize; 2], expected: [usize; 2] },
    /// A file cannot be read to compute its digest.
    #[error(transparent)]
    Files(#[from] ddpm_files::Error),
}

impl Error {
    /// [`Error::OutOfRange`] from text and numbers of any kind.
    pub(crate) fn out_of_range(
        name: impl Into<Cow<'static, str>>,
        found: impl ToString,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::OutOfRange { name: name.into(), found: found.to_string(), expected: expected.into() }
    }
}

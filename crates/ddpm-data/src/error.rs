//! The one error type of this crate.

use std::io;
use std::path::PathBuf;

use crate::idx::IdxKind;

/// What an underlying library reported.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a data set could not be read, written or batched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum Error {
    // --- IDX files ---
    /// A file or folder is missing or cannot be read.
    #[error("cannot read {file}")]
    Read { file: PathBuf, source: io::Error },
    /// The compressed stream is truncated or corrupt.
    #[error("{file} is not a valid gzip file")]
    Gzip { file: PathBuf, source: io::Error },
    /// Neither images nor labels in the IDX format.
    #[error("{file}: wrong IDX magic number {found:#010x}, expected {expected}")]
    WrongMagic { file: PathBuf, found: u32, expected: IdxKind },
    /// Labels where images are expected, or the reverse.
    #[error("{file}: holds {found}, expected {expected}")]
    WrongKind { file: PathBuf, found: IdxKind, expected: IdxKind },
    /// The file ends inside its header.
    #[error("{file}: ends after {found} bytes, inside the IDX header of {expected} bytes")]
    ShortHeader { file: PathBuf, found: u64, expected: u64 },
    /// Images without pixels.
    #[error("{file}: the IDX header claims images of {rows}x{cols} pixels")]
    ZeroSize { file: PathBuf, rows: u32, cols: u32 },
    /// More data than this crate is willing to hold in memory.
    #[error("{file}: claims {claimed} bytes, the limit is {limit}")]
    TooLarge { file: PathBuf, claimed: u128, limit: u64 },
    /// Fewer bytes than the header claims.
    #[error("{file}: has {found} bytes, its IDX header claims {expected}")]
    Short { file: PathBuf, found: u64, expected: u64 },
    /// More bytes than the header claims.
    #[error("{file}: has at least {found} bytes, its IDX header claims {expected}")]
    TrailingBytes { file: PathBuf, found: u64, expected: u64 },

    // --- sets ---
    /// Pixels that do not make up whole images.
    #[error("{pixels} pixels are not a whole number of images of {rows}x{cols}")]
    PixelCount { rows: usize, cols: usize, pixels: usize },
    /// More items than an IDX header or a `u32` index can express.
    #[error("{count} is more than the limit of {limit}")]
    TooMany { count: usize, limit: u32 },
    /// A data set needs at least one image.
    #[error("{file}: holds no images")]
    Empty { file: PathBuf },
    /// Images and labels do not belong together.
    #[error("{images_file} holds {images} images, but {labels_file} holds {labels} labels")]
    CountMismatch { images_file: PathBuf, images: usize, labels_file: PathBuf, labels: usize },
    /// Train and test images do not belong together.
    #[error("{file}: images of {rows}x{cols}, expected {expected_rows}x{expected_cols} as in the train set")]
    SplitSize { file: PathBuf, rows: usize, cols: usize, expected_rows: usize, expected_cols: usize },
    /// A label outside of the classes.
    #[error("{file}: label {label} at index {index}, expected 0 to {max}")]
    LabelOutOfRange { file: PathBuf, index: usize, label: i64, max: usize },
    /// Labels or classes were asked for, and there are none.
    #[error("the set {name} has no labels")]
    NoLabels { name: String },
    /// Content other than the one that is known.
    #[error("{file}: SHA-256 is {found}, expected {expected}")]
    Checksum { file: PathBuf, found: String, expected: String },
    /// An index beyond the end of the set.
    #[error("index {index} is outside of the set {name} of {len} images")]
    IndexOutOfRange { name: String, index: u32, len: usize },
    /// A batch of no image, or of more than there are.
    #[error("a batch of {batch_size} from a set of {len}, expected 1 to {len}")]
    BatchSize { batch_size: usize, len: usize },

    // --- sources ---
    /// The folder holds no data set.
    #[error("found no data set in {folder}: expected {expected}, each with or without .gz")]
    NoDataSet { folder: PathBuf, expected: String },
    /// The folder holds more than one data set.
    #[error("{folder} holds more than one data set: {}; give each a folder of its own", candidates.join(", "))]
    Ambiguous { folder: PathBuf, candidates: Vec<String> },
    /// Not an address of the Hub.
    #[error("{address} is not an address of the Hub: {reason}")]
    BadAddress { address: String, reason: &'static str },
    /// The crate was built without the feature `mnist`.
    #[error("this build does not contain MNIST; build with the feature `mnist`")]
    MnistFeature,
    /// The crate was built without the feature `hub`.
    #[error("{address}: this build cannot read from the Hub; build with the feature `hub`")]
    HubFeature { address: String },

    // --- the Hub ---
    /// The environment names no place for the cache.
    #[error("no folder for the cache of the Hub: set HF_HOME or HF_HUB_CACHE")]
    NoCacheFolder,
    /// The HTTPS client cannot be set up.
    #[error(
        "cannot set up the HTTPS client for {endpoint}; it needs the system's CA certificates \
         (on Linux the package ca-certificates) and a valid endpoint address"
    )]
    HubClient { endpoint: String, source: Cause },
    /// The repository has no such file.
    #[error("{repo} has no file {file} at revision {revision}")]
    NotOnHub { repo: String, revision: String, file: String },
    /// The repository has none of the layouts that this crate reads.
    #[error("found no data set in {repo} at revision {revision}: expected one of {}", expected.join(", "))]
    NoHubDataSet { repo: String, revision: String, expected: Vec<String> },
    /// Offline, and the file was never fetched.
    #[error(
        "{file} of {repo} at revision {revision} is not in the cache {cache}, and offline mode is on: \
         fetch it once with HF_HUB_OFFLINE unset, or copy the cache from a machine that did"
    )]
    NotCached { repo: String, revision: String, file: String, cache: PathBuf },
    /// The repository is private, gated, or does not exist.
    #[error(
        "no access to {file} of {repo}: it is private, gated or does not exist; check the name and HF_TOKEN"
    )]
    HubAccess { repo: String, file: String, source: Cause },
    /// The request failed.
    #[error("cannot fetch {file} of {repo}")]
    HubRequest { repo: String, file: String, source: Cause },
    /// Fewer or more bytes arrived than the Hub announced.
    #[error("{file}: {found} bytes arrived, the Hub announced {expected}")]
    DownloadSize { file: PathBuf, found: u64, expected: u64 },

    // --- parquet files ---
    /// The parquet file is corrupt or uses a feature that is not supported.
    #[error("{file} is not a parquet file that can be read")]
    Parquet { file: PathBuf, source: Cause },
    /// A column is missing or of another type.
    #[error("{file}: column {column} is {found}, expected {expected}")]
    Column { file: PathBuf, column: &'static str, found: String, expected: &'static str },
    /// A cell without a value.
    #[error("{file}: row {row} of column {column} is null")]
    Null { file: PathBuf, column: &'static str, row: usize },
    /// The column ends before the file says so.
    #[error("{file}: {found} rows, the file claims {expected}")]
    RowCount { file: PathBuf, found: usize, expected: i64 },
    /// The image of a row is not a PNG.
    #[error("{file}: row {row} holds no valid PNG image")]
    Png { file: PathBuf, row: usize, source: Cause },
    /// The image of a row is of another size than the first.
    #[error("{file}: row {row} is {rows}x{cols}, expected {expected_rows}x{expected_cols} as in row 0")]
    ImageSize {
        file: PathBuf,
        row: usize,
        rows: usize,
        cols: usize,
        expected_rows: usize,
        expected_cols: usize,
    },
    /// A file cannot be read for its digest.
    #[error(transparent)]
    Files(#[from] ddpm_files::Error),
}

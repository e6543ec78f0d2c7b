//! Metrics of sets of images, computed from features or pixels.
//!
//! | file | holds |
//! | --- | --- |
//! | `points.rs` | points, and products and distances between them, block by block |
//! | `nearest.rs` | the nearest neighbour |
//! | `subsets.rs` | random subsets |
//! | `frechet.rs` | Fréchet distance, and its extrapolation to infinitely many images |
//! | `kernel.rs` | kernel distance |
//! | `manifold.rs` | precision and recall, density and coverage |
//! | `diversity.rs` | distances within a class |
//! | `memorisation.rs` | distances to training images |

mod diversity;
mod frechet;
mod kernel;
mod manifold;
mod memorisation;
mod nearest;
mod points;
mod subsets;

pub use diversity::Diversity;
pub use frechet::{FrechetLimit, FrechetPoint, FrechetSubsets, GaussianFit, frechet_distance, frechet_limit};
pub use kernel::{KernelDistance, KernelSubsets, kernel_distance, kernel_mmd2};
pub use manifold::{DensityCoverage, Manifold, PrecisionRecall, density_coverage, precision_recall};
pub use memorisation::{ClosePair, NearestImage, NearestTraining, nearest_images};

use ddpm_core::likelihood::MeanAndError;

/// The mean of one or more values, and the standard error of the mean.
fn estimate(values: &[f64]) -> MeanAndError {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let standard_error = if n > 1.0 { (squares / (n - 1.0) / n).sqrt() } else { f64::INFINITY };
    MeanAndError { mean, standard_error }
}

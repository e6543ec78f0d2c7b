//! The figures that are taken of features.

use candle_core::Tensor;

use super::{
    DENSITY_K, Evaluation, Frechet, GeneratedImages, ManifoldMetrics, Measured, Metric, PAIRWISE,
    PRECISION_K, Report, View,
    select::{RealImages, draw},
};
use crate::{
    ClassAccuracy, Description, Diversity, FrechetSubsets, GaussianFit, KernelSubsets, Manifold, Result,
    density_coverage, frechet_distance, frechet_limit, kernel_distance, precision_recall,
};

/// Fills in all but memorisation.
pub(super) fn by_features(
    evaluation: &Evaluation<'_>,
    generated: &GeneratedImages<'_>,
    (train, test): (&RealImages<'_>, Option<&RealImages<'_>>),
    started: &mut dyn FnMut(&'static str),
    report: &mut Report,
) -> Result<()> {
    let &Evaluation { net, seed, .. } = evaluation;
    let wants = |metric| evaluation.metrics.contains(&metric);
    started("features of generated images");
    let images =
        Judged { description: net.describe(generated.pixels)?, labels: generated.labels.map(<[u8]>::to_vec) };
    started("features of test images");
    let judge = |test: &RealImages<'_>| -> Result<_> {
        Ok(Judged { description: net.describe(&test.pixels())?, labels: test.labels() })
    };
    let test = test.map(judge).transpose()?;
    let both = Both { generated: &images, test: test.as_ref() };

    if wants(Metric::Accuracy) && images.labels.is_some() {
        report.accuracy = both.measure(|set| set.accuracy())?;
    }
    if evaluation.metrics.iter().all(|metric| matches!(metric, Metric::Accuracy | Metric::Memorisation)) {
        return Ok(());
    }
    let places = draw(train.len(), PAIRWISE, seed)?;
    let subset = train.at(&places);
    started("features of training images");
    let subset_features = if wants(Metric::Frechet) {
        let all = net.features(&train.pixels())?;
        started("Fréchet distance");
        let moments = GaussianFit::new(&all)?;
        report.frechet = both.measure(|set| frechet(set, &moments, seed).map(Some))?.map(|found| {
            let ratio = found.floor.as_ref().map(|floor| found.generated.distance / floor.distance);
            Measured { ratio: ratio.filter(|ratio| ratio.is_finite()), ..found }
        });
        all.index_select(&Tensor::new(places, all.device())?, 0)?
    } else {
        net.features(&subset.pixels())?
    };
    report.view = Some(View::new(
        &subset_features,
        &GaussianFit::new(&subset_features)?,
        &images.description.features,
    )?);
    if wants(Metric::Kernel) {
        started("kernel distance");
        let least = [report.samples, subset.len()].into_iter().chain(report.test_images).min();
        let standard = KernelSubsets::standard(seed);
        // Subsets that have all images would be all the same.
        let size = standard.size.min(least.unwrap_or(0).div_euclid(2));
        let distance = |set: &Judged| {
            kernel_distance(&set.description.features, &subset_features, &KernelSubsets { size, ..standard })
        };
        report.kernel = both.measure(|set| distance(set).map(Some))?;
    }
    if wants(Metric::Manifold) {
        started("precision and recall");
        let real = Manifold::new(&subset_features, PRECISION_K.max(DENSITY_K))?;
        report.manifold = both.measure(|set| manifold(set, &real).map(Some))?;
    }
    if wants(Metric::Diversity) {
        started("diversity");
        // Without labels all images are of one class.
        let classes = evaluation.train.classes().filter(|_| images.labels.is_some());
        let labels = subset.labels();
        let reference = diversity(&subset_features, labels.as_deref(), classes)?;
        let relative = |set: &Judged| -> Result<_> {
            let found = diversity(&set.few()?, set.labels.as_deref(), classes)?;
            let mut relative = found.zip(reference.as_ref()).map(|(own, of)| own.relative_to(of));
            if let (None, Some(relative)) = (classes, &mut relative) {
                relative.by_class.clear();
            }
            Ok(relative)
        };
        report.diversity = both.measure(relative)?;
    }
    Ok(())
}

/// Images and what the net says of them.
struct Judged {
    description: Description,
    labels: Option<Vec<u8>>,
}

impl Judged {
    /// The features of the first images.
    fn few(&self) -> Result<Tensor> {
        let features = &self.description.features;
        Ok(features.narrow(0, 0, features.dim(0)?.min(PAIRWISE))?)
    }

    fn accuracy(&self) -> Result<Option<ClassAccuracy>> {
        let (Some(labels), Some(found)) = (&self.labels, self.description.classes()?) else {
            return Ok(None);
        };
        let classes = match &self.description.logits {
            Some(logits) => logits.dim(1)?,
            None => 0,
        };
        ClassAccuracy::new(labels, &found, classes).map(Some)
    }
}

/// The images to measure, and those of the floor.
struct Both<'a> {
    generated: &'a Judged,
    test: Option<&'a Judged>,
}

impl Both<'_> {
    fn measure<T>(&self, figure: impl Fn(&Judged) -> Result<Option<T>>) -> Result<Option<Measured<T>>> {
        let Some(generated) = figure(self.generated)? else { return Ok(None) };
        let floor = self.test.map(figure).transpose()?.flatten();
        Ok(Some(Measured { generated, ratio: None, floor }))
    }
}

fn frechet(set: &Judged, real: &GaussianFit, seed: u64) -> Result<Frechet> {
    let features = &set.description.features;
    let images = features.dim(0)?;
    let subsets = FrechetSubsets::chong2020(seed);
    let smallest = subsets.smallest.min(images.div_euclid(2));
    let limit = if smallest >= 2 * real.width() {
        Some(frechet_limit(features, real, &FrechetSubsets { smallest, ..subsets })?)
    } else {
        None
    };
    Ok(Frechet { images, distance: frechet_distance(&GaussianFit::new(features)?, real)?, limit })
}

fn manifold(set: &Judged, real: &Manifold) -> Result<ManifoldMetrics> {
    let features = set.few()?;
    let own = Manifold::new(&features, PRECISION_K)?;
    let near = precision_recall(real, &own, PRECISION_K)?;
    let dense = density_coverage(real, &features, DENSITY_K)?;
    Ok(ManifoldMetrics {
        precision: near.precision,
        recall: near.recall,
        density: dense.density,
        coverage: dense.coverage,
    })
}

/// Within classes, or of all images; none of images without the labels that would be needed.
fn diversity(features: &Tensor, labels: Option<&[u8]>, classes: Option<usize>) -> Result<Option<Diversity>> {
    let rows = features.dim(0)?;
    match (classes, labels) {
        (Some(classes), Some(labels)) => Diversity::new(features, &labels[..rows], classes).map(Some),
        (Some(_), None) => Ok(None),
        (None, _) => Diversity::new(features, &vec![0; rows], 1).map(Some),
    }
}

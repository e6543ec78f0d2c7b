//! The metrics computed from features.

use candle_core::Tensor;

use super::{
    DENSITY_K, Evaluation, FrechetDistance, GeneratedImages, MAX_PAIRWISE_IMAGES, ManifoldMetrics, Metric,
    MetricResult, PRECISION_K, PcaProjection, Report,
    select::{RealImages, random_subset},
};
use crate::{
    ClassAccuracy, DensityCoverage, Diversity, FeatureOutput, FrechetSubsets, GaussianFit, KernelSubsets,
    Manifold, PrecisionRecall, Result, density_coverage, frechet_distance, frechet_limit, kernel_distance,
    precision_recall,
};

/// Computes all requested metrics but memorisation, and writes them to `report`.
pub(super) fn feature_metrics(
    evaluation: &Evaluation<'_>,
    generated: &GeneratedImages<'_>,
    (train, test): (&RealImages<'_>, Option<&RealImages<'_>>),
    started: &mut dyn FnMut(&'static str),
    report: &mut Report,
) -> Result<()> {
    let &Evaluation { net, seed, .. } = evaluation;
    let requested = |metric| evaluation.metrics.contains(&metric);
    started("features of generated images");
    let images = EvaluatedImages {
        output: net.forward(generated.pixels)?,
        labels: generated.labels.map(<[u8]>::to_vec),
    };
    started("features of test images");
    let forward = |test: &RealImages<'_>| -> Result<_> {
        Ok(EvaluatedImages { output: net.forward(&test.pixels())?, labels: test.labels() })
    };
    let test = test.map(forward).transpose()?;
    let sets = ImageSets { generated: &images, test: test.as_ref() };

    if requested(Metric::Accuracy) && images.labels.is_some() {
        report.accuracy = sets.measure(|set| set.accuracy())?;
    }
    if evaluation.metrics.iter().all(|metric| matches!(metric, Metric::Accuracy | Metric::Memorisation)) {
        return Ok(());
    }
    let positions = random_subset(train.len(), MAX_PAIRWISE_IMAGES, seed)?;
    let subset = train.at(&positions);
    started("features of training images");
    let subset_features = if requested(Metric::Frechet) {
        let all = net.features(&train.pixels())?;
        started("Fréchet distance");
        let reference = GaussianFit::new(&all)?;
        let found = sets.measure(|set| frechet(set, &reference, seed).map(Some))?;
        report.frechet = found.map(|MetricResult { generated, floor, .. }| {
            MetricResult::of_distances(generated, floor, |found| found.distance)
        });
        all.index_select(&Tensor::new(positions, all.device())?, 0)?
    } else {
        net.features(&subset.pixels())?
    };
    let fit = GaussianFit::new(&subset_features)?;
    report.projection = Some(PcaProjection::new(&subset_features, &fit, &images.output.features)?);
    if requested(Metric::Kernel) {
        started("kernel distance");
        let smallest = [report.samples, subset.len()].into_iter().chain(report.test_images).min();
        let standard = KernelSubsets::standard(seed);
        // At most half of the images, so that the subsets differ.
        let size = standard.size.min(smallest.unwrap_or(0).div_euclid(2));
        let distance = |set: &EvaluatedImages| {
            kernel_distance(&set.output.features, &subset_features, &KernelSubsets { size, ..standard })
        };
        report.kernel = sets.measure(|set| distance(set).map(Some))?;
    }
    if requested(Metric::Manifold) {
        started("precision and recall");
        let real = Manifold::new(&subset_features, PRECISION_K.max(DENSITY_K))?;
        report.manifold = sets.measure(|set| manifold(set, &real).map(Some))?;
    }
    if requested(Metric::Diversity) {
        started("diversity");
        // Without labels, all images count as one class.
        let classes = evaluation.train.classes().filter(|_| images.labels.is_some());
        let labels = subset.labels();
        let reference = diversity(&subset_features, labels.as_deref(), classes)?;
        let relative = |set: &EvaluatedImages| -> Result<_> {
            let found = diversity(&set.pairwise_features()?, set.labels.as_deref(), classes)?;
            let mut relative =
                found.zip(reference.as_ref()).map(|(found, reference)| found.relative_to(reference));
            if let (None, Some(relative)) = (classes, &mut relative) {
                relative.by_class.clear();
            }
            Ok(relative)
        };
        report.diversity = sets.measure(relative)?;
    }
    Ok(())
}

/// Images after the forward pass of the feature net.
struct EvaluatedImages {
    output: FeatureOutput,
    labels: Option<Vec<u8>>,
}

impl EvaluatedImages {
    /// The features of the first [`MAX_PAIRWISE_IMAGES`] images.
    fn pairwise_features(&self) -> Result<Tensor> {
        let features = &self.output.features;
        Ok(features.narrow(0, 0, features.dim(0)?.min(MAX_PAIRWISE_IMAGES))?)
    }

    fn accuracy(&self) -> Result<Option<ClassAccuracy>> {
        let FeatureOutput { logits, .. } = &self.output;
        let (Some(labels), Some(logits), Some(predicted)) = (&self.labels, logits, self.output.classes()?)
        else {
            return Ok(None);
        };
        ClassAccuracy::new(labels, &predicted, logits.dim(1)?).map(Some)
    }
}

/// The generated images, and the test images of the floor.
struct ImageSets<'a> {
    generated: &'a EvaluatedImages,
    test: Option<&'a EvaluatedImages>,
}

impl ImageSets<'_> {
    /// Computes a metric of both sets. The result is `None` if the metric of the generated images is.
    fn measure<T>(
        &self,
        metric: impl Fn(&EvaluatedImages) -> Result<Option<T>>,
    ) -> Result<Option<MetricResult<T>>> {
        let Some(generated) = metric(self.generated)? else { return Ok(None) };
        let floor = self.test.map(metric).transpose()?.flatten();
        Ok(Some(MetricResult { generated, ratio: None, floor }))
    }
}

fn frechet(set: &EvaluatedImages, reference: &GaussianFit, seed: u64) -> Result<FrechetDistance> {
    let features = &set.output.features;
    let images = features.dim(0)?;
    let subsets = FrechetSubsets::chong2020(seed);
    let smallest = subsets.smallest.min(images.div_euclid(2));
    let limit = if smallest >= 2 * reference.width() {
        Some(frechet_limit(features, reference, &FrechetSubsets { smallest, ..subsets })?)
    } else {
        None
    };
    Ok(FrechetDistance {
        images,
        distance: frechet_distance(&GaussianFit::new(features)?, reference)?,
        limit,
    })
}

fn manifold(set: &EvaluatedImages, real: &Manifold) -> Result<ManifoldMetrics> {
    let features = set.pairwise_features()?;
    let evaluated = Manifold::new(&features, PRECISION_K)?;
    let PrecisionRecall { precision, recall } = precision_recall(real, &evaluated, PRECISION_K)?;
    let DensityCoverage { density, coverage } = density_coverage(real, &features, DENSITY_K)?;
    Ok(ManifoldMetrics { precision, recall, density, coverage })
}

/// The diversity within `classes` classes; over all images if `classes` is `None`. The result is `None` if there are
/// classes but no labels.
fn diversity(features: &Tensor, labels: Option<&[u8]>, classes: Option<usize>) -> Result<Option<Diversity>> {
    let rows = features.dim(0)?;
    match (classes, labels) {
        (Some(classes), Some(labels)) => Diversity::new(features, &labels[..rows], classes).map(Some),
        (Some(_), None) => Ok(None),
        (None, _) => Diversity::new(features, &vec![0; rows], 1).map(Some),
    }
}

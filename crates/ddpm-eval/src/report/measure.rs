//! The metrics computed from features.

use candle_core::Tensor;

use super::{
    DENSITY_K, Evaluation, FrechetDistance, GeneratedImages, ImageSet, MAX_PAIRWISE_IMAGES, ManifoldMetrics,
    Metric, MetricResult, Missing, PRECISION_K, PcaProjection, Report,
    select::{RealImages, random_subset},
    sets::{EvaluatedImages, ImageSets, Need},
};
use crate::{
    ClassAccuracy, DensityCoverage, Diversity, FeatureNet, FeatureOutput, FrechetSubsets, GaussianFit,
    KernelDistance, KernelSubsets, Manifold, PrecisionRecall, Result, density_coverage, frechet_distance,
    frechet_limit, kernel_distance, precision_recall,
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
    let labels = generated.labels.map(<[u8]>::to_vec);
    let images = EvaluatedImages::new(net.forward(generated.pixels)?, labels, seed)?;
    started("features of test images");
    let evaluate =
        |test: &RealImages<'_>| EvaluatedImages::new(net.forward(&test.pixels())?, test.labels(), seed);
    let test = test.map(evaluate).transpose()?;
    let sets = ImageSets { generated: &images, test: test.as_ref() };

    if requested(Metric::Accuracy) {
        report.accuracy = accuracy(&sets, net, &mut report.missing)?;
    }
    if evaluation.metrics.iter().all(|metric| matches!(metric, Metric::Accuracy | Metric::Memorisation)) {
        return Ok(());
    }
    let positions = random_subset(train.len(), MAX_PAIRWISE_IMAGES, seed)?;
    let subset = train.at(&positions);
    started("features of training images");
    let measurable = requested(Metric::Frechet)
        .then(|| sets_for_frechet(&sets, train, net.config().features, &mut report.missing))
        .flatten();
    let subset_features = if let Some(sets) = measurable {
        let all = net.features(&train.pixels())?;
        started("Fréchet distance");
        report.frechet = frechet(&sets, &GaussianFit::new(&all)?, seed, &mut report.missing)?;
        all.index_select(&Tensor::new(positions, all.device())?, 0)?
    } else {
        net.features(&subset.pixels())?
    };
    let fit = GaussianFit::new(&subset_features)?;
    let shown = (&images.output.features, images.labels.as_deref());
    report.projection = Some(PcaProjection::new(&subset_features, &fit, shown, seed)?);
    if requested(Metric::Kernel) {
        started("kernel distance");
        report.kernel = kernel(&sets, &subset_features, seed, &mut report.missing)?;
    }
    if requested(Metric::Manifold) {
        started("precision and recall");
        report.manifold = manifold(&sets, &subset_features, &mut report.missing)?;
    }
    if requested(Metric::Diversity) {
        started("diversity");
        let of_data = evaluation.train.classes();
        // Without labels, all images count as one class.
        let classes = of_data.filter(|_| images.labels.is_some());
        if of_data != classes {
            report.missing.push(Missing::NotByClass);
        }
        let reference = diversity(&subset_features, subset.labels().as_deref(), classes)?;
        report.diversity = relative_diversity(&sets, reference.as_ref(), classes, &mut report.missing)?;
    }
    Ok(())
}

fn accuracy(
    sets: &ImageSets<'_>,
    net: &FeatureNet,
    missing: &mut Vec<Missing>,
) -> Result<Option<MetricResult<ClassAccuracy>>> {
    if net.num_classes().is_none() {
        missing.push(Missing::NoClassifier);
        return Ok(None);
    }
    let accuracy = sets.measure(|EvaluatedImages { output, labels, .. }| {
        let FeatureOutput { logits, .. } = output;
        let (Some(labels), Some(logits), Some(predicted)) = (labels, logits, output.classes()?) else {
            return Ok(None);
        };
        ClassAccuracy::new(labels, &predicted, logits.dim(1)?).map(Some)
    })?;
    match &accuracy {
        None => missing.push(Missing::NoLabels { set: ImageSet::Generated }),
        Some(MetricResult { floor: None, .. }) if sets.test.is_some() => {
            missing.push(Missing::NoLabels { set: ImageSet::Test });
        }
        Some(_) => {}
    }
    Ok(accuracy)
}

/// The sets with a Fréchet distance. With as many images as features or fewer, a covariance is singular.
fn sets_for_frechet<'a>(
    sets: &ImageSets<'a>,
    train: &RealImages<'_>,
    features: usize,
    missing: &mut Vec<Missing>,
) -> Option<ImageSets<'a>> {
    let (metric, reason) = ("Fréchet distance", "one more than there are features");
    let need = Need { metric, least: features + 1, reason };
    sets.with(&need, missing).filter(|_| need.is_met(ImageSet::Train, train.len(), missing))
}

fn frechet(
    sets: &ImageSets<'_>,
    reference: &GaussianFit,
    seed: u64,
    missing: &mut Vec<Missing>,
) -> Result<Option<MetricResult<FrechetDistance>>> {
    // The smallest subset, half of the images, then has twice as many images as there are features.
    let least = 4 * reference.width();
    let distances = sets.measure(|set| {
        let features = &set.output.features;
        let subsets = FrechetSubsets::chong2020(seed);
        let smallest = subsets.smallest.min(set.len().div_euclid(2)).max(2 * reference.width());
        let subsets = FrechetSubsets { smallest, ..subsets };
        let limit = (set.len() >= least).then(|| frechet_limit(features, reference, &subsets)).transpose()?;
        let distance = frechet_distance(&GaussianFit::new(features)?, reference)?;
        Ok(Some(FrechetDistance { images: set.len(), distance, limit }))
    })?;
    let Some(distances) = distances else { return Ok(None) };
    let without_limit = distances.both().filter(|(_, found)| found.limit.is_none());
    missing.extend(without_limit.map(|(set, found)| Missing::NotExtrapolated {
        set,
        found: found.images,
        least,
    }));
    let MetricResult { generated, floor, .. } = distances;
    Ok(Some(MetricResult::of_distances(generated, floor, |found| found.distance)))
}

fn kernel(
    sets: &ImageSets<'_>,
    reference: &Tensor,
    seed: u64,
    missing: &mut Vec<Missing>,
) -> Result<Option<MetricResult<KernelDistance>>> {
    let need = Need { metric: "kernel distance", least: 4, reason: "for two subsets of two" };
    let Some(sets) = sets.with(&need, missing) else { return Ok(None) };
    let counts = [Some(sets.generated.len()), Some(reference.dim(0)?), sets.test.map(EvaluatedImages::len)];
    let smallest = counts.into_iter().flatten().min();
    let standard = KernelSubsets::standard(seed);
    // At most half of the images, so that the subsets differ.
    let size = standard.size.min(smallest.unwrap_or(0).div_euclid(2));
    let subsets = KernelSubsets { size, ..standard };
    sets.measure(|set| kernel_distance(&set.output.features, reference, &subsets).map(Some))
}

fn manifold(
    sets: &ImageSets<'_>,
    reference: &Tensor,
    missing: &mut Vec<Missing>,
) -> Result<Option<MetricResult<ManifoldMetrics>>> {
    let need = Need {
        metric: "precision, recall, density or coverage",
        least: PRECISION_K + 1,
        reason: "one more than k neighbours",
    };
    let Some(sets) = sets.with(&need, missing) else { return Ok(None) };
    let real = Manifold::new(reference, PRECISION_K.max(DENSITY_K))?;
    sets.measure(|set| {
        let features = set.pairwise_features()?;
        let evaluated = Manifold::new(&features, PRECISION_K)?;
        let PrecisionRecall { precision, recall } = precision_recall(&real, &evaluated, PRECISION_K)?;
        let DensityCoverage { density, coverage } = density_coverage(&real, &features, DENSITY_K)?;
        Ok(Some(ManifoldMetrics { precision, recall, density, coverage }))
    })
}

/// The diversity of both sets, divided by the diversity of the training images.
fn relative_diversity(
    sets: &ImageSets<'_>,
    reference: Option<&Diversity>,
    classes: Option<usize>,
    missing: &mut Vec<Missing>,
) -> Result<Option<MetricResult<Diversity>>> {
    let relative = sets.measure(|set| {
        let found = diversity(&set.pairwise_features()?, set.pairwise_labels().as_deref(), classes)?;
        let mut relative = found.zip(reference).map(|(found, reference)| found.relative_to(reference));
        if let (None, Some(relative)) = (classes, &mut relative) {
            relative.by_class.clear();
        }
        Ok(relative)
    })?;
    let without = relative.iter().flat_map(MetricResult::both).filter(|(_, found)| found.overall.is_none());
    missing.extend(without.map(|(set, _)| Missing::NoDiversity { set }));
    if relative.as_ref().is_some_and(|relative| relative.floor.is_none()) && sets.test.is_some() {
        missing.push(Missing::NoTestDiversity);
    }
    Ok(relative)
}

/// The diversity within `classes` classes; over all images if `classes` is `None`. The result is `None` if there are
/// classes but no labels.
fn diversity(features: &Tensor, labels: Option<&[u8]>, classes: Option<usize>) -> Result<Option<Diversity>> {
    match (classes, labels) {
        (Some(classes), Some(labels)) => Diversity::new(features, labels, classes).map(Some),
        (Some(_), None) => Ok(None),
        (None, _) => Diversity::new(features, &vec![0; features.dim(0)?], 1).map(Some),
    }
}

//! `ddpm-cli eval --likelihood`.

use std::fmt::Write;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use ddpm_core::{
    AddressedRng, NoiseMode, Purpose, StepCostEstimator, Timestep, Timesteps,
    likelihood::{Bound, BoundEstimator, Estimate, Mixtures, Palettes},
};
use ddpm_data::{DataSet, HubConfig};
use ddpm_model::{Denoiser, Head};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::{
    args::{Common, Eval},
    model, output,
};

/// Images at a time.
const BATCH: usize = 250;
/// Training images at most by which mixtures are chosen: half a million pixels of MNIST for a dozen numbers.
const FITTED: usize = 500;
/// Kinds of images by their grey levels.
const PALETTES: usize = 32;
/// The address of the first training image, far from those of the test images.
const TRAINING: u64 = 1 << 32;

pub(crate) fn run(options: &Eval, common: &Common) -> Result<()> {
    let device = common.device.open()?;
    let denoiser = model::load(&options.sampling.model, &device)?;
    let corpus = options.data.load(&HubConfig::from_env())?;
    let test = corpus.test().context("the data has no test images, by which likelihood is measured")?;
    for data in [corpus.train(), test] {
        model::ensure_fits(&denoiser, data, data.name())?;
    }
    let (schedule, timesteps) = (denoiser.schedule(), Timesteps::all(denoiser.schedule()));
    let part = |data, first| Images::evenly(&denoiser, data, options.images, first, common.seed);
    let (training, test) = (part(corpus.train(), TRAINING)?, part(test, 0)?);
    let fitting =
        Images::evenly(&denoiser, corpus.train(), options.images.min(FITTED), TRAINING, common.seed)?;
    // What the network says at best of the variance.
    let (answer, mode) = match denoiser.config().head {
        Head::Gaussian => (Answer::WithVariance, NoiseMode::Learned),
        Head::Direct => (Answer::Prediction, NoiseMode::Posterior),
    };
    let passes = 2 * training.indices.len() + fitting.indices.len() + 2 * test.indices.len();
    let bar = output::progress(common, passes as u64, "{wide_bar} {pos}/{len} images  {eta} left")?;

    // Variances and steps are chosen by training images, and judged by others.
    let normal = |mode: &NoiseMode| BoundEstimator::new(schedule, &timesteps, mode);
    let chosen = training.bounds(Answer::Prediction, vec![normal(&NoiseMode::Posterior)?], &bar)?;
    let mut costs = StepCostEstimator::new(schedule, &chosen[0])?;
    training.each_batch(BATCH, Answer::Prediction, &bar, |x_start, model, noise| {
        costs.add(x_start, model, noise)
    })?;
    let costs = costs.finish()?;
    let variances = costs.optimal_variances(&timesteps)?;
    let optimal = NoiseMode::Variances(variances.clone());
    let palettes = training.palettes()?;
    let mut mixtures = None;
    fitting.each_batch(FITTED, answer, &bar, |x_start, model, noise| {
        mixtures = Some(Mixtures::fit(schedule, &timesteps, &mode, palettes.clone(), x_start, model, noise)?);
        Ok(())
    })?;
    let mixtures = mixtures.context("the data has no training images, by which mixtures are chosen")?;

    let fixed = [&NoiseMode::Posterior, &NoiseMode::Beta, &optimal].map(normal);
    let fixed = fixed.into_iter().collect::<ddpm_core::Result<_>>()?;
    let mut bounds = test.bounds(Answer::Prediction, fixed, &bar)?;
    let mut others = Vec::new();
    if mode == NoiseMode::Learned {
        others.push(normal(&mode)?);
    }
    others.push(BoundEstimator::with_mixtures(schedule, &timesteps, &mixtures)?);
    bounds.extend(test.bounds(answer, others, &bar)?);
    bar.finish_and_clear();

    let best = costs.best_lists(schedule)?;
    let best: Vec<_> = best.iter().map(|(list, bits)| (list.indices(), *bits)).collect();
    let names: Vec<_> =
        NAMES.into_iter().filter(|(name, _)| *name != LEARNED || mode == NoiseMode::Learned).collect();
    let named: serde_json::Map<String, Value> = std::iter::zip(&names, &bounds)
        .map(|((name, _), bound)| Ok(((*name).to_owned(), serde_json::to_value(bound)?)))
        .collect::<Result<_>>()?;
    let json = json!({
        "model": options.sampling.model,
        "seed": common.seed,
        "images": test.indices.len(),
        "training_images": training.indices.len(),
        "bound": named,
        "optimal_variances": variances,
        "mixture_weights": mixtures.weights(),
        "rate_distortion": bounds[OPTIMAL].rate_distortion(),
        "best_timesteps": best.iter().map(|(list, bits)| {
            json!({ "timesteps": list, "bits_per_dim": bits })
        }).collect::<Vec<Value>>(),
    });
    output::result(common, &json, &(head(options, common) + &table(&names, &bounds, &variances, &best)?))
}

/// The names of the reverse steps, and what they are besides.
const NAMES: [(&str, &str); 5] = [
    ("posterior", " (fixed_small)"),
    ("beta", " (fixed_large)"),
    ("optimal", ""),
    (LEARNED, ""),
    ("mixture", ""),
];
/// Only for a network with a Gaussian head.
const LEARNED: &str = "learned";
const OPTIMAL: usize = 2;

/// The model as a sampler calls it.
type Model<'a> = &'a mut dyn FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>;
/// The noise as a sampler calls it.
type Noise<'a> = &'a mut dyn FnMut(&Tensor, usize) -> ddpm_core::Result<Tensor>;

/// What the model is asked for.
#[derive(Clone, Copy)]
enum Answer {
    Prediction,
    WithVariance,
}

/// Images with the model and the noise that belong to them.
struct Images<'a> {
    denoiser: &'a Denoiser,
    data: &'a DataSet,
    indices: Vec<u32>,
    first: u64,
    rng: AddressedRng,
}

impl<'a> Images<'a> {
    /// `count` images at most, evenly over the set, whose parts may differ.
    fn evenly(
        denoiser: &'a Denoiser,
        data: &'a DataSet,
        count: usize,
        first: u64,
        seed: u64,
    ) -> Result<Self> {
        let total = data.len();
        let count = count.min(total);
        let indices = (0..count).map(|i| u32::try_from((i * total).div_euclid(count)));
        let (indices, rng) = (indices.collect::<Result<_, _>>()?, AddressedRng::new(seed));
        Ok(Self { denoiser, data, indices, first, rng })
    }

    fn palettes(&self) -> Result<Palettes> {
        let image = |&index: &u32| self.data.image(index as usize).context("an image of the set");
        let levels = self.indices.iter().map(image).collect::<Result<Vec<_>>>()?.concat();
        Ok(Palettes::fit(&levels, self.data.image_size(), PALETTES)?)
    }

    fn each_batch(
        &self,
        size: usize,
        answer: Answer,
        bar: &ProgressBar,
        mut use_batch: impl FnMut(&Tensor, Model<'_>, Noise<'_>) -> ddpm_core::Result<()>,
    ) -> Result<()> {
        let pixels = self.denoiser.config().pixels();
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for indices in self.indices.chunks(size) {
            self.data.gather_images(indices, &mut images)?;
            if self.denoiser.config().num_classes > 0 {
                self.data.gather_labels(indices, &mut labels)?;
            } else {
                labels = vec![0; indices.len()];
            }
            let labels: Vec<u32> = labels.iter().copied().map(u32::from).collect();
            let x_start = Tensor::from_slice(&images, (indices.len(), pixels), &Device::Cpu)?;
            let addresses: Vec<u64> = indices.iter().map(|&index| self.first + u64::from(index)).collect();
            let mut model = |x_t: &Tensor, timestep: Timestep| {
                let prediction = match answer {
                    Answer::Prediction => self.denoiser.predict(x_t, timestep.index(), &labels, 1.0),
                    Answer::WithVariance => {
                        self.denoiser.predict_with_variance(x_t, timestep.index(), &labels, 1.0)
                    }
                };
                prediction.map_err(candle_core::Error::wrap)
            };
            let mut noise =
                |x: &Tensor, draw: usize| self.rng.normal_like(Purpose::EVALUATION, &addresses, draw, x);
            use_batch(&x_start.to_device(self.denoiser.device())?, &mut model, &mut noise)?;
            bar.inc(indices.len() as u64);
        }
        Ok(())
    }

    /// The bound with the reverse steps of each estimator.
    fn bounds(
        &self,
        answer: Answer,
        mut estimators: Vec<BoundEstimator>,
        bar: &ProgressBar,
    ) -> Result<Vec<Bound>> {
        let steps = self.denoiser.schedule().num_train_timesteps();
        self.each_batch(BATCH, answer, bar, |x_start, model, noise| {
            // The noise of a draw is the same for each bound, and so is what the network says to it.
            let mut said: Vec<Option<Tensor>> = vec![None; steps];
            let mut model = |x_t: &Tensor, timestep: Timestep| match &mut said[timestep.index()] {
                Some(known) => Ok(known.clone()),
                new => Ok(new.insert(model(x_t, timestep)?).clone()),
            };
            estimators.iter_mut().try_for_each(|bound| bound.add(x_start, &mut model, &mut *noise))
        })?;
        Ok(estimators.iter().map(BoundEstimator::finish).collect::<ddpm_core::Result<_>>()?)
    }
}

/// What the figures belong to, and how to make them again.
fn head(options: &Eval, common: &Common) -> String {
    let (model, version, seed) = (&options.sampling.model, env!("CARGO_PKG_VERSION"), common.seed);
    let (images, data) = (options.images, &options.data);
    let command =
        format!("ddpm-cli eval --likelihood --model {model} --data {data} --images {images} --seed {seed}");
    format!(
        "`{command}`, version {version}. Variances and timesteps are chosen by as many training images, \
         mixtures by {FITTED} of them at most.\n\n"
    )
}

/// The result as Markdown.
fn table(
    names: &[(&str, &str)],
    bounds: &[Bound],
    variances: &[f64],
    best: &[(Vec<usize>, f64)],
) -> Result<String> {
    let cell = |estimate: Estimate| {
        let (low, high) = estimate.interval();
        format!("{:.5} ± {:.5}", estimate.mean, (high - low) / 2.0)
    };
    let row = |name: &str, pick: &dyn Fn(&Bound) -> Estimate| {
        let cells: Vec<String> = bounds.iter().map(|bound| cell(pick(bound))).collect();
        format!("| {name} | {} |", cells.join(" | "))
    };
    let mut text = format!(
        "Bits per dimension, mean of {} test images ± 95 % interval, with normal steps of {} variances, or \
         with mixtures\n\n",
        bounds[0].images,
        if bounds.len() == NAMES.len() { "four" } else { "three" }
    );
    let names = names.iter().map(|(name, also)| format!("{name}{also}"));
    writeln!(text, "| term | {} |", names.collect::<Vec<_>>().join(" | "))?;
    writeln!(text, "| --- |{}", " --- |".repeat(bounds.len()))?;
    writeln!(text, "{}", row("prior", &|bound| bound.prior_bits_per_dim))?;
    for (index, step) in bounds[0].steps.iter().enumerate() {
        let name = if step.t == 0.0 { "t = 0, decoder".to_owned() } else { format!("t = {}", step.t) };
        writeln!(text, "{}", row(&name, &|bound| bound.steps[index].bits_per_dim))?;
    }
    writeln!(text, "{}", row("**bound**", &|bound| bound.total_bits_per_dim))?;
    writeln!(text, "\nWhat a receiver knows after how many bits, with the optimal variances\n")?;
    writeln!(text, "| t | rate, bits per dimension | distortion, root mean square in grey levels |")?;
    writeln!(text, "| --- | --- | --- |")?;
    for point in bounds[OPTIMAL].rate_distortion() {
        writeln!(text, "| {} | {:.4} | {:.1} |", point.t, point.rate_bits_per_dim, point.distortion_rmse)?;
    }
    let variances = output::list(variances.iter().map(|variance| format!("{variance:.3e}")));
    writeln!(text, "\nThe optimal variances, for `sample --variances`\n\n```text\n{variances}\n```")?;
    writeln!(text, "\nThe best timesteps by the bound of training images, with optimal variances\n")?;
    writeln!(text, "| steps | bound | timesteps, for `sample --timesteps` |")?;
    writeln!(text, "| --- | --- | --- |")?;
    for (list, bits) in best {
        writeln!(text, "| {} | {bits:.4} | {} |", list.len(), output::list(list))?;
    }
    Ok(text)
}

//! `ddpm-cli train-features`: trains a feature net.

use anyhow::Result;
use ddpm_eval::{ClassAccuracy, FeatureNet, FeatureTraining, train_features};
use serde_json::json;

use crate::{
    args::{Common, TrainFeatures},
    data, output,
    progress::Progress,
};

pub(crate) fn run(options: &TrainFeatures, common: &Common) -> Result<()> {
    let device = common.device.open()?;
    let splits = data::load(&options.data)?;
    // Fails before training rather than after it.
    FeatureNet::check_writable(&options.out_dir)?;
    let mut training = FeatureTraining::recipe(common.seed);
    training.epochs = options.epochs.unwrap_or(training.epochs);
    output::verbose(common, &format!("{training:#?}"));
    let shown = Progress::new(common, "steps")?;
    let started = std::time::Instant::now();
    let net = train_features(splits.train(), &training, &device, |progress| {
        if progress.step == 1 {
            shown.start(0, progress.total);
        }
        shown.set(progress.step, progress.epoch_loss.map(|loss| format!("loss {loss:.4}")));
        if let Some(loss) = progress.epoch_loss {
            output::verbose(common, &format!("step {}: loss {loss:.5}", progress.step));
        }
    })?;
    let seconds = started.elapsed().as_secs_f64();
    drop(shown);
    let (split, test) = match splits.test() {
        Some(test) if net.num_classes().is_none() || test.labels().is_some() => ("test", test),
        _ => ("training", splits.train()),
    };
    let accuracy = net.accuracy(test)?;
    let command = format!(
        "ddpm-cli train-features --data {} --epochs {} --seed {}",
        options.data, training.epochs, training.seed
    );
    net.save(&options.out_dir, &card(&net, splits.name(), split, &accuracy, &command))?;
    let json = json!({
        "features": options.out_dir.display().to_string(),
        "sha256": net.digest(),
        "data": splits.name(),
        "classes": net.num_classes(),
        "images": test.len(),
        "split": split,
        "accuracy": accuracy.overall,
        "accuracy_by_class": accuracy.by_class,
        "epochs": training.epochs,
        "seed": training.seed,
        "seconds": seconds,
    });
    let mut text = format!(
        "{}: accuracy {:.4} on {} {split} images after {seconds:.0} s, SHA-256 {}",
        options.out_dir.display(),
        accuracy.overall,
        test.len(),
        net.digest()
    );
    for (answer, accuracy) in named(&net, &accuracy) {
        text += &format!("\n  {answer}: {accuracy:.4}");
    }
    output::result(common, &json, &text)
}

/// The accuracy for each output class (or flip) that occurs in the images.
fn named(net: &FeatureNet, accuracy: &ClassAccuracy) -> Vec<(String, f64)> {
    let name = |answer: usize| match net.num_classes() {
        Some(_) => format!("class {answer}"),
        None => format!("flip {}", ["none", "left to right", "top to bottom", "both"][answer]),
    };
    let answers = accuracy.by_class.iter().enumerate();
    answers.filter_map(|(answer, part)| Some((name(answer), (*part)?))).collect()
}

fn card(net: &FeatureNet, data: &str, split: &str, accuracy: &ClassAccuracy, command: &str) -> String {
    let config = net.config();
    let task = match net.num_classes() {
        Some(classes) => format!("the {classes} classes"),
        None => "the four flips of an image (there are no labels)".to_owned(),
    };
    let mut card = format!(
        "# Feature net of {data}\n\n\
         A small convolutional network for images of {rows}×{cols} pixels. It was trained on the training images of \
         {data} to distinguish {task}, and its weights are now fixed. `ddpm-cli eval` computes its metrics from the \
         {features} features and the predicted classes of this net. Metrics are comparable only if the digest is the \
         same.\n\n\
         | | |\n| --- | --- |\n\
         | SHA-256 of `features.safetensors` | `{digest}` |\n\
         | accuracy on the {split} images | {overall:.4} |\n",
        rows = config.rows,
        cols = config.cols,
        features = config.features,
        digest = net.digest(),
        overall = accuracy.overall,
    );
    for (answer, accuracy) in named(net, accuracy) {
        card += &format!("| {answer} | {accuracy:.4} |\n");
    }
    card + &format!("\nCreated by `{command}`.\n")
}

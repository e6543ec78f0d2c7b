//! The model cards: the README.md of a model folder.

mod hub;

pub(super) use hub::{OnHub, PICTURE};

use ddpm_data::Splits;
use ddpm_model::DenoiserConfig;
use ddpm_train::{Outcome, SnapshotAverage, TrainConfig};

use crate::{args::Train, output};

/// The first words of each card. The name of the data set may follow.
const TITLE: &str = "# Denoising diffusion model";

/// The names of rows.
const FROM: &str = "starts from the weights of";
const GUIDE: &str = "guide";

/// The last sentence of the card of a model in a folder.
const USE: &str = " Sample with `ddpm-cli sample --model DIR`.";

/// The card of a trained model.
pub(super) fn trained(splits: &Splits, config: &TrainConfig, options: &Train, outcome: &Outcome) -> String {
    let loss = |loss: Option<f64>| loss.map_or("not measured".to_owned(), |loss| format!("{loss:.5}"));
    let rows = format!(
        "| training images | {images} of {name} |\n\
         {classes}\
         {from}\
         {guide}\
         {options}\
         | training loss, test loss | {train}, {test} |\n",
        name = splits.name(),
        images = splits.train().len(),
        classes = splits.class_labels().map_or(String::new(), |labels| {
            format!("| labels of the classes, from class 0 on | {} |\n", output::list(labels))
        }),
        from = options.from.as_ref().map_or(String::new(), |from| format!("| {FROM} | {from} |\n")),
        guide = options.guide.as_ref().map_or(String::new(), |guide| format!("| {GUIDE} | {guide} |\n")),
        options = options_of(config),
        train = loss(outcome.train_loss),
        test = loss(outcome.test_loss),
    );
    card(&format!(" of {}", splits.name()), config, &rows, "the exponential moving average over training")
}

/// The card of a model whose weights were averaged after its training.
pub(super) fn averaged(average: &SnapshotAverage, sigma_rel: f64) -> String {
    let weights = format!(
        "the average of relative length {sigma_rel} over training up to step {} (post-hoc EMA of Karras et al. 2023), \
         from {} snapshots",
        average.step, average.snapshots
    );
    card("", &average.config, &options_of(&average.config), &weights)
}

/// Rows of the table with the options of the training.
fn options_of(config: &TrainConfig) -> String {
    format!(
        "| seed | {seed} |\n\
         | epochs, batch size, learning rate | {epochs}, {batch}, {rate} |\n\
         | loss | {space:?} |\n",
        seed = config.seed,
        epochs = config.epochs,
        batch = config.batch_size,
        rate = config.learning_rate,
        space = config.loss,
    )
}

fn card(of: &str, config: &TrainConfig, rows: &str, weights: &str) -> String {
    format!(
        "{TITLE}{of}\n\n\
         {kind}\n\n\
         | | |\n| --- | --- |\n\
         {rows}\n\
         The weights are {weights}.{USE}\n",
        kind = kind(&config.denoiser, config.schedule.num_train_timesteps),
    )
}

/// A sentence that says what the model is.
fn kind(denoiser: &DenoiserConfig, timesteps: usize) -> String {
    format!(
        "{kind} ({parameters} parameters, {rows}×{cols} pixels) of linear layers and SiLU, trained as a DDPM (Ho et al. 2020) \
         with {timesteps} timesteps.",
        kind = match denoiser.num_classes {
            0 => "An unconditional model".to_owned(),
            classes => format!("A class-conditional model of {classes} classes"),
        },
        parameters = denoiser.parameter_count(),
        rows = denoiser.rows,
        cols = denoiser.cols,
    )
}

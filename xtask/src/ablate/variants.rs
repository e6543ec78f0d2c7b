//! What is told apart: one choice in a row.

/// A row of the tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variant {
    /// As it is named on the command line, in the table and in `runs/ablate/`.
    pub(super) name: &'static str,
    pub(super) model: Model,
    /// Arguments of `ddpm-cli eval` that say how to sample.
    pub(super) sampling: &'static [&'static str],
}

/// The model that is measured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Model {
    /// The one of `ddpm-cli`.
    BuiltIn,
    /// One that is trained for this.
    Trained { preset: &'static str, choices: &'static [&'static str] },
}

/// Stands for the optimal variances of the model, by `eval --likelihood`.
pub(super) const OPTIMAL: &str = "optimal";

/// Without guidance, which hides what a model has learnt.
const GUIDANCE: &[&str] = &["--guidance", "1"];

/// One change each from the preset `reproduce`.
pub(super) const TRAINING: [Variant; 16] = [
    reproduce("baseline", &[]),
    reproduce("whole-image", &["--network", "mlp"]),
    original("original-x0", &[]),
    original("original", &["--output", "epsilon", "--loss", "epsilon"]),
    reproduce("loss-sample", &["--loss", "sample"]),
    reproduce("loss-v", &["--loss", "v_prediction"]),
    reproduce("loss-min-snr", &["--loss", "min_snr"]),
    reproduce("importance-sampling", &["--set", "timestep_sampling=loss_weight"]),
    reproduce("shift-1", &["--set", "shift=1"]),
    reproduce("cosine", &["--set", "schedule.beta_schedule=squaredcos_cap_v2"]),
    reproduce("wider-patches", &["--set", "denoiser.network.local=256"]),
    reproduce("patch-7", &["--set", "denoiser.network.patch=7"]),
    reproduce("deeper", &["--set", "denoiser.network.blocks=4"]),
    reproduce("batch-64", &["--set", "batch_size=64"]),
    reproduce("shorter-ema", &["--set", "ema_decay=0.99"]),
    reproduce("longer-ema", &["--set", "ema_decay=0.9999"]),
];

/// Ways of sampling from the built-in model.
pub(super) const SAMPLING: [Variant; 12] = [
    built_in("default", &[]),
    built_in("guidance-1", &["--guidance", "1"]),
    built_in("guidance-2", &["--guidance", "2"]),
    built_in("interval-0-19", &["--guidance-interval", "0-19"]),
    built_in("interval-5-13", &["--guidance-interval", "5-13"]),
    built_in("noise-beta", &["--noise", "beta"]),
    built_in("noise-none", &["--noise", "none"]),
    built_in("noise-optimal", &["--variances", OPTIMAL]),
    built_in("ddim", &["--sampler", "ddim"]),
    built_in("dpmpp-2m", &["--sampler", "dpmpp-2m"]),
    built_in("unipc", &["--sampler", "unipc"]),
    built_in("10-steps", &["--sampler", "dpmpp-2m", "--steps", "10"]),
];

const fn reproduce(name: &'static str, choices: &'static [&'static str]) -> Variant {
    Variant { name, model: Model::Trained { preset: "reproduce", choices }, sampling: GUIDANCE }
}

const fn original(name: &'static str, choices: &'static [&'static str]) -> Variant {
    Variant { name, model: Model::Trained { preset: "original", choices }, sampling: GUIDANCE }
}

const fn built_in(name: &'static str, sampling: &'static [&'static str]) -> Variant {
    Variant { name, model: Model::BuiltIn, sampling }
}

/// The names of all variants.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TRAINING.iter().chain(&SAMPLING).map(|variant| variant.name)
}

impl Model {
    /// Arguments of `ddpm-cli train`; `None` if the model is not trained for this variant.
    pub(super) fn train_arguments(self) -> Option<Vec<&'static str>> {
        match self {
            Model::Trained { preset, choices } => Some([&["--preset", preset], choices].concat()),
            Model::BuiltIn => None,
        }
    }
}

//! Model folders: round trips, and every kind of invalid folder.

use std::{fs, path::Path};

use candle_core::{DType, Device, Tensor};
use ddpm_core::{NoiseScheduleConfig, PredictionType};
use ddpm_model::{Denoiser, Error, WeightType, read_model, write_model};

use crate::{denoiser, images, small_mlp, small_patch_mlp, small_plain};

const WEIGHTS: &str = "denoiser/diffusion_pytorch_model.safetensors";

fn written(folder: &Path, weight_type: WeightType) {
    write_model(folder, &denoiser(&small_mlp()), weight_type, "# a card\n").unwrap();
}

#[test]
fn a_model_survives_the_folder_exactly() {
    let folder = tempfile::tempdir().unwrap();
    for config in [small_mlp(), small_plain(), small_patch_mlp()] {
        let before = denoiser(&config);
        write_model(&folder.path().join("model"), &before, WeightType::F32, "card").unwrap();
        let after = read_model(&folder.path().join("model"), &Device::Cpu).unwrap();
        assert_eq!(after.config(), before.config());
        assert_eq!(after.schedule(), before.schedule());
        let x_t = images(&config, 2);
        let predict = |d: &ddpm_model::Denoiser| {
            d.predict(&x_t, 5, &[0, 4], 1.0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(predict(&after), predict(&before));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary stays");
}

fn with_last_weight(value: f32) -> Denoiser {
    let config = small_mlp();
    let mut weights = crate::weights(&config, DType::F32);
    let mut bias: Vec<f32> = weights["output.bias"].to_vec1().unwrap();
    *bias.last_mut().unwrap() = value;
    weights.insert("output.bias".to_owned(), Tensor::new(bias, &Device::Cpu).unwrap());
    Denoiser::new(&config, &NoiseScheduleConfig::mnist20(), weights).unwrap()
}

/// Regression: NaN, infinite weights and f16 overflow were written without an error, and the model was lost.
#[test]
fn weights_that_are_not_finite_in_the_stored_type_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    for (value, weight_type, found) in [
        (f32::NAN, WeightType::F32, "NaN"),
        (f32::NAN, WeightType::F16, "NaN"),
        (f32::INFINITY, WeightType::F32, "inf"),
        (70_000.0, WeightType::F16, "70000"),
        (-65_520.0, WeightType::F16, "-65520"),
    ] {
        let error =
            write_model(&model, &with_last_weight(value), weight_type, "card").unwrap_err().to_string();
        assert!(
            error.contains(&format!("tensor `output.bias` is {found} at position 11, expected")),
            "{error}"
        );
        assert!(
            error.contains(WEIGHTS) && (weight_type == WeightType::F32 || error.contains("65504")),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    for (value, weight_type) in [(70_000.0, WeightType::F32), (65_504.0, WeightType::F16)] {
        write_model(&model, &with_last_weight(value), weight_type, "card").unwrap();
        let bias: Vec<f32> =
            read_model(&model, &Device::Cpu).unwrap().weights()["output.bias"].to_vec1().unwrap();
        assert_eq!(bias.last(), Some(&value));
    }
}

/// Regression: such a file was read without an error, and the model sampled black images.
#[test]
fn weights_that_are_not_finite_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    for value in [f32::NAN, f32::NEG_INFINITY] {
        written(&model, WeightType::F32);
        let mut bytes = fs::read(model.join(WEIGHTS)).unwrap();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&value.to_le_bytes());
        fs::write(model.join(WEIGHTS), bytes).unwrap();
        let error = read_model(&model, &Device::Cpu).unwrap_err();
        let Error::WeightValue { name, found, .. } = &error else { panic!("{error}") };
        assert!(found.to_bits() == value.to_bits() && !name.is_empty(), "{error}");
        assert!(error.to_string().contains(WEIGHTS), "{error}");
    }
}

#[test]
fn sixteen_bit_weights_are_half_the_size_and_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (full, half) = (folder.path().join("full"), folder.path().join("half"));
    written(&full, WeightType::F32);
    written(&half, WeightType::F16);
    let size = |folder: &Path| fs::metadata(folder.join(WEIGHTS)).unwrap().len();
    assert!(size(&half) < size(&full) * 6 / 10);
    let read = read_model(&half, &Device::Cpu).unwrap();
    for (name, weight) in denoiser(&small_mlp()).weights() {
        let error = (weight - &read.weights()[name]).unwrap().abs().unwrap().max_all().unwrap();
        assert!(error.to_scalar::<f32>().unwrap() < 2e-3, "{name}");
    }
}

#[test]
fn the_same_weights_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |name: &str| {
        written(&folder.path().join(name), WeightType::F32);
        fs::read(folder.path().join(name).join(WEIGHTS)).unwrap()
    };
    assert_eq!(bytes("a"), bytes("b"));
}

#[test]
fn a_folder_that_is_no_model_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "precious").unwrap();
    let error = write_model(folder.path(), &denoiser(&small_mlp()), WeightType::F32, "").unwrap_err();
    assert!(error.to_string().contains("exists and holds no model of this kind"), "{error}");
    assert_eq!(fs::read_to_string(folder.path().join("thesis.txt")).unwrap(), "precious");
}

#[test]
fn a_model_of_another_kind_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("model_index.json");
    fs::write(&index, r#"{"_class_name": "StableDiffusionPipeline"}"#).unwrap();
    let error = write_model(folder.path(), &denoiser(&small_mlp()), WeightType::F32, "").unwrap_err();
    assert!(error.to_string().contains("holds no model of this kind"), "{error}");
    assert!(fs::read_to_string(index).unwrap().contains("StableDiffusion"));
}

/// The text of an error and its sources, joined by ": ". No error may repeat the text of its source.
fn with_sources(error: &Error) -> String {
    let first: &dyn std::error::Error = error;
    let texts: Vec<String> =
        std::iter::successors(Some(first), |error| error.source()).map(ToString::to_string).collect();
    assert!(texts.windows(2).all(|pair| !pair[0].contains(&pair[1])), "{texts:?}");
    texts.join(": ")
}

/// Writes a valid model, spoils one file, and returns the error of reading the model, which must name the file.
fn spoilt(file: &str, spoil: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    written(&model, WeightType::F32);
    let path = model.join(file);
    match spoil(fs::read(&path).unwrap()) {
        Some(bytes) => fs::write(&path, bytes).unwrap(),
        None => fs::remove_file(&path).unwrap(),
    }
    let error = read_model(&model, &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains(file), "{error} does not name {file}");
    with_sources(&error);
    error
}

fn replace(from: &'static str, to: &'static str) -> impl FnOnce(Vec<u8>) -> Option<Vec<u8>> {
    move |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(from), "{text}");
        Some(text.replace(from, to).into_bytes())
    }
}

#[test]
fn every_missing_file_is_named() {
    for file in ddpm_model::ModelFiles::REQUIRED {
        assert!(matches!(spoilt(file, |_| None), Error::Read { .. }));
    }
}

#[test]
fn files_of_another_kind_are_named() {
    let error = spoilt("model_index.json", replace("DdpmPipeline", "StableDiffusionPipeline"));
    assert!(error.to_string().contains("`_class_name` is `StableDiffusionPipeline`"), "{error}");
    let error = spoilt("scheduler/scheduler_config.json", replace("DDPMScheduler", "PNDMScheduler"));
    assert!(matches!(error, Error::Scheduler { .. }));
    let error = spoilt("scheduler/scheduler_config.json", replace("0.7", "1.7"));
    assert!(with_sources(&error).contains("beta_end is 1.7"), "{error}");
    let error = spoilt("denoiser/config.json", replace("\"rows\"", "\"row\""));
    assert!(with_sources(&error).contains("unknown field `row`"), "{error}");
    // A key of earlier versions, whose networks could also emit a variance.
    let head = replace("\"network\"", "\"head\": \"gaussian\", \"network\"");
    let error = spoilt("denoiser/config.json", head);
    assert!(with_sources(&error).contains("unknown field `head`"), "{error}");
    let error = spoilt("denoiser/config.json", replace("\"rows\": 3", "\"rows\": 65"));
    assert!(with_sources(&error).contains("`rows` is 65"), "{error}");
}

/// Earlier versions named this key `output_type`; the built-in model and published models still have it.
#[test]
fn the_earlier_key_of_the_parameterization_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    written(&model, WeightType::F32);
    let path = model.join("denoiser/config.json");
    let now = fs::read_to_string(&path).unwrap();
    let earlier = now.replace("\"parameterization\": \"sample\"", "\"output_type\": \"v_prediction\"");
    assert_ne!(earlier, now);
    fs::write(&path, &earlier).unwrap();
    let denoiser = read_model(&model, &Device::Cpu).unwrap();
    assert_eq!(denoiser.config().parameterization, PredictionType::VPrediction);
    write_model(&model, &denoiser, WeightType::F32, "card").unwrap();
    let written = fs::read_to_string(&path).unwrap();
    assert!(written.contains("\"parameterization\": \"v_prediction\"") && !written.contains("output_type"));
    let error = spoilt("denoiser/config.json", replace("\"rows\"", "\"output_type\": \"sample\", \"rows\""));
    assert!(with_sources(&error).contains("duplicate field `parameterization`"), "{error}");
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_named() {
    let error = spoilt(WEIGHTS, |bytes| Some(bytes[..bytes.len() - 1].to_vec()));
    assert!(matches!(error, Error::Safetensors { .. }), "{error}");
    let error = spoilt(WEIGHTS, |_| Some(b"not a safetensors file".to_vec()));
    assert!(matches!(error, Error::Safetensors { .. }), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let change = |from: &str, to: &str| {
        written(&model, WeightType::F32);
        let path = model.join("denoiser/config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(&path, text.replace(from, to)).unwrap();
        read_model(&model, &Device::Cpu).unwrap_err()
    };
    let error = change("\"width\": 16", "\"width\": 17");
    assert!(matches!(error, Error::TensorMismatch { .. }), "{error}");
    let error = change("\"blocks\": 2", "\"blocks\": 3").to_string();
    assert!(
        error.contains("no tensor `blocks.2.condition.weight`, expected one of shape [24, 8]"),
        "{error}"
    );
    let error = change("\"blocks\": 2", "\"blocks\": 1").to_string();
    assert!(error.contains("unexpected tensor `blocks.1."), "{error}");
}

/// Which of the two values a reader takes is chance.
#[test]
fn a_doubled_key_in_any_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (file, key) in [
        ("model_index.json", "_class_name"),
        ("scheduler/scheduler_config.json", "num_train_timesteps"),
        ("denoiser/config.json", "rows"),
    ] {
        let model = folder.path().join(key);
        written(&model, WeightType::F32);
        let path = model.join(file);
        let text = fs::read_to_string(&path).unwrap();
        let value = serde_json::from_str::<serde_json::Value>(&text).unwrap()[key].clone();
        fs::write(&path, text.replacen('{', &format!("{{\"{key}\": {value},"), 1)).unwrap();
        let error = read_model(&model, &Device::Cpu).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            error.to_string().contains(file) && cause.contains(&format!("key \"{key}\"")),
            "{error}: {cause}"
        );
    }
    let model = folder.path().join("model");
    written(&model, WeightType::F32);
    let mut bytes = fs::read(model.join(WEIGHTS)).unwrap();
    let len = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let doubled = r#"{"__metadata__":{"a":"b","a":"b"},"#;
    bytes.splice(8..9, doubled.bytes());
    bytes[..8].copy_from_slice(&((len + doubled.len() - 1) as u64).to_le_bytes());
    fs::write(model.join(WEIGHTS), bytes).unwrap();
    let error = read_model(&model, &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains(WEIGHTS), "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("key \"a\""), "{error:?}");
}

/// A user's own files, for example of git, would be lost with the replaced folder.
#[test]
fn a_model_folder_with_other_files_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), WeightType::F32);
    written(folder.path(), WeightType::F16);
    fs::create_dir(folder.path().join(".git")).unwrap();
    let error = write_model(folder.path(), &denoiser(&small_mlp()), WeightType::F32, "").unwrap_err();
    assert!(error.to_string().contains(".git: is not a file of a model"), "{error}");
    assert!(folder.path().join(".git").exists());
}

#[test]
fn a_schedule_that_no_model_folder_can_hold_is_found_without_a_model() {
    let mut schedule = NoiseScheduleConfig::mnist20();
    ddpm_model::scheduler_json(&schedule).unwrap();
    for variance in
        [ddpm_core::ReverseVariance::LearnedRange, ddpm_core::ReverseVariance::PerStep(vec![0.1; 19])]
    {
        schedule.variance_type = variance;
        let error = ddpm_model::scheduler_json(&schedule).unwrap_err();
        assert!(error.to_string().contains("variance"), "{error}");
    }
}

#[test]
fn an_odd_embedding_is_refused_with_its_value() {
    for embedding in [0, 1, 3, 4097] {
        let network = ddpm_model::Network::Plain { width: 8, layers: 1, embedding };
        let config = ddpm_model::DenoiserConfig { network, ..small_plain() };
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(
            error,
            format!("denoiser option `embedding` is {embedding}, expected an even number from 2 to 4096")
        );
    }
}

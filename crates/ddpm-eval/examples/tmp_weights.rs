#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::print_stdout)]
use candle_core::{Device, Tensor};
use ddpm_data::Corpus;
use ddpm_eval::*;
use ddpm_train::Loss;
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let folder = std::env::args().nth(2).unwrap();
    let seed: u64 = std::env::args().nth(3).unwrap().parse().unwrap();
    let denoiser = ddpm_model::read_model(std::path::Path::new(&folder), &Device::Cpu).unwrap();
    let corpus = Corpus::mnist().unwrap();
    let (data, first) = if std::env::args().nth(4).is_some() {
        (corpus.test().unwrap(), 0)
    } else {
        (corpus.train(), 1u64 << 32)
    };
    let draws = [20, 50, 100];
    let classifier = DiffusionClassifier::new(denoiser.schedule(), 10, 100, seed).unwrap();
    let indices: Vec<u32> = (0..n).map(|i| (i * data.len() / n) as u32).collect();
    let snr = ErrorWeight::Space(Loss::Epsilon).over_timesteps(denoiser.schedule()).unwrap();
    let mut weights: Vec<(String, Vec<f64>)> = vec![];
    for (name, w) in [
        ("bound", ErrorWeight::Bound),
        ("epsilon", ErrorWeight::Space(Loss::Epsilon)),
        ("sample", ErrorWeight::Space(Loss::Sample)),
        ("v", ErrorWeight::Space(Loss::VPrediction)),
        ("min_snr", ErrorWeight::Space(Loss::MinSnr)),
    ] {
        weights.push((name.into(), w.over_timesteps(denoiser.schedule()).unwrap()));
    }
    for c in [0.3, 1.0, 2.0] {
        weights.push((format!("min(snr,{c})"), snr.iter().map(|s| s.min(c)).collect()));
    }
    weights.push(("snr/(1+snr)".into(), snr.iter().map(|s| s / (1.0 + s)).collect()));
    weights.push(("sqrt snr".into(), snr.iter().map(|s| s.sqrt()).collect()));
    weights.push(("sqrt snr/(1+snr)".into(), snr.iter().map(|s| s.sqrt() / (1.0 + s)).collect()));
    if let Ok(m) = std::env::var("MSE") {
        let m: Vec<f64> = m.split(',').map(|x| x.parse().unwrap()).collect();
        weights.push((
            "optimal".into(),
            (0..20)
                .map(|t| {
                    let d = if t == 0 { f64::INFINITY } else { snr[t - 1] - snr[t] };
                    0.5 / (1.0 / d + m[t])
                })
                .collect(),
        ));
        weights.push(("snr/mse".into(), (0..20).map(|t| 1.0 / m[t]).collect()));
    }
    let mut found = vec![[vec![], vec![], vec![]]; weights.len()];
    let (mut images, mut labels, mut truth) = (vec![], vec![], vec![]);
    let start = std::time::Instant::now();
    for chunk in indices.chunks(100) {
        data.gather_images(chunk, &mut images).unwrap();
        data.gather_labels(chunk, &mut labels).unwrap();
        truth.extend_from_slice(&labels);
        let x = Tensor::from_slice(&images, (chunk.len(), 784), &Device::Cpu).unwrap();
        let ids: Vec<u64> = chunk.iter().map(|&i| first + i as u64).collect();
        let e = classifier.denoiser_errors(&denoiser, &x, &ids).unwrap();
        for (f, (_, w)) in found.iter_mut().zip(&weights) {
            for (f, d) in f.iter_mut().zip(draws) {
                f.extend(e.classes(w, d).unwrap());
            }
        }
    }
    println!("{:.1} s", start.elapsed().as_secs_f64());
    for (f, (name, _)) in found.iter().zip(&weights) {
        let a: Vec<String> = f
            .iter()
            .map(|f| {
                let a = ClassAccuracy::new(&truth, f, 10).unwrap();
                format!("{:.4} ± {:.4}", a.overall, a.standard_error)
            })
            .collect();
        println!("{name:24} {}", a.join("  "));
    }
}

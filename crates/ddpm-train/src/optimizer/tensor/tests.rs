use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Optimizer, ParamsAdamW};

use super::*;

const DECAY: f64 = 0.9;

/// Ten steps of both optimizers and of candle-nn's AdamW with the same gradients, for a matrix with weight decay.
#[test]
fn both_paths_take_the_steps_of_candle_nn() {
    let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
    let start: Vec<f32> = (0..12).map(|i| (i as f32).sin()).collect();
    let var = || Var::from_slice(&start, (3, 4), &Device::Cpu).unwrap();
    let (reference, ours) = (var(), var());
    let params = ParamsAdamW { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };
    let mut theirs = candle_nn::AdamW::new(vec![reference.clone()], params).unwrap();
    let mut tensor = TensorAdamW::new(vec![("w".to_owned(), ours.clone())], &Part::all(0, false)).unwrap();
    let mut host = [start.clone(), vec![0.0; 12], vec![0.0; 12], start.clone()];
    let mut ema: Vec<f64> = start.iter().map(|&x| f64::from(x)).collect();

    for step in 0..10 {
        let loss = |var: &Var| {
            let scale = Tensor::arange(0.0_f32, 12.0, &Device::Cpu).unwrap().reshape((3, 4)).unwrap();
            ((var.as_tensor() - 0.3).unwrap() * scale).unwrap().sqr().unwrap().sum_all().unwrap()
        };
        let size = StepSize::new(config, step, 0.01, DECAY);
        let gradients = loss(&ours).backward().unwrap();
        let gradient: Vec<f32> = gradients.get(&ours).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let [weights, first, second, average] = &mut host;
        for (i, &gradient) in gradient.iter().enumerate() {
            let (weight, first, second) = (&mut weights[i], &mut first[i], &mut second[i]);
            size.rounded().update(gradient, weight, first, second, &mut average[i]);
        }
        tensor.step(tensor.gradient(&gradients).unwrap(), size, GradNorm::Ignore).unwrap();
        theirs.step(&loss(&reference).backward().unwrap()).unwrap();

        let values = |t: &Tensor| -> Vec<f64> {
            t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let expected = values(&reference);
        let decay = DECAY.min((1.0 + step as f64) / (10.0 + step as f64));
        for (ema, w) in ema.iter_mut().zip(&expected) {
            *ema = decay * *ema + (1.0 - decay) * w;
        }
        let close = |found: Vec<f64>, expected: &[f64], what: &str| {
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 2e-6, "{what} at step {step}: {a} {b}");
            }
        };
        close(values(&ours), &expected, "tensors");
        close(host[0].iter().map(|&x| f64::from(x)).collect(), &expected, "host");
        close(values(&tensor.part(Part::EMA).unwrap()[0].1), &ema, "average of tensors");
        close(host[3].iter().map(|&x| f64::from(x)).collect(), &ema, "average on the host");
    }
}

//! Classifier-free guidance.

use std::cell::Cell;

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    BoxError, Guidance, NoiseSchedule, Pass, PredictionType, ReverseVariance, Sampler, Steps, Timestep,
    no_noise, sampler::UniPc,
};

use crate::{
    assert_out_of_range, largest_difference, schedule,
    toy::{Mixture, fine_schedule, log_uniform, moments, noise, start},
    values,
};

/// The combined network of two.
fn guided<A, B>(
    guidance: &Guidance,
    mut conditional: A,
    mut unconditional: B,
) -> impl FnMut(&Tensor, Timestep) -> Result<Tensor, BoxError>
where
    A: FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    B: FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
{
    guidance.network(move |x: &Tensor, timestep, pass| match pass {
        Pass::Conditional => conditional(x, timestep),
        Pass::Unconditional => unconditional(x, timestep),
    })
}

const ALL: [PredictionType; 3] =
    [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction];

fn with(x: &Tensor, timestep: Timestep) -> candle_core::Result<Tensor> {
    ((x * 0.7)? + timestep.t().sin())?.tanh()
}

fn without(x: &Tensor, _: Timestep) -> candle_core::Result<Tensor> {
    ((x * 0.2)? - 0.3)?.tanh()
}

fn point() -> Tensor {
    Tensor::new(&[[0.5_f64, -1.0, 2.0]], &Device::Cpu).unwrap()
}

#[test]
fn the_prediction_is_that_without_the_condition_and_so_often_the_difference() {
    let schedule = schedule(|_| {});
    let at = schedule.timestep(7).unwrap();
    for scale in [-1.0, 0.0, 0.5, 1.0, 3.0, 7.5] {
        let guidance = Guidance::new(scale);
        let found = values(&guided(&guidance, with, without)(&point(), at).unwrap());
        let (with, without) = (values(&with(&point(), at).unwrap()), values(&without(&point(), at).unwrap()));
        let expected: Vec<f64> =
            std::iter::zip(with, without).map(|(with, without)| without + scale * (with - without)).collect();
        assert!(largest_difference(&found, &expected) < 1e-14, "{scale}");
        assert_eq!(guidance.scale_at(at), scale);
    }
}

/// Converting before guiding gives the same result as guiding before converting.
#[test]
fn guiding_eps_x_start_or_v_is_the_same() {
    let schedule = schedule(|_| {});
    let guidance = Guidance::new(4.0);
    for t in [0, 7, 19] {
        let at = schedule.timestep(t).unwrap();
        let as_kind = |kind: PredictionType,
                       network: fn(&Tensor, Timestep) -> candle_core::Result<Tensor>| {
            move |x: &Tensor, at: Timestep| {
                let x_start = network(x, at)?;
                PredictionType::Sample
                    .convert(kind, &x_start, x, at.alpha_cumprod())
                    .map_err(candle_core::Error::wrap)
            }
        };
        let [eps, x_start, v] = ALL.map(|kind| {
            let output =
                guided(&guidance, as_kind(kind, with), as_kind(kind, without))(&point(), at).unwrap();
            values(&kind.convert(PredictionType::Sample, &output, &point(), at.alpha_cumprod()).unwrap())
        });
        assert!(
            largest_difference(&eps, &x_start) < 1e-10 && largest_difference(&v, &x_start) < 1e-12,
            "{t}"
        );
    }
}

/// Counts the evaluations of each network in a run over all timesteps of mnist20.
fn calls(guidance: &Guidance) -> (usize, usize, Vec<f64>) {
    let schedule = schedule(|_| {});
    let (conditional, unconditional) = (Cell::new(0), Cell::new(0));
    let model = guided(
        guidance,
        |x, at| {
            conditional.set(conditional.get() + 1);
            with(x, at)
        },
        |x, at| {
            unconditional.set(unconditional.get() + 1);
            without(x, at)
        },
    );
    let sampled = Sampler::Ddim(0.0).plan(&schedule, Steps::All).unwrap().sample(point(), model, no_noise);
    (conditional.get(), unconditional.get(), values(&sampled.unwrap()))
}

#[test]
fn with_scale_one_or_outside_the_interval_only_the_conditional_network_is_asked() {
    let (asked, not_asked, plain) = calls(&Guidance::new(1.0));
    assert_eq!((asked, not_asked), (20, 0));
    assert_eq!(calls(&Guidance::new(3.0)).1, 20);
    // Both ends are included.
    assert_eq!(calls(&Guidance::new(3.0).within(5.0..=8.0)).1, 4);
    let (_, never, outside) = calls(&Guidance::new(3.0).within(100.0..=200.0));
    assert_eq!((never, outside), (0, plain));
    let schedule = schedule(|_| {});
    let guidance = Guidance::new(3.0).within(5.0..=8.0);
    let scales = [4, 5, 8, 9].map(|t| guidance.scale_at(schedule.timestep(t).unwrap()));
    assert_eq!(scales, [1.0, 3.0, 3.0, 1.0]);
}

/// Such an interval contains no timestep of the schedule, so guidance would be silently disabled.
#[test]
fn an_interval_that_is_reversed_nan_or_beyond_the_schedule_is_refused() {
    let schedule = schedule(|_| {});
    let within = |first, last| Guidance::new(3.0).within(first..=last);
    for (first, last) in [(9.0, 5.0), (f64::NAN, 5.0), (5.0, f64::NAN), (-1.0, 5.0)] {
        let found = format!("{first}-{last}");
        assert_out_of_range(within(first, last).check(&schedule), "the guidance interval", &found);
        let at = schedule.timestep(7).unwrap();
        let guidance = within(first, last);
        let mut network = guided(&guidance, |x, _| Ok(x.clone()), |x, _| Ok(x.clone()));
        let error = network(&point(), at).unwrap_err().to_string();
        assert!(error.contains(&format!("the guidance interval is {found}")), "{error}");
    }
    for (first, last) in [(5.0, 20.0), (20.0, 30.0), (20.0, f64::INFINITY)] {
        let error = within(first, last).check(&schedule).unwrap_err().to_string();
        assert!(error.ends_with(&format!("{first}-{last}, expected timesteps from 0 to 19")), "{error}");
    }
    for fits in [within(0.0, 19.0), within(7.0, 7.0), within(5.0, 19.5), Guidance::new(3.0)] {
        fits.check(&schedule).unwrap();
    }
}

/// γ falls linearly from 1 at t = 6 to 0 at t = 10, and multiplies the scale of 3 from 5 to 8 and the 1 elsewhere.
#[test]
fn annealing_multiplies_the_scale_by_a_factor_that_falls_to_0() {
    let schedule = schedule(|_| {});
    let scales = |guidance: &Guidance, ts: &[usize]| -> Vec<f64> {
        ts.iter().map(|&t| guidance.scale_at(schedule.timestep(t).unwrap())).collect()
    };
    let guidance = Guidance::new(3.0).within(5.0..=8.0).annealed(6.0..=10.0);
    let expected = [1.0, 3.0, 3.0, 2.25, 1.5, 0.25, 0.0, 0.0];
    assert_eq!(scales(&guidance, &[4, 5, 6, 7, 8, 9, 10, 19]), expected);
    // A step: with the class up to 7, without it above.
    assert_eq!(scales(&Guidance::new(1.0).annealed(7.0..=7.0), &[6, 7, 8]), [1.0, 1.0, 0.0]);
    assert_eq!(scales(&Guidance::new(2.0).annealed(0.0..=f64::INFINITY), &[0, 9]), [2.0, 2.0]);
    // 20 evaluations with the class, and one without it at each of the 14 timesteps where the scale is not 1.
    let (with, without, _) = calls(&guidance);
    assert_eq!((with, without), (20, 15));
}

/// With scale 1, the annealed prediction is the mean over networks that see the class with probability γ.
#[test]
fn the_annealed_prediction_is_the_mean_with_the_class_dropped_at_random() {
    let schedule = schedule(|_| {});
    let guidance = Guidance::new(1.0).annealed(2.0..=12.0);
    for t in [0, 2, 5, 11, 12, 19] {
        let at = schedule.timestep(t).unwrap();
        let found = values(&guided(&guidance, with, without)(&point(), at).unwrap());
        let (with, without) = (values(&with(&point(), at).unwrap()), values(&without(&point(), at).unwrap()));
        let kept = (12.0 - t as f64).clamp(0.0, 10.0) / 10.0;
        let mean: Vec<f64> =
            std::iter::zip(with, without).map(|(a, b)| kept * a + (1.0 - kept) * b).collect();
        assert!(largest_difference(&found, &mean) < 1e-14, "{t}");
    }
}

#[test]
fn an_annealing_interval_that_is_reversed_nan_or_beyond_the_schedule_is_refused() {
    let schedule = schedule(|_| {});
    let annealed = |first, last| Guidance::new(3.0).annealed(first..=last);
    for (first, last) in
        [(9.0, 5.0), (f64::NAN, 5.0), (5.0, f64::NAN), (-1.0, 5.0), (5.0, 20.0), (20.0, 30.0)]
    {
        let found = format!("{first}-{last}");
        assert_out_of_range(annealed(first, last).check(&schedule), "the annealing interval", found);
    }
    annealed(0.0, 19.0).check(&schedule).unwrap();
}

const CONDITIONAL: Mixture = Mixture(&[(1.0, 0.4, 0.3)]);
const UNCONDITIONAL: Mixture = Mixture(&[(1.0, -0.1, 0.6)]);

/// The guided score is ∇ log of p(xₜ given class)^s · p(xₜ)^(1−s), which is normal if both densities are.
#[test]
fn the_guided_score_is_that_of_the_tilted_normal_distribution() {
    for kind in ALL {
        let schedule = fine_schedule(kind);
        for (scale, t) in [(0.5, 10), (2.0, 10), (2.0, 400), (5.0, 900)] {
            let at = schedule.timestep(t).unwrap();
            let alpha_cumprod = at.alpha_cumprod();
            let guidance = Guidance::new(scale);
            let mut model =
                guided(&guidance, CONDITIONAL.network(&schedule), UNCONDITIONAL.network(&schedule));
            let output = model(&point(), at).unwrap();
            let eps = kind.convert(PredictionType::Epsilon, &output, &point(), alpha_cumprod).unwrap();
            // The score is −ε̂/√(1−ᾱ).
            let score: Vec<f64> =
                values(&eps).iter().map(|eps| -eps / (1.0 - alpha_cumprod).sqrt()).collect();
            // Precisions add, each multiplied by its power.
            let (mut precision, mut weighted_mean) = (0.0, 0.0);
            for (data, power) in [(CONDITIONAL, scale), (UNCONDITIONAL, 1.0 - scale)] {
                let (_, mean, deviation) = data.0[0];
                let of = power / (alpha_cumprod * deviation.powi(2) + 1.0 - alpha_cumprod);
                (precision, weighted_mean) =
                    (precision + of, weighted_mean + of * alpha_cumprod.sqrt() * mean);
            }
            let expected: Vec<f64> = values(&point()).iter().map(|x| weighted_mean - precision * x).collect();
            let difference = largest_difference(&score, &expected);
            assert!(difference < 1e-9, "{kind:?} {scale} {t}: {difference}");
        }
    }
}

/// If classes differ only in their mean, the guided densities of all noise levels belong to one data distribution, and
/// sampling gives that distribution: N(m + s (m′ − m), deviation²).
#[test]
fn guided_samples_follow_the_tilted_distribution_of_shifted_classes() {
    const OTHER: Mixture = Mixture(&[(1.0, -0.1, 0.3)]);
    let schedule = fine_schedule(PredictionType::Epsilon);
    let guidance = Guidance::new(3.0);
    let expected = (-0.1 + 3.0 * (0.4 - -0.1), 0.3);
    for sampler in [Sampler::UniPc(UniPc::order_2()), Sampler::Ddpm(ReverseVariance::FixedSmall)] {
        let n = if matches!(sampler, Sampler::UniPc(_)) { 40 } else { 150 };
        let timesteps = log_uniform(&schedule, [157.0, 0.01], n);
        let model = guided(&guidance, CONDITIONAL.network(&schedule), OTHER.network(&schedule));
        let sampled = sampler.plan(&schedule, &timesteps).unwrap().sample(start(1), model, noise(2)).unwrap();
        let (mean, deviation) = moments(&values(&sampled));
        assert!(
            (mean - expected.0).abs() < 0.02 && (deviation - expected.1).abs() < 0.015,
            "{mean} {deviation}"
        );
    }
}

#[test]
fn a_network_that_fails_or_answers_in_another_shape_is_an_error() {
    let at = NoiseSchedule::timestep(&schedule(|_| {}), 3).unwrap();
    let guidance = Guidance::new(2.0);
    let wide = |x: &Tensor, _| Tensor::cat(&[x, x], 1);
    let failed = guided(&guidance, with, wide)(&point(), at).unwrap_err().to_string();
    assert!(failed.contains("[1, 6]") && failed.contains("[1, 3]"), "{failed}");
    let failing = |_: &Tensor, _| candle_core::bail!("no network");
    assert!(guided(&guidance, with, failing)(&point(), at).unwrap_err().to_string().contains("no network"));
    assert_eq!(guided(&guidance, with, without)(&point(), at).unwrap().dtype(), DType::F64);
}

/// The variance must stay between β̃ and β, so guidance must not change it.
#[test]
fn a_learnt_variance_is_the_conditional_one() {
    let schedule = schedule(|_| {});
    let at = schedule.timestep(7).unwrap();
    let both = |prediction: fn(&Tensor, Timestep) -> candle_core::Result<Tensor>, variance: f64| {
        move |x: &Tensor, at: Timestep| Tensor::cat(&[prediction(x, at)?, x.affine(0.0, variance)?], 1)
    };
    let guidance = Guidance::new(3.0);
    let found = guided(&guidance, both(with, 0.9), both(without, -0.9))(&point(), at).unwrap();
    let alone = guided(&guidance, with, without)(&point(), at).unwrap();
    assert_eq!(values(&found.narrow(1, 0, 3).unwrap()), values(&alone));
    assert_eq!(values(&found.narrow(1, 3, 3).unwrap()), [0.9; 3]);
}

/// A prediction that is the same at every pixel has no deviation that could be scaled; it stays as it is.
#[test]
fn rescaling_of_a_constant_prediction_gives_no_nan() {
    let constant = |value: f32| Tensor::full(value, (2, 3), &Device::Cpu).unwrap();
    let x_t = constant(0.0);
    let at = schedule(|_| {}).timestep(5).unwrap();
    let guided = Guidance::new(3.0).rescaled(0.7).unwrap();
    let found = values(&guided.combine(&x_t, at, &constant(0.5), &constant(0.25)).unwrap());
    assert_eq!(found, [1.0; 6]);
}

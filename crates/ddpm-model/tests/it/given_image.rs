//! Images made from a given one, and images between two others.

use ddpm_core::{Purpose, Sampler, Steps};
use ddpm_model::{Denoiser, Error, GivenImage, SampleConfig, SampleOptions};

use crate::{bits, denoiser, small_mlp};

const PIXELS: usize = 12;

fn config(denoiser: &Denoiser) -> SampleConfig {
    SampleOptions::default().config(3, denoiser).unwrap()
}

fn given(mask: Option<Vec<f32>>) -> GivenImage {
    GivenImage { image: (0_u8..12).map(|i| f32::from(i) / 6.0 - 1.0).collect(), mask }
}

#[test]
fn the_ends_of_an_interpolation_are_the_images_themselves() {
    let denoiser = denoiser(&small_mlp());
    let config = config(&denoiser);
    let sample = |images: &[u64]| bits(&denoiser.sample(&config, images, &[1, 4], |_| Ok(())).unwrap());
    let between = |lambda: f64| {
        bits(&denoiser.sample_between(&config, [&[5, 6], &[8, 2]], lambda, &[1, 4], |_| Ok(())).unwrap())
    };
    assert_eq!(between(0.0), sample(&[5, 6]));
    assert_eq!(between(1.0), sample(&[8, 2]));
    assert!(between(0.5) != between(0.0) && between(0.5) != between(1.0));
    let ends: [&[u64]; 2] = [&[5, 6], &[8]];
    assert!(denoiser.sample_between(&config, ends, 0.5, &[1, 4], |_| Ok(())).is_err());
}

/// The first x_t is √ᾱ x + √(1−ᾱ) ε with ᾱ of the plan's first timestep and the noise of the image.
#[test]
fn sampling_starts_from_the_given_image_with_the_noise_of_the_first_timestep() {
    let denoiser = denoiser(&small_mlp());
    for (strength, t) in [(None, 19), (Some(1.0), 19), (Some(0.5), 9), (Some(0.01), 0)] {
        let options = SampleOptions { strength, ..SampleOptions::default() };
        let config = SampleConfig { given: Some(given(None)), ..options.config(3, &denoiser).unwrap() };
        let x_t = denoiser.start(&config, &[7]).unwrap().x_t().to_vec2::<f32>().unwrap();
        let eps = Denoiser::noise(&config, &[7]).start(&[PIXELS], denoiser.device()).unwrap();
        let alpha_cumprod = denoiser.schedule().alphas_cumprod()[t];
        for (place, eps) in eps.to_vec2::<f32>().unwrap()[0].iter().enumerate() {
            let image = f64::from(given(None).image[place]);
            let expected = alpha_cumprod.sqrt() * image + (1.0 - alpha_cumprod).sqrt() * f64::from(*eps);
            assert!((f64::from(x_t[0][place]) - expected).abs() < 1e-6, "{strength:?}, {place}");
        }
    }
}

/// After each step the known pixels have the noise level of the step, and at the end none.
#[test]
fn known_pixels_follow_the_forward_process_and_end_exactly_at_the_image() {
    let denoiser = denoiser(&small_mlp());
    let mask: Vec<f32> = (0..PIXELS).map(|place| if place < 5 { 1.0 } else { 0.0 }).collect();
    let plan = Sampler::ddim(0.0).plan(denoiser.schedule(), Steps::Spaced(4)).unwrap();
    let config = SampleConfig { plan, given: Some(given(Some(mask))), ..config(&denoiser) };
    let noise = Denoiser::noise(&config, &[4]).for_purpose(Purpose::INPAINTING).noise();
    let mut steps = 0;
    let sampled = denoiser
        .sample(&config, &[4], &[2], |step| {
            let eps = noise(step.x_t, step.index)?.to_vec2::<f32>()?;
            let x_t = step.x_t.to_vec2::<f32>()?;
            for place in 0..5 {
                let image = f64::from(given(None).image[place]);
                let expected = step.signal * image + step.noise * f64::from(eps[0][place]);
                assert!((f64::from(x_t[0][place]) - expected).abs() < 1e-6, "step {}", step.index);
            }
            steps += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(steps, 4);
    let sampled = sampled.to_vec2::<f32>().unwrap();
    assert_eq!(sampled[0][..5], given(None).image[..5]);
    assert_ne!(sampled[0][5..], given(None).image[5..]);
}

#[test]
fn an_image_or_a_mask_of_another_size_is_refused() {
    let denoiser = denoiser(&small_mlp());
    let short = GivenImage { image: vec![0.0; 3], mask: None };
    for given in [short, given(Some(vec![1.0; 3]))] {
        let config = SampleConfig { given: Some(given), ..config(&denoiser) };
        let error = denoiser.sample(&config, &[0], &[0], |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
        assert!(error.to_string().contains("is 3, expected 12"), "{error}");
    }
}

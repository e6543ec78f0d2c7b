//! An image has the same bits alone, in a batch, in another order and on any number of threads.

use candle_core::{DType, Device, Tensor};
use ddpm_core::{
    CounterRng, Guidance, Inpainting, Pass, PredictionType, Purpose, Sampler, Timesteps, no_noise, slerp,
};

use crate::{network, schedule, toy::all_samplers, values};

/// Runs a sampler. 50 of these images are more than one piece of `weighted_sum`, so threads share the work.
fn run(sampler: &Sampler, images: &[u64]) -> Tensor {
    let schedule = schedule(|c| {
        c.prediction_type = PredictionType::VPrediction;
        c.thresholding = true;
        c.sample_max_value = 1.5;
    });
    let timesteps = Timesteps::spaced(&schedule, 4).unwrap();
    let rng = CounterRng::new(4);
    let x = rng.normal(Purpose::SAMPLE_START, images, 0, &[1, 40, 40], DType::F32, &Device::Cpu).unwrap();
    let noise = |x: &Tensor, noise_index| rng.normal_like(Purpose::SAMPLE_STEP, images, noise_index, x);
    sampler.plan(&schedule, &timesteps).unwrap().sample(x, network, noise).unwrap()
}

fn on_threads<R: Send>(threads: usize, job: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(job)
}

#[test]
fn an_image_of_every_sampler_is_the_same_bits_alone_and_in_a_batch_of_fifty() {
    let all: Vec<u64> = (0..50).collect();
    for (name, sampler) in all_samplers() {
        let batch = run(&sampler, &all);
        for image in [0, 17, 49] {
            let alone = run(&sampler, &[image as u64]);
            assert_eq!(values(&batch.get(image).unwrap()), values(&alone), "{name}: image {image}");
        }
        let [last, first] =
            [run(&sampler, &[49, 0]).get(0).unwrap(), run(&sampler, &[0, 49]).get(1).unwrap()];
        assert_eq!(values(&last), values(&first), "{name}: another order");
    }
}

#[test]
fn every_sampler_gives_the_same_bits_on_one_thread_and_on_two() {
    let all: Vec<u64> = (0..50).collect();
    for (name, sampler) in all_samplers() {
        let [one, two] = [1, 2].map(|threads| values(&on_threads(threads, || run(&sampler, &all))));
        assert!(one == two, "{name}");
    }
}

#[test]
fn noise_is_the_same_bits_on_one_thread_and_on_two_and_in_every_shape() {
    let sample = |shape: &[usize]| {
        let images: Vec<u64> = (100..150).collect();
        CounterRng::new(7).normal(Purpose::SAMPLE_STEP, &images, 3, shape, DType::F32, &Device::Cpu).unwrap()
    };
    let [one, two] = [1, 2].map(|threads| values(&on_threads(threads, || sample(&[784]))));
    assert!(one == two);
    assert!(one == values(&sample(&[1, 28, 28])));
    // A smaller image has the first values of the larger one.
    assert!(values(&sample(&[5])).chunks(5).zip(one.chunks(784)).all(|(few, many)| *few == many[..5]));
}

#[test]
fn an_image_of_the_inverse_of_guidance_of_inpainting_and_of_slerp_is_the_same_alone() {
    let schedule = schedule(|_| {});
    let timesteps = Timesteps::spaced(&schedule, 6).unwrap();
    let rng = CounterRng::new(4);
    let all: Vec<u64> = (0..50).collect();
    let job = |images: &[u64]| {
        let normal =
            |step| rng.normal(Purpose::EVALUATION, images, step, &[1600], DType::F32, &Device::Cpu).unwrap();
        let x = normal(0);
        let mask = normal(1).ge(0.0).unwrap().to_dtype(DType::F32).unwrap();
        let guidance = Guidance::new(2.0);
        let noise = rng.images(images.iter().copied());
        let model = guidance.network(|x: &Tensor, timestep, pass| match pass {
            Pass::Conditional => network(x, timestep),
            Pass::Unconditional => x * 0.5,
        });
        let known_noise = noise.clone().for_purpose(Purpose::INPAINTING).noise();
        let known = Inpainting::new(&x, &mask).unwrap();
        let plan = Sampler::RePaint { jump_length: 2, jump_n_sample: 2 }.plan(&schedule, &timesteps).unwrap();
        let painted = plan
            .sample_with(normal(2), model, noise.noise(), |run| Ok(known.blend(run, &known_noise)?))
            .unwrap();
        let encoded = Sampler::DdimInverse(3)
            .plan(&schedule, &timesteps)
            .unwrap()
            .sample(x.clone(), network, no_noise)
            .unwrap();
        let between = slerp(&x, &encoded, 0.3).unwrap();
        [painted, encoded, between]
    };
    for (batch, alone) in std::iter::zip(job(&all), job(&[17])) {
        assert_eq!(values(&batch.get(17).unwrap()), values(&alone));
    }
    for (one, two) in std::iter::zip(on_threads(1, || job(&all)), on_threads(2, || job(&all))) {
        assert!(values(&one) == values(&two));
    }
}

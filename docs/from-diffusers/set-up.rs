// The set-up of the examples in docs/from-diffusers.md, which include this file as an expression.
{
    let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020())?;
    let network = |x_t: &Tensor, timestep: Timestep| x_t * (1.0 - timestep.alpha_cumprod()).sqrt();
    let images = CounterRng::new(1).images(0..4);
    let x_t = images.start(&[3, 8, 8], &Device::Cpu)?;
    (schedule, network, images, x_t)
}

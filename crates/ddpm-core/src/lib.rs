//! Noise schedules, forward process and samplers of denoising diffusion for any candle network

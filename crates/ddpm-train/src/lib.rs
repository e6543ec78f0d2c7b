//! Training of small denoising networks: loss, optimiser, moving average, checkpoints

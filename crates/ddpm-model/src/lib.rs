//! Denoising networks of linear layers and SiLU, their devices and their model folders

//! Figures of merit for generated images

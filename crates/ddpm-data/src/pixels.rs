//! Conversion between grey levels and the model's value range.
//!
//! Files hold `u8` grey levels from 0 to 255. A diffusion model takes `f32` values
//! in \[-1, 1], because its noise has mean zero:
//!
//! ```text
//! x = p / 127.5 − 1        p = round(127.5 · (x + 1)), clamped to 0..=255
//! ```

/// Converts a grey level to the model's value range: 0 to -1.0, 255 to 1.0.
///
/// ```
/// assert_eq!(ddpm_data::to_model_scale(0), -1.0);
/// assert_eq!(ddpm_data::to_model_scale(255), 1.0);
/// ```
#[inline]
#[must_use]
pub fn to_model_scale(pixel: u8) -> f32 {
    f32::from(pixel) / 127.5 - 1.0
}

/// Converts a model's value to the nearest grey level. It is the inverse of
/// [`to_model_scale`] for all 256 levels.
///
/// Halves round away from zero. Values outside \[-1, 1] are clamped, because a
/// sampler may return them. NaN becomes 0.
///
/// ```
/// assert_eq!(ddpm_data::to_pixel(-3.0), 0);
/// assert_eq!(ddpm_data::to_pixel(1.0), 255);
/// ```
#[inline]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a cast from float to integer saturates")]
pub fn to_pixel(x: f32) -> u8 {
    ((x + 1.0) * 127.5).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grey_level_survives_the_round_trip() {
        for p in 0..=u8::MAX {
            assert_eq!(to_pixel(to_model_scale(p)), p);
        }
    }

    #[test]
    fn the_scale_is_symmetric_and_increasing() {
        for p in 0..=u8::MAX {
            assert!((to_model_scale(p) + to_model_scale(255 - p)).abs() < 1e-6);
        }
        assert!((0..u8::MAX).all(|p| to_model_scale(p) < to_model_scale(p + 1)));
    }

    #[test]
    fn a_value_between_two_levels_rounds_to_the_nearer_one() {
        let step = 2.0 / 255.0;
        assert_eq!(to_pixel(to_model_scale(100) + 0.49 * step), 100);
        assert_eq!(to_pixel(to_model_scale(100) + 0.51 * step), 101);
        assert_eq!(to_pixel(to_model_scale(100) - 0.51 * step), 99);
    }

    #[test]
    fn values_outside_the_range_are_clamped() {
        assert_eq!(to_pixel(-1.001), 0);
        assert_eq!(to_pixel(1.001), 255);
        assert_eq!(to_pixel(f32::INFINITY), 255);
        assert_eq!(to_pixel(f32::NEG_INFINITY), 0);
        assert_eq!(to_pixel(f32::NAN), 0);
    }
}

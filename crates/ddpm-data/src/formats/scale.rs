//! Grey levels from floats.

use crate::pixels::to_pixel;

/// A scale of floats, with the number for black and the number for white.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// 0 is black, 1 is white.
    Unit,
    /// −1 is black, 1 is white: the scale of diffusion models.
    Model,
}

/// Half the distance between two grey levels on the scale from 0 to 1.
const HALF_LEVEL: f64 = 0.5 / 255.0;

impl Scale {
    /// The scale of images whose values are from `smallest` to `largest`; `None` if it is neither.
    ///
    /// Images on the scale from −1 to 1 have dark pixels, so a smallest value between −0.5 and 0 means neither scale. A
    /// value half a grey level below black or above white is a rounding error.
    pub(super) fn of(smallest: f64, largest: f64) -> Option<Self> {
        if smallest >= -HALF_LEVEL && largest <= 1.0 + HALF_LEVEL {
            Some(Self::Unit)
        } else if (-1.0 - 2.0 * HALF_LEVEL..=-0.5).contains(&smallest) && largest <= 1.0 + 2.0 * HALF_LEVEL {
            Some(Self::Model)
        } else {
            None
        }
    }

    /// The nearest grey level.
    #[expect(clippy::cast_possible_truncation, reason = "f32 is precise enough for 256 grey levels")]
    pub(super) fn grey_level(self, value: f64) -> u8 {
        match self {
            Self::Unit => to_pixel((2.0 * value - 1.0) as f32),
            Self::Model => to_pixel(value as f32),
        }
    }

    /// The values of black and white.
    pub(super) fn ends(self) -> [f64; 2] {
        match self {
            Self::Unit => [0.0, 1.0],
            Self::Model => [-1.0, 1.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_and_largest_value_decide_on_the_scale() {
        for (smallest, largest, expected) in [
            (0.0, 1.0, Some(Scale::Unit)),
            (0.0, 0.0, Some(Scale::Unit)),
            (0.3, 0.9, Some(Scale::Unit)),
            (-0.0019, 1.0019, Some(Scale::Unit)),
            (-1.0, 1.0, Some(Scale::Model)),
            (-1.0, -1.0, Some(Scale::Model)),
            (-1.0039, 1.0039, Some(Scale::Model)),
            (-0.5, 0.1, Some(Scale::Model)),
            (-0.49, 1.0, None),
            (-0.002, 1.0, None),
            (0.0, 1.002, None),
            (0.0, 255.0, None),
            (-1.01, 1.0, None),
            (-1.0, 1.01, None),
        ] {
            assert_eq!(Scale::of(smallest, largest), expected, "{smallest} {largest}");
        }
    }

    #[test]
    fn every_grey_level_survives_both_scales() {
        for level in 0..=u8::MAX {
            let share = f64::from(level) / 255.0;
            for (scale, value) in [(Scale::Unit, share), (Scale::Model, 2.0 * share - 1.0)] {
                for error in [-0.49, 0.0, 0.49] {
                    let [black, white] = scale.ends();
                    let value = value + error / 255.0 * (white - black);
                    assert_eq!(scale.grey_level(value), level, "{scale:?} {value}");
                }
            }
        }
    }
}

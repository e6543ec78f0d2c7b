//! Whether images are of the class that they should be.

use serde::Serialize;

use crate::{Error, Result};

/// How often images are of the class that they should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassAccuracy {
    /// The part of all images, 0 to 1.
    pub overall: f64,
    /// The standard error of that part, √(p(1 − p)/(n − 1)) for n images; infinite for a single one.
    pub standard_error: f64,
    /// The part of the images of each class; none where a class has no image.
    pub by_class: Vec<Option<f64>>,
}

impl ClassAccuracy {
    /// Compares the classes that images should be of with those found for them.
    ///
    /// # Errors
    ///
    /// If the lists differ in length, or are empty.
    pub fn new(expected: &[u8], found: &[u8], classes: usize) -> Result<Self> {
        if expected.len() != found.len() || found.is_empty() {
            return Err(Error::Counts { found: found.len(), expected: expected.len() });
        }
        let part = |class: Option<usize>| {
            let of_class = std::iter::zip(expected, found)
                .filter(|(expected, _)| class.is_none_or(|class| usize::from(**expected) == class));
            let (right, all) = of_class.fold((0.0, 0.0), |(right, all), (expected, found)| {
                (right + f64::from(u8::from(expected == found)), all + 1.0)
            });
            (all > 0.0).then_some(right / all)
        };
        let overall = part(None).unwrap_or_default();
        let others = found.len() as f64 - 1.0;
        Ok(Self {
            overall,
            standard_error: if others > 0.0 {
                (overall * (1.0 - overall) / others).sqrt()
            } else {
                f64::INFINITY
            },
            by_class: (0..classes).map(|class| part(Some(class))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_counts_each_class() {
        let accuracy = ClassAccuracy::new(&[0, 0, 1, 1], &[0, 1, 1, 1], 3).unwrap();
        assert_eq!((accuracy.overall, accuracy.standard_error), (0.75, 0.25));
        assert_eq!(accuracy.by_class, [Some(0.5), Some(1.0), None]);
        assert!(matches!(ClassAccuracy::new(&[0], &[], 3), Err(Error::Counts { found: 0, expected: 1 })));
    }
}

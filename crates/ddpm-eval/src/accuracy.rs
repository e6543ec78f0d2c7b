//! The accuracy of predicted classes.

use serde::Serialize;

use crate::{Error, Result};

/// The fraction of images whose predicted class is the expected one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassAccuracy {
    /// The fraction over all images, 0 to 1.
    pub overall: f64,
    /// The standard error of `overall`: √(p(1 − p)/(n − 1)) for n images; infinite for one image.
    pub standard_error: f64,
    /// The fraction over the images of each class, 0 to 1; `None` for a class without images.
    pub by_class: Vec<Option<f64>>,
}

impl ClassAccuracy {
    /// Compares the expected class of each image with the predicted one. Classes are 0 to `num_classes` − 1.
    ///
    /// # Errors
    ///
    /// If the lists differ in length, or are empty.
    pub fn new(expected: &[u8], predicted: &[u8], num_classes: usize) -> Result<Self> {
        if expected.len() != predicted.len() || predicted.is_empty() {
            let count = format!("{}, one for each image, and at least 1", expected.len());
            return Err(Error::out_of_range("number of predicted classes", predicted.len(), count));
        }
        let fraction = |class: Option<usize>| {
            let of_class = std::iter::zip(expected, predicted)
                .filter(|(expected, _)| class.is_none_or(|class| usize::from(**expected) == class));
            let (correct, all) = of_class.fold((0.0, 0.0), |(correct, all), (expected, predicted)| {
                (correct + f64::from(u8::from(expected == predicted)), all + 1.0)
            });
            (all > 0.0).then_some(correct / all)
        };
        let overall = fraction(None).unwrap_or_default();
        let degrees_of_freedom = predicted.len() as f64 - 1.0;
        Ok(Self {
            overall,
            standard_error: if degrees_of_freedom > 0.0 {
                (overall * (1.0 - overall) / degrees_of_freedom).sqrt()
            } else {
                f64::INFINITY
            },
            by_class: (0..num_classes).map(|class| fraction(Some(class))).collect(),
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
        let error = ClassAccuracy::new(&[0], &[], 3).unwrap_err().to_string();
        assert_eq!(error, "number of predicted classes is 0, expected 1, one for each image, and at least 1");
    }
}

//! The log that training writes: one JSON object a line.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// A line of `metrics.jsonl`. Fields and kinds that are not named here are passed over; a loss that
/// is not a number is `None`.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Train {
        step: u64,
        loss: Option<f64>,
    },
    Epoch {
        epoch: u64,
        step: u64,
        test_loss: Option<f64>,
    },
    #[serde(other)]
    Other,
}

/// The losses of a training run, by step.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct TrainingLog {
    /// Step, and mean loss since the entry before.
    train: Vec<(u64, Option<f64>)>,
    /// Step at the end of each epoch, and loss of the averaged weights on the held-out images.
    test: Vec<(u64, Option<f64>)>,
    /// The last epoch logged and its step, to tell epochs from steps.
    last_epoch: Option<(u64, u64)>,
}

impl TrainingLog {
    /// Reads a `metrics.jsonl`.
    ///
    /// # Errors
    /// The file cannot be read or a line is not what training writes.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads the text of a `metrics.jsonl`. Where a resumed training went back to a checkpoint, its
    /// lines replace those of the interrupted one.
    ///
    /// # Errors
    /// A line is not what training writes.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut log = Self::default();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line = serde_json::from_str(line)
                .with_context(|| format!("line {} is not a line of a training log", index + 1))?;
            match line {
                Line::Train { step, loss } => {
                    push(&mut log.train, step, loss);
                }
                Line::Epoch { epoch, step, test_loss } => {
                    push(&mut log.test, step, test_loss);
                    log.last_epoch = Some((epoch, step));
                }
                Line::Other => {}
            }
        }
        Ok(log)
    }

    /// The loss of training over epochs, where it can be drawn on a logarithmic scale.
    pub(crate) fn train_curve(&self) -> Vec<(f64, f64)> {
        self.curve(&self.train)
    }

    /// The loss on held-out images over epochs, where it can be drawn on a logarithmic scale.
    pub(crate) fn test_curve(&self) -> Vec<(f64, f64)> {
        self.curve(&self.test)
    }

    fn curve(&self, entries: &[(u64, Option<f64>)]) -> Vec<(f64, f64)> {
        let steps_per_epoch = match self.last_epoch {
            Some((epoch, step)) if epoch > 0 && step > 0 => step as f64 / epoch as f64,
            _ => return Vec::new(),
        };
        entries
            .iter()
            .filter_map(|&(step, loss)| Some((step as f64 / steps_per_epoch, loss?)))
            .filter(|(_, loss)| loss.is_finite() && *loss > 0.0)
            .collect()
    }
}

/// Adds an entry; those of its step and later ones are from before a resume and go.
fn push(entries: &mut Vec<(u64, Option<f64>)>, step: u64, loss: Option<f64>) {
    entries.truncate(entries.partition_point(|&(earlier, _)| earlier < step));
    entries.push((step, loss));
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"kind":"train","step":50,"epoch":1,"images":6400,"loss":0.5,"learning_rate":0.001,"seconds":1.5}
{"kind":"start","version":"0.1.0"}
{"kind":"train","step":100,"epoch":1,"images":12800,"loss":0.25,"learning_rate":0.001,"seconds":3.0,"new":[1]}
{"kind":"epoch","epoch":1,"step":100,"train_loss":0.4,"test_loss":0.2,"seconds":3.1}

{"kind":"train","step":150,"epoch":2,"images":19200,"loss":null,"learning_rate":0.001,"seconds":4.5}
{"kind":"epoch","epoch":2,"step":200,"train_loss":0.2,"test_loss":0.1,"seconds":6.1}
"#;

    #[test]
    fn both_curves_are_read_over_epochs() {
        let log = TrainingLog::parse(LOG).unwrap();
        assert_eq!(log.train_curve(), [(0.5, 0.5), (1.0, 0.25)]);
        assert_eq!(log.test_curve(), [(1.0, 0.2), (2.0, 0.1)]);
    }

    #[test]
    fn a_resumed_training_replaces_what_it_repeats() {
        let resumed = r#"{"kind":"train","step":100,"epoch":1,"loss":0.125}
{"kind":"epoch","epoch":1,"step":100,"test_loss":0.0625}
"#;
        let log = TrainingLog::parse(&format!("{LOG}{resumed}")).unwrap();
        assert_eq!(log.train_curve(), [(0.5, 0.5), (1.0, 0.125)]);
        assert_eq!(log.test_curve(), [(1.0, 0.0625)]);
    }

    #[test]
    fn losses_that_cannot_be_drawn_are_left_out() {
        let text = "{\"kind\":\"train\",\"step\":1,\"loss\":0}\n\
            {\"kind\":\"epoch\",\"epoch\":1,\"step\":2,\"test_loss\":null}";
        let log = TrainingLog::parse(text).unwrap();
        assert!(log.train_curve().is_empty() && log.test_curve().is_empty());
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = TrainingLog::parse(&format!("{LOG}{{\"kind\":\"tr")).unwrap_err();
        assert!(error.to_string().contains("line 8"), "{error:#}");
        assert!(TrainingLog::parse("{\"kind\":\"train\",\"loss\":1}").is_err(), "no step");
    }
}

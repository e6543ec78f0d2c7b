//! The JSON output of `ddpm-cli`, read by JSON pointers (RFC 6901).

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The output of one command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Printed {
    /// The command line, as printed for the user.
    pub(crate) command: String,
    pub(crate) output: Value,
}

impl Printed {
    /// Parses the standard output of a command.
    ///
    /// # Errors
    /// The text is not JSON.
    pub(crate) fn parse(command: String, text: &str) -> Result<Self> {
        let output = serde_json::from_str(text)
            .with_context(|| format!("`{command}` printed unexpected JSON: {}", text.trim()))?;
        Ok(Self { command, output })
    }

    /// The value at a pointer, which may be null.
    ///
    /// # Errors
    /// The pointer does not exist. The error lists the keys of the nearest object above it.
    pub(crate) fn at(&self, pointer: &str) -> Result<&Value> {
        self.output.pointer(pointer).with_context(|| {
            let mut parents = pointer.rmatch_indices('/').map(|(at, _)| &pointer[..at]);
            let found = parents.find_map(|parent| Some((parent, self.output.pointer(parent)?)));
            // The pointer "" is the whole output.
            let (parent, found) = found.unwrap_or(("", &self.output));
            let place = if parent.is_empty() { "it" } else { parent };
            let found = match found {
                Value::Object(fields) => fields.keys().cloned().collect::<Vec<_>>().join(", "),
                other => other.to_string(),
            };
            format!("`{}` printed no {pointer}; {place} holds: {found}", self.command)
        })
    }

    /// The number at a pointer. `None` if it is null, which `ddpm-cli` prints for a number that is not finite and for a
    /// metric that was not requested.
    ///
    /// # Errors
    /// The pointer does not exist, or its value is neither a number nor null.
    pub(crate) fn number(&self, pointer: &str) -> Result<Option<f64>> {
        let value = self.at(pointer)?;
        if !value.is_null() && !value.is_number() {
            bail!("`{}` printed {value} at {pointer}, expected a number or null", self.command);
        }
        Ok(value.as_f64())
    }

    /// The value at a pointer as an argument of a command: items of an array are separated by commas.
    ///
    /// # Errors
    /// The pointer does not exist, or its value is an object or null.
    pub(crate) fn argument(&self, pointer: &str) -> Result<String> {
        match self.at(pointer)? {
            Value::Array(items) => Ok(items.iter().map(Value::to_string).collect::<Vec<_>>().join(",")),
            Value::String(text) => Ok(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Ok(value.to_string()),
            value => bail!("`{}` printed {value} at {pointer}, expected numbers or text", self.command),
        }
    }
}

/// A number with this number of decimal digits; a dash for `None`.
pub(crate) fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

/// A share between 0 and 1 in per cent; a dash for `None`.
pub(crate) fn percent(share: Option<f64>, digits: usize) -> String {
    share.map_or("–".to_owned(), |share| format!("{:.digits$} %", share * 100.0))
}

/// The mean and its standard error.
pub(crate) fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// The median: the middle value, or the mean of the two middle values. `None` if there are no values.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (upper, lower) = (values.len() >> 1, values.len().checked_sub(1)? >> 1);
    Some((values.get(lower)? + values.get(upper)?) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_pointer_and_errors_list_the_keys() {
        let text = r#"{"frechet":{"ratio":2.5,"floor":null},"list":[0.25,0.5],"name":"MNIST"}"#;
        let printed = Printed::parse("ddpm-cli eval".into(), text).unwrap();
        assert_eq!(printed.number("/frechet/ratio").unwrap(), Some(2.5));
        assert_eq!(printed.number("/frechet/floor").unwrap(), None);
        assert_eq!(printed.argument("/list").unwrap(), "0.25,0.5");
        assert_eq!(printed.argument("/name").unwrap(), "MNIST");
        let refused = |pointer| printed.number(pointer).unwrap_err().to_string();
        assert_eq!(
            refused("/frechet/rate"),
            "`ddpm-cli eval` printed no /frechet/rate; /frechet holds: floor, ratio"
        );
        assert_eq!(refused("/x/y"), "`ddpm-cli eval` printed no /x/y; it holds: frechet, list, name");
        assert_eq!(refused("/name"), "`ddpm-cli eval` printed \"MNIST\" at /name, expected a number or null");
        assert!(printed.argument("/frechet").is_err() && printed.argument("/frechet/floor").is_err());
        let error = Printed::parse("ddpm-cli data".into(), "60000 images\n").unwrap_err().to_string();
        assert_eq!(error, "`ddpm-cli data` printed unexpected JSON: 60000 images");
    }

    #[test]
    fn the_error_of_a_mean_is_that_of_its_sample() {
        assert_eq!(mean_and_error(&[1.0, 3.0]), (2.0, 1.0));
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![3.0, 1.0, 9.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }
}

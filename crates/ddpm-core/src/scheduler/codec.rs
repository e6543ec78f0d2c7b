//! Reading and writing the options of a scheduler file.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{Error, NoiseScheduleConfig, Result, ReverseVariance};

/// Reads options by removing them from a JSON map, or writes them by inserting them.
pub(super) struct Codec {
    pub(super) class: &'static str,
    pub(super) reading: bool,
    pub(super) map: Map<String, Value>,
}

impl Codec {
    pub(super) fn error(&self, option: &str, found: &Value, expected: &str) -> Error {
        Error::scheduler_option(self.class, option, found.to_string(), expected)
    }

    /// Reads or writes an option that this crate implements.
    pub(super) fn field<T: Serialize + DeserializeOwned>(
        &mut self,
        option: &str,
        value: &mut T,
    ) -> Result<()> {
        if !self.reading {
            self.map.insert(option.to_owned(), serde_json::to_value(value)?);
        } else if let Some(found) = self.map.remove(option) {
            *value =
                T::deserialize(&found).map_err(|source| self.error(option, &found, &source.to_string()))?;
        }
        Ok(())
    }

    /// Reads an option of which this crate implements only the values in `supported`. The first is the default of
    /// diffusers, so it is not written.
    pub(super) fn only(&mut self, option: &str, supported: &[Value]) -> Result<()> {
        match self.map.remove(option) {
            Some(found) if !supported.contains(&found) => {
                let list: Vec<String> = supported.iter().map(Value::to_string).collect();
                Err(self.error(option, &found, &list.join(", ")))
            }
            _ => Ok(()),
        }
    }

    /// Accepts only −∞ (which was quoted as a string) or null for `lambda_min_clipped`.
    pub(super) fn no_clipping_of_lambda(&mut self) -> Result<()> {
        match self.map.remove("lambda_min_clipped") {
            None | Some(Value::Null) => Ok(()),
            Some(found) if found == "-Infinity" => Ok(()),
            Some(found) => Err(self.error("lambda_min_clipped", &found, "-Infinity")),
        }
    }

    /// Keeps an entry in `other` when reading, and writes it back unchanged.
    pub(super) fn keep(&mut self, option: &str, other: &mut Map<String, Value>) {
        let (from, to) = if self.reading { (&mut self.map, other) } else { (other, &mut self.map) };
        if let Some(value) = from.remove(option) {
            to.insert(option.to_owned(), value);
        }
    }

    /// Reads or writes the reverse variance. If the file uses an alias, such as `fixed_small_log`, `other` keeps it.
    pub(super) fn variance_type(
        &mut self,
        schedule: &mut NoiseScheduleConfig,
        other: &mut Map<String, Value>,
    ) -> Result<()> {
        const OPTION: &str = "variance_type";
        let kept = if self.reading { self.map.get(OPTION) } else { other.get(OPTION) }.cloned();
        self.field(OPTION, &mut schedule.variance_type)?;
        let Some(kept) = kept else { return Ok(()) };
        let is_same = ReverseVariance::deserialize(&kept).is_ok_and(|kept| kept == schedule.variance_type);
        if is_same && kept != serde_json::to_value(&schedule.variance_type)? {
            let map = if self.reading { other } else { &mut self.map };
            map.insert(OPTION.to_owned(), kept);
        }
        Ok(())
    }

    pub(super) fn order(&mut self, order: &mut usize) -> Result<()> {
        self.field("solver_order", order)?;
        if (1..=2).contains(order) {
            Ok(())
        } else {
            Err(self.error("solver_order", &(*order).into(), "1, 2"))
        }
    }

    pub(super) fn clipping(&mut self, schedule: &mut NoiseScheduleConfig) -> Result<()> {
        self.field("clip_sample", &mut schedule.clip_sample)?;
        self.field("clip_sample_range", &mut schedule.clip_sample_range)
    }

    pub(super) fn thresholding(&mut self, schedule: &mut NoiseScheduleConfig) -> Result<()> {
        self.field("thresholding", &mut schedule.thresholding)?;
        self.field("dynamic_thresholding_ratio", &mut schedule.dynamic_thresholding_ratio)?;
        self.field("sample_max_value", &mut schedule.sample_max_value)
    }

    /// Rejects flow matching, which this crate does not implement.
    pub(super) fn flow(&mut self) -> Result<()> {
        self.only("use_flow_sigmas", &[false.into()])?;
        self.only("flow_shift", &[json!(1.0), json!(1)])?;
        self.only("use_dynamic_shifting", &[false.into()])?;
        self.only("time_shift_type", &["exponential".into()])
    }
}

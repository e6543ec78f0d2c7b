//! Reading and writing the options of a scheduler file.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::FinalSigma;
use super::json::BARE_WORDS;
use super::options;
use crate::{Error, NoiseScheduleConfig, Result, TimestepSpacing};

/// The options of the file from which a configuration was read, as found. Two configurations that differ only in the
/// spelling of options are equal, so a comparison ignores `own`.
#[derive(Clone, Debug, Default)]
pub(super) struct FileOptions {
    /// The options of the class. It is `None` for a configuration that was not read from a file.
    pub(super) own: Option<Map<String, Value>>,
    /// Options of other classes, which have no effect on this class, and keys such as `_diffusers_version`.
    pub(super) other: Map<String, Value>,
}

impl PartialEq for FileOptions {
    fn eq(&self, other: &Self) -> bool {
        self.other == other.other
    }
}

/// Reads the options of a class from a file, or writes them.
pub(super) struct Codec {
    pub(super) class: &'static str,
    pub(super) reading: bool,
    /// The options of the file. Writing uses the file's spelling of a value that has not changed.
    file: Map<String, Value>,
    /// The options that were written.
    written: Map<String, Value>,
    /// The names of the options that the class has.
    own: Vec<&'static str>,
}

impl Codec {
    pub(super) fn reading(class: &'static str, file: Map<String, Value>) -> Self {
        Self { class, reading: true, file, written: Map::new(), own: Vec::new() }
    }

    pub(super) fn writing(class: &'static str, options: &FileOptions) -> Self {
        let mut file = options.other.clone();
        file.extend(options.own.clone().unwrap_or_default());
        Self { class, reading: false, file, written: Map::new(), own: Vec::new() }
    }

    pub(super) fn error(&self, option: &str, found: &Value, expected: &str) -> Error {
        Error::scheduler_option(self.class, option, found.to_string(), expected)
    }

    /// Rejects numbers that are not finite. Only `lambda_min_clipped` may be −∞, which is its default.
    pub(super) fn check_numbers(&self) -> Result<()> {
        let is_infinite = |(option, found): &(&String, &Value)| {
            let is_default = *option == "lambda_min_clipped" && **found == "-Infinity";
            !is_default && BARE_WORDS.iter().any(|word| *found == word)
        };
        match self.file.iter().find(is_infinite) {
            Some((option, found)) => Err(self.error(option, found, "a finite number")),
            None => Ok(()),
        }
    }

    /// The value of an option in the file.
    pub(super) fn found(&self, option: &str) -> Option<&Value> {
        self.file.get(option)
    }

    pub(super) fn has(&self, option: &str) -> bool {
        self.own.contains(&option)
    }

    /// Returns the options of the file after all options of the class were read.
    ///
    /// # Errors
    ///
    /// If one of the other options is unknown, or has an effect in spite of the class.
    pub(super) fn into_file(self) -> Result<FileOptions> {
        let mut options = FileOptions { own: Some(Map::new()), other: Map::new() };
        for (option, found) in &self.file {
            let is_own = self.has(option);
            if let Some(expected) = options::refusal(option, found).filter(|_| !is_own) {
                return Err(self.error(option, found, &expected));
            }
            let map = options.own.as_mut().filter(|_| is_own).unwrap_or(&mut options.other);
            map.insert(option.clone(), found.clone());
        }
        Ok(options)
    }

    /// Returns what was written, with the options of other classes.
    pub(super) fn into_written(mut self, other: &Map<String, Value>) -> Map<String, Value> {
        for (option, value) in other.iter().filter(|(option, _)| !self.own.contains(&option.as_str())) {
            self.written.insert(option.clone(), value.clone());
        }
        self.written
    }

    /// Replaces a value in the file, as diffusers does when it makes the scheduler.
    pub(super) fn replace(&mut self, option: &str, values: &[&str], by: &str) {
        if let Some(found) =
            self.file.get_mut(option).filter(|found| values.iter().any(|value| *found == value))
        {
            *found = by.into();
        }
    }

    /// Reads or writes an option.
    pub(super) fn field<T: Serialize + DeserializeOwned>(
        &mut self,
        option: &'static str,
        value: &mut T,
    ) -> Result<()> {
        self.field_as(option, value, |_| None)
    }

    /// Reads or writes an option. If `meaning` returns a value for the one in the file, that value is read.
    fn field_as<T: Serialize + DeserializeOwned>(
        &mut self,
        option: &'static str,
        value: &mut T,
        meaning: impl Fn(&Value) -> Option<Value>,
    ) -> Result<()> {
        self.own.push(option);
        let read = |found: &Value| T::deserialize(meaning(found).as_ref().unwrap_or(found));
        let found = self.file.get(option);
        if !self.reading {
            let written = serde_json::to_value(value)?;
            let means_it = |found: &&Value| {
                read(found).is_ok_and(|read| serde_json::to_value(read).is_ok_and(|read| read == written))
            };
            let written = found.filter(means_it).cloned().unwrap_or(written);
            self.written.insert(option.to_owned(), written);
        } else if let Some(found) = found {
            *value = read(found).map_err(|source| self.error(option, found, &source.to_string()))?;
        }
        Ok(())
    }

    /// Reads or writes an option for which null has a meaning.
    pub(super) fn nullable<T: Serialize + DeserializeOwned>(
        &mut self,
        option: &'static str,
        value: &mut T,
        null: Value,
    ) -> Result<()> {
        self.field_as(option, value, |found| found.is_null().then(|| null.clone()))
    }

    /// Reads or writes an option of which diffusers also accepts an old name of one value.
    pub(super) fn renamed<T: Serialize + DeserializeOwned>(
        &mut self,
        option: &'static str,
        value: &mut T,
        old: &str,
        new: &str,
    ) -> Result<()> {
        self.field_as(option, value, |found| (found == old).then(|| new.into()))
    }

    /// Reads or writes an option that is on or off. diffusers takes null for off.
    pub(super) fn flag(&mut self, option: &'static str, value: &mut bool) -> Result<()> {
        self.nullable(option, value, false.into())
    }

    /// Reads or writes an option that may be null if diffusers does not use it.
    fn field_if<T: Serialize + DeserializeOwned>(
        &mut self,
        is_used: bool,
        option: &'static str,
        value: &mut T,
    ) -> Result<()> {
        let unchanged = serde_json::to_value(&*value)?;
        if is_used { self.field(option, value) } else { self.nullable(option, value, unchanged) }
    }

    /// Keeps an option of the class that has no effect. It is written even if it is not in the file.
    pub(super) fn without_effect(&mut self, option: &'static str, default: Value) -> Result<()> {
        let mut kept = self.file.get(option).cloned().unwrap_or(default);
        self.field(option, &mut kept)
    }

    /// Keeps an option of the class that has no effect at this value.
    pub(super) fn unused(&mut self, option: &'static str) {
        self.own.push(option);
        if let Some(found) = self.file.get(option).filter(|_| !self.reading) {
            self.written.insert(option.to_owned(), found.clone());
        }
    }

    /// Keeps an option of which this crate implements only the values in `supported`. The first is the default of
    /// diffusers, so an option that is not in the file is not written.
    pub(super) fn only(&mut self, option: &'static str, supported: &[Value]) -> Result<()> {
        match self.file.get(option) {
            Some(found) if !supported.contains(found) => {
                self.own.push(option);
                let list: Vec<String> = supported.iter().map(Value::to_string).collect();
                // A value that has become effective since reading is not what this crate computes.
                if self.reading { Err(self.error(option, found, &list.join(", "))) } else { Ok(()) }
            }
            _ => {
                self.unused(option);
                Ok(())
            }
        }
    }

    /// As [`Codec::only`] if diffusers uses the option. Otherwise it may have any value.
    pub(super) fn only_if(&mut self, is_used: bool, option: &'static str, supported: &[Value]) -> Result<()> {
        if is_used {
            return self.only(option, supported);
        }
        self.unused(option);
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

    pub(super) fn spacing(&mut self, schedule: &mut NoiseScheduleConfig) -> Result<()> {
        self.field("timestep_spacing", &mut schedule.timestep_spacing)?;
        let is_used = schedule.timestep_spacing == TimestepSpacing::Leading;
        self.field_if(is_used, "steps_offset", &mut schedule.steps_offset)
    }

    /// Reads or writes the option for the noise level at the end of a run.
    pub(super) fn set_alpha_to_one(&mut self, final_sigma: &mut FinalSigma) -> Result<()> {
        let mut set_alpha_to_one = *final_sigma == FinalSigma::Zero;
        self.flag("set_alpha_to_one", &mut set_alpha_to_one)?;
        *final_sigma = if set_alpha_to_one { FinalSigma::Zero } else { FinalSigma::SigmaMin };
        Ok(())
    }

    pub(super) fn clipping(&mut self, schedule: &mut NoiseScheduleConfig) -> Result<()> {
        self.flag("clip_sample", &mut schedule.clip_sample)?;
        self.field_if(schedule.clip_sample, "clip_sample_range", &mut schedule.clip_sample_range)
    }

    pub(super) fn thresholding(&mut self, schedule: &mut NoiseScheduleConfig) -> Result<()> {
        self.flag("thresholding", &mut schedule.thresholding)?;
        let is_used = schedule.thresholding;
        self.field_if(is_used, "dynamic_thresholding_ratio", &mut schedule.dynamic_thresholding_ratio)?;
        self.field_if(is_used, "sample_max_value", &mut schedule.sample_max_value)
    }

    /// Rejects flow matching, which this crate does not implement. Without it, the shift has no effect.
    pub(super) fn flow(&mut self) -> Result<()> {
        self.only("use_flow_sigmas", &[json!(false), Value::Null])?;
        self.unused("flow_shift");
        self.unused("time_shift_type");
        Ok(())
    }
}

//! The types of option values, with the text form that users write.

use std::time::Duration;
use std::{
    fmt,
    ops::{RangeBounds, RangeInclusive},
    str::FromStr,
};

use clap::{ValueEnum, builder::RangedU64ValueParser};
use ddpm_core::ReverseVariance;

/// The only value of --noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Noise {
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Png,
    Gif,
    Apng,
    Idx,
    Safetensors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkName {
    PatchMlp,
    Mlp,
    Plain,
}

/// Reads a number of items in this range.
pub(super) fn count(range: impl RangeBounds<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

pub(super) fn threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "expected 1 to 1024".to_owned())
}

/// The value of --variance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variance(pub(crate) ReverseVariance);

impl FromStr for Variance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let list = || text.split(',').map(|number| number.trim().parse().ok()).collect::<Option<_>>();
        Ok(Self(match text {
            "fixed_small" => ReverseVariance::FixedSmall,
            "fixed_large" => ReverseVariance::FixedLarge,
            "zero" => ReverseVariance::Zero,
            _ => {
                let expected = "expected fixed_small, fixed_large, zero or a number for each timestep";
                ReverseVariance::PerStep(list().ok_or(expected)?)
            }
        }))
    }
}

/// A kind of work that `bench` times, such as `train-128` or `sample-50`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Training steps with batches of this number of images.
    Train(usize),
    /// Sampling of this number of images at once.
    Sample(usize),
}

impl FromStr for Work {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, count) = text.split_once('-').unwrap_or_default();
        match (kind, count.parse()) {
            ("train", Ok(count @ 1..=100_000)) => Ok(Self::Train(count)),
            ("sample", Ok(count @ 1..=100_000)) => Ok(Self::Sample(count)),
            _ => Err(format!("`{text}`: expected train-B or sample-N with a number from 1 to 100000")),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Train(count) => write!(f, "train-{count}"),
            Self::Sample(count) => write!(f, "sample-{count}"),
        }
    }
}

/// An interval of timesteps, both ends included, such as `5-15`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) u32, pub(crate) u32);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('-')
            .and_then(|(first, last)| Some(Self(first.parse().ok()?, last.parse().ok()?)))
            .filter(|interval| interval.0 <= interval.1)
            .ok_or_else(|| format!("`{text}`: expected FIRST-LAST, such as 5-15"))
    }
}

/// A list of classes in the given order, such as `0-9` or `3,5,7-8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassList(pub(crate) Vec<u32>);

impl FromStr for ClassList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`: expected classes such as 0-9 or 3,5,7");
        let number = |text: &str| text.parse::<u8>().map(u32::from).map_err(|_| expected());
        let mut list = Vec::new();
        for part in text.split(',') {
            let range: RangeInclusive<u32> = match part.split_once('-') {
                Some((first, last)) => number(first)?..=number(last)?,
                None => number(part)?..=number(part)?,
            };
            if range.is_empty() {
                return Err(expected());
            }
            list.extend(range);
        }
        Ok(Self(list))
    }
}

/// A time in seconds, 0 or more.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("`{text}`: expected a number of seconds, 0 or more"))
}

#[cfg(test)]
mod tests {
    use super::{ClassList, Interval, Work};

    #[test]
    fn class_lists_are_read() {
        assert_eq!("0-3,7".parse::<ClassList>().unwrap().0, [0, 1, 2, 3, 7]);
        for wrong in ["", "3-", "5-3", "a", "1,,2", "300"] {
            assert!(wrong.parse::<ClassList>().unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn intervals_are_read() {
        assert_eq!("5-15".parse::<Interval>().unwrap(), Interval(5, 15));
        for wrong in ["", "5", "9-5", "a-b", "-1-3"] {
            assert!(wrong.parse::<Interval>().unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn work_is_read_and_written_back() {
        for (text, work) in [("train-128", Work::Train(128)), ("sample-1", Work::Sample(1))] {
            assert_eq!(text.parse::<Work>().unwrap(), work);
            assert_eq!(work.to_string(), text);
        }
        for wrong in ["", "train", "train-", "train-0", "sample-x", "sample-100001", "draw-5"] {
            assert!(wrong.parse::<Work>().unwrap_err().contains(wrong), "{wrong}");
        }
    }
}

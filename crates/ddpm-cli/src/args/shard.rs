//! The part of a job that a process makes: `--shard I/K`, or `--shard-index I --shards K` as job arrays count.

use std::{env, fmt, ops::Range, str::FromStr};

use clap::Args as ClapArgs;

use super::values::count;

/// The largest number of parts of a job.
const MAX_SHARDS: usize = 1_000_000;

/// The options of a job array. The program uses only the [`Shard`] that they give.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Job arrays")]
pub(crate) struct JobArray {
    /// The part to generate, counted from 0: the same as --shard with an index that is one larger. env:NAME reads it from the
    /// environment variable NAME, such as env:SLURM_ARRAY_TASK_ID or env:JOB_COMPLETION_INDEX
    #[arg(long, value_name = "I|env:NAME", requires = "shards", conflicts_with = "shard")]
    pub(crate) shard_index: Option<ShardIndex>,
    /// The number of parts for --shard-index, 1 to 1000000
    #[arg(long, value_name = "K", requires = "shard_index", value_parser = count(1..=MAX_SHARDS as u64))]
    pub(crate) shards: Option<usize>,
    /// Do nothing if the output of this part is there, is of the same command, model and version, and has the SHA-256 of its
    /// recipe. Half-written and damaged output is made again; output of another command is an error
    #[arg(long)]
    pub(crate) skip_verified: bool,
}

impl JobArray {
    /// The part that --shard-index and --shards name; `None` without them.
    ///
    /// # Errors
    /// The environment variable is not set, or the index is not one of 0 to K − 1.
    pub(super) fn shard(&self) -> Result<Option<Shard>, String> {
        let (Some(index), Some(count)) = (&self.shard_index, self.shards) else { return Ok(None) };
        let (found, number) = match index {
            ShardIndex::Number(number) => (format!("--shard-index is {number}"), Some(*number)),
            ShardIndex::Variable(name) => match env::var_os(name) {
                Some(value) => {
                    let value = value.to_string_lossy();
                    (format!("--shard-index env:{name}: {name} is `{value}`"), value.trim().parse().ok())
                }
                None => (format!("--shard-index env:{name}: {name} is not set"), None),
            },
        };
        match number.filter(|number| *number < count) {
            Some(number) => Ok(Some(Shard { index: number + 1, count })),
            None => Err(format!("{found}, expected a number from 0 to {} (--shards {count})", count - 1)),
        }
    }
}

/// The value of --shard-index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShardIndex {
    Number(usize),
    /// The name of an environment variable.
    Variable(String),
}

impl FromStr for ShardIndex {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("env:") {
            Some(name) if !name.is_empty() && !name.contains(['=', '\0']) => {
                Ok(Self::Variable(name.to_owned()))
            }
            Some(_) => Err(format!("`{text}`: expected env:NAME with the name of an environment variable")),
            None => text.parse().map(Self::Number).map_err(|_| {
                format!("`{text}`: expected a number from 0 on, or env:NAME with an environment variable")
            }),
        }
    }
}

/// One of several equal parts; the index starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// The range of this part in a list of `len` items. The ranges of all parts together cover the list.
    pub(crate) fn range(self, len: usize) -> Range<usize> {
        let end = |i: usize| (len * i).div_euclid(self.count);
        end(self.index - 1)..end(self.index)
    }

    /// The number of parts.
    pub(crate) fn count(self) -> usize {
        self.count
    }

    /// The index of the part as job arrays count, from 0.
    pub(crate) fn array_index(self) -> usize {
        self.index - 1
    }

    /// All parts, in order.
    pub(crate) fn all(count: usize) -> impl Iterator<Item = Self> {
        (1..=count).map(move |index| Self { index, count })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('/')
            .and_then(|(index, count)| Some(Self { index: index.parse().ok()?, count: count.parse().ok()? }))
            .filter(|shard| (1..=shard.count).contains(&shard.index) && shard.count <= MAX_SHARDS)
            .ok_or_else(|| format!("`{text}`: expected I/K with I from 1 to K, such as 3/16"))
    }
}

#[cfg(test)]
mod tests {
    use super::{JobArray, Shard, ShardIndex};

    #[test]
    fn shards_are_a_partition() {
        for len in [0, 1, 7, 50, 1000] {
            for count in [1, 2, 3, 16] {
                let parts =
                    (1..=count).flat_map(|i| format!("{i}/{count}").parse::<Shard>().unwrap().range(len));
                assert!(parts.eq(0..len), "{len} in {count}");
                assert!(Shard::all(count).flat_map(|shard| shard.range(len)).eq(0..len), "{len} in {count}");
            }
        }
        for wrong in ["0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_index_from_0_gives_the_part_with_the_index_from_1() {
        let shard = |index: &str, shards| {
            let shard_index = Some(index.parse().unwrap());
            JobArray { shard_index, shards: Some(shards), skip_verified: false }.shard()
        };
        for (index, count) in [(0, 1), (0, 16), (3, 16), (15, 16)] {
            let found = shard(&index.to_string(), count).unwrap().unwrap();
            assert_eq!(found.to_string(), format!("{}/{count}", index + 1));
            assert_eq!((found.array_index(), found.count()), (index, count));
        }
        let error = shard("16", 16).unwrap_err();
        assert_eq!(error, "--shard-index is 16, expected a number from 0 to 15 (--shards 16)");
        for wrong in ["", "-1", "1.5", "env:", "env:A=B", "slurm"] {
            assert!(wrong.parse::<ShardIndex>().unwrap_err().contains(wrong), "{wrong}");
        }
    }
}

//! A description of the machine that a result was measured on.

use std::{env, fmt, fs, thread};

use serde::Serialize;

/// The properties of a machine that determine its speed; nothing that identifies it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Machine {
    /// Number of cores that this process may use.
    pub(crate) cores: usize,
    pub(crate) architecture: String,
    /// The model of the processor; `None` if the system does not report it.
    pub(crate) cpu: Option<String>,
    pub(crate) os: String,
    /// Memory in GiB; `None` if the system does not report it.
    pub(crate) memory_gib: Option<u64>,
}

impl Machine {
    /// The machine that this program runs on.
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: thread::available_parallelism().map_or(1, usize::from),
            architecture: env::consts::ARCH.to_owned(),
            cpu: cpu_model(&read("/proc/cpuinfo")),
            os: env::consts::OS.to_owned(),
            memory_gib: memory_gib(&read("/proc/meminfo")),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.cores == 1 { "" } else { "s" };
        write!(f, "{} core{plural}, {}", self.cores, self.architecture)?;
        if let Some(cpu) = &self.cpu {
            write!(f, ", {cpu}")?;
        }
        write!(f, ", {}", self.os)?;
        if let Some(memory) = self.memory_gib {
            write!(f, ", {memory} GiB")?;
        }
        Ok(())
    }
}

/// The first `model name` of a `/proc/cpuinfo`.
fn cpu_model(cpuinfo: &str) -> Option<String> {
    let model = field(cpuinfo, "model name")?;
    let words: Vec<_> = model.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// `MemTotal` of a `/proc/meminfo`, which is in KiB, rounded to GiB.
fn memory_gib(meminfo: &str) -> Option<u64> {
    const KIB_PER_GIB: u64 = 1 << 20;
    let kib: u64 = field(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_add(KIB_PER_GIB >> 1).div_euclid(KIB_PER_GIB))
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\n\
        model name\t: Intel(R) Xeon(R)   CPU @ 2.20GHz\n\nprocessor\t: 1\nmodel name\t: another\n";

    #[test]
    fn the_first_cpu_model_is_read() {
        assert_eq!(cpu_model(CPUINFO).unwrap(), "Intel(R) Xeon(R) CPU @ 2.20GHz");
        assert_eq!(cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\n"), None, "as on ARM");
        assert_eq!(cpu_model("model name\t:\n"), None);
        assert_eq!(cpu_model(""), None);
    }

    #[test]
    fn memory_is_rounded_to_gib() {
        assert_eq!(memory_gib("MemTotal:       24689764 kB\nMemFree: 1 kB\n"), Some(24));
        assert_eq!(memory_gib("MemTotal: 16252928 kB\n"), Some(16), "15.5 GiB");
        assert_eq!(memory_gib("MemTotal: lots\n"), None);
        assert_eq!(memory_gib(""), None);
    }

    #[test]
    fn unknown_parts_are_left_out_of_the_line() {
        let mut machine = Machine {
            cores: 2,
            architecture: "x86_64".into(),
            cpu: Some("Some CPU".into()),
            os: "linux".into(),
            memory_gib: Some(24),
        };
        assert_eq!(machine.to_string(), "2 cores, x86_64, Some CPU, linux, 24 GiB");
        (machine.cores, machine.cpu, machine.memory_gib) = (1, None, None);
        assert_eq!(machine.to_string(), "1 core, x86_64, linux");
    }
}

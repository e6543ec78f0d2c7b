//! The choice of a device by name.

use std::{
    fmt,
    panic::{UnwindSafe, catch_unwind},
    str::FromStr,
};

use candle_core::{Device, DeviceLocation};

use crate::{Error, Result};

/// A device, as named on the command line: `cpu`, `cuda`, `cuda:N` or `metal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The CPU.
    #[default]
    Cpu,
    /// The NVIDIA GPU with this index, from 0.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// On CUDA, candle has one stream for each thread: read a tensor on the thread that computed it, or call
    /// `Device::synchronize` before another thread reads it.
    ///
    /// # Errors
    ///
    /// If this build lacks the device's feature, or the device cannot be opened.
    pub fn open(self) -> Result<Device> {
        let missing = |feature| Err(Error::MissingFeature { device: self.to_string(), feature });
        let opened = match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "cuda") => return missing("cuda"),
            Self::Cuda(ordinal) => Device::new_cuda(ordinal),
            Self::Metal if !cfg!(feature = "metal") => return missing("metal"),
            Self::Metal => catch_panic(|| Device::new_metal(0)),
        };
        opened.map_err(|source| Error::OpenDevice { device: self.to_string(), source })
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => name
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| Error::UnknownDevice { found: name.to_owned() }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Metal => write!(f, "metal"),
        }
    }
}

/// Runs `work` for a device: on a CPU inside rayon's thread pool, elsewhere on the caller's thread.
///
/// On a CPU, a thread outside the pool would sleep and be woken several times in each reverse step. On CUDA, candle
/// has one stream for each thread and does not order streams: the caller could read a tensor before a pool thread's
/// stream has written it.
pub(crate) fn run_on_device<T: Send>(device: &DeviceLocation, work: impl FnOnce() -> T + Send) -> T {
    match device {
        DeviceLocation::Cpu => rayon::scope(|_| work()),
        DeviceLocation::Cuda { .. } | DeviceLocation::Metal { .. } => work(),
    }
}

/// A panic of `open` as an error: candle panics on a Mac without a Metal device, such as a virtual machine.
fn catch_panic(
    open: impl FnOnce() -> candle_core::Result<Device> + UnwindSafe,
) -> candle_core::Result<Device> {
    catch_unwind(open).unwrap_or_else(|_| {
        Err(candle_core::Error::msg(
            "the tensor library panicked, as it does on a machine without such a device",
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A race: on CUDA the caller read images that another thread's stream had not finished.
    #[test]
    fn only_a_cpu_leaves_the_thread_of_the_caller() {
        let thread_for = |device| run_on_device(&device, || thread::current().id());
        let caller = thread::current().id();
        assert_eq!(thread_for(DeviceLocation::Cuda { gpu_id: 0 }), caller);
        assert_eq!(thread_for(DeviceLocation::Metal { gpu_id: 0 }), caller);
        assert_ne!(thread_for(DeviceLocation::Cpu), caller);
    }

    #[test]
    fn a_panic_while_a_device_is_opened_is_an_error() {
        assert!(catch_panic(|| Ok(Device::Cpu)).unwrap().is_cpu());
        let empty: Vec<Device> = Vec::new();
        let error = catch_panic(move || Ok(empty.clone().swap_remove(0))).unwrap_err();
        let error = Error::OpenDevice { device: "metal".into(), source: error };
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("a machine without such a device"), "{cause}");
    }

    #[test]
    fn names_are_read_and_written_back() {
        for name in ["cpu", "cuda:0", "cuda:3", "metal"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        for name in ["tpu", "cuda:", "cuda:x", "CPU", ""] {
            let error = name.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains(&format!("unknown device `{name}`, expected cpu, cuda")), "{error}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_missing_feature_is_named() {
        let error = DeviceChoice::Cuda(1).open().unwrap_err().to_string();
        assert!(error.contains("`cuda:1` needs a build with `--features cuda`"), "{error}");
    }
}

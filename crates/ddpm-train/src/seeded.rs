//! Initial weights of any candle network from a seed.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::{
    Init, VarBuilder, VarMap,
    init::{FanInOut, NormalOrUniform},
    var_builder::SimpleBackend,
};
use ddpm_core::{CounterRng, Purpose};
use ddpm_files::sha256_hex;

/// A [`VarBuilder`] that creates the variables of a network in `variables`, with the distribution that each layer asks for
/// and random numbers of a seed. candle's own builder has no seed on a CPU.
///
/// The values of a variable depend on the seed and the variable's name. So they do not depend on the order in which the
/// layers are created, on other layers, on the number of threads, or on the device. A variable that exists is returned
/// unchanged.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::{VarMap, linear};
/// use ddpm_core::CounterRng;
/// use ddpm_train::seeded_var_builder;
///
/// let variables = VarMap::new();
/// let builder = seeded_var_builder(&variables, CounterRng::new(1), DType::F32, &Device::Cpu);
/// let hidden = linear(2, 64, builder.pp("hidden"))?;
/// let output = linear(64, 2, builder.pp("output"))?;
/// # assert_eq!(variables.all_vars().len(), 4);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[must_use]
pub fn seeded_var_builder(
    variables: &VarMap,
    rng: CounterRng,
    dtype: DType,
    device: &Device,
) -> VarBuilder<'static> {
    let backend = Seeded { variables: variables.clone(), rng };
    VarBuilder::from_backend(Box::new(backend), dtype, device.clone())
}

/// Creates variables with the random numbers of a seed.
struct Seeded {
    variables: VarMap,
    rng: CounterRng,
}

impl SimpleBackend for Seeded {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        if !self.contains_tensor(name) {
            let values = self.values(&shape, name, init).map_err(candle_core::Error::wrap)?;
            let variable = Var::from_tensor(
                &Tensor::from_vec(values, shape.clone(), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?,
            )?;
            let mut variables = self.variables.data().lock().map_err(candle_core::Error::msg)?;
            variables.insert(name.to_owned(), variable);
        }
        // Checks the shape of a variable that existed.
        self.variables.get(shape, name, init, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("the shape of the variable `{name}` is not known")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        SimpleBackend::contains_tensor(&self.variables, name)
    }
}

impl Seeded {
    /// The initial values of a variable.
    #[allow(clippy::cast_possible_truncation, reason = "computed in f64 and rounded once")]
    fn values(&self, shape: &Shape, name: &str, init: Init) -> ddpm_core::Result<Vec<f32>> {
        let mut values = vec![0.0; shape.elem_count()];
        let deviation = |fan: FanInOut, gain: f64| gain / (fan.for_shape(shape) as f64).sqrt();
        // The values are offset + scale · x, where x is normal, or uniform in [0, 1).
        let (is_normal, offset, scale) = match init {
            Init::Const(value) => {
                values.fill(value as f32);
                return Ok(values);
            }
            Init::Randn { mean, stdev } => (true, mean, stdev),
            Init::Uniform { lo, up } => (false, lo, up - lo),
            Init::Kaiming { dist, fan, non_linearity } => match dist {
                NormalOrUniform::Normal => (true, 0.0, deviation(fan, non_linearity.gain())),
                NormalOrUniform::Uniform => {
                    let bound = 3.0_f64.sqrt() * deviation(fan, non_linearity.gain());
                    (false, -bound, 2.0 * bound)
                }
            },
        };
        let fill = if is_normal { CounterRng::fill_normal } else { CounterRng::fill_uniform };
        fill(&self.rng, Purpose::WEIGHTS, &[index(name)], 0, &mut values)?;
        values.iter_mut().for_each(|x| *x = (offset + scale * f64::from(*x)) as f32);
        Ok(values)
    }
}

/// The index of a variable's random numbers: the first eight bytes of the SHA-256 of its name.
fn index(name: &str) -> u64 {
    u64::from_str_radix(&sha256_hex(name.as_bytes())[..16], 16).unwrap_or_default()
}

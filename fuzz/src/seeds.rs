//! The seeds: small valid files.

use std::io::Write;

use ddpm_data::idx::{encode_images, encode_labels};
use flate2::{Compression, write::GzEncoder};

pub(crate) fn idx_images() -> Vec<Vec<u8>> {
    [encode_images(2, 3, &[7; 12]), encode_images(1, 1, &[])].into_iter().flatten().collect()
}

pub(crate) fn idx_labels() -> Vec<Vec<u8>> {
    encode_labels(&[0, 1, 2, 9]).into_iter().collect()
}

/// Compressed once, in two members, and twice.
pub(crate) fn idx_gz() -> Vec<Vec<u8>> {
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
    };
    let plain = idx_images().swap_remove(0);
    let (start, rest) = plain.split_at(9);
    let once = gzip(&plain);
    vec![gzip(&once), [gzip(start), gzip(rest)].concat(), once]
}

/// Rows and columns of the images in the files of arrays.
pub(crate) const SIZE: [usize; 2] = [4, 5];

/// Files of `crates/ddpm-data/tests/fixtures/formats`, which NumPy and the safetensors library of Python wrote.
macro_rules! fixtures {
    ($($name:literal),*) => {
        vec![$(include_bytes!(concat!("../../crates/ddpm-data/tests/fixtures/formats/", $name)).to_vec()),*]
    };
}

pub(crate) fn npz() -> Vec<Vec<u8>> {
    fixtures!("stored.npz", "compressed.npz", "big-endian.npz")
}

pub(crate) fn npy() -> Vec<Vec<u8>> {
    fixtures!("one.npy", "version-2.npy")
}

pub(crate) fn image_tensors() -> Vec<Vec<u8>> {
    fixtures!("plain.safetensors", "model.safetensors")
}

/// The default file of each class.
pub(crate) fn schedulers() -> Vec<Vec<u8>> {
    use ddpm_core::Sampler;
    let samplers = [
        Sampler::ddpm(),
        Sampler::ddim(0.0),
        Sampler::dpmpp_2m(),
        Sampler::euler(),
        Sampler::EulerAncestral,
        Sampler::heun(),
        Sampler::unipc(),
        Sampler::Pndm,
        Sampler::lcm(),
        Sampler::tcd(),
    ];
    let file = |sampler: &Sampler| {
        let class = format!("{{\"_class_name\": \"{}\"}}", sampler.diffusers_class());
        let config = ddpm_core::DiffusersConfig::from_diffusers_json(&class);
        config.and_then(|config| config.to_diffusers_json()).map(String::into_bytes)
    };
    samplers.iter().flat_map(file).collect()
}

pub(crate) fn flow() -> Vec<Vec<u8>> {
    let mut dynamic = ddpm_core::FlowMatchEuler::new(3.0);
    (dynamic.use_dynamic_shifting, dynamic.shift_terminal) = (true, Some(0.02));
    let files = [ddpm_core::FlowMatchEuler::new(1.0), dynamic];
    files.iter().flat_map(|file| file.to_diffusers_json()).map(String::into_bytes).collect()
}

pub(crate) fn manifest() -> Vec<Vec<u8>> {
    let digest = ddpm_files::sha256_hex(b"");
    vec![format!("{{\n  \"state.json\": \"{digest}\",\n  \"weights\": \"{digest}\"\n}}\n").into_bytes()]
}

#[cfg(feature = "hub")]
pub(crate) use hub::{image, parquet};
#[cfg(feature = "model")]
pub(crate) use model::{denoiser_config, model, model_file, plan, weights};

#[cfg(feature = "model")]
mod model {
    use std::{path::Path, sync::LazyLock};

    use candle_core::Device;
    use ddpm_core::{Guidance, NoiseScheduleConfig};
    use ddpm_model::{
        Denoiser, DenoiserConfig, Network, PlanFit, PlanFitConfig, WeightType, initial_weights, write_model,
    };

    /// A tiny network of each architecture.
    fn configs() -> [DenoiserConfig; 3] {
        let small = |network| DenoiserConfig { network, ..DenoiserConfig::mlp(2, 2, 2) };
        [
            small(Network::Mlp { width: 4, hidden: 4, blocks: 1, embedding: 2 }),
            small(Network::Plain { width: 4, layers: 1, embedding: 2 }),
            small(Network::PatchMlp {
                patch: 1,
                local: 2,
                code: 2,
                width: 4,
                hidden: 4,
                blocks: 1,
                embedding: 2,
            }),
        ]
    }

    pub(crate) fn denoiser_config() -> Vec<Vec<u8>> {
        configs().iter().flat_map(serde_json::to_vec).collect()
    }

    /// A model of the first architecture, with initial weights.
    pub(crate) fn model() -> ddpm_model::Result<Denoiser> {
        let [config, ..] = configs();
        Denoiser::new(&config, &NoiseScheduleConfig::mnist20(), initial_weights(&config, 1, &Device::Cpu)?)
    }

    /// A plan that was fitted to the model.
    pub(crate) fn plan() -> Vec<Vec<u8>> {
        let fitted = || {
            let (model, guidance) = (model()?, Guidance::new(1.5).within(8.0..=15.0).annealed(12.0..=16.0));
            let fit = PlanFit::new(
                &model,
                &PlanFitConfig { seed: 1, num_images: 3, guidance: guidance.into() },
                &[],
            )?;
            fit.plan(fit.fit(&[19, 7])?.0)?.encode(Path::new("plan.json"))
        };
        fitted().into_iter().collect()
    }

    type Files = Vec<(String, Vec<u8>)>;

    /// The files of a model folder of the first architecture, by name.
    static FILES: LazyLock<Files> = LazyLock::new(|| files().unwrap_or_default());

    fn files() -> Result<Files, Box<dyn std::error::Error>> {
        let folder = std::env::temp_dir().join(format!("ddpm-fuzz-{}", std::process::id()));
        write_model(&folder, &model()?, WeightType::F32, "")?;
        let read = |name: &&str| Ok(((*name).to_owned(), std::fs::read(folder.join(name))?));
        let files = ddpm_model::ModelFiles::REQUIRED.iter().map(read).collect();
        std::fs::remove_dir_all(&folder)?;
        files
    }

    pub(crate) fn model_file(name: &str) -> &'static [u8] {
        FILES.iter().find(|(file, _)| file == name).map_or(&[], |(_, bytes)| bytes)
    }

    pub(crate) fn weights() -> Vec<Vec<u8>> {
        vec![model_file("denoiser/diffusion_pytorch_model.safetensors").to_vec()]
    }
}

#[cfg(feature = "hub")]
mod hub {
    use std::{io::Cursor, sync::Arc};

    use image::{GrayImage, ImageFormat};
    use parquet::{
        basic::{Compression, ZstdLevel},
        data_type::{ByteArray, ByteArrayType, Int64Type},
        errors::Result,
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };

    /// A PNG and a JPEG.
    pub(crate) fn image() -> Vec<Vec<u8>> {
        let grey = GrayImage::from_fn(3, 2, |x, y| [if x > y { 200 } else { 7 }].into());
        let encode = |format| {
            let mut bytes = Cursor::new(Vec::new());
            grey.write_to(&mut bytes, format).map(|()| bytes.into_inner()).unwrap_or_default()
        };
        vec![encode(ImageFormat::Png), encode(ImageFormat::Jpeg)]
    }

    /// Two images with labels, with each compression.
    pub(crate) fn parquet() -> Vec<Vec<u8>> {
        let compressions =
            [Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default()), Compression::LZ4_RAW];
        compressions.into_iter().flat_map(file).collect()
    }

    fn file(compression: Compression) -> Result<Vec<u8>> {
        let schema = "message m { optional group image { optional binary bytes; } optional int64 label; }";
        let properties = WriterProperties::builder().set_compression(compression).build();
        let schema = Arc::new(parse_message_type(schema)?);
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
        let mut group = writer.next_row_group()?;
        let png = ByteArray::from(image().swap_remove(0));
        if let Some(mut column) = group.next_column()? {
            column.typed::<ByteArrayType>().write_batch(&[png.clone(), png], Some(&[2, 2]), None)?;
            column.close()?;
        }
        if let Some(mut column) = group.next_column()? {
            column.typed::<Int64Type>().write_batch(&[0, 1], Some(&[1, 1]), None)?;
            column.close()?;
        }
        group.close()?;
        writer.into_inner()
    }
}

//! `ddpm-cli data`: describes a data set.

use anyhow::{Result, bail};
use ddpm_data::Dataset;
use ddpm_files::write_atomic;
use serde_json::{Value, json};

use crate::{
    args::{Common, Data, Format},
    data, output,
    picture::{self, Column},
};

/// Number of images of each class in the picture.
const SHOWN: usize = 5;

pub(crate) fn run(options: &Data, common: &Common) -> Result<()> {
    if Format::of(options.out.as_deref(), None)? != Format::Png {
        bail!("the picture is a PNG, expected --out with the extension .png");
    }
    let splits = data::load(&options.data)?;
    let train = splits.train();
    if let Some(out) = &options.out {
        write_atomic(out, &picture(train)?)?;
    }
    let stats = train.stats();
    let json = json!({
        "name": splits.name(),
        "source": options.data.to_string(),
        "revision": splits.commit(),
        "train": train.len(),
        "test": splits.test().map(Dataset::len),
        "rows": train.rows(),
        "cols": train.cols(),
        "classes": train.classes(),
        "labels": splits.class_labels(),
        "mean": stats.mean,
        "std": stats.std,
        "train_images_sha256": train.images_sha256(),
        "train_labels_sha256": train.labels_sha256(),
        "test_images_sha256": splits.test().map(Dataset::images_sha256),
        "test_labels_sha256": splits.test().and_then(Dataset::labels_sha256),
    });
    let mut text = String::new();
    for (key, value) in json.as_object().into_iter().flatten() {
        let value = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text += &format!("{key:<20} {value}\n");
    }
    output::result(common, &json, &text)
}

/// A PNG of the first images of each class, or of the first images if the data set has no labels.
fn picture(data: &Dataset) -> Result<Vec<u8>> {
    let (rows, cols) = (data.rows(), data.cols());
    let scale = picture::tile_scale(rows, cols, picture::PNG_TILE_SIDE);
    let tiles = data.images().chunks(data.image_size());
    let picture = match data.labels() {
        None => picture::plain_grid(&tiles.take(10 * SHOWN).collect::<Vec<_>>(), rows, cols, scale)?,
        Some(labels) => {
            let columns: Vec<Column<'_>> = (0..data.classes().unwrap_or(0))
                .map(|class| Column {
                    label: class.to_string(),
                    tiles: std::iter::zip(tiles.clone(), labels)
                        .filter(|(_, label)| usize::from(**label) == class)
                        .map(|(tile, _)| tile)
                        .take(SHOWN)
                        .collect(),
                })
                .collect();
            picture::labelled_grid(&columns, rows, cols, scale)?
        }
    };
    picture::encode_png(&picture, None)
}

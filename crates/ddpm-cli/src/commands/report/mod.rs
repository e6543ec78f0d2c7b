//! `ddpm-cli report`: a training run as one HTML file.

mod curves;
mod html;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use ddpm_files::AtomicFile;
use ddpm_model::SampleOptions;
use ddpm_train::Record;

use self::html::Page;
use super::{
    config_file::ConfigFile,
    eval,
    job::Job,
    previews,
    sample::{Layout, shown},
};
use crate::{
    args::{Common, Eval, Report, Strip},
    interrupt, loss_plot, model, output, picture,
};

/// Maximum number of previews in a report, so that it stays small.
const PREVIEWS: usize = 30;

pub(crate) fn run(options: &Report, common: &Common) -> Result<()> {
    let run = &options.run;
    let records = loss_plot::records(run)?;
    let last = records.last().with_context(|| format!("{}: the log of the run is empty", run.display()))?;
    let config_path = run.join("config.toml");
    let config = match fs::read_to_string(&config_path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| config_path.display().to_string()),
    };
    let model = run.join("model");
    let is_finished = model.is_dir();
    let measured = match options.num_images {
        images if images > 0 && is_finished => {
            let of_run = config.as_ref().map(|_| ConfigFile::read(&config_path)).transpose()?;
            let data = options.data.clone().or_else(|| of_run?.data).unwrap_or(ddpm_data::Source::Mnist);
            Some(Eval::of_model(&model, &data, images, options.features.as_deref())?)
        }
        _ => None,
    };
    let prepared = measured.as_ref().map(|eval| eval::Prepared::new(eval, common)).transpose()?;
    interrupt::listen()?;
    let out = options.out.clone().unwrap_or_else(|| run.join("report.html"));
    let mut file = AtomicFile::create(&out)?;

    let mut page = Page::default();
    summary(&mut page, &records, last);
    page.heading("Curves");
    page.plots(&curves::all(&records)?);
    let previews = chosen(previews::all(run)?);
    if !previews.is_empty() {
        page.heading("Generated images");
        page.paragraph("Five images of each class after an epoch, always from the same noise.");
        page.slider("Epoch", &read(previews)?);
    }
    if is_finished {
        denoising(&mut page, &model, common)?;
    }
    match prepared {
        Some(prepared) => quality(&mut page, &prepared.measure()?),
        None if !is_finished => page.paragraph("The run has no model yet, so its samples were not measured."),
        None => {}
    }
    page.heading("Configuration");
    page.code(&format!("ddpm-cli train --config {} -o {}", config_path.display(), run.display()));
    page.code(config.as_deref().unwrap_or("The run has no config.toml."));
    let title = run.canonicalize().ok().and_then(|run| Some(run.file_name()?.to_string_lossy().into_owned()));
    let title = title.unwrap_or_else(|| run.display().to_string());
    let subtitle = format!("A training run, described by ddpm-cli {}", env!("CARGO_PKG_VERSION"));
    file.append(page.finish(&title, &subtitle).as_bytes())?;
    interrupt::check()?;
    file.commit()?;
    let out = out.display().to_string();
    let json = serde_json::json!({ "file": out, "measured": options.num_images > 0 && is_finished });
    output::result(common, &json, &out)
}

/// The state of the run in numbers.
fn summary(page: &mut Page, records: &[Record], last: &Record) {
    let mut rows = vec![["steps".to_owned(), last.step().to_string()]];
    let mut add = |name: &str, value: String| rows.push([name.to_owned(), value]);
    add("time of training", format!("{:.0} s", last.seconds()));
    for record in records {
        if let Record::Start { initial, .. } = record {
            add("starts from", initial.clone());
        }
    }
    let epochs = records.iter().rev().find_map(|record| match *record {
        Record::Epoch { epoch, train_loss, .. } => Some((epoch, train_loss)),
        _ => None,
    });
    if let Some((epoch, loss)) = epochs {
        add("epochs", epoch.to_string());
        add("loss of the last epoch", format!("{loss:.5}"));
    }
    let test = records.iter().rev().find_map(|record| match *record {
        Record::Epoch { test_loss, .. } => test_loss,
        _ => None,
    });
    if let Some(loss) = test {
        add("test loss", format!("{loss:.5}"));
    }
    page.table(["", ""], &rows);
}

/// Strips of one image of each class.
fn denoising(page: &mut Page, model: &Path, common: &Common) -> Result<()> {
    let denoiser = model::load(&model.display().to_string(), &common.device.open()?)?;
    let config = SampleOptions::default().config(common.seed, &denoiser)?;
    let classes: Vec<u32> = (0..).take(denoiser.config().num_classes).collect();
    let job = if classes.is_empty() {
        Job::in_turn(config, &classes, 5)?
    } else {
        Job::per_class(config, &classes, 1)?
    };
    page.heading("Denoising");
    let quiet = Common { quiet: true, ..common.clone() };
    for (strip, caption) in [
        (Strip::Reverse, "The images after this number of steps, from noise"),
        (Strip::Predictions, "The images that the network predicts in these steps"),
    ] {
        let picture = Layout::Strip(strip).sample(&job, &denoiser, &quiet)?.draw(picture::GIF_TILE_SIDE)?;
        page.picture(&picture::encode_png(&picture, None)?, caption);
    }
    Ok(())
}

fn quality(page: &mut Page, results: &eval::Results) {
    page.heading("Quality");
    page.code(&results.command);
    page.table(["metric", "generated images", "real test images", "ratio"], &results.rows);
    results.sentences.iter().for_each(|sentence| page.paragraph(sentence));
    if let Some(plot) = &results.plot {
        page.plots(std::slice::from_ref(plot));
    }
    if let Some(pairs) = &results.pairs {
        page.picture(pairs, "The generated images nearest to a training image, each above that image");
    }
}

/// The pictures that are shown: evenly spaced, with the first and the last.
fn chosen(previews: Vec<(u64, PathBuf)>) -> Vec<(u64, PathBuf)> {
    let Some(last) = previews.len().checked_sub(1) else { return previews };
    shown(last, PREVIEWS - 1).map(|at| previews[at].clone()).collect()
}

fn read(previews: Vec<(u64, PathBuf)>) -> Result<Vec<(String, Vec<u8>)>> {
    let read = |(epoch, path): (u64, PathBuf)| {
        let png = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(png.starts_with(b"\x89PNG"), "{} is not a PNG", path.display());
        Ok((format!("epoch {epoch}"), png))
    };
    previews.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_previews_are_shown_with_both_ends() {
        for count in [0, 1, 2, 29, 30, 31, 60, 200] {
            let all: Vec<_> = (1..=count).map(|epoch| (epoch, PathBuf::new())).collect();
            let shown: Vec<u64> = chosen(all.clone()).into_iter().map(|(epoch, _)| epoch).collect();
            assert_eq!(shown.len(), all.len().min(PREVIEWS), "{count}");
            assert_eq!((shown.first(), shown.last()), (all.first().map(|p| &p.0), all.last().map(|p| &p.0)));
        }
    }
}

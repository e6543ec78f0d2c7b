//! Schedules of many timesteps, in every command: what is printed and drawn does not grow with the schedule.

use std::{fs, io::Cursor};

use image::{AnimationDecoder, codecs::gif::GifDecoder};
use tempfile::tempdir;

use crate::{json, run, stdout, write_data};

#[test]
fn the_output_of_every_command_is_bounded_for_a_schedule_of_many_timesteps() {
    const TOTAL: usize = 400;
    let folder = tempdir().unwrap();
    let folder = folder.path();
    write_data(folder, true);
    // β up to 0.7 as in the default: √ᾱ is below the smallest f32 at the end.
    let total = format!("schedule.num_train_timesteps={TOTAL}");
    let train = ["train", "--data", "data", "--epochs", "1", "--batch-size", "32", "--out-dir", "run", "-q"];
    run(folder, &[&train[..], &["--set", &total]].concat());
    let model = ["--model", "run/model"];
    let gif = ["sample", "--per-class", "1", "-o", "steps.gif", "--format", "gif", "-q"];
    run(folder, &[&gif[..], &model].concat());
    let gif = GifDecoder::new(Cursor::new(fs::read(folder.join("steps.gif")).unwrap())).unwrap();
    assert_eq!(gif.into_frames().count(), 101, "the noise and 100 of 400 steps");
    let likelihood = ["likelihood", "--data", "data", "--num-images", "2"];
    let text = stdout(&run(folder, &[&likelihood[..], &model].concat()));
    assert!(text.lines().count() < 200 && text.contains("| t = 399 to 392, sum |"), "{text}");
    assert!(text.contains("fitted on 2 training images"), "{text}");
    let value = json(folder, &[&likelihood[..], &model].concat());
    assert_eq!(value["optimal_variances"].as_array().unwrap().len(), TOTAL);
    let classify = ["classify", "--data", "data", "--num-images", "4", "--num-noise", "20"];
    assert!(stdout(&run(folder, &[&classify[..], &model].concat())).lines().count() < 20);
    assert!(stdout(&run(folder, &[&["info"][..], &model].concat())).lines().count() < 20);
}

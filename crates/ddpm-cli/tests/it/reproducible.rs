//! An image depends on the seed, its index, its class and the sampling options, and on nothing else.

use std::{fs, path::Path};

use safetensors::SafeTensors;

use crate::{CLASSES, SIDE, run, with_model};

const PIXELS: usize = SIDE * SIDE;

/// The pixels of the images that `sample` generates with these options.
fn pixels(folder: &Path, options: &[&str]) -> Vec<u8> {
    let out = ["sample", "--model", "model", "--format", "idx", "-q", "-o", "out"];
    run(folder, &[&out[..], options].concat());
    fs::read(folder.join("out-images-idx3-ubyte")).unwrap()[16..].to_vec()
}

#[test]
fn the_same_command_gives_the_same_file() {
    let folder = with_model();
    for format in ["png", "gif", "idx", "safetensors"] {
        let file = |out: &str| {
            run(folder.path(), &["sample", "--model", "model", "--format", format, "-q", "-o", out]);
            let name = if format == "idx" { format!("{out}-images-idx3-ubyte") } else { out.to_owned() };
            fs::read(folder.path().join(name)).unwrap()
        };
        assert!(file("one") == file("two"), "{format}");
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let folder = with_model();
    // More images than one part of a job.
    for options in
        [&["-n", "130"][..], &["-n", "7", "--guidance-scale", "2"], &["-n", "7", "--sampler", "ddim"]]
    {
        let with = |threads| pixels(folder.path(), &[options, &["--threads", threads]].concat());
        let one = with("1");
        assert!(one == with("2") && one == with("3"), "{options:?}");
        assert!(one == pixels(folder.path(), options), "{options:?} with all cores");
    }
}

#[test]
fn the_parts_of_a_job_are_the_whole() {
    let folder = with_model();
    for job in [&["-n", "20"][..], &["--per-class", "5"], &["-n", "2"]] {
        let whole = pixels(folder.path(), job);
        let labels = || fs::read(folder.path().join("out-labels-idx1-ubyte")).unwrap()[8..].to_vec();
        let whole_labels = labels();
        let (mut parts, mut part_labels) = (Vec::new(), Vec::new());
        for shard in ["1/3", "2/3", "3/3"] {
            // With two images and three parts, the first part is empty, which is an error.
            if job == ["-n", "2"] && shard == "1/3" {
                continue;
            }
            parts.extend(pixels(folder.path(), &[job, &["--shard", shard]].concat()));
            part_labels.extend(labels());
        }
        assert!(parts == whole && part_labels == whole_labels, "{job:?}");
    }
}

/// The program samples and writes a few hundred images at a time.
#[test]
fn a_job_of_many_pieces_is_the_same_in_every_format_and_in_shards() {
    let folder = with_model();
    for job in [&["-n", "1300", "--steps", "2"][..], &["--per-class", "401", "--steps", "2"]] {
        let labels = || fs::read(folder.path().join("out-labels-idx1-ubyte")).unwrap()[8..].to_vec();
        let whole = (pixels(folder.path(), job), labels());
        let mut parts = (Vec::new(), Vec::new());
        for shard in ["1/2", "2/2"] {
            parts.0.extend(pixels(folder.path(), &[job, &["--shard", shard]].concat()));
            parts.1.extend(labels());
        }
        assert!(parts == whole, "{job:?} in shards");
        let sample = ["sample", "--model", "model", "--format", "safetensors", "-q", "-o", "out"];
        run(folder.path(), &[&sample[..], job].concat());
        let bytes = fs::read(folder.path().join("out")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |name| file.tensor(name).unwrap().data().to_vec();
        assert!((tensor("images"), tensor("labels")) == whole, "{job:?} in safetensors");
    }
}

#[test]
fn an_image_is_the_same_alone_and_among_others() {
    let folder = with_model();
    let many = pixels(folder.path(), &["-n", "60"]);
    assert_eq!(pixels(folder.path(), &["-n", "1"]), many[..PIXELS]);
    assert_eq!(pixels(folder.path(), &["-n", "7"]), many[..7 * PIXELS]);
    let last = pixels(folder.path(), &["-n", "60", "--shard", "60/60"]);
    assert_eq!(last, many[59 * PIXELS..]);
}

#[test]
fn images_differ_from_each_other() {
    let folder = with_model();
    let many = pixels(folder.path(), &["-n", "30"]);
    let mut images: Vec<&[u8]> = many.chunks(PIXELS).collect();
    images.sort_unstable();
    images.dedup();
    assert_eq!(images.len(), 30);
}

/// Each option that should change the images changes them.
#[test]
fn every_option_of_sampling_has_an_effect() {
    let folder = with_model();
    let job = ["-n", "4"];
    let base = pixels(folder.path(), &job);
    for options in [
        &["--seed", "2"][..],
        &["--noise", "none"],
        &["--variance", "fixed_large"],
        &["--steps", "2", "--variance", "0.2,0"],
        &["--steps", "10"],
        &["--guidance-scale", "3"],
        &["--timesteps", "19,12,3"],
        &["--guidance-interval", "5-15"],
        &["--class-annealing", "1-3"],
        &["--epsilon-scale", "1.1"],
        &["--noise-path", "brownian"],
        &["--sampler", "ddim"],
        &["--sampler", "dpmpp-2m"],
        &["--sampler", "ddpm"],
        &["--sampler", "heun"],
        &["--sampler", "unipc"],
        &["--classes", "1"],
        &["--compute", "bf16"],
    ] {
        assert!(pixels(folder.path(), &[&job[..], options].concat()) != base, "{options:?}");
    }
    let with = |options: &[&str]| pixels(folder.path(), &[&job[..], options].concat());
    for (options, default) in [
        (&["--sampler", "dpmpp-2m-sde"], &[][..]),
        (&["--seed", "1"], &[]),
        (&["--guidance-interval", "4-10"], &[]),
        (&["--guidance-scale", "1.5"], &[]),
        (&["--epsilon-scale", "1"], &[]),
        (&["--compute", "f32"], &[]),
        (&["--variance", "fixed_small"], &["--sampler", "ddpm"]),
        (&["--eta", "0"], &["--sampler", "ddim"]),
    ] {
        assert!(with(options) == with(default), "{options:?}");
    }
    let none = ["0"; 20].join(",");
    assert!(with(&["--variance", &none]) == with(&["--noise", "none"]), "no variance is no noise");
    // Two names for the same sampler: the images are equal up to rounding.
    let near = |a: &[u8], b: &[u8]| std::iter::zip(a, b).all(|(a, b)| a.abs_diff(*b) <= 1);
    let of = |sampler| with(&["--sampler", sampler]);
    assert!(near(&of("euler-ancestral"), &of("ddpm")) && near(&of("euler"), &of("ddim")));
    let ddim = |eta| with(&["--sampler", "ddim", "--eta", eta]);
    assert!(ddim("0") != ddim("0.5") && ddim("0.5") != ddim("1"));
}

#[test]
fn classes_are_drawn_in_the_order_given() {
    let folder = with_model();
    let labels = |options: &[&str]| {
        pixels(folder.path(), options);
        fs::read(folder.path().join("out-labels-idx1-ubyte")).unwrap()[8..].to_vec()
    };
    assert_eq!(labels(&["--classes", "2,0-1", "--per-class", "2"]), [2, 2, 0, 0, 1, 1]);
    assert_eq!(labels(&["--classes", "1,2", "-n", "5"]), [1, 2, 1, 2, 1]);
    assert_eq!(labels(&[]).len(), 5 * CLASSES);
}

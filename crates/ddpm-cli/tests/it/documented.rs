//! The commands of README, docs and help, carried out.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use tempfile::tempdir;

use crate::{ddpm, run, stdout, write_split};

/// What makes the commands small: a part of a command, and its replacement. Each must occur.
const SMALLER: [(&str, &str); 14] = [
    ("sample -n 60000", "sample -n 60"),
    // Half precision is slow on a CPU, and the Fréchet distance wants more than a hundred images.
    (
        "-n 2000 --compute bf16 --metrics frechet,",
        "-n 10 --data small --features net --compute bf16 --metrics ",
    ),
    ("--epochs 100", "--epochs 1"),
    ("--config mine.toml", "--config mine.toml --data small"),
    ("--per-class 8", "--per-class 2"),
    ("eval -n 2000", "eval -n 130 --data small --features net"),
    ("ddpm-cli train --preset quick", "ddpm-cli train --preset quick --data small --epochs 1"),
    ("ddpm-cli train --preset guide", "ddpm-cli train --preset guide --data small --epochs 1"),
    ("ddpm-cli train --guide", "ddpm-cli train --data small --epochs 1 --guide"),
    ("ddpm-cli train-features --data my-images", "ddpm-cli train-features --data small --epochs 1"),
    ("ddpm-cli report runs/mine", "ddpm-cli report runs/mine --data small --features net"),
    ("ddpm-cli fit-plan --steps 5", "ddpm-cli fit-plan --steps 5 -n 20"),
    ("ddpm-cli export --to", "ddpm-cli export --data small --to"),
    ("ddpm-cli export --split", "ddpm-cli export --data small --split"),
];

/// Options that a command gets without one of its own.
const ADDED: [(&str, &str, &str); 6] = [
    ("ddpm-cli eval --model", "-n", "-n 130 --data small --features net"),
    ("ddpm-cli eval --images", "-n", "--data small --features net"),
    ("ddpm-cli likelihood", "-n", "-n 20"),
    ("ddpm-cli train --data data", "--epochs", "--epochs 1"),
    ("ddpm-cli train --from", "--epochs", "--epochs 1 --data small"),
    ("ddpm-cli classify", "-n", "-n 20 --num-noise 2"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The lines of all `sh` blocks of a document.
fn lines(text: &str) -> Vec<String> {
    let blocks = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

/// The documents with commands of this program, and the help of each command.
fn documents(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let mut documents = BTreeMap::new();
    let mut paths = vec![root().join("README.md"), root().join("crates/ddpm-cli/README.md")];
    paths.extend(fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    for path in paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        documents.insert(path.display().to_string(), lines(&fs::read_to_string(&path).unwrap()));
    }
    let help = stdout(&run(folder, &["help"]));
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // A line of text that goes on is indented further.
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?;
        name.split(' ').next()
    });
    for command in names.filter(|name| *name != "help") {
        let text = stdout(&run(folder, &[command, "--help"]));
        let examples = text.lines().skip_while(|line| *line != "Examples:").skip(1);
        let examples: Vec<String> = examples.map(|line| line.trim().to_owned()).collect();
        assert!(!examples.is_empty(), "{command} has no examples");
        documents.insert(format!("help of {command}"), examples);
    }
    documents
}

/// A folder with everything that the commands of the documents name.
fn write_inputs(folder: &Path) {
    let pixels: Vec<u8> =
        (0..200 * 784).map(|i: usize| u8::from(i % 28 < 2 * (i.div_euclid(784) % 10)) * 255).collect();
    let labels: Vec<u8> = (0..200_u8).map(|image| image % 10).collect();
    fs::create_dir(folder.join("small")).unwrap();
    for split in ["train", "t10k"] {
        write_split(&folder.join("small"), split, [28, 28], &pixels, Some(labels.clone()));
    }
    fs::create_dir(folder.join("generated")).unwrap();
    for (number, image) in pixels.chunks(784).take(130).enumerate() {
        let image = image::GrayImage::from_raw(28, 28, image.to_vec()).unwrap();
        image.save(folder.join(format!("generated/{number:03}.png"))).unwrap();
    }
    let image = |name: &str, level: &dyn Fn(u32, u32) -> u8| {
        let image = image::GrayImage::from_fn(28, 28, |x, y| image::Luma([level(x, y)]));
        image.save(folder.join(name)).unwrap();
    };
    image("drawing.png", &|x, _| if (13..16).contains(&x) { 255 } else { 0 });
    image("mask.png", &|_, y| if y < 14 { 0 } else { 255 });
    for line in [
        "train --preset quick --data small --epochs 1 -q -o trained",
        "sample --model trained/model --per-class 1 -q -o samples.safetensors",
        "export --data small --split train --to npz -q -o train.npz",
    ] {
        run(folder, &line.split(' ').collect::<Vec<_>>());
    }
    fs::rename(folder.join("trained/model"), folder.join("mine")).unwrap();
    let net = root().join("crates/ddpm-eval/assets/mnist-features");
    fs::create_dir(folder.join("net")).unwrap();
    for file in fs::read_dir(net).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&file, folder.join("net").join(file.file_name().unwrap())).unwrap();
    }
}

/// A command in its small form; `None` if it is not one of this program.
fn smaller(command: &str, used: &mut [bool]) -> Option<String> {
    let command = command.replace("cargo run --release -p ddpm-cli -- ", "ddpm-cli ");
    let command = command.trim();
    // `serve` does not end by itself, and there may be no GPU.
    let is_left_out =
        ["hf://", "…", "ddpm-cli serve", "--device cuda"].iter().any(|part| command.contains(part));
    if !command.starts_with("ddpm-cli ") || is_left_out {
        return None;
    }
    let mut small = command.to_owned();
    for ((part, other), used) in std::iter::zip(SMALLER, used) {
        if small.contains(part) {
            (small, *used) = (small.replace(part, other), true);
        }
    }
    for (start, unless, more) in ADDED {
        if small.starts_with(start) && !small.split(' ').any(|word| word == unless) {
            small = format!("{small} {more}");
        }
    }
    if small.starts_with("ddpm-cli train ")
        && !small.contains("--print-config")
        && !small.contains("--resume")
    {
        small += " --overwrite";
    }
    Some(small)
}

#[test]
fn every_command_of_the_documents_and_the_help_runs() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write_inputs(path);
    let (mut used, mut count) = ([false; SMALLER.len()], 0);
    for (document, lines) in documents(path) {
        for line in lines {
            // Comments, and commands in a row.
            let line = line.split(" #").next().unwrap_or_default();
            for command in line.split("&&") {
                let (command, redirected) = match command.split_once(" > ") {
                    Some((command, file)) => (command, Some(file.trim())),
                    None => (command, None),
                };
                let Some(small) = smaller(command, &mut used) else { continue };
                let words: Vec<&str> = small.split_whitespace().skip(1).collect();
                if let ["export" | "import", .., "-o", out] = words.as_slice() {
                    // These commands want a new folder, which another one in the documents may have made.
                    fs::remove_dir_all(path.join(out)).ok();
                }
                let output = ddpm(path, &words).output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{document}: {command}\n{small}\n{error}");
                if let Some(file) = redirected {
                    fs::write(path.join(file), &output.stdout).unwrap();
                }
                count += 1;
            }
        }
    }
    assert!(count > 40, "{count}");
    for ((part, _), used) in std::iter::zip(SMALLER, used) {
        assert!(used, "no document has `{part}`");
    }
}

//! What a push adds to the repository.

use std::{collections::BTreeMap, fs, path::Path, time::SystemTime};

use serde_json::Value;

use super::{
    run_online,
    server::{Entry, MockHub},
    with_run,
};
use crate::{json, run, stdout};

const ID: &str = "me/digits";
const MODEL: [&str; 4] = [
    "denoiser/config.json",
    "denoiser/diffusion_pytorch_model.safetensors",
    "model_index.json",
    "scheduler/scheduler_config.json",
];

pub(super) fn files(server: &MockHub, branch: &str) -> BTreeMap<String, Entry> {
    server.newest(ID, branch).unwrap().1
}

fn card(server: &MockHub) -> String {
    String::from_utf8(files(server, "main")["README.md"].bytes.clone()).unwrap()
}

fn push(server: &MockHub, folder: &Path, options: &[&str]) -> String {
    stdout(&run_online(server, folder, &[&["push", "run", "hf://me/digits"], options].concat()))
}

#[test]
fn a_run_becomes_a_repository_with_its_model_a_card_and_a_picture() {
    let (server, folder) = (MockHub::start(), with_run());
    let told: Value =
        serde_json::from_str(&push(&server, folder.path(), &["--json", "--license", "MIT"])).unwrap();
    let files = files(&server, "main");
    let expected = [&[".gitattributes", "README.md"], &MODEL[..3], &["samples.png"], &MODEL[3..]].concat();
    assert!(files.keys().eq(&expected), "{:?}", files.keys());
    for name in MODEL {
        let local = fs::read(folder.path().join("run/model").join(name)).unwrap();
        assert!(files[name].bytes == local, "{name}");
    }
    let url = format!("{}/me/digits", server.config().endpoint);
    assert_eq!((&told["url"], &told["address"]), (&url.into(), &"hf://me/digits".into()));
    assert_eq!(told["files"].as_array().unwrap().len(), 6);
    let bytes: usize = files.values().map(|entry| entry.bytes.len()).sum();
    assert_eq!(told["bytes"], bytes - files[".gitattributes"].bytes.len());
    assert_eq!(told["commit"].as_str().unwrap().len(), 40);

    let card = card(&server);
    let header = "---\nlicense: mit\nlibrary_name: ddpm\ntags:\n- ddpm\n- diffusion\n- image-generation\n- class-conditional\n---\n\n\
                  # Denoising diffusion model of data\n\n![";
    assert!(card.starts_with(header), "{card}");
    for part in [
        "](samples.png)\n",
        "| training images | 96 of data |\n",
        "| training loss, test loss | 0.",
        "ddpm-cli sample --model hf://me/digits\n",
        "ddpm-cli train --config config.toml --data DATA\n",
        "```toml\n# The data set, as --data has it\ndata = \"data\"\n# The seed of initial",
        "`mit`, for the weights",
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
    assert!(!card.contains("## Metrics") && !card.contains("--model DIR"), "{card}");

    // The configuration in the card is the one of the run.
    let toml = card.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    fs::write(folder.path().join("from-card.toml"), toml).unwrap();
    let args = ["train", "--data", "data", "--config", "from-card.toml", "--out-dir", "again", "-q"];
    run(folder.path(), &args);
    let weights = "model/denoiser/diffusion_pytorch_model.safetensors";
    let read = |run: &str| fs::read(folder.path().join(run).join(weights)).unwrap();
    assert!(read("run") == read("again"));
}

#[test]
fn the_picture_is_what_sample_draws_with_the_pushed_model() {
    let (server, folder) = (MockHub::start(), with_run());
    push(&server, folder.path(), &["--seed", "3"]);
    let args = ["sample", "--model", "hf://me/digits", "--seed", "3", "-o", "drawn.png"];
    run_online(&server, folder.path(), &args);
    let picture = &files(&server, "main")["samples.png"].bytes;
    assert!(fs::read(folder.path().join("drawn.png")).unwrap() == *picture);
    fs::write(folder.path().join("pushed.png"), picture).unwrap();
    let recipe = json(folder.path(), &["info", "pushed.png"]);
    assert!(recipe["command"].as_str().unwrap().starts_with("ddpm-cli sample --model hf://me/digits "));
}

#[test]
fn a_second_push_has_nothing_to_do_and_a_changed_card_is_one_file() {
    let (server, folder) = (MockHub::start(), with_run());
    let first = push(&server, folder.path(), &[]);
    assert!(first.contains("/me/digits: 6 of 6 files, "), "{first}");
    let before = (server.newest(ID, "main"), server.counts(ID));
    let again = push(&server, folder.path(), &[]);
    assert!(again.contains("nothing to do"), "{again}");
    let told: Value = serde_json::from_str(&push(&server, folder.path(), &["--json"])).unwrap();
    assert_eq!((&told["files"], &told["bytes"]), (&Value::Array(Vec::new()), &0.into()));
    assert_eq!((server.newest(ID, "main"), server.counts(ID)), before);
    let third = push(&server, folder.path(), &["--license", "cc-by-4.0", "--message", "Name the licence"]);
    assert!(third.contains(": 1 of 6 files, "), "{third}");
    assert_eq!(server.newest(ID, "main").unwrap().0, "Name the licence");
    assert!(card(&server).starts_with("---\nlicense: cc-by-4.0\n"));
}

#[test]
fn the_card_has_the_metrics_of_eval_unless_they_are_of_older_weights() {
    let (server, folder) = (MockHub::start(), with_run());
    let eval = [
        "eval",
        "--model",
        "run/model",
        "--data",
        "data",
        "--features",
        "net",
        "-n",
        "12",
        "-o",
        "run/eval",
        "-q",
    ];
    run(folder.path(), &eval);
    push(&server, folder.path(), &[]);
    let with_metrics = card(&server);
    let expected =
        "## Metrics\n\n`ddpm-cli eval --model hf://me/digits --data data --num-images 12 --features net";
    assert!(with_metrics.contains(expected), "{with_metrics}");
    assert!(
        with_metrics.contains("\n| metric | generated images | real test images | ratio |\n"),
        "{with_metrics}"
    );
    let quality = fs::File::options().append(true).open(folder.path().join("run/eval/quality.md")).unwrap();
    quality.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let assert = run_online(&server, folder.path(), &["push", "run", "hf://me/digits"]);
    let warning = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(warning.contains("quality.md is older than the weights"), "{warning}");
    assert!(!card(&server).contains("## Metrics"));
}

#[test]
fn a_card_with_a_header_is_pushed_as_it_is() {
    let (server, folder) = (MockHub::start(), with_run());
    let own = "---\nlicense: mit\n---\n# Mine\n";
    fs::write(folder.path().join("run/model/README.md"), own).unwrap();
    push(&server, folder.path(), &[]);
    assert_eq!(card(&server), own);
    // Without a card, the model is described.
    fs::remove_file(folder.path().join("run/model/README.md")).unwrap();
    push(&server, folder.path(), &[]);
    let card = card(&server);
    assert!(card.contains("# Denoising diffusion model\n\n![") && card.contains("8×8 pixels"), "{card}");
    assert!(card.contains("The author has named none."), "{card}");
}

/// A guide and other initial weights are rows of the folder's card.
#[test]
fn the_command_of_the_training_names_the_guide_and_is_left_out_where_it_would_be_wrong() {
    let (server, folder) = (MockHub::start(), with_run());
    let path = folder.path().join("run/model/README.md");
    let own = fs::read_to_string(&path).unwrap();
    for (row, expected) in [
        (
            "| guide | weak/model |\n",
            Some("ddpm-cli train --config config.toml --data DATA --guide weak/model\n"),
        ),
        (
            "| guide | /home/me/weak |\n",
            Some("ddpm-cli train --config config.toml --data DATA --guide weak\n"),
        ),
        ("| starts from the weights of | runs/old/model |\n", None),
    ] {
        fs::write(&path, own.replace("| seed |", &format!("{row}| seed |"))).unwrap();
        push(&server, folder.path(), &[]);
        let card = card(&server);
        assert!(expected.is_none_or(|expected| card.contains(expected)), "{card}");
        assert_eq!(card.contains("## Train it again"), expected.is_some(), "{card}");
        assert!(!card.contains("/home"), "{card}");
    }
}

#[test]
fn a_branch_and_a_private_repository_are_made_on_demand() {
    let (server, folder) = (MockHub::start(), with_run());
    push(&server, folder.path(), &["--private", "--revision", "v2"]);
    assert!(server.counts(ID).unwrap().2);
    assert_eq!((files(&server, "main").len(), files(&server, "v2").len()), (1, 7));
    let card = String::from_utf8(files(&server, "v2")["README.md"].bytes.clone()).unwrap();
    assert!(card.contains("ddpm-cli sample --model hf://me/digits@v2\n"), "{card}");
}

#[test]
fn a_dry_run_lists_all_files_and_sends_nothing() {
    let (server, folder) = (MockHub::start(), with_run());
    let args = ["push", "run", "hf://me/digits", "--dry-run"];
    let listed = stdout(&run_online(&server, folder.path(), &args));
    for name in ["README.md", "samples.png"].iter().chain(&MODEL) {
        assert!(listed.lines().any(|line| line.ends_with(&format!("  {name}"))), "{name}: {listed}");
    }
    // The helper of other tests: offline and without a token.
    let told = json(folder.path(), &args);
    assert_eq!((&told["dry_run"], told["files"].as_array().unwrap().len()), (&true.into(), 6));
    let sum: u64 = told["files"].as_array().unwrap().iter().map(|file| file["bytes"].as_u64().unwrap()).sum();
    assert_eq!(told["bytes"], sum);
    let assert = run_online(&server, folder.path(), &[&args[..], &["-v"]].concat());
    let shown = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(shown.contains("# Denoising diffusion model of data"), "{shown}");
    assert!(server.take_requests().is_empty());
}

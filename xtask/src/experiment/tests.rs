//! Tests of the whole job, with the real `ddpm-cli`.

use super::*;
use crate::tests::{ddpm, ddpm_error, json, names, parse, root, started};

/// Runs `cargo xtask experiment WORDS` in `root`, after the build.
fn experiment(root: &Path, words: &[&str]) -> Result<String> {
    let arguments = parse(words)?;
    let workspace = Workspace::at(root);
    let experiment = read(&arguments, &workspace)?;
    measure(&arguments, &experiment, started(&workspace))
}

fn write(root: &Path, text: &str) {
    fs::create_dir_all(root.join("experiments")).unwrap();
    fs::write(root.join("experiments/tiny.toml"), text).unwrap();
}

/// An experiment with rows for a trained model and for the built-in one.
const TINY: &str = r#"
title = "Tiny"
text = "How to read it."
data = "data"
measure = [
  { name = "likelihood", command = "likelihood --num-images 4", optional = true },
  { name = "eval", command = "eval --features net --num-images 10 --metrics accuracy" },
]
columns = [
  { heading = "epochs", pointer = "/train/epochs", digits = 0 },
  { heading = "accuracy", pointer = "/eval/class_accuracy", floor = "/eval/real_accuracy", digits = 1, percent = true },
  { heading = "bits", pointer = "/likelihood/bound/optimal/total_bits_per_dim/mean", error = "/likelihood/bound/optimal/total_bits_per_dim/standard_error", digits = 2 },
]
rows = [
  { name = "two", train = "--preset quick --epochs 2" },
  { name = "built-in", eval = "--steps 5" },
  { name = "optimal", likelihood = "", eval = "--variance {likelihood:/optimal_variances}" },
]
"#;

fn tiny() -> tempfile::TempDir {
    let root = root(true);
    ddpm(root.path(), "train-features --data data --epochs 1 -o net");
    write(root.path(), TINY);
    root
}

/// The experiments of this repository on a tiny data set: every argument and every pointer in them fits the real
/// program. The numbers of images and epochs are smaller, and of the rows that train one does.
#[test]
fn every_experiment_runs() {
    let root = tiny();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments");
    let files = names(&source);
    assert!(files.len() >= 3);
    std::thread::scope(|scope| {
        for file in files {
            let text = fs::read_to_string(source.join(&file)).unwrap();
            let root = root.path();
            scope.spawn(move || runs(root, file.strip_suffix(".toml").unwrap(), &text));
        }
    });
}

fn runs(root: &Path, name: &str, text: &str) {
    let mut small = format!("data = \"data\"\n{text}");
    for (from, to) in [
        ("rounds = 5\n", ""),
        ("--epochs 4", "--epochs 1"),
        ("\"eval --num-images", "\"eval --features net --num-images"),
    ] {
        small = small.replace(from, to);
    }
    if text.contains("\nminutes = 0.5\n") {
        small = small.replace("\nminutes = 0.5\n", "\n").replace("train = \"", "train = \"--epochs 1 ");
    }
    // Ten images in place of hundreds or thousands, or the fewest with a Fréchet distance.
    let fewer = small.split(' ').map(|word| {
        let after = word.trim_start_matches(|c: char| c.is_ascii_digit());
        if word.len() - after.len() >= 3 { format!("10{after}") } else { word.to_owned() }
    });
    let small = fewer.collect::<Vec<_>>().join(" ");
    let small = small.replace("10 --metrics frechet", "129 --metrics frechet");
    fs::write(root.join("experiments").join(format!("{name}.toml")), small).unwrap();

    let arguments = parse(&[name]).unwrap();
    let workspace = Workspace::at(root);
    let mut experiment = read(&arguments, &workspace).unwrap();
    // One model is enough to try the pointers. Of the others the arguments of `train` are tried: without a
    // checkpoint, --resume ends it after it has checked them.
    let mut index = 0..;
    let (run, trained): (Vec<_>, _) =
        experiment.rows.drain(..).partition(|row| row.train.is_none() || index.next() == Some(0));
    experiment.rows = run;
    for row in trained {
        let words = row.train.unwrap();
        let error = ddpm_error(root, &format!("train --data data --resume -o runs/none {words}"));
        assert!(error.contains("no complete checkpoint to resume from"), "{}: {error}", row.name);
    }
    measure(&arguments, &experiment, started(&workspace)).unwrap();

    let results = root.join("results");
    let table = fs::read_to_string(results.join(format!("{name}.md"))).unwrap();
    let json = json(&results.join(format!("{name}.json")));
    let rows = json["rows"].as_array().unwrap();
    for row in rows {
        let row = row["row"]["name"].as_str().unwrap();
        assert!(table.contains(&format!("| `{row}` |")), "{row}: {table}");
    }
    let lines: Vec<_> = table.lines().filter(|line| line.starts_with("| ")).collect();
    let floors = usize::from(text.contains("floor = "));
    assert_eq!(lines.len(), 2 + rows.len() + floors, "heading, rule, rows and floors: {table}");
    let cells = |line: &str| line.split(" | ").count();
    assert!(lines.iter().all(|line| cells(line) == cells(lines[0])), "{table}");
}

#[test]
fn a_table_has_a_cell_for_each_row_and_column() {
    let root = tiny();
    let summary = experiment(root.path(), &["tiny", "--seed", "3"]).unwrap();
    let results = root.path().join("results");
    assert_eq!(names(&results), ["tiny.json", "tiny.md"]);
    let table = fs::read_to_string(results.join("tiny.md")).unwrap();
    assert!(summary.starts_with(&table) && summary.ends_with(": results/tiny.md"), "{summary}");

    let json = json(&results.join("tiny.json"));
    let outputs = |row: usize| &json["rows"][row]["rounds"][0];
    let accuracy = |row: usize| outputs(row)["eval"]["output"]["class_accuracy"].as_f64().unwrap() * 100.0;
    let bits = &outputs(2)["likelihood"]["output"]["bound"]["optimal"]["total_bits_per_dim"];
    let (mean, error) = (bits["mean"].as_f64().unwrap(), bits["standard_error"].as_f64().unwrap());
    let real = outputs(0)["eval"]["output"]["real_accuracy"].as_f64().unwrap() * 100.0;
    for line in [
        "| row | arguments | epochs | accuracy | bits |".to_owned(),
        format!("| `two` | `train --preset quick --epochs 2` | 2 | {:.1} % | – |", accuracy(0)),
        format!("| `built-in` | `eval --steps 5` | – | {:.1} % | – |", accuracy(1)),
        format!(
            "| `optimal` | `eval --variance {{likelihood:/optimal_variances}}`, `likelihood` | – | {:.1} % | {mean:.2} ± {error:.2} |",
            accuracy(2)
        ),
        format!("| real test images |  |  | {real:.1} % |  |"),
    ] {
        assert!(table.lines().any(|found| found == line), "{line} is not in:\n{table}");
    }

    assert!(outputs(1).get("likelihood").is_none(), "optional");
    let command = |name: &str, row: usize| outputs(row)[name]["command"].as_str().unwrap();
    assert_eq!(
        command("eval", 0),
        "ddpm-cli eval --features net --num-images 10 --metrics accuracy --model \
         runs/experiments/tiny/models/two/model --data data --seed 3 --json"
    );
    let variances = outputs(2)["likelihood"]["output"]["optimal_variances"].as_array().unwrap();
    let variances: Vec<_> = variances.iter().map(Value::to_string).collect();
    assert!(command("eval", 2).contains(&format!(" --variance {} ", variances.join(","))));
}

#[test]
fn rounds_run_in_turn_and_medians_are_shown() {
    let root = tiny();
    let text = r#"
title = "Time"
text = ""
rounds = 3
measure = [{ name = "sample", command = "sample -n 1 --steps 2 --guidance-scale 1 -o runs/picture.png" }]
columns = [{ heading = "ms", pointer = "/sample/seconds", divide_by = 0.001, digits = 3 }]
rows = [{ name = "a" }, { name = "b", sample = "--sampler ddim" }]
"#;
    write(root.path(), text);
    let table = experiment(root.path(), &["tiny"]).unwrap();
    let json = json(&root.path().join("results/tiny.json"));
    let phases: Vec<_> = json["phases"].as_array().unwrap().iter().map(|it| &it["phase"]).collect();
    assert_eq!(phases, ["sample of a", "sample of b"].repeat(3));
    for row in [0, 1] {
        let rounds = json["rows"][row]["rounds"].as_array().unwrap();
        let mut times: Vec<_> =
            rounds.iter().map(|it| it["sample"]["output"]["seconds"].as_f64().unwrap()).collect();
        times.sort_by(f64::total_cmp);
        assert!(table.contains(&format!(" | {:.3} |\n", times[1] * 1000.0)), "{times:?}: {table}");
    }
}

#[test]
fn the_time_of_one_epoch_determines_the_epochs() {
    let root = tiny();
    let text = TINY.replace("title", "minutes = 1\ntitle").replace(" --epochs 2", "");
    write(root.path(), &text);
    // The time is too short for more than one epoch.
    experiment(root.path(), &["tiny", "--row", "two", "--minutes", "1e-9"]).unwrap();
    let json = json(&root.path().join("runs/experiments/tiny/results/tiny.json"));
    let training = &json["rows"][0]["rounds"][0]["train"];
    assert!(training["command"].as_str().unwrap().contains(" --preset quick --epochs 1 "), "{training}");
    let phases: Vec<_> = json["phases"].as_array().unwrap().iter().map(|it| &it["phase"]).collect();
    assert_eq!(phases, ["train two, one epoch", "train two", "eval of two"]);
    assert!(
        !root.path().join("results").exists(),
        "the results of single rows do not replace the full results"
    );
}

#[test]
fn an_interrupted_run_is_resumed() {
    let root = tiny();
    let text = TINY.replace(r#"eval = "--steps 5""#, r#"eval = "--steps 5000""#);
    write(root.path(), &text);
    let error = experiment(root.path(), &["tiny"]).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.starts_with("the phase \"eval of built-in\" failed: `ddpm-cli eval "), "{message}");
    assert_eq!(process::exit_code(&error), 1.into());
    assert!(!root.path().join("results").exists());

    // The first row is not measured again: its model was deleted and is not trained again.
    fs::remove_dir_all(root.path().join("runs/experiments/tiny/models")).unwrap();
    write(root.path(), TINY);
    experiment(root.path(), &["tiny", "--resume"]).unwrap();
    let phases = |folder: &str| json(&root.path().join(folder).join("tiny.json"))["phases"].clone();
    let names = |phases: Value| -> Vec<String> {
        phases.as_array().unwrap().iter().map(|it| it["phase"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(phases("results")), ["eval of built-in", "likelihood of optimal", "eval of optimal"]);
    assert!(!root.path().join("runs/experiments/tiny/models").exists());

    // With other arguments, or without --resume, rows are measured again.
    for words in
        [&["tiny", "--row", "built-in", "--resume", "--seed", "2"][..], &["tiny", "--row", "built-in"]]
    {
        experiment(root.path(), words).unwrap();
        assert_eq!(names(phases("runs/experiments/tiny/results")), ["eval of built-in"], "{words:?}");
    }
}

#[test]
fn a_missing_pointer_names_column_row_and_pointer() {
    let root = tiny();
    fs::create_dir(root.path().join("results")).unwrap();
    fs::write(root.path().join("results/tiny.md"), "old").unwrap();
    write(root.path(), &TINY.replace("/eval/class_accuracy", "/eval/accuracy/all"));
    let message = format!("{:#}", experiment(root.path(), &["tiny", "--row", "built-in"]).unwrap_err());
    assert!(message.starts_with("column \"accuracy\" of row \"built-in\": `ddpm-cli eval "), "{message}");
    assert!(
        message.contains(" printed no /accuracy/all; /accuracy holds: by_class, floor, overall"),
        "{message}"
    );
    assert_eq!(fs::read_to_string(root.path().join("results/tiny.md")).unwrap(), "old");
}

#[test]
fn a_file_that_is_not_as_expected_is_refused_by_file_and_key() {
    let root = root(true);
    for (from, to, expected) in [
        ("title = \"Tiny\"", "", "missing field `title`"),
        ("title", "tilte = 1\ntitle", "unknown field `tilte`"),
        ("digits = 0", "digits = 0, colour = 1", "unknown field `colour`"),
        ("optional", "optionally", "unknown field `optionally`"),
        ("eval = \"--steps 5\"", "evil = \"--steps 5\"", "unknown key `evil` in \"built-in\""),
        ("digits = 0", "digits = \"0\"", "expected usize"),
        ("name = \"two\"", "name = \"built-in\"", "rows: the name \"built-in\" occurs twice"),
        (
            "name = \"two\"",
            "name = \"../two\"",
            "rows: the name \"../two\" has other characters than letters",
        ),
        ("name = \"eval\"", "name = \"train\"", "unknown key `eval`"),
        ("title", "rounds = 0\ntitle", "rounds is 0, expected 1 to 100"),
        ("title", "minutes = nan\ntitle", "minutes is NaN, expected a number above 0"),
        (
            "/eval/real_accuracy",
            "/evil/real",
            "floor of \"accuracy\" is /evil/real, expected / and one of eval,",
        ),
        (
            "{likelihood:",
            "{other:",
            "eval of \"optimal\": other is not measured, expected one of eval, likelihood",
        ),
        ("{likelihood:", "{", "expected {NAME:/POINTER} after {"),
    ] {
        assert!(TINY.contains(from), "{from}");
        write(root.path(), &TINY.replacen(from, to, 1));
        let message = format!("{:#}", experiment(root.path(), &["tiny"]).unwrap_err());
        assert!(message.contains(expected), "{expected} is not in: {message}");
        assert!(message.contains("experiments/tiny.toml"), "{message}");
    }
    write(root.path(), TINY);
    for (words, expected) in [
        (
            &["tiny", "--row", "three"][..],
            "--row three: tiny has no such row, expected one of two, built-in, optimal",
        ),
        (&["tiny", "--minutes", "1"], "--minutes: tiny does not train for a given time"),
        (&["../tiny"], "\"../tiny\" is not the name of an experiment"),
        (&["other"], "experiments/other.toml"),
    ] {
        let message = format!("{:#}", experiment(root.path(), words).unwrap_err());
        assert!(message.contains(expected), "{expected} is not in: {message}");
    }
    assert!(!root.path().join("runs").exists(), "no command ran");
}

//! Completions, manual pages and suggestions.

use std::fs;

use tempfile::tempdir;

use crate::{fail, names, run, stdout};

#[test]
fn completions_have_every_command_and_are_accepted_by_the_shell() {
    let folder = tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = stdout(&run(folder.path(), &["completions", shell]));
        for part in ["train-features", "guidance-scale", "dpmpp-2m-sde"] {
            assert!(text.contains(part), "{shell}: {part}");
        }
        if shell == "bash" {
            fs::write(folder.path().join("complete"), text).unwrap();
        }
    }
    // What bash offers after `ddpm-cli sample --sampler d`.
    let script = ". ./complete; COMP_WORDS=(ddpm-cli sample --sampler d); COMP_CWORD=3; \
                  $(complete -p ddpm-cli | sed 's/.*-F \\([^ ]*\\).*/\\1/') ddpm-cli d --sampler; \
                  echo \"${COMPREPLY[@]}\"";
    let Ok(output) =
        std::process::Command::new("bash").args(["-c", script]).current_dir(folder.path()).output()
    else {
        return;
    };
    let offered = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        offered.trim(),
        "ddpm ddim dpmpp-2m dpmpp-2m-sde",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn there_is_a_page_for_each_command_with_its_examples() {
    let folder = tempdir().unwrap();
    run(folder.path(), &["man", "pages"]);
    let pages = names(&folder.path().join("pages"));
    for page in ["ddpm-cli.1", "ddpm-cli-sample.1", "ddpm-cli-train-features.1", "ddpm-cli-report.1"] {
        assert!(pages.iter().any(|name| name == page), "{page}: {pages:?}");
    }
    assert!(!pages.iter().any(|name| name.contains("help")), "{pages:?}");
    let page = fs::read_to_string(folder.path().join("pages/ddpm-cli-sample.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains("Examples") && page.contains("denoising.gif"), "{page}");
}

#[test]
fn a_mistyped_command_option_or_value_gets_a_suggestion() {
    let folder = tempdir().unwrap();
    for (words, suggestion) in [
        (&["sampel"][..], "sample"),
        (&["sample", "--sampler", "dimm"], "ddim"),
        (&["sample", "--guidance-scal", "2"], "--guidance-scale"),
        (&["train", "--preset", "bset"], "best"),
        (&["eval", "--metrics", "frechett"], "frechet"),
    ] {
        let error = fail(folder.path(), 2, words);
        assert!(error.contains("similar") && error.contains(suggestion), "{words:?}: {error}");
    }
    let error = fail(folder.path(), 1, &["train", "--set", "learning_rates=1", "-o", "run"]);
    assert!(error.contains("did you mean `learning_rate`?"), "{error}");
}

//! The examples in the help of each command.

/// The examples of a command, as they are typed.
fn of(command: &str) -> &'static [&'static str] {
    match command {
        "sample" => &[
            "ddpm-cli sample --classes 3,5,7 --per-class 8 -o three.png",
            "ddpm-cli sample -o denoising.gif",
            "ddpm-cli sample --strip reverse --per-class 1 -o steps.png",
            "ddpm-cli sample --interpolate 3 --per-class 4 -o between.png",
            "ddpm-cli sample --like three.png --steps 10 -o fewer.png",
            "ddpm-cli sample -n 60000 --format idx -o synthetic/train",
            "ddpm-cli sample -n 60000 --format idx --shard-index 0 --shards 2 --skip-verified -o parts/part-0",
        ],
        "train" => &[
            "ddpm-cli train --preset quick -o runs/mine",
            "ddpm-cli train --preset quick -o runs/mine --resume",
            "ddpm-cli train --print-config best",
            "ddpm-cli train --config runs/mine/config.toml --seed 2 -o runs/other",
        ],
        "average" => &[
            "ddpm-cli train --preset quick --set ema_snapshots=32 -o runs/snapshots",
            "ddpm-cli average runs/snapshots --sigma-rel 0.1 -o runs/averaged",
        ],
        "eval" => &[
            "ddpm-cli eval -n 2000",
            "ddpm-cli eval --model runs/mine/model -o runs/mine/eval",
            "ddpm-cli eval --images generated/ --metrics frechet,manifold",
        ],
        "likelihood" => &["ddpm-cli likelihood -n 100"],
        "classify" => &["ddpm-cli classify -n 100 --num-noise 5"],
        "fit-plan" => &["ddpm-cli fit-plan --steps 5", "ddpm-cli sample --plan plan.json"],
        "train-features" => &["ddpm-cli train-features --data my-images -o my-features"],
        "data" => &["ddpm-cli data -o mnist.png"],
        "export" => &[
            "ddpm-cli export --to png-folder --split test -o digits",
            "ddpm-cli export --to npz -o mnist-npz",
        ],
        "import" => &["ddpm-cli import digits --test digits -o my-digits"],
        "merge" => &["ddpm-cli merge parts -o synthetic/train"],
        "info" => &["ddpm-cli info", "ddpm-cli info three.png"],
        "bench" => &["ddpm-cli bench --only sample-50 --rounds 3"],
        "serve" => &["ddpm-cli serve", "ddpm-cli serve --run runs/mine --listen 127.0.0.1:8080"],
        "report" => &["ddpm-cli report runs/mine", "ddpm-cli report runs/mine --num-images 0 -o short.html"],
        "push" => {
            &["ddpm-cli push runs/mine hf://OWNER/NAME --dry-run", "ddpm-cli push runs/mine hf://OWNER/NAME"]
        }
        "pull" => &["ddpm-cli pull hf://OWNER/NAME -o models/name"],
        "doctor" => &["ddpm-cli doctor"],
        "completions" => &["ddpm-cli completions bash"],
        "man" => &["ddpm-cli man man1"],
        _ => &[],
    }
}

/// Adds the examples to the help of each command.
pub(super) fn add_to(mut command: clap::Command) -> clap::Command {
    for subcommand in command.get_subcommands_mut() {
        let examples: String = of(subcommand.get_name()).iter().map(|line| format!("\n  {line}")).collect();
        *subcommand = subcommand.clone().after_help(format!("Examples:{examples}"));
    }
    command
}

//! The comparison of devices, with a CPU on both sides.

use super::Arguments;
use super::compare::{Compared, Devices, Kind, SAMPLERS, Tolerance};
use super::run::{check, gpu, markdown};
use crate::phases::Phases;
use crate::process::Lacking;
use crate::provenance::Provenance;
use crate::rows::Row;
use crate::tests::{ddpm_error, parse, root, started};
use crate::workspace::Workspace;

fn compared(cpu: f64, gpu: f64, limit: f64, kind: Kind) -> Compared {
    let tolerance = Tolerance { limit, kind, reason: "sums in another order" };
    Compared { quantity: "loss".into(), command: "ddpm-cli train".into(), cpu, gpu, tolerance }
}

/// On both sides stands a CPU, where the same command gives the same bits; half precision does not, and has its tolerance.
#[test]
fn a_cpu_compares_with_itself() {
    let folder = root(true);
    let workspace = Workspace::at(folder.path());
    let started = started(&workspace);
    let devices = Devices {
        workspace: &workspace,
        binary: &started.binary,
        device: "cpu",
        data: "data",
        folder: "run",
        sampled: 2,
        measured: 130,
        test_images: 4,
        batch_size: 65,
    };
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let [samplers, training, likelihood, features] =
        [devices.samplers(), devices.training(), devices.likelihood(), devices.features()]
            .map(Result::unwrap);
    assert_eq!((samplers.len(), likelihood.len()), (SAMPLERS.len(), 1));
    assert!(training.len() >= 2 && features.len() == 3, "{training:?} {features:?}");
    for one in samplers.iter().chain(&training).chain(&likelihood).chain(&features) {
        assert_eq!(one.cpu, one.gpu, "{one:?}");
    }
    let half = devices.half_precision().unwrap();
    assert!(half.len() == 4 && half.iter().any(|one| one.cpu != one.gpu), "{half:?}");
}

#[test]
fn every_sampler_of_the_program_is_compared() {
    let folder = root(true);
    let error = ddpm_error(folder.path(), "sample --sampler no-such-sampler");
    let line = error.lines().find_map(|line| line.trim().strip_prefix("[possible values: ")).unwrap();
    let mut known: Vec<_> = line.trim_end_matches(']').split(", ").collect();
    let mut compared = SAMPLERS.to_vec();
    known.sort_unstable();
    compared.sort_unstable();
    assert_eq!(compared, known);
}

#[test]
fn a_difference_over_the_tolerance_fails_and_names_the_command() {
    let within = [
        compared(2.0, 2.01, 0.0101, Kind::Absolute),
        compared(-200.0, -201.9, 0.01, Kind::Relative),
        compared(0.0, 0.0, 0.0, Kind::Absolute),
    ];
    check(&within).unwrap();
    for (cpu, gpu, limit, kind) in [
        (2.0, 2.02, 0.01, Kind::Absolute),
        (200.0, 202.1, 0.01, Kind::Relative),
        (1.0, f64::NAN, 0.5, Kind::Absolute),
        (f64::NAN, 1.0, 0.5, Kind::Relative),
        (1.0, f64::INFINITY, 0.5, Kind::Relative),
    ] {
        let error = check(&[within[0].clone(), compared(cpu, gpu, limit, kind)]).unwrap_err().to_string();
        assert!(error.starts_with("1 of 2 comparisons failed"), "{error}");
        assert!(error.contains(&format!("loss: {gpu} on the GPU and {cpu} on the CPU")), "{error}");
        assert!(error.contains("`ddpm-cli train`") && error.contains("sums in another order"), "{error}");
    }
}

#[test]
fn without_a_gpu_the_job_says_so() {
    for program in ["no-such-program", "false", "true"] {
        let error = gpu(program).unwrap_err();
        assert!(error.downcast_ref::<Lacking>().is_some());
        assert!(
            error.to_string().starts_with(&format!("no GPU on this machine: `{program} --query-gpu")),
            "{error}"
        );
    }
    assert!(gpu("echo").unwrap().contains("--query-gpu"), "the first line of the output");
}

#[test]
fn the_document_has_every_comparison_and_every_speed() {
    let workspace = Workspace::of_this_build().unwrap();
    let provenance = Provenance::of_this_process(&workspace, 1);
    let speed = [Row { claim: "training".into(), measure: "10".into(), result: "1.5 × PyTorch".into() }];
    let compared = [compared(2.0, 2.5, 0.5, Kind::Absolute), compared(4.0, 4.0, 0.01, Kind::Relative)];
    let text = markdown(&provenance, &Phases::start(), "Some GPU, 580.1", &compared, &speed);
    assert!(text.contains("- GPU: Some GPU, 580.1"), "{text}");
    assert!(text.contains(
        "| loss | `ddpm-cli train` | 2.00000 | 2.50000 | 5.00e-1 | 0.5: sums in another order |\n"
    ));
    assert!(
        text.contains("| 1 %: sums in another order |\n")
            && text.ends_with("| training | 10 | 1.5 × PyTorch |\n")
    );
}

#[test]
fn the_checks_exclude_each_other() {
    let parse = parse::<Arguments>;
    for words in [
        &["--lint", "--trace"][..],
        &["--trace", "--run"],
        &["--trace", "--python", "x"],
        &["--peer-python", "x"],
    ] {
        assert!(parse(words).is_err(), "{words:?}");
    }
    for words in [&[][..], &["--lint"], &["--trace"], &["--python", "x"], &["--run", "--peer-python", "x"]] {
        parse(words).unwrap();
    }
}

/// The stand-in for the compiler, with the calls of the build script of candle-kernels.
#[cfg(unix)]
#[test]
fn the_stand_in_writes_empty_kernels() {
    let nvcc = Workspace::of_this_build().unwrap().root().join("interop/cuda/nvcc");
    let folder = tempfile::tempdir().unwrap();
    let call = |line: &str| {
        let mut command = std::process::Command::new(&nvcc);
        let output = command.current_dir(folder.path()).args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "{line}");
        String::from_utf8(output.stdout).unwrap()
    };
    let written = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(call("--version").contains("release 13.0"));
    std::fs::create_dir(folder.path().join("out")).unwrap();
    call("-gencode=arch=compute_81,code=sm_81 --ptx --output-directory out -O3 src/affine.cu");
    call("-c -o out/a.o -O3 src/moe.cu");
    call("--lib -o out/libmoe.a out/a.o");
    assert_eq!([written("out/affine.ptx"), written("out/a.o")], [b"", b""]);
    assert_eq!(written("out/libmoe.a"), b"!<arch>\n");
}

//! Failed pushes: what the error says, what is repeated, and that the branch keeps its content.

use std::error::Error as _;
use std::time::Duration;

use ddpm_data::{Error, HubConfig, push_model};

use super::push::{ID, address, config, file, files, options, push};
use super::server::{MockHub, PushFault, TOKEN};
use crate::check_causes;

/// A part of the method and path of each request, what its error names, and whether the request may come twice.
const STEPS: [(&str, &str, bool); 7] = [
    ("GET /api/models/me/digits/revision/main", "reading the state", true),
    ("POST /api/repos/create", "creation", true),
    ("POST /api/models/me/digits/preupload/", "comparing the files", true),
    ("info/lfs/objects/batch", "asking where to store", true),
    ("PUT /objects/", "safetensors", true),
    ("POST /verify/", "safetensors", true),
    ("POST /api/models/me/digits/commit/", "the commit", false),
];

/// The error with its causes.
fn chain(error: &Error) -> String {
    check_causes(error);
    format!("{error}: {}", error.source().map_or(String::new(), ToString::to_string))
}

#[test]
fn a_refusal_names_the_request_and_the_message_and_changes_nothing() {
    for (step, named, _) in STEPS {
        for status in [400, 401, 403, 409, 413, 422, 500] {
            let is_creation = step.contains("create");
            if is_creation && status == 409 {
                continue;
            }
            let server = MockHub::start();
            if !is_creation {
                server.create(ID, false);
            }
            // A server that repeats the token.
            let body = r#"{"error": "too much for token hf_secret today"}"#;
            server.fail_push(step, &[PushFault::Status(status, body)]);
            let error = push(&config(&server), &files()).unwrap_err();
            let text = chain(&error);
            let expected = [named, ID, &status.to_string(), "too much for token …"];
            // A request that is repeated if the server is busy has the status only.
            let expected = if status == 500 && step.starts_with("GET") { &expected[..3] } else { &expected };
            assert!(expected.iter().all(|part| text.contains(part)), "{step} {status}: {text}");
            assert!(!text.contains(TOKEN) && !format!("{error:?}").contains(TOKEN), "{text}");
            let of_access = matches!(error, Error::PushAccess { .. });
            let at_hub = !named.contains("safetensors");
            assert_eq!(of_access, at_hub && matches!(status, 401 | 403), "{step} {status}: {text}");
            let commits = server.counts(ID).map(|(commits, _, _)| commits);
            assert_eq!(commits, (!is_creation).then_some(1), "{step} {status}");
            // The next push is complete.
            push(&config(&server), &files()).unwrap();
            assert_eq!(server.newest(ID, "main").unwrap().1.len(), files().len() + 1);
        }
    }
}

#[test]
fn an_answer_that_makes_no_sense_changes_nothing() {
    use PushFault::{Dropped, Json, Rubbish};
    for (step, named, _) in STEPS {
        for fault in
            [Rubbish, Dropped, Json("{}"), Json("[]"), Json(r#"{"files": 3, "objects": {}, "sha": "x"}"#)]
        {
            // Their answers are not read.
            let ignored = step.contains("PUT") || step.contains("verify") || step.contains("create");
            if ignored && !matches!(fault, Dropped) {
                continue;
            }
            let server = MockHub::start();
            if !step.contains("create") {
                server.create(ID, false);
            }
            server.fail_push(step, &[fault]);
            let text = chain(&push(&config(&server), &files()).unwrap_err());
            assert!(text.contains(named) && text.contains(ID), "{step} {fault:?}: {text}");
            assert!(server.counts(ID).is_none_or(|(commits, _, _)| commits == 1), "{step} {fault:?}");
            push(&config(&server), &files()).unwrap();
        }
    }
}

#[test]
fn a_silent_server_ends_a_push_after_the_time_limit() {
    for (step, named, _) in STEPS {
        let server = MockHub::start();
        if !step.contains("create") {
            server.create(ID, false);
        }
        server.fail_push(step, &[PushFault::Silent]);
        let config = HubConfig { timeout: Duration::from_millis(200), ..config(&server) };
        let text = chain(&push(&config, &files()).unwrap_err());
        assert!(text.contains(named) && text.contains("HF_HUB_DOWNLOAD_TIMEOUT"), "{step}: {text}");
        assert!(server.counts(ID).is_none_or(|(commits, _, _)| commits == 1), "{step}");
    }
}

/// More than the buffers of both ends hold, to a storage that accepts the connection and reads nothing.
#[test]
fn a_storage_that_reads_nothing_ends_a_push_after_the_time_limit() {
    let storage = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = MockHub::start();
    let large = file("w.safetensors", vec![7; 1 << 25]);
    let (oid, at) = (ddpm_files::sha256_hex(&large.bytes), storage.local_addr().unwrap());
    let upload = format!(r#"{{"upload": {{"href": "http://{at}/"}}}}"#);
    let answer = format!(r#"{{"objects": [{{"oid": "{oid}", "size": 33554432, "actions": {upload}}}]}}"#);
    server.fail_push("objects/batch", &[PushFault::Json(answer.leak())]);
    let config = HubConfig { timeout: Duration::from_millis(200), ..config(&server) };
    let text = chain(&push(&config, &[large]).unwrap_err());
    assert!(text.contains("w.safetensors") && text.contains("HF_HUB_DOWNLOAD_TIMEOUT"), "{text}");
}

/// The upload seems to be done, but the object is not in the storage: the commit is refused.
#[test]
fn a_storage_that_keeps_nothing_is_found() {
    let server = MockHub::start();
    server.fail_push("PUT", &[PushFault::Rubbish]);
    let text = chain(&push(&config(&server), &files()).unwrap_err());
    assert!(text.contains("not in the storage"), "{text}");
    assert_eq!(server.counts(ID).unwrap().0, 1);
}

#[test]
fn a_lost_answer_to_the_commit_says_how_to_find_out() {
    for fault in [PushFault::Lost, PushFault::Truncated, PushFault::Status(504, "time-out")] {
        let server = MockHub::start();
        server.fail_push("/commit/", &[fault]);
        let text = chain(&push(&config(&server), &files()).unwrap_err());
        assert!(text.contains("push again to see whether it was made"), "{fault:?}: {text}");
        let made = !matches!(fault, PushFault::Status(..));
        assert_eq!(server.counts(ID).unwrap().0, 1 + usize::from(made));
        assert_eq!(push(&config(&server), &files()).unwrap().changed.is_empty(), made, "{fault:?}");
    }
}

#[test]
fn requests_are_repeated_if_that_cannot_do_harm() {
    let check = |(step, _, is_safe): (&str, &str, bool), status, repeated| {
        let server = MockHub::start();
        if !step.contains("create") {
            server.create(ID, false);
        }
        server.fail_push(step, &[PushFault::Status(status, "slow down")]);
        let config = HubConfig { retries: 1, ..config(&server) };
        let pushed = push(&config, &files());
        assert_eq!(pushed.is_ok(), repeated, "{step} {status}: {pushed:?}");
        let sent = server.take_requests();
        let commits = sent.iter().filter(|request| request.path.contains("/commit/")).count();
        assert_eq!(commits, if is_safe { 1 } else { 1 + usize::from(repeated) }, "{step} {status}");
    };
    // Each repetition comes after a pause.
    std::thread::scope(|scope| {
        for step in STEPS {
            scope.spawn(move || check(step, 429, true));
            scope.spawn(move || check(step, 503, step.2));
        }
    });
}

#[test]
fn a_commit_of_somebody_else_in_between_is_not_overwritten() {
    let server = MockHub::start();
    server.create(ID, false);
    let mut once = Some(());
    let pushed = push_model(&address("hf://me/digits"), &files(), &options(), &config(&server), |_, _, _| {
        if once.take().is_some() {
            server.replace(ID, "notes", b"x");
        }
    });
    let text = chain(&pushed.unwrap_err());
    assert!(text.contains("the commit of me/digits") && text.contains("412"), "{text}");
    assert_eq!(server.newest(ID, "main").unwrap().0, "by somebody else");
    push(&config(&server), &files()).unwrap();
}

#[test]
fn a_long_answer_makes_a_short_error() {
    let long = "x".repeat(1 << 20);
    for (step, answer) in [
        ("GET /api/models", format!(r#"{{"sha": "{long}"}}"#)),
        ("/preupload/", format!(r#"{{"files": [{{"path": "w", "uploadMode": "{long}"}}]}}"#)),
        ("/commit/", format!(r#"{{"commitOid": {{"{long}": "{long}"}}}}"#)),
        ("/commit/", format!("[{long}")),
    ] {
        let server = MockHub::start();
        server.create(ID, false);
        server.fail_push(step, &[PushFault::Json(answer.leak())]);
        let text = chain(&push(&config(&server), &[file("w", "w")]).unwrap_err());
        assert!(text.len() < 1000, "{step}: {} bytes", text.len());
    }
}

/// Answers about large files without an address, or with an invalid one.
#[test]
fn a_hostile_answer_about_large_files_is_an_error() {
    let oid = ddpm_files::sha256_hex(&[7; 100]);
    for (object, expected) in [
        (
            r#""error": {"code": 422, "message": "out of space for hf_secret"}"#,
            "code 422: \"out of space for …",
        ),
        (r#""actions": {"upload": {}}"#, "no address for w.safetensors"),
        (r#""actions": {"upload": {"href": "not an address"}}"#, "sending w.safetensors"),
        (r#""actions": {"upload": {"href": "ftp://127.0.0.1/x"}}"#, "sending w.safetensors"),
        (
            r#""actions": {"upload": {"href": "http://127.0.0.1:1/", "header": {"a b": "c"}}}"#,
            "sending w.safetensors",
        ),
        (
            r#""actions": {"upload": {"href": "http://127.0.0.1:1/", "header": {"chunk_size": "0"}}}"#,
            "size of a part",
        ),
        (
            r#""actions": {"upload": {"href": "http://127.0.0.1:1/", "header": {"chunk_size": "x"}}}"#,
            "size of a part",
        ),
        (
            r#""actions": {"upload": {"href": "http://127.0.0.1:1/", "header": {"chunk_size": 50, "1": "http://127.0.0.1:1/"}}}"#,
            "1 addresses for 2 parts",
        ),
    ] {
        let server = MockHub::start();
        let answer = format!(r#"{{"objects": [{{"oid": "{oid}", "size": 100, {object}}}]}}"#);
        server.fail_push("objects/batch", &[PushFault::Json(answer.leak())]);
        let text = chain(&push(&config(&server), &[file("w.safetensors", [7; 100])]).unwrap_err());
        assert!(text.contains(expected) && !text.contains(TOKEN), "{object}: {text}");
        assert_eq!(server.counts(ID).unwrap().0, 1);
    }
}

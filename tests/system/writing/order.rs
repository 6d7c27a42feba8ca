//! Which system calls write the two files, and in which order.

use std::fs;

use super::service::{Service, refresh};
use crate::machine::Machine;
use crate::strace::Strace;

/// Calls that change nothing on disk.
const HARMLESS: [&str; 10] =
    ["fremovexattr", "close", "read", "fstat", "newfstatat", "statx", "lstat", "readlink", "lseek", "fcntl"];

pub fn a_write_reaches_the_disk_before_its_name_does(_: &Machine) {
    let service = Service::new("order");
    let daemon = service.start_with(0);
    service.set(1);
    let worker = daemon.pid();
    // With names for file descriptors.
    let strace = Strace::in_detail(worker, "trace=%file,%desc");
    assert_eq!(refresh(&daemon), Ok(()));
    let trace = strace.end(false);

    let state = service.state.to_str().expect("a plain path");
    let lines = trace.text.lines().filter(|line| line.contains(state) && !line.contains(" resumed>"));
    let lines: Vec<&str> = lines.collect();
    let mut steps: Vec<String> = Vec::new();
    for line in &lines {
        let (call, arguments) = line.split_once('(').expect("a system call");
        let call = call.rsplit(' ').next().unwrap_or_default();
        let arguments = arguments.rsplit_once(" = ").map_or(arguments, |(arguments, _)| arguments);
        // Read: whether and when it was written.
        if HARMLESS.contains(&call) || arguments.contains("O_RDONLY") && !arguments.contains("O_DIRECTORY") {
            continue;
        }
        let step = Step { state, worker }.of(call, arguments);
        // One write may be of several calls.
        if steps.last() != Some(&step) || !step.starts_with("write ") {
            steps.push(step);
        }
    }
    let of = |name: &str| {
        [
            "open the directory".to_owned(),
            format!("discard .{name}.opnix-new"),
            format!("create .{name}.opnix-new"),
            format!("write .{name}.opnix-new"),
            format!("fchmod .{name}.opnix-new"),
            format!("fsync .{name}.opnix-new"),
            format!("rename .{name}.opnix-new to {name}"),
            "fsync the directory".to_owned(),
        ]
    };
    // The ledger names the cache that is to be believed: it comes first. Afterwards, with nothing new, it is written alone.
    let (write, after) = steps.split_at(steps.len().min(16));
    assert_eq!(write, [of("requests.json"), of("cache")].concat(), "{lines:#?}");
    assert!(after.is_empty() || *after == of("requests.json"), "{after:?}");
    assert!(fs::metadata(service.runtime().join("unsaved")).is_err(), "what is saved is still marked");
}

struct Step<'a> {
    state: &'a str,
    worker: u32,
}

impl Step<'_> {
    /// In words; what is unexpected, as it is.
    fn of(&self, call: &str, arguments: &str) -> String {
        let directory = format!("<{}>", self.state);
        // 5</state/NAME>, …
        let file = arguments
            .split_once(&format!("<{}/", self.state))
            .and_then(|(_, name)| name.split_once('>'))
            .map(|(name, _)| self.short(name));
        let names: Vec<String> =
            arguments.split('"').skip(1).step_by(2).map(|name| self.short(name)).collect();
        let of_directory = arguments.contains(&directory);
        match (call, &names[..], file) {
            ("openat", [path], None) if *path == self.state && arguments.contains("O_DIRECTORY") => {
                "open the directory".to_owned()
            }
            ("openat", [name], None) if of_directory && arguments.contains("O_CREAT|O_EXCL") => {
                format!("create {name}")
            }
            ("unlinkat", [name], None) if of_directory => format!("discard {name}"),
            ("renameat", [from, to], None) if of_directory => format!("rename {from} to {to}"),
            ("write", _, Some(name)) => format!("write {name}"),
            ("fchmod" | "fsync", _, Some(name)) => format!("{call} {name}"),
            ("fsync", [], None) if of_directory => "fsync the directory".to_owned(),
            _ => format!("{call}({arguments}"),
        }
    }

    /// Without the worker's number.
    fn short(&self, name: &str) -> String {
        name.replace(&format!(".{}", self.worker), "")
    }
}

//! What a child gets from the service.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::json;

use super::USERNAME;
use crate::daemon::{Daemon, new_directory};
use crate::providers::connect::{everything, with_deadline};
use crate::simulators::connect::TOKEN;

#[test]
fn the_child_gets_nothing_of_the_services_environment_but_the_way_out() {
    let simulator = everything();
    let secret = Path::new("made-up-and-not-for-others");
    let environment = [
        ("OP_SERVICE_ACCOUNT_TOKEN", secret),
        ("OP_CONNECT_TOKEN", secret),
        ("CREDENTIALS_DIRECTORY", secret),
        ("NOTIFY_SOCKET", secret),
        ("LD_LIBRARY_PATH", secret),
        ("NO_PROXY", Path::new("127.0.0.1")),
    ];
    let provider = json!({"kind": "connect", "host": simulator.url()});
    let daemon = Daemon::in_environment(&environment, "20s", &provider, TOKEN, &[USERNAME]);
    assert!(daemon.ask("key").is_some());
    let [child] = daemon.children()[..] else { panic!("one child") };
    let known = fs::read_to_string(format!("/proc/{child}/environ")).unwrap();
    let names: Vec<&str> =
        known.split_terminator('\0').filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let may_know = [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NO_PROXY",
        "no_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    assert!(names.contains(&"NO_PROXY"), "{names:?}");
    assert!(names.iter().all(|name| may_know.contains(name)), "{names:?}");
}

#[test]
fn the_child_closes_what_the_service_itself_inherited() {
    let simulator = everything();
    let directory = new_directory("inherited");
    let path = directory.join("file");
    let file = File::create(&path).unwrap();
    // As a caller passes it on who does not mark it.
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let daemon = with_deadline(&simulator, "20s", &[USERNAME]);
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let holds =
        |pid: u32| fs::read_link(format!("/proc/{pid}/fd/{}", file.as_raw_fd())).is_ok_and(|at| at == path);
    assert!(holds(daemon.pid()));
    assert!(daemon.ask("key").is_some());
    let [child] = daemon.children()[..] else { panic!("one child") };
    assert!(!holds(child));
    drop(daemon);
    fs::remove_dir_all(directory).unwrap();
}

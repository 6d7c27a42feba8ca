//! `opnix fetch`: the process that asks 1Password. Started by `opnix serve`, never by people.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt};

use super::{Exit, fail};
use crate::providers::child::process;

/// Ask 1Password for `opnix serve`
#[derive(clap::Args)]
pub struct Arguments {}

pub fn run(_: Arguments) -> Exit {
    if getsockopt(&io::stdin().as_fd(), sockopt::SockType).is_err() {
        return fail(
            Exit::Usage,
            "`opnix fetch` is for `opnix serve` to start: it speaks on a socket, not with people",
        );
    }
    match process::run() {
        Ok(()) => Exit::Ok,
        Err(error) => fail(Exit::Software, format_args!("the service cannot be understood: {error}")),
    }
}

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
            "`opnix fetch` is started by `opnix serve`, with a socket as its standard input, and not by people",
        );
    }
    match process::run() {
        Ok(()) => Exit::Ok,
        Err(error) => fail(
            Exit::Software,
            format_args!("the messages of the service cannot be read or answered: {error}"),
        ),
    }
}

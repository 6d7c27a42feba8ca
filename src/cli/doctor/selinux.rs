//! Whether SELinux lets the service manager ask: it may open a socket's file and still not connect to who listens there.

use std::fs::{self, File};
use std::io::{self, Read, Write};

const PLACE: &str = "/sys/fs/selinux";
const CLASS: &str = "class/unix_stream_socket";

/// The contexts of the service manager and of the service, if the first may not connect to the second.
pub fn forbids(service: i128) -> Option<(String, String)> {
    // Not there, or permissive.
    if fs::read_to_string(format!("{PLACE}/enforce")).ok()?.trim() != "1" {
        return None;
    }
    let manager = context("1").ok()?;
    let service = context(&service.to_string()).ok()?;
    (!may_connect(&manager, &service).ok()?).then_some((manager, service))
}

fn context(pid: &str) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/attr/current"))?;
    Ok(text.trim_end_matches(['\0', '\n']).to_owned())
}

fn number(path: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("{PLACE}/{CLASS}/{path}"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// By the kernel's own decision.
fn may_connect(manager: &str, service: &str) -> io::Result<bool> {
    let (class, permission) = (number("index")?, number("perms/connectto")?);
    let mut access = File::options().read(true).write(true).open(format!("{PLACE}/access"))?;
    access.write_all(format!("{manager} {service} {class} {:x}", u32::MAX).as_bytes())?;
    let mut answer = [0; 256];
    let length = access.read(&mut answer)?;
    allows(&String::from_utf8_lossy(&answer[..length]), permission)
}

/// Permissions are counted from 1. The first number is what is allowed.
fn allows(answer: &str, permission: u32) -> io::Result<bool> {
    let allowed = answer.split_whitespace().next().and_then(|word| u32::from_str_radix(word, 16).ok());
    let bit = permission.checked_sub(1).and_then(|shift| 1_u32.checked_shl(shift));
    match (allowed, bit) {
        (Some(allowed), Some(bit)) => Ok(allowed & bit != 0),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_answer_is_read() {
        assert!(allows("200000 ffffffff 0 fffffffe 1 0", 22).unwrap());
        assert!(!allows("1fffff ffffffff 0 fffffffe 1 0", 22).unwrap());
        assert!(allows("", 22).is_err() && allows("ff", 0).is_err() && allows("ff", 40).is_err());
    }
}

//! Asking for a credential exactly as systemd does: for the mirror, the demo, the benchmark and the tests.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use chacha20poly1305::aead::Generate;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};

/// Connects from the address that systemd would use for this unit and credential.
pub fn connect_as(socket_path: &Path, unit: &str, credential: &str) -> io::Result<UnixStream> {
    let end = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // As systemd does: whoever can foresee it takes the address first.
    let random =
        <[u8; 8]>::try_generate().map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let number = u64::from_ne_bytes(random);
    let name = format!("{number:016x}/unit/{unit}/{credential}");
    bind(end.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    connect(end.as_raw_fd(), &UnixAddr::new(socket_path)?)?;
    let stream = UnixStream::from(end);
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(stream)
}

/// What systemd would make of the answer: `None` stands for a start that fails because it is over the size limit.
pub fn ask(socket_path: &Path, unit: &str, credential: &str) -> io::Result<Option<Vec<u8>>> {
    let mut answer = Vec::new();
    connect_as(socket_path, unit, credential)?.read_to_end(&mut answer)?;
    Ok(Some(answer).filter(|answer| answer.len() <= crate::names::CREDENTIALS_MAX))
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn no_address_tells_the_next_one() {
        let path = std::env::temp_dir().join(format!("opnix-asker-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let mut drawn: Vec<u64> = (0..20)
            .map(|_| {
                let _asks = connect_as(&path, "a.service", "key").unwrap();
                let (_, address) = listener.accept().unwrap();
                let name = String::from_utf8(address.as_abstract_name().unwrap().to_vec()).unwrap();
                let (number, claim) = name.split_once('/').unwrap();
                assert_eq!((number.len(), claim), (16, "unit/a.service/key"));
                u64::from_str_radix(number, 16).unwrap()
            })
            .collect();
        drawn.sort_unstable();
        // Closer than this are two of them once in 10^13 times.
        assert!(drawn.windows(2).all(|pair| pair[1] - pair[0] > 1 << 12), "{drawn:x?}");
        std::fs::remove_file(path).unwrap();
    }
}

//! Forms for redis, read by its server.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Server, accepted, place, written};

/// Starts a server with this configuration, and a connection to it.
fn start(name: &str, more: &[u8]) -> (Server, UnixStream) {
    let place = place(name);
    let socket = PathBuf::from(format!("/tmp/opnix-forms-{name}-{}", std::process::id()));
    let _ = fs::remove_file(&socket);
    let mut config =
        format!("port 0\nunixsocket {}\nsave \"\"\ndir {}\n", socket.display(), place.display()).into_bytes();
    config.extend_from_slice(more);
    let path = place.join("redis.conf");
    fs::write(&path, config).expect("written");
    // One program is all of redis: it is what it is called by.
    let server = Command::new("/usr/bin/redis-check-rdb")
        .arg0("redis-server")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let mut server = Server(server.expect("redis-tools: see tests/packages"));
    let begun = Instant::now();
    loop {
        if let Ok(connection) = UnixStream::connect(&socket) {
            let _ = fs::remove_file(&socket);
            return (server, connection);
        }
        assert!(server.0.try_wait().expect("a child").is_none(), "redis-server ended");
        assert!(begun.elapsed() < Duration::from_secs(30), "redis-server does not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Signs in, and says whether that was right.
fn signs_in(connection: &mut UnixStream, user: &str, password: &[u8]) -> bool {
    let mut request = Vec::new();
    let words = [&b"AUTH"[..], user.as_bytes(), password];
    write!(request, "*{}\r\n", words.len()).expect("written");
    for word in words {
        write!(request, "${}\r\n", word.len()).expect("written");
        request.extend([word, b"\r\n"].concat());
    }
    connection.write_all(&request).expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    answer == b"+OK\r\n"
}

#[test]
fn users_sign_in_to_redis_with_what_their_hash_was_made_from() {
    let accepted = accepted("sha256", |_| false);
    let users = accepted.iter().enumerate().flat_map(|(number, (value, _))| {
        let line = format!("user u{number} on #{{{{ op://v/i/f | sha256 }}}} ~* +@all\n");
        written(&line, value).expect("it takes all")
    });
    let users: Vec<u8> = users.collect();
    let (_server, mut connection) = start("redis-users", &users);
    for (number, (value, _)) in accepted.iter().enumerate() {
        assert!(
            signs_in(&mut connection, &format!("u{number}"), value),
            "{:?}",
            String::from_utf8_lossy(value)
        );
    }
    assert!(!signs_in(&mut connection, "u0", b"made-up"));
}

#[test]
fn the_password_in_redis_conf_is_the_value_whatever_bytes_it_has() {
    for (number, (value, _)) in accepted("redis", |_| false).iter().enumerate().take(50) {
        let line = written("requirepass {{ op://v/i/f | redis }}\n", value).expect("it takes all");
        let (_server, mut connection) = start("redis-password", &line);
        assert!(
            signs_in(&mut connection, "default", value),
            "{number}: {:?}",
            String::from_utf8_lossy(&line)
        );
        assert!(!signs_in(&mut connection, "default", b"made-up"));
    }
}

//! Forms for databases, read by the servers themselves.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Server, accepted, hex, is_no_sql, is_no_text, place, run, written};

const LONG: Duration = Duration::from_secs(60);

fn start(command: &mut Command, is_up: impl Fn() -> bool) -> Server {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut server = Server(child.unwrap_or_else(|error| panic!("{name}: {error}; see tests/packages")));
    let begun = Instant::now();
    while !is_up() {
        assert!(server.0.try_wait().expect("a child").is_none(), "{name} ended");
        assert!(begun.elapsed() < LONG, "{name} does not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

/// A directory in /tmp: paths of sockets are short.
struct Short(PathBuf);

impl Short {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/tmp/opnix-forms-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn mysql_and_standard_sql_are_read_by_mariadb() {
    let place = place("mariadb");
    let short = Short::new("mariadb");
    let socket = short.0.join("socket");
    let data = place.join("data");
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let user = if is_root { "--user=root" } else { "--user=" };
    let made = Command::new("mariadb-install-db")
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", user])
        .arg(format!("--datadir={}", data.display()))
        .output()
        .expect("mariadb-server-core: see tests/packages");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let client = |socket: &Path| {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--user=root", "--default-character-set=utf8mb4", "--batch"]);
        client.args(["--skip-column-names"]).arg(format!("--socket={}", socket.display()));
        client
    };
    let mut server = Command::new("/usr/sbin/mariadbd");
    server
        .args(["--no-defaults", "--skip-networking", "--character-set-server=utf8mb4", user])
        .args(["--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M"])
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", socket.display()))
        .arg(format!("--pid-file={}", place.join("pid").display()));
    let is_up = || client(&socket).args(["-e", "SELECT 1"]).output().is_ok_and(|said| said.status.success());
    let _server = start(&mut server, is_up);
    let is_no_mysql = |value: &[u8]| {
        let text = String::from_utf8_lossy(value);
        let mut pairs = text.chars().zip(text.chars().skip(1));
        is_no_text(value) || pairs.any(|(before, after)| !before.is_ascii() && "\\\r".contains(after))
    };
    for form in ["mysql", "sql"] {
        let accepted =
            accepted(form, |value| if form == "sql" { is_no_sql(value) } else { is_no_mysql(value) });
        let statements: Vec<u8> = accepted
            .iter()
            .flat_map(|(_, literal)| [&b"SELECT HEX("[..], literal, b");\n"].concat())
            .collect();
        let said = String::from_utf8(run(&mut client(&socket), &statements)).expect("digits");
        let read: Vec<String> = said.lines().map(str::to_lowercase).collect();
        let expected: Vec<String> = accepted.iter().map(|(value, _)| hex(value)).collect();
        assert_eq!(read, expected, "{form}");
    }
}

/// PostgreSQL's programs are in a directory of their version, and its server does not run as root.
struct Postgres {
    programs: PathBuf,
    socket: Short,
    _server: Server,
}

impl Postgres {
    fn start() -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql: see tests/packages");
        let mut versions: Vec<PathBuf> =
            versions.map(|entry| entry.expect("an entry").path().join("bin")).collect();
        versions.sort();
        let programs = versions.pop().expect("a version");
        let socket = Short::new("postgres");
        let data = socket.0.join("data");
        fs::create_dir(&data).expect("a directory");
        let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        if is_root {
            let owner = fs::read_to_string("/etc/passwd").expect("users");
            let line = owner.lines().find(|line| line.starts_with("postgres:")).expect("user postgres");
            let uid = line.split(':').nth(2).and_then(|uid| uid.parse().ok());
            for path in [&socket.0, &data] {
                chown(path, uid, None).expect("its owner");
            }
        }
        let as_user = |program: &str| {
            let program = programs.join(program);
            if !is_root {
                return Command::new(program);
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--clear-groups", "--"]).arg(program);
            command
        };
        let mut made = as_user("initdb");
        made.args([
            "--auth-local=scram-sha-256",
            "--username=admin",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        let password = socket.0.join("admin");
        fs::write(&password, "made-up-admin\n").expect("written");
        made.arg("--pwfile").arg(&password).arg("-D").arg(&data).current_dir("/");
        run(&mut made, b"");
        let mut server = as_user("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(&socket.0).args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
        ]);
        let ready = programs.join("pg_isready");
        let server = start(server.current_dir("/"), || {
            Command::new(&ready).arg("-qh").arg(&socket.0).status().is_ok_and(|status| status.success())
        });
        Self { programs, socket, _server: server }
    }

    fn psql(&self, user: &str) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-w", "-d", "postgres", "-U", user]);
        psql.arg("-h").arg(&self.socket.0);
        psql.env_remove("PGPASSWORD").env("PGPASSFILE", "/dev/null");
        psql
    }

    fn admin(&self) -> Command {
        let mut psql = self.psql("admin");
        psql.env("PGPASSWORD", "made-up-admin");
        psql
    }
}

#[test]
fn postgres_pgpass_and_url_are_read_by_postgresql_and_its_client() {
    let server = Postgres::start();
    for form in ["postgres", "sql"] {
        let accepted =
            accepted(form, |value| if form == "sql" { is_no_sql(value) } else { is_no_text(value) });
        let statements: Vec<u8> = accepted
            .iter()
            .flat_map(|(_, literal)| {
                [&b"SELECT encode(convert_to("[..], literal, b", 'UTF8'), 'hex');\n"].concat()
            })
            .collect();
        let said = String::from_utf8(run(&mut server.admin(), &statements)).expect("digits");
        let expected: Vec<String> = accepted.iter().map(|(value, _)| hex(value)).collect();
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{form}");
    }
    // A user with each of some passwords signs in with the file, and with the address.
    let has_break = |value: &[u8]| value.iter().any(|byte| b"\r\n".contains(byte));
    let mut passwords: Vec<Vec<u8>> = accepted("pgpass", |value| is_no_text(value) || has_break(value))
        .into_iter()
        .map(|(value, _)| value)
        .collect();
    passwords.retain(|value| value != b"..");
    passwords.truncate(60);
    let place = place("postgres");
    let file = place.join("pgpass");
    let host = server.socket.0.display();
    for (number, value) in passwords.iter().enumerate() {
        let made =
            written(&format!("CREATE ROLE u{number} LOGIN PASSWORD {{{{ op://v/i/f | postgres }}}};"), value);
        run(&mut server.admin(), &made.expect("accepted"));
        let line = written(&format!("*:*:*:u{number}:{{{{ op://v/i/f | pgpass }}}}\n"), value);
        fs::write(&file, line.expect("accepted")).expect("written");
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
        let mut by_file = server.psql(&format!("u{number}"));
        assert_eq!(run(by_file.env("PGPASSFILE", &file).args(["-c", "SELECT 1"]), b""), b"1\n");
        let address = format!("postgres://u{number}:{{{{ op://v/i/f | url }}}}@/postgres?host={host}");
        let address = String::from_utf8(written(&address, value).expect("it takes all")).expect("text");
        let mut by_address = Command::new(server.programs.join("psql"));
        by_address
            .args(["-X", "-q", "-A", "-t", "-w", &address, "-c", "SELECT 1"])
            .env("PGPASSFILE", "/dev/null");
        assert_eq!(run(&mut by_address, b""), b"1\n", "{address}");
        let wrong = address.replacen(":", ":x", 2);
        let mut by_wrong = Command::new(server.programs.join("psql"));
        by_wrong.args(["-X", "-w", &wrong, "-c", "SELECT 1"]).env("PGPASSFILE", "/dev/null");
        if number == 0 {
            assert!(!by_wrong.output().expect("it runs").status.success(), "any password will do");
        }
    }
}

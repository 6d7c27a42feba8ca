//! Whose units this process is about: those of the system, or with `--user` those of one user's own service manager.

use std::borrow::Cow;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::{Uid, User};

use crate::config::{DEFAULT_DIRECTORY, DEFAULT_PATH, MIRROR_ROOT};

static IS_USER: AtomicBool = AtomicBool::new(false);

/// `--user` was given: to be called before anything else is done.
pub fn set_user() {
    IS_USER.store(true, Ordering::Relaxed);
}

/// Whether `--user` was given. Everything is looked for in the places of the user then.
pub fn is_user() -> bool {
    IS_USER.load(Ordering::Relaxed)
}

/// Whether the service manager is the system's, which answers root alone.
pub fn has_systems_manager() -> bool {
    !is_user() && Uid::effective().is_root()
}

/// What is here is in memory, and gone at reboot, or when the user has logged out everywhere.
pub fn runtime_directory() -> PathBuf {
    if has_systems_manager() { "/run".into() } else { users_runtime_directory() }
}

fn users_runtime_directory() -> PathBuf {
    let named = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    // `su` and `sudo` may keep another user's.
    let is_ours =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|there| there.uid() == Uid::effective().as_raw());
    named.filter(is_ours).unwrap_or_else(|| format!("/run/user/{}", Uid::effective()).into())
}

/// `%t` in the units that are meant.
pub fn runtime_directory_said() -> PathBuf {
    if is_user() { users_runtime_directory() } else { "/run".into() }
}

/// Where units ask.
pub fn socket() -> PathBuf {
    of_user_or("opnix/creds.sock", crate::systemd::SOCKET)
}

/// Where commands ask.
pub fn control() -> PathBuf {
    of_user_or("opnix/control.sock", crate::control::SOCKET)
}

/// Where relative paths of files start, if the configuration says nothing else.
pub fn mirror_root() -> PathBuf {
    of_user_or("secrets", MIRROR_ROOT)
}

fn of_user_or(of_user: &str, of_system: &str) -> PathBuf {
    if is_user() { users_runtime_directory().join(of_user) } else { of_system.into() }
}

/// Where the configuration is, if nobody says: a file, and a directory of more.
pub fn configuration() -> [PathBuf; 2] {
    let of_system = [DEFAULT_PATH, DEFAULT_DIRECTORY].map(PathBuf::from);
    if !is_user() {
        return of_system;
    }
    let named = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || home().unwrap_or_else(|| "/".into()).join(".config");
    let directory = named.unwrap_or_else(home).join("opnix");
    of_system.map(|path| directory.join(path.file_name().unwrap_or_default()))
}

fn home() -> Option<PathBuf> {
    let named = env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(User::from_uid(Uid::effective()).ok()??.dir))
}

/// Where the token is, if nobody says.
pub fn token() -> PathBuf {
    configuration_file().with_file_name("token")
}

/// The file of the configuration.
pub fn configuration_file() -> PathBuf {
    let [file, _] = configuration();
    file
}

/// The commands in a text for people, which are those of the system, as they are for a user. Not for what programs read: a name in
/// it could look like a command.
pub fn commands(text: &str) -> Cow<'_, str> {
    const WITH_USER: [&str; 9] = [
        "systemctl ",
        "journalctl ",
        "opnix check",
        "opnix doctor",
        "opnix explain",
        "opnix mirror",
        "opnix refresh",
        "opnix serve",
        "opnix status",
    ];
    if !is_user() {
        return text.into();
    }
    WITH_USER.iter().fold(text.to_owned(), |text, command| as_users(&text, command)).into()
}

/// The same for one command, where the word that follows is not `--user` already.
fn as_users(text: &str, command: &str) -> String {
    let mut parts = text.split(command);
    let mut all = parts.next().unwrap_or_default().to_owned();
    let word = command.trim_end();
    for after in parts {
        if !all.ends_with(|c: char| " `\n(;:".contains(c)) && !all.is_empty() {
            all.push_str(command);
            all.push_str(after);
            continue;
        }
        let ends =
            command != word || !after.starts_with(|c: char| c.is_ascii_alphanumeric() || "-_/.".contains(c));
        let is_said = after.trim_start().starts_with("--user");
        all.push_str(word);
        if ends && !is_said {
            all.push_str(" --user");
        }
        all.push_str(&command[word.len()..]);
        all.push_str(after);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_commands_have_a_word_more() {
        assert_eq!(
            as_users("systemctl status x; systemctl --user stop x", "systemctl "),
            "systemctl --user status x; systemctl --user stop x"
        );
        assert_eq!(as_users("see `opnix status`", "opnix status"), "see `opnix status --user`");
        assert_eq!(as_users("opnix check --quiet", "opnix check"), "opnix check --user --quiet");
        assert_eq!(as_users("opnix checks nothing", "opnix check"), "opnix checks nothing");
        assert_eq!(as_users("/srv/systemctl x", "systemctl "), "/srv/systemctl x");
    }
}

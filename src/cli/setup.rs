//! `opnix setup`: the key of the sealed cache.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use chacha20poly1305::aead::Generate;
use zeroize::Zeroizing;

use super::{Exit, fail};
use crate::files::StateDirectory;
use crate::store::disk::KEY_CREDENTIAL;
use crate::store::sealed::KEY_LENGTH;

/// Where systemd looks for encrypted credentials that a unit names without a path.
const STORE: &str = "/etc/credstore.encrypted";

/// Make the key that the cache on disk is sealed with
///
/// The key is drawn at random and given to systemd-creds, which seals it with this machine's TPM2, or its host key, or
/// both; only systemd can open it then, and hands it to opnix.service alone. A key that is there already and can be
/// opened stays; one that cannot be opened any more is replaced, and what it had sealed is fetched again.
/// opnix-setup.service runs this at each boot.
#[derive(clap::Args)]
pub struct Arguments {
    /// What systemd-creds seals the key with: auto, host, tpm2 or host+tpm2
    #[arg(long, value_name = "KEY", default_value = "auto")]
    with_key: String,
    /// Where the sealed key goes
    #[arg(long, value_name = "DIR", default_value = STORE)]
    store: PathBuf,
}

pub fn run(arguments: Arguments) -> Exit {
    let path = arguments.store.join(KEY_CREDENTIAL);
    match path.try_exists().map(|there| there.then(|| opens(&path))) {
        Ok(Some(Ok(()))) => {
            println!("the key of the cache is in place: {}", path.display());
            return Exit::Ok;
        }
        Ok(Some(Err(why))) => {
            eprintln!("opnix: {} cannot be opened and is replaced: {why}", path.display());
        }
        Ok(None) => {}
        Err(error) => return fail(Exit::System, format_args!("{}: {error}", path.display())),
    }
    match make(&arguments.store, &arguments.with_key) {
        Ok(()) => {
            println!("made the key of the cache: {}", path.display());
            println!("opnix.service seals its cache once it is restarted: systemctl restart opnix.service");
            Exit::Ok
        }
        Err(why) => fail(
            Exit::System,
            format_args!(
                "there is no key, so values are kept in memory only: {why}\nopnix works without one, but after a reboot it needs 1Password"
            ),
        ),
    }
}

fn opens(path: &Path) -> Result<(), String> {
    let name = format!("--name={KEY_CREDENTIAL}");
    // The key itself is none of our business here.
    let opened = creds(&["decrypt", &name, &path.display().to_string(), "-"], &[], Stdio::null())?;
    said(&opened)
}

fn make(store: &Path, with_key: &str) -> Result<(), String> {
    let key: Zeroizing<[u8; KEY_LENGTH]> = <[u8; KEY_LENGTH]>::try_generate()
        .map(Zeroizing::new)
        .map_err(|_| "the system gives no random numbers".to_owned())?;
    let name = format!("--name={KEY_CREDENTIAL}");
    let with_key = format!("--with-key={with_key}");
    let sealed = creds(&["encrypt", &name, &with_key, "-", "-"], &key[..], Stdio::piped())?;
    said(&sealed)?;
    let written = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(store)
        .and_then(|()| StateDirectory::new(store).replace(KEY_CREDENTIAL, &sealed.stdout));
    written.map_err(|error| format!("{}: {error}", store.display()))
}

fn creds(arguments: &[&str], input: &[u8], output: Stdio) -> Result<Output, String> {
    let cannot =
        |error: io::Error| format!("systemd-creds cannot be run (it comes with systemd 250): {error}");
    let mut child = Command::new("systemd-creds")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it ends before it has read everything, its own message counts.
        let _ = stdin.write_all(input);
    }
    child.wait_with_output().map_err(cannot)
}

fn said(output: &Output) -> Result<(), String> {
    let words = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("systemd-creds: {}", words.trim())) }
}

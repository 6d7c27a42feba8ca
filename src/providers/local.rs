//! The provider `local`: a JSON file with made-up secrets, for development and tests.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::ask::items::{Found, Item};
use super::ask::members::Members;
use super::ask::value::{bytes, text};
use super::ask::{Nameable, names, nearest, only};
use super::error::{FetchError, ObjectKind};
use crate::files;
use crate::reference::Reference;
use crate::secret::Secret;

/// The largest vault file that is read, in bytes.
const SIZE_MAX: usize = 64 << 20;

#[derive(Debug)]
pub struct Local {
    /// Where the file may be; the first that exists counts.
    candidates: Arc<[PathBuf]>,
}

#[derive(Deserialize)]
struct VaultFile<'a> {
    #[serde(borrow)]
    vaults: Vec<Vault<'a>>,
}

#[derive(Deserialize)]
struct Vault<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    items: Vec<Members<'a>>,
}

impl Nameable for Vault<'_> {
    const KIND: ObjectKind = ObjectKind::Vault;

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Local {
    /// What is reported in place of an account.
    pub fn account(&self) -> String {
        let paths: Vec<_> = self.candidates.iter().map(|path| path.display().to_string()).collect();
        format!("local file {}", paths.join(" or "))
    }

    /// A relative `path` is looked up in `credentials` (`$CREDENTIALS_DIRECTORY`) first, then in `beside`.
    pub fn new(path: &Path, credentials: Option<&Path>, beside: &Path) -> Self {
        Self {
            candidates: credentials
                .into_iter()
                .chain([beside])
                .map(|directory| directory.join(path))
                .collect(),
        }
    }

    /// Whether there is a file that can be read.
    pub(super) async fn read(&self) -> Result<(), FetchError> {
        let candidates = self.candidates.clone();
        let read = tokio::task::spawn_blocking(move || read_first(&candidates).map(drop));
        read.await.unwrap_or_else(|error| Err(failed(&error)))
    }

    /// Reads the file anew each time, so that a changed one is used at once.
    pub(super) async fn fetch(&self, references: Vec<Reference>) -> Vec<Result<Secret, FetchError>> {
        let candidates = self.candidates.clone();
        let count = references.len();
        let read = tokio::task::spawn_blocking(move || fetch(&candidates, &references));
        read.await.unwrap_or_else(|error| (0..count).map(|_| Err(failed(&error))).collect())
    }
}

fn failed(error: &tokio::task::JoinError) -> FetchError {
    FetchError::VaultFile { path: String::new(), why: error.to_string() }
}

fn fetch(candidates: &[PathBuf], references: &[Reference]) -> Vec<Result<Secret, FetchError>> {
    let (path, bytes) = match read_first(candidates) {
        Ok(found) => found,
        Err(error) => return references.iter().map(|_| Err(error.clone())).collect(),
    };
    match serde_json::from_slice::<VaultFile<'_>>(&bytes) {
        Ok(file) => references.iter().map(|reference| find(&file.vaults, reference)).collect(),
        Err(error) => {
            // Without serde's message, which can quote a value.
            let why = format!("it is not a vault file: see line {}, column {}", error.line(), error.column());
            let error = FetchError::VaultFile { path: path.display().to_string(), why };
            references.iter().map(|_| Err(error.clone())).collect()
        }
    }
}

fn find(vaults: &[Vault<'_>], reference: &Reference) -> Result<Secret, FetchError> {
    let Reference { vault, item, .. } = reference;
    let no_vault = || FetchError::VaultNotFound { vault: vault.clone(), has: names(vault, vaults) };
    let place = only(vaults.iter(), vault)?.ok_or_else(no_vault)?;
    let items: Vec<Item<'_>> = place.items.iter().map(Item::read).collect();
    let found = only(items.iter(), item)?;
    let missing =
        || FetchError::ItemNotFound { vault: vault.clone(), item: item.clone(), has: nearest(item, &items) };
    let unsupported =
        |what: &str| FetchError::Unsupported { reference: reference.to_string(), what: what.into() };
    match found.ok_or_else(missing)?.find(reference)? {
        Found::Text(value) => text(value, reference),
        Found::File(file) => {
            bytes(file.content.ok_or_else(|| unsupported("the file has no content"))?, reference)
        }
        Found::Derived(_) => Err(unsupported("the provider `local` converts no SSH keys")),
    }
}

fn read_first(candidates: &[PathBuf]) -> Result<(&Path, Zeroizing<Vec<u8>>), FetchError> {
    for path in candidates {
        match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(FetchError::VaultFile {
                    path: path.display().to_string(),
                    why: error.to_string(),
                });
            }
            Ok(bytes) => return Ok((path, bytes)),
        }
    }
    let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(FetchError::VaultFile { path: tried.join(" or "), why: "it is not there".into() })
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.mode() & 0o007 != 0 {
        let mode = metadata.permissions().mode() & 0o7777;
        return Err(io::Error::other(format!(
            "other users can read or write it (mode {mode:04o}); run chmod o= on it"
        )));
    }
    files::read_open(&file, SIZE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn directory(name: &str) -> PathBuf {
        let scratch = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
        let path = scratch.join(format!("local-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn get(local: &Local) -> Result<Vec<u8>, FetchError> {
        let mut results = fetch(&local.candidates, &["op://v/i/f".parse().unwrap()]);
        results.remove(0).map(|secret| secret.expose().to_vec())
    }

    fn vault(value: &str) -> String {
        format!(
            r#"{{"vaults": [{{"name": "v", "items": [{{"title": "i", "fields": [{{"label": "f", "value": "{value}"}}]}}]}}]}}"#
        )
    }

    #[test]
    fn the_credentials_directory_comes_before_the_configurations() {
        let (credentials, beside) = (directory("credentials"), directory("beside"));
        write(&beside.join("vault.json"), &vault("beside"), 0o600);
        let local = Local::new(Path::new("vault.json"), Some(&credentials), &beside);
        assert_eq!(get(&local).unwrap(), b"beside");
        write(&credentials.join("vault.json"), &vault("credential"), 0o600);
        assert_eq!(get(&local).unwrap(), b"credential");
    }

    #[test]
    fn vaults_and_items_count_by_name_in_any_case_or_by_id() {
        let beside = directory("names");
        let text = r#"{"vaults": [{"id": "vlt1", "name": "Infra Secrets", "items": [
            {"id": "itm1", "title": "OpenAI", "fields": [{"label": "key", "value": "sk-1"}]},
            {"id": "itm2", "title": "Twin"}, {"id": "itm3", "title": "twin"}]}]}"#;
        write(&beside.join("vault.json"), text, 0o600);
        let local = Local::new(Path::new("vault.json"), None, &beside);
        let get = |reference: &str| {
            let mut results = fetch(&local.candidates, &[reference.parse().unwrap()]);
            results.remove(0).map(|secret| secret.expose().to_vec())
        };
        assert_eq!(get("op://infra SECRETS/openai/key").unwrap(), b"sk-1");
        assert_eq!(get("op://vlt1/itm1/key").unwrap(), b"sk-1");
        assert!(matches!(get("op://VLT1/itm1/key"), Err(FetchError::VaultNotFound { .. })));
        assert!(matches!(get("op://vlt1/other/key"), Err(FetchError::ItemNotFound { .. })));
        let Err(FetchError::Ambiguous { what: ObjectKind::Item, candidates, .. }) = get("op://vlt1/TWIN/x")
        else {
            panic!()
        };
        assert_eq!(candidates, ["itm2", "itm3"]);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let beside = directory("readable");
        write(&beside.join("vault.json"), &vault("x"), 0o644);
        let error = get(&Local::new(Path::new("vault.json"), None, &beside)).unwrap_err();
        assert!(error.to_string().contains("mode 0644"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named_with_all_the_places_looked_in() {
        let beside = directory("missing");
        let error = get(&Local::new(Path::new("no.json"), Some(Path::new("/nowhere")), &beside)).unwrap_err();
        assert!(error.to_string().contains("/nowhere/no.json or "), "{error}");
    }

    #[test]
    fn a_faulty_file_is_named_by_line_and_column_and_never_quoted() {
        let beside = directory("faulty");
        let text = "{\"vaults\": [{\"name\": \"v\",\n \"items\": \"hunter3\"}]}";
        write(&beside.join("vault.json"), text, 0o600);
        let error = get(&Local::new(Path::new("vault.json"), None, &beside)).unwrap_err().to_string();
        assert!(error.contains("line 2, column 19") && !error.contains("hunter"), "{error}");
    }
}

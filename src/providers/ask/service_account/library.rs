//! The file of 1Password's core: where it is kept, which releases are known, and how it is installed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;
use zip::ZipArchive;

use crate::files::{self, Attributes};
use crate::remedy::Remedy;

/// Where `opnix core install` and distributions put it.
pub const DIRECTORY: &str = "/usr/lib/opnix";
pub const NAME: &str = "libop_uniffi_core.so";
/// More than the size of any release, in bytes.
const SIZE_MAX: usize = 128 << 20;
/// A wheel has one; each has to be unpacked to see which it is.
const LIBRARIES_MAX: usize = 8;
/// How deep a directory is searched: deep enough for an unpacked wheel.
const DEPTH_MAX: usize = 8;

/// A release that opnix was tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    pub version: &'static str,
    /// By Rust's name for it.
    pub architecture: &'static str,
    sum: &'static str,
}

/// From the wheels of 1Password's Python SDK, newest first; the sums are SHA-256, of the library itself.
const RELEASES: [Release; 6] = [
    release("0.4.2", "x86_64", "d030d05c5dca54f82c6cf8a4c00e82b19734d1ce6f5dfa2e5702c3cd2cd060d7"),
    release("0.4.2", "aarch64", "e5238beee526bfc6cc8a59d136a95ad062a433969c5b4c5af4d74924b533eae3"),
    release("0.4.1", "x86_64", "828f54694c8be2df67f88573f00a87e2b488979e09f0c18afe9bff163d66a82a"),
    release("0.4.1", "aarch64", "dadec5c3614cf765ba60e36bd38bda8b1c4249759ef9842fb15ccd9fdb72d296"),
    release("0.4.0", "x86_64", "99d81d1d197285751eedbf82e6474e7020a29f77d9497fa0253cbf536ef9fa50"),
    release("0.4.0", "aarch64", "22ba212c82c032fb1502f7a42a4fb9a219bde1a776e50c9efd95ab9dfbffb813"),
];

const fn release(version: &'static str, architecture: &'static str, sum: &'static str) -> Release {
    Release { version, architecture, sum }
}

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("{path} cannot be read: {why}", path = .0.display(), why = .1)]
    Unreadable(PathBuf, io::Error),
    #[error("there is no {NAME} in {path}", path = .0.display())]
    Nothing(PathBuf),
    #[error(
        "{path} is not a version of the library that opnix knows for {arch} (SHA-256 {sum})",
        path = .0.display(), sum = .1, arch = std::env::consts::ARCH
    )]
    Unknown(PathBuf, String),
    #[error("{path} cannot be written: {why}", path = .0.display(), why = .1)]
    Unwritable(PathBuf, io::Error),
}

impl Remedy for InstallError {
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Nothing(_) => Some("give a wheel of onepassword-sdk, or a directory with one".into()),
            Self::Unknown(..) => Some(format!("known are {}", versions())),
            Self::Unreadable(..) | Self::Unwritable(..) => None,
        }
    }
}

fn versions() -> String {
    let ours = RELEASES.iter().filter(|release| release.architecture == std::env::consts::ARCH);
    ours.map(|release| release.version).collect::<Vec<_>>().join(", ")
}

/// Which release the library is; `None`: none that opnix was tested with.
pub fn release_of(path: &Path) -> io::Result<Option<Release>> {
    let sum = base16(&Sha256::digest(&*files::read(path, SIZE_MAX)?));
    Ok(RELEASES.into_iter().find(|release| release.sum == sum))
}

/// Installs the library in `directory`, completely or not at all. `source` is a wheel, the library itself, or a directory
/// that contains either.
pub fn install(source: &Path, directory: &Path) -> Result<(Release, PathBuf), InstallError> {
    let (mut best, mut unknown) = (None::<(usize, Zeroizing<Vec<u8>>)>, None);
    for file in candidates(source)? {
        let mut take = |library: Zeroizing<Vec<u8>>| {
            let sum = base16(&Sha256::digest(&library));
            let ours =
                |release: &Release| release.sum == sum && release.architecture == std::env::consts::ARCH;
            match RELEASES.iter().position(ours) {
                // The newest one, if there are several.
                Some(place) if best.as_ref().is_none_or(|(other, _)| place < *other) => {
                    best = Some((place, library));
                }
                Some(_) => {}
                None => unknown = Some(InstallError::Unknown(file.clone(), sum)),
            }
        };
        read(&file, &mut take).map_err(|error| InstallError::Unreadable(file.clone(), error))?;
    }
    let Some((place, library)) = best else {
        return Err(unknown.unwrap_or_else(|| InstallError::Nothing(source.to_owned())));
    };
    let path = directory.join(NAME);
    write(directory, &library).map_err(|error| InstallError::Unwritable(path.clone(), error))?;
    Ok((RELEASES[place], path))
}

/// The files that may be or contain the library.
fn candidates(source: &Path) -> Result<Vec<PathBuf>, InstallError> {
    fn walk(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
        if depth > DEPTH_MAX || fs::symlink_metadata(path)?.is_symlink() {
            return Ok(());
        }
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            let is_wheel = path.extension().is_some_and(|extension| extension == "whl");
            if path.is_dir() {
                walk(&path, depth + 1, found)?;
            } else if is_wheel || path.file_name().is_some_and(|name| name == NAME) {
                found.push(path);
            }
        }
        Ok(())
    }
    let unreadable = |error| InstallError::Unreadable(source.to_owned(), error);
    if !fs::metadata(source).map_err(unreadable)?.is_dir() {
        return Ok(vec![source.to_owned()]);
    }
    let mut found = Vec::new();
    walk(source, 0, &mut found).map_err(unreadable)?;
    found.sort();
    Ok(found)
}

/// The libraries in a file, one after the other: itself, or those in a wheel, which is a ZIP archive.
fn read(path: &Path, take: &mut impl FnMut(Zeroizing<Vec<u8>>)) -> io::Result<()> {
    if path.extension().is_none_or(|extension| extension != "whl") {
        take(files::read(path, SIZE_MAX)?);
        return Ok(());
    }
    let mut archive = ZipArchive::new(File::open(path)?)?;
    let ends = format!("/{NAME}");
    let names: Vec<String> =
        archive.file_names().map(|name| Ok(name?.into_owned())).collect::<io::Result<_>>()?;
    let names: Vec<&String> = names.iter().filter(|name| name.ends_with(&ends)).collect();
    if names.len() > LIBRARIES_MAX {
        return Err(io::Error::other(format!(
            "it has {} libraries of that name: a wheel has one",
            names.len()
        )));
    }
    for name in names {
        let file = archive.by_name(name)?;
        // What it says of its size need not be so.
        take(files::read_from(file, 0, SIZE_MAX)?);
    }
    Ok(())
}

fn write(directory: &Path, library: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    // A process that has loaded the old file keeps using it.
    let attributes = Attributes { mode: 0o644, owner: None };
    files::replace(&File::open(directory)?, OsStr::new(NAME), library, attributes).map(drop)
}

fn base16(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

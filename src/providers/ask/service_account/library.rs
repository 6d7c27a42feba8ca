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

/// Where `opnix core install` puts it.
pub const DIRECTORY: &str = "/usr/lib/opnix";
/// Where the package that opnix was built for has it, if it has one: set when it is built.
const OF_THE_PACKAGE: Option<&str> = option_env!("OPNIX_LIBRARY");
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
    build: &'static str,
}

/// From the wheels of 1Password's Python SDK, newest first; the sums are SHA-256, of the library itself, and
/// the last is what the linker calls this build: GNU's build id.
const RELEASES: [Release; 6] = [
    release(
        "0.4.2",
        "x86_64",
        "d030d05c5dca54f82c6cf8a4c00e82b19734d1ce6f5dfa2e5702c3cd2cd060d7",
        "25eb8c201034704ec99ec7e887e0d0e4dbf14680",
    ),
    release(
        "0.4.2",
        "aarch64",
        "e5238beee526bfc6cc8a59d136a95ad062a433969c5b4c5af4d74924b533eae3",
        "27185a2cff497e33e84d57eeba2600a2b1ebc3de",
    ),
    release(
        "0.4.1",
        "x86_64",
        "828f54694c8be2df67f88573f00a87e2b488979e09f0c18afe9bff163d66a82a",
        "62261d677242b7a839c0a230afb8d7930328a5f2",
    ),
    release(
        "0.4.1",
        "aarch64",
        "dadec5c3614cf765ba60e36bd38bda8b1c4249759ef9842fb15ccd9fdb72d296",
        "e668c1e51622e062f7d0fd7ec04d4414522fbc0b",
    ),
    release(
        "0.4.0",
        "x86_64",
        "99d81d1d197285751eedbf82e6474e7020a29f77d9497fa0253cbf536ef9fa50",
        "0f19b2462ea87f21fa70480ab8f8ee8b54e99464",
    ),
    release(
        "0.4.0",
        "aarch64",
        "22ba212c82c032fb1502f7a42a4fb9a219bde1a776e50c9efd95ab9dfbffb813",
        "87dbea7bad0175a69878e841cc7adac68bfc4440",
    ),
];

const fn release(
    version: &'static str,
    architecture: &'static str,
    sum: &'static str,
    build: &'static str,
) -> Release {
    Release { version, architecture, sum, build }
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

/// The library that is used where none is named: what an administrator installed stands above the package's.
pub fn default_path() -> PathBuf {
    let installed = Path::new(DIRECTORY).join(NAME);
    match OF_THE_PACKAGE {
        Some(path) if !installed.exists() => PathBuf::from(path),
        _ => installed,
    }
}

fn versions() -> String {
    let ours = RELEASES.iter().filter(|release| release.architecture == std::env::consts::ARCH);
    ours.map(|release| release.version).collect::<Vec<_>>().join(", ")
}

/// Which release the library is; `None`: none that opnix was tested with. Distributions strip it (nixpkgs does), so that its
/// sum is another one; the build id stays. It says which release the file comes from, not that nobody changed it.
pub fn release_of(path: &Path) -> io::Result<Option<Release>> {
    Ok(known(&files::read(path, SIZE_MAX)?))
}

fn known(library: &[u8]) -> Option<Release> {
    let sum = base16(&Sha256::digest(library));
    let by_sum = RELEASES.into_iter().find(|release| release.sum == sum);
    by_sum.or_else(|| {
        let build = build_id(library)?;
        RELEASES.into_iter().find(|release| release.build == build)
    })
}

/// The build id: a note of 20 bytes, of the type 3, whose owner is GNU.
fn build_id(library: &[u8]) -> Option<String> {
    const HEAD: &[u8] = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    // Notes are aligned.
    let at = (0..library.len()).step_by(4).find(|at| library[*at..].starts_with(HEAD))?;
    library.get(at + HEAD.len()..at + HEAD.len() + 20).map(base16)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_was_stripped_is_known_by_its_build_id() {
        let with = |build: &[u8]| {
            let file = [&[0; 8][..], b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0", build].concat();
            known(&file).map(|release| release.version)
        };
        let digit =
            |at: usize| u8::from_str_radix(&RELEASES[0].build[2 * at..2 * at + 2], 16).expect("digits");
        let newest: Vec<u8> = (0..20).map(digit).collect();
        assert_eq!(with(&newest), Some(RELEASES[0].version));
        assert_eq!((with(&[7; 20]), with(&newest[..19])), (None, None));
    }
}

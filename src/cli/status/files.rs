//! The mirror's files as they are, and what the mirror says of them.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::{Gid, Group, Uid, User};

use super::page::{Page, bad, doubtful, good};
use super::relative;
use crate::control::interface::MirroredFile;
use crate::files::StateDirectory;
use crate::mirror::report::Report;
use crate::policy::MIRROR;
use crate::scope;
use crate::systemd::manager::Manager;

/// How long all directories together may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The mirror's `RuntimeDirectory=`.
const DIRECTORY: &str = "opnix-mirror";

/// How a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// As it is to be; what it looks like.
    Fine(String),
    /// It is there, and not as it is to be.
    Other(String),
    Missing,
    /// Nobody knows, and why.
    Unknown(String),
}

/// How the mirror is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mirror {
    /// The service manager cannot be asked.
    #[default]
    Unknown,
    /// In this state.
    Down(String),
    /// With what it says.
    Up(Option<Report>),
}

/// Looks at the files, as far as we may. One that nobody answers for holds up no other for long.
pub fn look_at(files: &[MirroredFile]) -> Vec<Look> {
    let late = || Look::Unknown("its directory does not answer".into());
    let mut looks: Vec<Look> = files.iter().map(|_| late()).collect();
    let (say, hear) = channel();
    let all = files.to_vec();
    thread::spawn(move || all.iter().map(look).try_for_each(|look| say.send(look)));
    let end = Instant::now() + PATIENCE;
    for slot in &mut looks {
        match hear.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(look) => *slot = look,
            Err(_) => break,
        }
    }
    looks
}

fn look(file: &MirroredFile) -> Look {
    let there = match fs::symlink_metadata(&file.path) {
        Ok(there) => there,
        Err(error) if error.kind() == ErrorKind::NotFound => return Look::Missing,
        Err(error) => return Look::Unknown(error.to_string()),
    };
    if !there.is_file() {
        return Look::Other("is not a file".into());
    }
    for link in &file.symlinks {
        match fs::read_link(link) {
            Ok(target) if target == Path::new(&file.path) => {}
            Ok(target) => return Look::Other(format!("its link {link} leads to {}", target.display())),
            Err(error) => return Look::Other(format!("its link {link} is not there: {error}")),
        }
    }
    let is = describe(&there);
    match configured(file) {
        Some((user, group, to_be)) => {
            let is_right = user.is_none_or(|user| user.as_raw() == there.uid())
                && group.is_none_or(|group| group.as_raw() == there.gid())
                && format!("{:04o}", there.mode() & 0o7777) == file.mode;
            if is_right { Look::Fine(is) } else { Look::Other(format!("is {is}, and to be {to_be}")) }
        }
        None => Look::Other(format!("is {is}, and there is no user or group as it is to have")),
    }
}

fn describe(there: &Metadata) -> String {
    let user = User::from_uid(Uid::from_raw(there.uid())).ok().flatten().map(|user| user.name);
    let group = Group::from_gid(Gid::from_raw(there.gid())).ok().flatten().map(|group| group.name);
    let user = user.unwrap_or_else(|| there.uid().to_string());
    let group = group.unwrap_or_else(|| there.gid().to_string());
    format!("{user}:{group} {:04o}", there.mode() & 0o7777)
}

/// Whom it is to belong to, as far as that is said, and in words; `None`: there are no such.
fn configured(file: &MirroredFile) -> Option<(Option<Uid>, Option<Gid>, String)> {
    let user = match file.owner.as_str() {
        // The default, for a user who cannot give files away.
        "root" if !scope::has_systems_manager() => None,
        name => Some(match name.parse() {
            Ok(number) => Uid::from_raw(number),
            Err(_) => User::from_name(name).ok().flatten()?.uid,
        }),
    };
    let group = match file.group.as_deref() {
        None if !scope::has_systems_manager() => None,
        None => Some(Gid::from_raw(0)),
        Some(name) => Some(match name.parse() {
            Ok(number) => Gid::from_raw(number),
            Err(_) => Group::from_name(name).ok().flatten()?.gid,
        }),
    };
    let words = format!("{}:{} {}", file.owner, file.group.as_deref().unwrap_or("root"), file.mode);
    Some((user, group, words))
}

/// How the mirror is that belongs to this service.
pub fn mirror(manager: Option<&mut Manager>) -> Mirror {
    let Some(unit) = manager.and_then(|manager| manager.unit(MIRROR).ok()) else { return Mirror::Unknown };
    if !["active", "reloading", "refreshing"].contains(&unit.state()) {
        return Mirror::Down(unit.state().to_owned());
    }
    let directory = scope::runtime_directory().join(DIRECTORY);
    Mirror::Up(Report::read(&StateDirectory::new(directory)))
}

impl Mirror {
    fn report(&self) -> Option<&Report> {
        match self {
            Self::Up(report) => report.as_ref(),
            Self::Unknown | Self::Down(_) => None,
        }
    }

    /// `has_files`: else it is of less interest.
    pub fn describe(&self, page: &mut Page, has_files: bool) {
        match self {
            Self::Down(state) if has_files || state == "failed" => page.line(
                "mirror",
                format_args!(
                    "{} ({state}): files are not written, and no unit is started again\nsystemctl status {MIRROR}",
                    bad("does not run")
                ),
            ),
            Self::Up(None) if has_files => {
                page.line("mirror", "runs, and does not say how the files are: systemctl status opnix-mirror.service");
            }
            Self::Unknown | Self::Down(_) | Self::Up(None) => {}
            Self::Up(Some(report)) => {
                if has_files {
                    page.line("mirror", "runs");
                }
                if let Some(faults) = &report.faults {
                    page.line("mirror", format_args!("{}: {faults}", bad("an older configuration is in force")));
                }
                for (path, why) in &report.stuck {
                    let path = path.display();
                    page.line("mirror", format_args!("{path} left the configuration and {}: {why}", doubtful("cannot be removed")));
                }
                for failure in &report.failures {
                    page.line("mirror", format_args!("a secret changed, and {}", doubtful(failure)));
                }
            }
        }
    }
}

/// A line for each file, with why it is not as it should be.
pub fn describe_all<'f>(
    page: &mut Page,
    files: impl Iterator<Item = (&'f MirroredFile, &'f Look)> + Clone,
    mirror: &Mirror,
    now: SystemTime,
) {
    let width = files.clone().map(|(file, _)| file.path.len()).max().unwrap_or(0);
    for (file, look) in files {
        let path = format!("{:<width$}", file.path);
        match look {
            Look::Fine(is) => page.line("files", format_args!("{path}  {}  {is}", good("there"))),
            Look::Other(what) => page.line("files", format_args!("{path}  {}", doubtful(what))),
            Look::Missing if file.optional => {
                page.line("files", format_args!("{path}  left out: it is optional"))
            }
            Look::Missing => page.line("files", format_args!("{path}  {}", bad("is not there"))),
            Look::Unknown(why) => {
                page.line("files", format_args!("{path}  {}", doubtful(format_args!("not known: {why}"))))
            }
        }
        if let Some(told) = mirror.report().and_then(|report| report.troubles.get(Path::new(&file.path))) {
            let since = relative(told.since, now);
            page.line("files", format_args!("    since {since}: {}", told.why.replace('\n', "\n    ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_compared_with_what_is_configured() {
        let place = std::env::temp_dir().join(format!("opnix-look-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let path = place.join("key");
        let file = MirroredFile {
            secret: "key".into(),
            credential: "mirror-1".into(),
            path: path.display().to_string(),
            owner: Uid::effective().to_string(),
            group: Some(Gid::effective().to_string()),
            mode: "0440".into(),
            symlinks: vec![place.join("link").display().to_string()],
            optional: false,
            services: Vec::new(),
        };
        assert_eq!(look(&file), Look::Missing);
        fs::write(&path, "canary").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        assert!(matches!(look(&file), Look::Other(why) if why.contains("is not there")));
        symlink(&path, place.join("link")).unwrap();
        assert!(matches!(look(&file), Look::Fine(is) if is.ends_with(" 0440")), "{:?}", look(&file));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        assert!(matches!(look(&file), Look::Other(why) if why.contains(" 0444, and to be ")));
        let nobody = MirroredFile { owner: "no-such-user-here".into(), ..file.clone() };
        assert!(matches!(look(&nobody), Look::Other(why) if why.contains("there is no user or group")));
        let elsewhere = MirroredFile { path: format!("{}/x", file.path), ..file };
        assert!(matches!(look(&elsewhere), Look::Unknown(_)), "{:?}", look(&elsewhere));
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn what_the_mirror_says_of_a_file_stands_below_it() {
        let file = |path: &str, optional| MirroredFile {
            secret: "s".into(),
            credential: "c".into(),
            path: path.into(),
            owner: "root".into(),
            group: None,
            mode: "0400".into(),
            symlinks: Vec::new(),
            optional,
            services: Vec::new(),
        };
        let files = [file("/run/secrets/one", false), file("/run/secrets/two", true)];
        let looks = [Look::Missing, Look::Missing];
        let mut report = Report { files: 1, missing: 1, ..Report::default() };
        let told = crate::mirror::report::Told { why: "there is no user \"x\"\ncreate it".into(), since: 60 };
        report.troubles.insert("/run/secrets/one".into(), told);
        report.failures.push("systemctl reload x.service failed (failed)".into());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(90);
        let mut page = Page::new();
        let mirror = Mirror::Up(Some(report));
        mirror.describe(&mut page, true);
        describe_all(&mut page, files.iter().zip(&looks), &mirror, now);
        let text = page.into_plain();
        for line in [
            "mirror     runs\n",
            "a secret changed, and systemctl reload x.service failed (failed)\n",
            "files      /run/secrets/one  is not there\n",
            "               since 30s ago: there is no user \"x\"\n               create it\n",
            "           /run/secrets/two  left out: it is optional\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        let mut page = Page::new();
        Mirror::Down("inactive".into()).describe(&mut page, true);
        Mirror::Down("inactive".into()).describe(&mut page, false);
        assert_eq!(page.into_plain().matches("does not run").count(), 1);
    }
}

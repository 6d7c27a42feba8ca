//! Unit files, read as systemd reads them: the main file of the first directory that has it, then drop-ins by their names, over
//! all directories, of the unit, its template, its prefixes, its aliases and its type.
//!
//! Followed from `unit-file.c`, `dropin.c` and `conf-parser.c` of systemd; held against systemd 252, 257 and 262 by
//! `tests/system/unit_files.rs`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::manager::Manager;
use super::running::{Load, Running};
use super::unit_lines::{Line, lines};
use crate::scope;

/// Where systemd looks for the units of the system, the most important first.
const SEARCH_PATH: [&str; 13] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// The files of some directories.
pub struct UnitFiles {
    /// The most important first; by name, what is in each.
    directories: Vec<Directory>,
    /// The names that stand for another one.
    aliases: BTreeMap<String, String>,
    /// The service manager that has read them; `None`: they are not, or not only, those of this machine.
    running: Option<RefCell<Running>>,
}

struct Directory {
    path: PathBuf,
    files: BTreeMap<String, File>,
    /// `NAME.d`, by NAME.
    drop_ins: BTreeSet<String>,
}

enum File {
    /// It hides those of the same name in other directories.
    Mask,
    Alias(String),
    Unit,
}

/// A unit, or a template, as systemd would load it.
#[derive(Debug, Clone, Default)]
pub struct Effective {
    /// Its own name, whichever of its aliases was asked for.
    pub name: String,
    /// All of its names.
    pub names: BTreeSet<String>,
    /// The main file; `None` if there is none in these directories.
    pub file: Option<PathBuf>,
    pub is_masked: bool,
    /// What counts, in its order.
    pub lines: Vec<Line>,
    /// What the service manager says that it loads, if it has the unit in memory.
    pub loads: Option<Vec<Load>>,
    /// It has not read what is in the files now.
    pub is_stale: bool,
}

impl Effective {
    /// What counts, without what an empty assignment takes back.
    pub fn in_effect(&self) -> Vec<&Line> {
        let mut all: Vec<&Line> = Vec::new();
        for line in &self.lines {
            if line.value.is_empty() {
                all.retain(|before| (&before.section, &before.key) != (&line.section, &line.key));
            } else {
                all.push(line);
            }
        }
        all
    }
}

impl UnitFiles {
    /// `directories`: the most important first, unless systemd knows all of them: then its order counts.
    pub fn new(directories: &[PathBuf]) -> io::Result<Self> {
        let rank = |path: &PathBuf| SEARCH_PATH.iter().position(|known| path == Path::new(known));
        let mut paths = directories.to_vec();
        if paths.iter().all(|path| rank(path).is_some()) {
            paths.sort_by_key(rank);
        }
        let read = |path: &PathBuf| {
            Directory::read(path, directories)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        let directories: Vec<Directory> = paths.iter().map(read).collect::<io::Result<_>>()?;
        let mut aliases = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (name, file) in directories.iter().flat_map(|directory| &directory.files) {
            // The first of its name counts.
            if seen.insert(name)
                && let File::Alias(target) = file
            {
                aliases.insert(name.clone(), target.clone());
            }
        }
        Ok(Self { directories, aliases, running: None })
    }

    /// The directories of this machine, as far as they are there. What its service manager has in memory it is asked about.
    pub fn of_the_machine() -> io::Result<Self> {
        let there = SEARCH_PATH.iter().map(PathBuf::from).filter(|path| path.is_dir());
        // Where /lib is a link to /usr/lib, it is the same directory.
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in there {
            if !paths.iter().any(|known| known.canonicalize().ok() == path.canonicalize().ok()) {
                paths.push(path);
            }
        }
        // Others than root are connected to a service manager of their own.
        let running = scope::has_systems_manager().then(|| Manager::connect().and_then(Running::new));
        let running = running.and_then(Result::ok).map(RefCell::new);
        Ok(Self { running, ..Self::new(&paths)? })
    }

    /// The units and templates that have a file or drop-ins of their own here, under their own names.
    pub fn names(&self) -> BTreeSet<String> {
        let files = self.directories.iter().flat_map(|directory| directory.files.keys());
        // `app-.service.d` is for all whose names begin so, `service.d` for all of the type.
        let of_one = |name: &&String| {
            let prefix = name.rsplit_once('.').map_or("", |(name, _)| name.split('@').next().unwrap_or(name));
            prefix == "-" || !prefix.is_empty() && !prefix.ends_with('-')
        };
        let drop_ins = self.directories.iter().flat_map(|directory| &directory.drop_ins).filter(of_one);
        let mut names: BTreeSet<String> =
            files.chain(drop_ins).map(|name| self.own_name(name).to_owned()).collect();
        names.extend(self.running.iter().flat_map(|running| running.borrow().loaded.clone()));
        names
    }

    /// Whether this is an instance of a template that the service manager has in memory, and that has no files of its own.
    pub fn is_loaded_instance(&self, name: &str) -> bool {
        let has_files =
            |directory: &Directory| directory.files.contains_key(name) || directory.drop_ins.contains(name);
        template_of(name).is_some() && !self.directories.iter().any(has_files)
    }

    /// The unit's own name, if this is another one for it.
    pub fn own_name<'n>(&'n self, name: &'n str) -> &'n str {
        let mut name = name;
        // A link to a link; but not for ever.
        for _ in 0..self.aliases.len() {
            match self.aliases.get(name) {
                Some(target) => name = target,
                None => break,
            }
        }
        name
    }

    /// The list of encrypted volumes of the machine that these directories belong to.
    pub fn crypttab(&self) -> Option<PathBuf> {
        let mut paths = self.directories.iter().map(|directory| &directory.path);
        let etc = paths.find(|path| path.ends_with("etc/systemd/system"))?;
        Some(etc.ancestors().nth(2)?.join("crypttab"))
    }

    /// Whether these are all directories in which packages put units, so that what is not here is nowhere.
    pub fn has_the_vendors(&self) -> bool {
        self.directories.iter().any(|directory| directory.path.ends_with("lib/systemd/system"))
    }

    /// Whether there is a main file for it, under any of its names.
    pub fn is_known(&self, name: &str) -> bool {
        let own = self.own_name(name);
        let template = template_of(own);
        self.file(own).or_else(|| self.file(self.own_name(template.as_deref()?))).is_some()
    }

    pub fn is_masked(&self, name: &str) -> bool {
        matches!(self.file(self.own_name(name)), Some((_, File::Mask)))
    }

    /// As systemd has it, or would load it. Lines that it cannot read are left out.
    pub fn effective(&self, name: &str) -> io::Result<Effective> {
        let unit = self.by_files(name)?;
        match &self.running {
            // What systemd does not tell is in the files.
            Some(running) => Ok(running.borrow_mut().corrected(&unit).unwrap_or(unit)),
            None => Ok(unit),
        }
    }

    fn by_files(&self, name: &str) -> io::Result<Effective> {
        let mut own = self.own_name(name).to_owned();
        let mut file = self.file(&own);
        let template = template_of(&own);
        if file.is_none()
            && let Some(template) = &template
        {
            // An alias of a template stands for the same instance of another one.
            let target = self.own_name(template);
            if target != template {
                own = instance_like(target, &own);
            }
            file = self.file(target);
        }
        let mut names = BTreeSet::from([own.clone(), name.to_owned()]);
        names.extend(self.aliases.keys().filter(|alias| self.own_name(alias) == own).cloned());
        let mut unit = Effective { name: own, names, ..Effective::default() };
        match file {
            Some((_, File::Mask)) => {
                unit.is_masked = true;
                return Ok(unit);
            }
            Some((path, _)) => {
                unit.lines = lines(&path)?;
                unit.file = Some(path);
            }
            None => {}
        }
        for drop_in in self.drop_ins(&unit.names, &unit.name)? {
            unit.lines.extend(lines(&drop_in)?);
        }
        Ok(unit)
    }

    fn file(&self, name: &str) -> Option<(PathBuf, &File)> {
        self.directories
            .iter()
            .find_map(|directory| Some((directory.path.join(name), directory.files.get(name)?)))
    }

    /// By their names, of which the first in the order of their directories counts, of the unit's own name before its other ones.
    fn drop_ins(&self, names: &BTreeSet<String>, own: &str) -> io::Result<Vec<PathBuf>> {
        let mut directories = Vec::new();
        let others = names.iter().map(String::as_str).filter(|name| *name != own);
        for name in [own].into_iter().chain(others) {
            for directory in &self.directories {
                for stem in stems(name) {
                    directories.extend(directory.drop_in_directory(&stem));
                }
            }
        }
        let kind = own.rsplit_once('.').map_or(own, |(_, kind)| kind);
        directories.extend(self.directories.iter().filter_map(|directory| directory.drop_in_directory(kind)));
        let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
        for directory in directories {
            for (name, path) in entries(&directory)? {
                if name.ends_with(".conf") && !name.starts_with('.') {
                    found.entry(name).or_insert(path);
                }
            }
        }
        // One that is empty, or a link to /dev/null, hides the others and says nothing.
        Ok(found.into_values().collect())
    }
}

impl Directory {
    fn read(path: &Path, all: &[PathBuf]) -> io::Result<Self> {
        let (mut files, mut drop_ins) = (BTreeMap::new(), BTreeSet::new());
        for (name, path) in entries(path)? {
            if let Some(name) = name.strip_suffix(".d") {
                drop_ins.extend(path.is_dir().then(|| name.to_owned()));
            } else if name.contains('.')
                && let Some(file) = File::at(&name, &path, all)
            {
                files.insert(name, file);
            }
        }
        Ok(Self { path: path.to_owned(), files, drop_ins })
    }

    fn drop_in_directory(&self, name: &str) -> Option<PathBuf> {
        self.drop_ins.contains(name).then(|| self.path.join(format!("{name}.d")))
    }
}

impl File {
    /// `all`: the directories that are looked through.
    fn at(name: &str, path: &Path, all: &[PathBuf]) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        if metadata.is_symlink() {
            let target = fs::read_link(path).ok()?;
            let target_name = target.file_name()?.to_str()?;
            if target == Path::new("/dev/null") {
                return Some(Self::Mask);
            }
            // One that leads out of them is the file of this unit, whatever it is called there.
            let leads_to = lexically(&path.parent()?.join(target.parent()?));
            let is_among_them =
                all.contains(&leads_to) || SEARCH_PATH.iter().any(|known| leads_to == Path::new(known));
            if target_name != name && is_unit(target_name) && is_among_them {
                return Some(Self::Alias(target_name.to_owned()));
            }
        }
        // One that is gone, or is something else, is none.
        let metadata = fs::metadata(path).ok()?;
        match metadata.is_file() {
            true if metadata.len() == 0 => Some(Self::Mask),
            true => Some(Self::Unit),
            false => None,
        }
    }
}

/// Without `.` and `..`.
fn lexically(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // Above what is there is nothing to take away.
            Component::ParentDir if plain.file_name().is_some() => drop(plain.pop()),
            component => plain.push(component),
        }
    }
    plain
}

fn is_unit(name: &str) -> bool {
    let kinds = [
        "service",
        "socket",
        "mount",
        "swap",
        "target",
        "timer",
        "path",
        "slice",
        "scope",
        "device",
        "automount",
    ];
    name.rsplit_once('.').is_some_and(|(prefix, kind)| !prefix.is_empty() && kinds.contains(&kind))
}

/// `a@x.service` gives `a@.service`.
fn template_of(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{kind}"))
}

/// The instance of this template that has the same name as that of another one.
fn instance_like(template: &str, other: &str) -> String {
    let instance =
        other.split_once('@').and_then(|(_, rest)| rest.rsplit_once('.')).map_or("", |(name, _)| name);
    template.replacen('@', &format!("@{instance}"), 1)
}

/// What the names of a unit's drop-in directories begin with, the most special first: of `a-b@x.service` those are itself,
/// `a-b@.service`, `a-@x.service` and `a-@.service`.
fn stems(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned()];
    all.extend(template_of(name));
    let Some((before, kind)) = name.rsplit_once('.') else { return all };
    let (prefix, instance) = match before.split_once('@') {
        Some((prefix, instance)) => (prefix, format!("@{instance}")),
        None => (before, String::new()),
    };
    if let Some(dash) = prefix.trim_end_matches('-').rfind('-') {
        all.extend(stems(&format!("{}{instance}.{kind}", &prefix[..=dash])));
    }
    all
}

fn entries(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(directory)?.map(|entry| {
        let entry = entry?;
        Ok(entry.file_name().to_str().map(|name| (name.to_owned(), entry.path())))
    });
    entries.filter_map(Result::transpose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_of_prefixes_and_templates_count() {
        assert_eq!(stems("a.service"), ["a.service"]);
        assert_eq!(stems("a-b-c.service"), ["a-b-c.service", "a-b-.service", "a-.service"]);
        assert_eq!(stems("a-b@x.service"), ["a-b@x.service", "a-b@.service", "a-@x.service", "a-@.service"]);
        assert_eq!(stems("a-.service"), ["a-.service"]);
        assert_eq!(stems("-.mount"), ["-.mount"]);
    }

    #[test]
    fn a_link_is_another_name_only_if_it_leads_to_a_unit_there() {
        use std::os::unix::fs::symlink;
        let place = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("target/tmp/unit-files-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        let [etc, lib, opt] = ["etc", "lib", "opt"].map(|name| place.join(name));
        for directory in [&etc, &lib, &opt] {
            fs::create_dir_all(directory).unwrap();
            fs::write(directory.join("real.service"), "[Service]\nExecStart=true\n").unwrap();
        }
        symlink("real.service", lib.join("same.service")).unwrap();
        symlink("../lib/real.service", etc.join("relative.service")).unwrap();
        symlink(lib.join("same.service"), etc.join("twice.service")).unwrap();
        symlink(opt.join("real.service"), etc.join("linked.service")).unwrap();
        symlink("/dev/null", etc.join("masked.service")).unwrap();
        let files = UnitFiles::new(&[etc, lib]).unwrap();
        for name in ["same.service", "relative.service", "twice.service"] {
            assert_eq!(files.own_name(name), "real.service", "{name}");
        }
        let linked = files.effective("linked.service").unwrap();
        assert_eq!((linked.name.as_str(), linked.lines.len()), ("linked.service", 1));
        assert!(files.is_masked("masked.service") && files.effective("masked.service").unwrap().is_masked);
        let real = files.effective("twice.service").unwrap();
        assert_eq!(real.names.len(), 4, "{:?}", real.names);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn instances_and_templates() {
        assert_eq!(template_of("a@x.y.service").unwrap(), "a@.service");
        assert_eq!(template_of("a@.service"), None);
        assert_eq!(instance_like("b@.service", "a@x.y.service"), "b@x.y.service");
    }
}

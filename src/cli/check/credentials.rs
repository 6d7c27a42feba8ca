//! The credentials that a unit starts with, as its unit files say them.

use std::collections::BTreeMap;

use crate::place::Place;
use crate::scope;
use crate::systemd::running::Load;
use crate::systemd::unit_files::Effective;
use crate::systemd::unit_lines::Line;

/// What a unit's files say of credentials, with what is in effect and what is not.
#[derive(Debug, Default)]
pub struct Credentials {
    /// `LoadCredential=` and `LoadCredentialEncrypted=`, by ID: the last line of each counts.
    pub loaded: BTreeMap<String, Loaded>,
    /// `SetCredential=` and `SetCredentialEncrypted=`, by ID.
    pub set: BTreeMap<String, Place>,
    /// Lines that are not in effect, and why.
    pub lost: Vec<Lost>,
    /// Tests for a credential of the system, by ID.
    pub tests: Vec<(String, Place)>,
    /// Lines with a specifier that is known on the machine only.
    pub unknown: Vec<(String, Place)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub source: Source,
    pub is_encrypted: bool,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, a directory or a socket.
    Path(String),
    /// A credential of the system of this name, which need not be there.
    System(String),
}

/// A line that is not in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub id: String,
    pub source: Source,
    pub place: Place,
    pub why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// An empty assignment takes back all before it.
    Cleared(Place),
    /// A later line has the same ID.
    Replaced(Place),
    /// systemd ignores it in this section.
    Section(String),
    /// The service manager has the unit in memory without it.
    Unread,
    /// systemd ignores a path with `//`, `.` or `..` in it.
    Path,
}

impl Credentials {
    pub fn of(unit: &Effective) -> Self {
        let section = section_of(&unit.name);
        let mut found = Self::default();
        for line in &unit.lines {
            match line.key.as_str() {
                key @ ("LoadCredential" | "LoadCredentialEncrypted") => {
                    found.load(line, key == "LoadCredentialEncrypted", section, &unit.name);
                }
                "SetCredential" | "SetCredentialEncrypted" if line.section == section => {
                    if line.value.is_empty() {
                        found.set.clear();
                    } else if let Some((id, _)) = line.value.split_once(':') {
                        found.set.insert(id.to_owned(), line.place.clone());
                    }
                }
                "AssertCredential" | "ConditionCredential" if line.section == "Unit" => {
                    if line.value.is_empty() {
                        found.tests.clear();
                    } else if !line.value.starts_with(['|', '!']) {
                        // One of several, or the opposite, may hold.
                        found.tests.push((line.value.clone(), line.place.clone()));
                    }
                }
                _ => {}
            }
        }
        if let Some(loads) = &unit.loads {
            found.correct(loads, unit);
        }
        found
    }

    /// The service manager knows better: what it has not read is not in effect, and what its files do not say any more is.
    fn correct(&mut self, loads: &[Load], unit: &Effective) {
        for (id, loaded) in std::mem::take(&mut self.loaded) {
            let Loaded { source, is_encrypted, place } = loaded;
            let is_there = |load: &Load| {
                load.id == id
                    && source_of(&load.id, &load.source) == source
                    && load.is_encrypted == is_encrypted
            };
            if loads.iter().any(is_there) {
                self.loaded.insert(id, Loaded { source, is_encrypted, place });
            } else {
                self.lost.push(Lost { id, source, place, why: Why::Unread });
            }
        }
        for Load { id, source, is_encrypted } in loads {
            let place =
                || Place { file: unit.file.clone().unwrap_or_default().as_path().into(), position: None };
            self.loaded.entry(id.clone()).or_insert_with(|| Loaded {
                source: source_of(id, source),
                is_encrypted: *is_encrypted,
                place: place(),
            });
        }
        // It has replaced their specifiers.
        self.unknown.clear();
    }

    fn load(&mut self, line: &Line, is_encrypted: bool, section: &str, unit: &str) {
        let place = line.place.clone();
        if line.value.is_empty() {
            if line.section == section {
                for (id, Loaded { source, place: of, .. }) in std::mem::take(&mut self.loaded) {
                    self.lost.push(Lost { id, source, place: of, why: Why::Cleared(place.clone()) });
                }
            }
            return;
        }
        let (id, path) = line.value.split_once(':').unwrap_or((&line.value, ""));
        let (Some(id), Some(path)) = (expanded(id, unit), expanded(path, unit)) else {
            self.unknown.push((line.value.clone(), place));
            return;
        };
        let source = source_of(&id, &path);
        let is_ignored = |source: &Source| matches!(source, Source::Path(path) if !is_normalized(path));
        let why = if line.section != section {
            Some(Why::Section(line.section.clone()))
        } else if is_ignored(&source) {
            Some(Why::Path)
        } else {
            None
        };
        if let Some(why) = why {
            self.lost.push(Lost { id, source, place, why });
            return;
        }
        if let Some(before) =
            self.loaded.insert(id.clone(), Loaded { source, is_encrypted, place: place.clone() })
        {
            let why = Why::Replaced(place);
            self.lost.push(Lost { id, source: before.source, place: before.place, why });
        }
    }
}

fn source_of(id: &str, path: &str) -> Source {
    match path {
        "" => Source::System(id.to_owned()),
        path if path.starts_with('/') => Source::Path(path.to_owned()),
        name => Source::System(name.to_owned()),
    }
}

/// The section of the unit's own type.
pub fn section_of(unit: &str) -> &'static str {
    match unit.rsplit_once('.').map_or("", |(_, kind)| kind) {
        "socket" => "Socket",
        "mount" => "Mount",
        "swap" => "Swap",
        _ => "Service",
    }
}

fn is_normalized(path: &str) -> bool {
    path.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part))
}

/// With its specifiers replaced, as far as they are the same on all machines; `None` if not.
pub fn expanded(text: &str, unit: &str) -> Option<String> {
    let name = unit.rsplit_once('.').map_or(unit, |(name, _)| name);
    let (prefix, instance) = name.split_once('@').unwrap_or((name, ""));
    let is_template = name.ends_with('@');
    let mut all = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            all.push(c);
            continue;
        }
        match rest.next()? {
            '%' => all.push('%'),
            't' => all.push_str(&scope::runtime_directory_said().to_string_lossy()),
            'S' => all.push_str("/var/lib"),
            'C' => all.push_str("/var/cache"),
            'L' => all.push_str("/var/log"),
            'E' => all.push_str("/etc"),
            'p' => all.push_str(prefix),
            'i' if !is_template => all.push_str(instance),
            'n' if !is_template => all.push_str(unit),
            'N' if !is_template => all.push_str(name),
            'j' => all.push_str(prefix.rsplit_once('-').map_or(prefix, |(_, last)| last)),
            _ => return None,
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(unit: &str, text: &str) -> Credentials {
        let mut section = String::new();
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            match line.split_once('=') {
                Some((key, value)) => lines.push(Line {
                    section: section.clone(),
                    key: key.into(),
                    value: value.into(),
                    place: Place { file: std::path::Path::new("x").into(), position: Some((number + 1, 1)) },
                }),
                None => section = line.trim_matches(['[', ']']).to_owned(),
            }
        }
        Credentials::of(&Effective { name: unit.into(), lines, ..Effective::default() })
    }

    fn paths(credentials: &Credentials) -> Vec<(&str, &str)> {
        credentials
            .loaded
            .iter()
            .map(|(id, loaded)| match &loaded.source {
                Source::Path(path) | Source::System(path) => (id.as_str(), path.as_str()),
            })
            .collect()
    }

    #[test]
    fn the_last_line_of_each_id_counts_and_an_empty_one_takes_all_back() {
        let found = of(
            "a.service",
            "[Service]\nLoadCredential=a:/x\nLoadCredential=b:/y\nLoadCredentialEncrypted=a:/z",
        );
        assert_eq!(paths(&found), [("a", "/z"), ("b", "/y")]);
        assert_eq!(found.lost.len(), 1);
        assert!(found.loaded["a"].is_encrypted);
        let found = of("a.service", "[Service]\nLoadCredential=a:/x\nLoadCredential=\nLoadCredential=b:/y");
        assert_eq!(paths(&found), [("b", "/y")]);
        assert!(matches!(found.lost[0].why, Why::Cleared(_)));
    }

    #[test]
    fn what_systemd_ignores_is_lost() {
        let found = of(
            "a.service",
            "[Unit]\nLoadCredential=a:/x\n[Service]\nLoadCredential=b:/run//y\nLoadCredential=c:/y/../x",
        );
        assert!(found.loaded.is_empty());
        let why: Vec<&Why> = found.lost.iter().map(|lost| &lost.why).collect();
        assert_eq!(why, [&Why::Section("Unit".into()), &Why::Path, &Why::Path]);
    }

    #[test]
    fn specifiers_are_replaced_where_they_are_the_same_everywhere() {
        let found =
            of("a-b@x.service", "[Service]\nLoadCredential=%i-%p:%t/opnix/creds.sock\nLoadCredential=%H:/x");
        assert_eq!(paths(&found), [("x-a-b", "/run/opnix/creds.sock")]);
        assert_eq!(found.unknown.len(), 1);
        assert_eq!(of("a@.service", "[Service]\nLoadCredential=%i:/x").unknown.len(), 1);
        assert_eq!(paths(&of("a.service", "[Service]\nLoadCredential=a")), [("a", "a")]);
    }
}

//! Names, each replaced by one that says only what kind of thing it is of: the same one each time.

use std::collections::{BTreeMap, BTreeSet};

use super::scan::{self, UNIT_TYPES};

/// Around what stands for a name while a text is gone through: two characters that stand for nothing else.
const OPEN: char = '\u{E000}';
const CLOSE: char = '\u{E001}';

/// Words that many give as a name, and that tell nobody anything: in a text they stay.
const EVERYBODYS: [&str; 16] = [
    "password",
    "username",
    "credential",
    "token",
    "value",
    "key",
    "secret",
    "file",
    "name",
    "url",
    "notesplain",
    "root",
    "opnix",
    "unit",
    "user",
    "service",
];
/// What a word on its own is never taken for a name of this machine's, although it looks like one.
const OWN_HOSTS: [&str; 6] =
    ["1password.com", "1password.ca", "1password.eu", "github.com", "secrets.json", "opnix.token"];
/// Of paths with something else below these, only what is below them is replaced.
const KNOWN_DIRECTORIES: [&str; 22] = [
    "/etc/opnix/secrets.d",
    "/etc/opnix",
    "/etc/systemd/system",
    "/etc/credstore.encrypted",
    "/etc/credstore",
    "/etc",
    "/run/opnix",
    "/run/opnix-files/memory",
    "/run/opnix-files",
    "/run/secrets",
    "/run/systemd/system",
    "/run/credentials",
    "/run",
    "/usr/lib/systemd/system",
    "/usr/lib/opnix",
    "/usr",
    "/lib/systemd/system",
    "/var/lib/private/opnix",
    "/var/lib/opnix",
    "/var/lib",
    "/proc",
    "/sys",
];
/// Paths that are the same everywhere.
const KNOWN_PATHS: [&str; 14] = [
    "/etc/opnix/secrets.json",
    "/etc/opnix/token",
    "/etc/opnix/purged",
    "/run/opnix/creds.sock",
    "/run/opnix/control.sock",
    "/run/systemd/private",
    "/etc/credstore.encrypted/opnix.cache-key",
    "/usr/bin/opnix",
    "/usr/local/bin/opnix",
    "/usr/lib/opnix/libop_uniffi_core.so",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/v1",
    "/dev/null",
];
/// Units that opnix or systemd brings along, or that are the same everywhere. What merely begins like one is somebody's own.
const KNOWN_UNITS: [&str; 39] = [
    "opnix.service",
    "opnix.socket",
    "opnix-catalog.service",
    "opnix-control.socket",
    "opnix-key.service",
    "opnix-metrics.service",
    "opnix-metrics.timer",
    "opnix-mirror.service",
    "opnix-mount.service",
    "opnix-report.socket",
    "opnix-report@.service",
    "opnix-secrets.service",
    "opnix-setup.service",
    "opnix-token.service",
    "basic.target",
    "default.target",
    "graphical.target",
    "initrd.target",
    "local-fs.target",
    "multi-user.target",
    "network.target",
    "network-online.target",
    "network-pre.target",
    "nss-user-lookup.target",
    "remote-fs.target",
    "shutdown.target",
    "sockets.target",
    "sysinit.target",
    "time-sync.target",
    "timers.target",
    "dbus.service",
    "dbus.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup.service",
    "systemd-timesyncd.service",
];

#[derive(Default)]
pub struct Names {
    /// In lower case, with what stands for it.
    known: BTreeMap<String, String>,
    /// Likewise, of names that stay in a text.
    everybodys: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, usize>,
    /// As the configuration writes them, for keys that want one.
    durations: BTreeSet<String>,
}

impl Names {
    /// Another form of a name.
    pub fn also(&mut self, form: &str, shown: &str) {
        self.known.entry(form.to_lowercase()).or_insert_with(|| shown.to_owned());
    }

    /// Messages quote it, and it is no name.
    pub fn duration(&mut self, text: &str) {
        self.durations.insert(text.to_owned());
    }

    /// What stands for this name.
    pub fn of(&mut self, kind: &'static str, name: &str) -> String {
        if name.trim().is_empty() {
            return name.to_owned();
        }
        let key = name.to_lowercase();
        if let Some(known) = self.known.get(&key).or_else(|| self.everybodys.get(&key)) {
            return known.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let shown = format!("{kind}-{count}");
        if EVERYBODYS.contains(&key.as_str()) {
            self.everybodys.insert(key, shown.clone());
            return shown;
        }
        // As errors and JSON write it.
        let debug = format!("{name:?}");
        let json = serde_json::to_string(name).unwrap_or_default();
        for form in [&debug, &json] {
            let form = form.trim_matches('"').to_lowercase();
            self.known.entry(form).or_insert_with(|| shown.clone());
        }
        self.known.insert(key, shown.clone());
        shown
    }

    /// A unit, or a pattern of instances: what kind of unit it is stays.
    pub fn unit(&mut self, name: &str) -> String {
        if KNOWN_UNITS.contains(&name) {
            return name.to_owned();
        }
        if let Some(known) = self.known.get(&name.to_lowercase()) {
            return known.clone();
        }
        let Some((stem, kind)) = name.rsplit_once('.') else { return self.of("unit", name) };
        let (stem, instance) =
            stem.split_once('@').map_or((stem, None), |(stem, instance)| (stem, Some(instance)));
        let is_known = KNOWN_UNITS.contains(&format!("{stem}@.{kind}").as_str());
        let stem = if is_known && instance.is_some() { stem.to_owned() } else { self.of("unit", stem) };
        let instance = instance.map(|instance| match instance {
            "" | "*" => format!("@{instance}"),
            instance => format!("@{}", self.of("instance", instance)),
        });
        let shown = format!("{stem}{}.{kind}", instance.unwrap_or_default());
        self.known.insert(name.to_lowercase(), shown.clone());
        shown
    }

    /// An owner: root and numbers are the same everywhere.
    pub fn owner(&mut self, kind: &'static str, name: &str) -> String {
        let is_everybodys = name == "root" || name.bytes().all(|b| b.is_ascii_digit());
        if is_everybodys { name.to_owned() } else { self.of(kind, name) }
    }

    /// A reference: each part by itself.
    pub fn reference(&mut self, text: &str) -> String {
        let Some(rest) = text.strip_prefix("op://") else { return self.of("name", text) };
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let parts: Vec<&str> = path.split('/').collect();
        let last = parts.len() - 1;
        let kinds = |number: usize| match number {
            0 => "vault",
            1 => "item",
            number if number == last => "field",
            _ => "section",
        };
        let mut shown = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            let decoded = percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
            let name = self.of(kinds(number), &decoded);
            if !EVERYBODYS.contains(&decoded.to_lowercase().as_str()) {
                self.known.entry(part.to_lowercase()).or_insert_with(|| name.clone());
            }
            shown.push(name);
        }
        let known = ["attribute=otp", "attribute=value", "attribute=content", "ssh-format=openssh"];
        let query = query.map_or("", |query| known.into_iter().find(|known| *known == query).unwrap_or("…"));
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let shown = format!("op://{}{query}", shown.join("/"));
        self.known.insert(text.to_lowercase(), shown.clone());
        shown
    }

    /// A path: the directories that are the same everywhere stay.
    pub fn path(&mut self, path: &str) -> String {
        if KNOWN_PATHS.contains(&path) || KNOWN_DIRECTORIES.contains(&path) {
            return path.to_owned();
        }
        if !path.starts_with('/') {
            return if OWN_HOSTS.contains(&path) { path.to_owned() } else { self.of("path", path) };
        }
        let known = KNOWN_DIRECTORIES.iter().find(|known| path.starts_with(&format!("{known}/")));
        let (directory, rest) = known.map_or(("", path), |known| (*known, &path[known.len() + 1..]));
        let is_unit = |step: &&str| UNIT_TYPES.iter().any(|kind| step.ends_with(&format!(".{kind}")));
        let shown = match rest.split('/').find(is_unit) {
            Some(unit) if directory.ends_with("system") => {
                let dropped = if rest.contains('/') { ".d/…" } else { "" };
                format!("{}{dropped}", self.unit(unit))
            }
            _ => self.of("path", rest.trim_start_matches('/')),
        };
        let shown = format!("{directory}/{shown}");
        self.known.insert(path.to_lowercase(), shown.clone());
        shown
    }

    /// The text without any name that is known, or that looks like one.
    pub fn replaced(&mut self, text: &str) -> String {
        let text: String = text.chars().filter(|c| ![OPEN, CLOSE].contains(c)).collect();
        let text = self.without_known(&text);
        let text = scan::references(&text);
        let text = self.without_quoted(&text);
        let text = self.without_words(&text);
        text.replace([OPEN, CLOSE], "")
    }

    /// Of what is the same everywhere, only names that are known are taken.
    pub fn of_the_machine(&self, text: &str) -> String {
        self.without_known(text).replace([OPEN, CLOSE], "")
    }

    /// The longest first, and nothing in what stands for a name is replaced again.
    fn without_known(&self, text: &str) -> String {
        let mut names: Vec<(&String, &String)> = self.known.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let mut result = String::new();
        let (mut rest, mut before) = (text, ' ');
        'text: while let Some(first) = rest.chars().next() {
            for (name, shown) in &names {
                if let Some(length) = scan::begins_with(rest, name)
                    && scan::is_whole(before, name, &rest[length..])
                {
                    result.extend([&OPEN.to_string(), shown.as_str(), &CLOSE.to_string()]);
                    before = rest[..length].chars().next_back().unwrap_or(' ');
                    rest = &rest[length..];
                    continue 'text;
                }
            }
            result.push(first);
            before = first;
            rest = &rest[first.len_utf8()..];
        }
        result
    }

    /// Messages quote names.
    fn without_quoted(&mut self, text: &str) -> String {
        let mut result = String::new();
        for (number, part) in text.split('"').enumerate() {
            if number > 0 {
                result.push('"');
            }
            let is_name = number % 2 == 1
                && !part.contains(OPEN)
                && !self.durations.contains(part)
                && !scan::is_word_of_the_configuration(part);
            if is_name {
                let shown = self.of("name", part);
                result.extend([OPEN.to_string(), shown, CLOSE.to_string()]);
            } else {
                result.push_str(part);
            }
        }
        result
    }

    /// Words that look like a name of a unit, a path, a host, an address, a token or an id.
    fn without_words(&mut self, text: &str) -> String {
        let mut result = String::new();
        for part in scan::words(text, OPEN, CLOSE) {
            match part {
                scan::Part::Other(text) => result.push_str(text),
                scan::Part::Word(word) => result.push_str(&self.word(word)),
            }
        }
        result
    }

    fn word(&mut self, word: &str) -> String {
        let outer = word.trim_matches(|c| "().,;".contains(c));
        if scan::is_address(outer) {
            return word.replacen(outer, &self.of("address", outer), 1);
        }
        let bare = word.trim_matches(|c| "[]().,:;".contains(c));
        let place = |with: String| word.replacen(bare, &with, 1);
        if bare.is_empty() {
            return word.to_owned();
        }
        if scan::is_address(bare) {
            return place(self.of("address", bare));
        }
        // A place in a file: its line and column stay.
        let (path, position) = scan::without_position(bare);
        if path.starts_with('/') && path.len() > 1 {
            return place(format!("{}{position}", self.path(path)));
        }
        if scan::is_relative_path(path) && !OWN_HOSTS.contains(&path) {
            return place(format!("{}{position}", self.path(path)));
        }
        if bare.starts_with("op://") {
            return word.to_owned();
        }
        if let Some((_, host)) = bare.split_once("://") {
            let (host, _) = host.split_once('/').unwrap_or((host, ""));
            if !OWN_HOSTS.contains(&host) {
                return place(self.of("address", bare));
            }
        }
        if bare.contains('@') && !bare.contains('/') && !scan::is_unit(bare) {
            return place(self.of("account", bare));
        }
        if scan::is_unit(bare) {
            return place(self.unit(bare));
        }
        if scan::is_host(bare) && !OWN_HOSTS.contains(&bare) {
            return place(self.of("host", bare));
        }
        if scan::is_secret_or_id(bare) {
            return place(self.of("id", bare));
        }
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_units_that_are_the_same_everywhere_stay() {
        let mut names = Names::default();
        for unit in [
            "network-acmevpn.service",
            "systemd-acmecorp.service",
            "opnixkunde.service",
            "opnix-kunde@acme.service",
            "sysinit.kunde.service",
            "sockets.acme.socket",
            "multi-user.kunde.target",
            "opnix-report.acme.service",
        ] {
            for text in [format!("{unit} is not there"), format!("unit \"{unit}\""), names.unit(unit)] {
                let said = names.replaced(&text);
                for part in ["acme", "kunde"] {
                    assert!(!said.contains(part), "{unit}: {said}");
                }
            }
        }
        for unit in ["opnix.service", "opnix-metrics.timer", "network-online.target", "opnix-report@.service"]
        {
            assert_eq!(names.replaced(&format!("{unit} runs")), format!("{unit} runs"));
        }
    }

    #[test]
    fn what_begins_with_a_digit_is_a_name_unless_it_is_a_number() {
        let mut names = Names::default();
        names.duration("90s");
        for (text, hidden) in [
            ("name \"1acme\" is taken", "acme"),
            ("unknown key \"5bogus\"", "bogus"),
            ("unit name \"7up\" has no suffix", "7up"),
            ("name \"5m\" is taken", "5m"),
        ] {
            let said = names.replaced(text);
            assert!(!said.contains(hidden), "{said}");
        }
        for text in ["\"90s\" is too long", "a number, \"4711\"", "\"deadline\" is one of 3"] {
            assert_eq!(names.replaced(text), text);
        }
    }

    #[test]
    fn relative_paths_are_replaced_and_places_in_them_stay() {
        let mut names = Names::default();
        for path in ["kunde-acme.json", "./kunde", "../acme/x.d/10-kunde.json", "kunde/acme.json"] {
            let said = names.replaced(&format!("where {path}:3:2, as {path} says"));
            assert!(!said.contains("kunde") && !said.contains("acme"), "{said}");
            assert!(said.contains(":3:2"), "{said}");
        }
        assert_eq!(names.replaced("secrets.json:3:2"), "secrets.json:3:2");
        names.path("kunde acme");
        assert_eq!(names.replaced("where kunde acme:3:2"), "where path-5:3:2");
    }
}

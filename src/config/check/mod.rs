//! From the files as written to one valid configuration, noting everything that is wrong.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use crate::config::decode::At;
use crate::config::fault::Faults;
use crate::config::file::{self, Services, UnitEntry};
use crate::config::{Change, Config, MIRROR_ROOT, MirrorFile, OnChange, Provider, Timing};
use crate::names::{CredentialName, NameError, UnitName, UnitPattern};
use crate::place::Place;
use crate::policy::{Entry, Policy, Rule};
use crate::providers::ask::connect;
use crate::providers::budget::Budget;
use crate::reference::{Kind, Reference};
use crate::store::decide::{Keep, Settings};
use crate::template::Template;

const DEADLINE_MAX: Duration = Duration::from_secs(60 * 60);
const TIMING: Timing = Timing {
    deadline: Duration::from_secs(30),
    short_deadline: Duration::from_secs(3),
    refresh: Some(Duration::from_secs(2 * 60 * 60)),
};
const SETTINGS: Settings = Settings {
    keep: Keep::Sealed,
    fresh_for: Duration::from_secs(15 * 60),
    stale_for: Duration::from_secs(7 * 24 * 60 * 60),
    always_fetch: false,
    grace: Duration::from_secs(60 * 60),
};

/// What is known of the whole while the files are gone through.
struct Check<'a> {
    faults: &'a mut Faults,
    policy: Policy,
    entries: Vec<Arc<Entry>>,
    changes: Vec<Change>,
    files: Vec<MirrorFile>,
    /// Of all secrets that do not say otherwise.
    defaults: Settings,
    settings: HashMap<Reference, Settings>,
    names: HashMap<String, Place>,
    paths: HashMap<PathBuf, Place>,
}

/// How a secret or template is to be written as a file; the keys that both have.
struct Delivery<'a> {
    path: Option<At<PathBuf>>,
    owner: &'a Option<At<String>>,
    group: &'a Option<At<String>>,
    mode: &'a Option<At<String>>,
    symlinks: &'a [At<String>],
    services: &'a Option<Services>,
    optional: bool,
}

/// How the values of a secret or template are to be kept; the keys that both have.
struct Caching<'a> {
    cache: Option<file::Keep>,
    fresh_for: &'a Option<At<String>>,
    stale_for: &'a Option<At<String>>,
    always_fetch: Option<bool>,
}

pub(super) fn check(files: Vec<(&Path, file::File)>, faults: &mut Faults) -> Config {
    // As in OpNix: the secrets of all files are joined, and the last `pathTemplate` and `defaults` win.
    let path_template = files.iter().rev().find_map(|(_, file)| file.path_template.as_ref());
    let defaults = files.iter().rev().map(|(_, file)| &file.defaults).find(|defaults| !defaults.is_empty());
    let mut check = Check {
        faults,
        policy: Policy::default(),
        entries: Vec::new(),
        changes: Vec::new(),
        files: Vec::new(),
        defaults: SETTINGS,
        settings: HashMap::new(),
        names: HashMap::new(),
        paths: HashMap::new(),
    };

    let provider = match check.only_one("provider", &files, |file| &file.provider) {
        Some((path, provider)) => check.provider(path, &provider.value),
        None => Provider::ServiceAccount { library: None, hosts: Vec::new() },
    };
    let budget = check.only_one("budget", &files, |file| &file.budget).map(|(_, budget)| &budget.value);
    let budget = budget_for(&provider, budget);
    let timing = check.timing(&files);
    check.defaults = check.cache_defaults(&files);
    for (path, file) in &files {
        for secret in &file.secrets {
            check.secret(secret, path_template, defaults);
        }
        for template in &file.templates {
            check.template(path, template);
        }
        let polling = file.systemd_integration.as_ref().and_then(|integration| integration.polling.as_ref());
        if let Some(interval) = polling.and_then(|polling| polling.interval.as_ref()) {
            check.valid(interval, duration);
        }
    }
    // OpNix's list of services that every change concerns.
    for integration in files.iter().filter_map(|(_, file)| file.systemd_integration.as_ref()) {
        let acts = integration.enable.unwrap_or(true) && integration.restart_on_change.unwrap_or(true);
        for name in integration.services.iter().filter(|_| acts) {
            let Some(service) = check.valid(name, service) else { continue };
            for file in &mut check.files {
                if file.services.iter().all(|(known, _)| *known != service) {
                    file.services.push((service.clone(), OnChange::Restart));
                }
            }
        }
    }
    let Check { policy, entries, changes, files, settings, .. } = check;
    Config { provider, timing, budget, policy, entries, changes, settings, files }
}

impl Check<'_> {
    /// A setting that may stand in one of the files only.
    fn only_one<'f, T>(
        &mut self,
        key: &str,
        files: &'f [(&Path, file::File)],
        get: impl Fn(&'f file::File) -> &'f Option<At<T>>,
    ) -> Option<(&'f Path, &'f At<T>)> {
        let mut settings = files.iter().filter_map(|(path, file)| Some((*path, get(file).as_ref()?)));
        let first = settings.next()?;
        for (_, second) in settings {
            let message =
                format!("{key:?} is set a second time\nit is set at {}; keep one of them", first.1.place);
            self.faults.add(&second.place, message);
        }
        Some(first)
    }

    fn timing(&mut self, files: &[(&Path, file::File)]) -> Timing {
        let deadline = self.only_one("deadline", files, |file| &file.deadline);
        let short = self.only_one("short_deadline", files, |file| &file.short_deadline);
        let refresh = self.only_one("refresh", files, |file| &file.refresh);
        let whole = deadline
            .and_then(|(_, text)| self.valid(text, deadline_within_limits))
            .unwrap_or(TIMING.deadline);
        let timing = Timing {
            deadline: whole,
            short_deadline: short
                .and_then(|(_, text)| self.valid(text, duration))
                .unwrap_or(TIMING.short_deadline.min(whole)),
            refresh: match refresh {
                Some((_, text)) => self.valid(text, interval).flatten(),
                None => self.polling(files).or(TIMING.refresh),
            },
        };
        if let Some((_, short)) = short
            && timing.short_deadline > timing.deadline
        {
            self.faults.add(&short.place, "the short deadline is longer than \"deadline\"\nshorten it");
        }
        timing
    }

    /// OpNix's interval, if it polls.
    fn polling(&mut self, files: &[(&Path, file::File)]) -> Option<Duration> {
        let integrations = files.iter().filter_map(|(_, file)| file.systemd_integration.as_ref());
        let polling = integrations.filter_map(|integration| integration.polling.as_ref());
        let written =
            polling.filter(|polling| polling.enable == Some(true)).find_map(|p| p.interval.as_ref());
        written.and_then(|text| duration(&text.value).ok()).filter(|interval| *interval > Duration::ZERO)
    }

    /// What the files say for all secrets.
    fn cache_defaults(&mut self, files: &[(&Path, file::File)]) -> Settings {
        let keep = files.iter().rev().find_map(|(_, file)| file.cache).map_or(SETTINGS.keep, keep);
        let fresh_for = self.only_one("fresh_for", files, |file| &file.fresh_for).map(|(_, text)| text);
        let stale_for = self.only_one("stale_for", files, |file| &file.stale_for).map(|(_, text)| text);
        let grace = self.only_one("grace", files, |file| &file.grace).map(|(_, text)| text);
        let grace = grace.and_then(|text| self.valid(text, duration)).unwrap_or(SETTINGS.grace);
        let (fresh_for, stale_for) = self.ages(fresh_for, stale_for, &SETTINGS);
        Settings { keep, fresh_for, stale_for, grace, ..SETTINGS }
    }

    /// How long a value is fresh, and how long it will do. Who sets only one of them moves the other out of its way.
    fn ages(
        &mut self,
        fresh_for: Option<&At<String>>,
        stale_for: Option<&At<String>>,
        defaults: &Settings,
    ) -> (Duration, Duration) {
        let fresh = fresh_for.and_then(|text| self.valid(text, duration));
        let stale = stale_for.and_then(|text| self.valid(text, duration));
        match (fresh, stale) {
            (Some(fresh), Some(stale)) => {
                if let (true, Some(written)) = (fresh > stale, fresh_for) {
                    self.faults.add(
                        &written.place,
                        "\"fresh_for\" is longer than \"stale_for\"\na value cannot be fresh that is too old: shorten it",
                    );
                }
                (fresh, stale)
            }
            (Some(fresh), None) => (fresh, defaults.stale_for.max(fresh)),
            (None, Some(stale)) => (defaults.fresh_for.min(stale), stale),
            (None, None) => (defaults.fresh_for, defaults.stale_for),
        }
    }

    /// Notes how the values of an entry may be kept. Where two entries have the same reference, the stricter counts.
    fn caching(&mut self, content: &Template, caching: &Caching<'_>) {
        let (fresh_for, stale_for) =
            self.ages(caching.fresh_for.as_ref(), caching.stale_for.as_ref(), &self.defaults.clone());
        let written = Settings {
            keep: caching.cache.map_or(self.defaults.keep, keep),
            fresh_for,
            stale_for,
            always_fetch: caching.always_fetch.unwrap_or(self.defaults.always_fetch),
            grace: self.defaults.grace,
        };
        for reference in content.references() {
            let keep = if reference.is_momentary() { Keep::Never } else { written.keep };
            let settings = Settings { keep, ..written };
            self.settings
                .entry(reference.clone())
                .and_modify(|other| *other = other.strictest(settings))
                .or_insert(settings);
        }
    }

    fn provider(&mut self, file: &Path, provider: &file::Provider) -> Provider {
        match provider {
            file::Provider::ServiceAccount(settings) => {
                let library =
                    settings.library.as_ref().and_then(|library| self.valid(library, absolute_path));
                let hosts = settings.hosts.iter().filter_map(|host| self.valid(host, host_name)).collect();
                Provider::ServiceAccount { library, hosts }
            }
            file::Provider::Connect(settings) => {
                let url = self.valid(&settings.host, server_url).unwrap_or_default();
                let authority = settings.authority.as_ref().and_then(|path| self.valid(path, absolute_path));
                Provider::Connect(connect::Server { url, authority })
            }
            file::Provider::Local(settings) => {
                let beside = file.parent().unwrap_or(Path::new("")).to_owned();
                Provider::Local { path: PathBuf::from(&settings.path.value), beside }
            }
        }
    }

    fn secret(
        &mut self,
        secret: &At<file::SecretEntry>,
        path_template: Option<&At<String>>,
        defaults: Option<&BTreeMap<String, String>>,
    ) {
        let At { value: secret, place } = secret;
        let kind = match secret.kind {
            None | Some(file::Kind::Field) => Kind::Field,
            Some(file::Kind::File) => Kind::File,
        };
        let reference = secret.reference.0.as_ref();
        let content = reference
            .and_then(|reference| self.valid(reference, str::parse::<Reference>))
            .map(|reference| Template::from(Reference { kind, ..reference }));
        let path = match (&secret.path, path_template) {
            (Some(path), _) => {
                self.valid(path, mirror_path).map(|value| At { value, place: path.place.clone() })
            }
            (None, Some(template)) if secret.units.is_empty() => {
                let filled = fill(&template.value, &secret.variables, defaults);
                let filled = filled
                    .and_then(|text| mirror_path(&text))
                    .map_err(|error| format!("pathTemplate: {error}"));
                self.noted(place, filled).map(|value| At { value, place: place.clone() })
            }
            (None, _) => None,
        };
        if secret.units.is_empty() && secret.path.is_none() && path_template.is_none() {
            self.faults.add(place, "this secret goes to nobody\ngive it `units`, a `path`, or both");
        }
        let needs_name = secret.units.iter().any(|unit| match &unit.value {
            UnitEntry::Unit(_) => true,
            UnitEntry::Options(options) => options.credential.is_none(),
        });
        if needs_name && secret.name.is_none() {
            self.faults.add(
                place,
                "a secret with `units` needs a `name`\nit is the credential's name in LoadCredential=",
            );
        }
        let delivery = Delivery {
            path,
            owner: &secret.owner,
            group: &secret.group,
            mode: &secret.mode,
            symlinks: &secret.symlinks,
            services: &secret.services,
            optional: secret.optional.unwrap_or(false),
        };
        let caching = Caching {
            cache: secret.cache,
            fresh_for: &secret.fresh_for,
            stale_for: &secret.stale_for,
            always_fetch: secret.always_fetch,
        };
        self.entry(place, secret.name.as_ref(), content, &secret.units, delivery, &caching);
    }

    fn template_text(
        &mut self,
        file: &Path,
        place: &Place,
        template: &file::TemplateEntry,
    ) -> Option<Template> {
        match (&template.template, &template.template_file) {
            (Some(text), None) => self.valid(text, Template::parse),
            (None, Some(path)) => {
                let from = file.parent().unwrap_or(Path::new("")).join(&path.value);
                let named = |error: &dyn Display| format!("template file {}: {error}", from.display());
                let text = crate::config::read(&from).map_err(|error| named(&error));
                let template = text.and_then(|text| Template::parse(&text).map_err(|error| named(&error)));
                self.noted(&path.place, template)
            }
            _ => {
                let what = "a template needs one text\ngive it either `template` or `template_file`";
                self.faults.add(place, what);
                None
            }
        }
    }

    fn template(&mut self, file: &Path, template: &At<file::TemplateEntry>) {
        let At { value: template, place } = template;
        let content = self.template_text(file, place, template);
        if template.units.is_empty() && template.path.is_none() {
            self.faults.add(place, "this template goes to nobody\ngive it `units`, a `path`, or both");
        }
        let path = template.path.as_ref();
        let path = path.and_then(|path| {
            self.valid(path, mirror_path).map(|value| At { value, place: path.place.clone() })
        });
        let delivery = Delivery {
            path,
            owner: &template.owner,
            group: &template.group,
            mode: &template.mode,
            symlinks: &template.symlinks,
            services: &template.services,
            optional: template.optional.unwrap_or(false),
        };
        let caching = Caching {
            cache: template.cache,
            fresh_for: &template.fresh_for,
            stale_for: &template.stale_for,
            always_fetch: template.always_fetch,
        };
        self.entry(place, template.name.0.as_ref(), content, &template.units, delivery, &caching);
    }

    /// What secrets and templates have in common: a name, the units and the file.
    fn entry(
        &mut self,
        place: &Place,
        name: Option<&At<String>>,
        content: Option<Template>,
        units: &[At<UnitEntry>],
        delivery: Delivery<'_>,
        caching: &Caching<'_>,
    ) {
        let credential = name.and_then(|name| {
            if let Some(first) = self.names.insert(name.value.clone(), name.place.clone()) {
                let message =
                    format!("name {:?} is taken\nby the one at {first}; names are unique", name.value);
                self.faults.add(&name.place, message);
            }
            self.valid(name, str::parse::<CredentialName>)
        });
        // A faulty content is noted already; a stand-in lets the rest of the entry be checked too.
        let content = content.unwrap_or_else(|| Template::from(stand_in()));
        self.caching(&content, caching);
        let unnamed = || content.references().next().map(Reference::to_string).unwrap_or_default();
        let name = name.map_or_else(unnamed, |name| name.value.clone());
        let entry = Arc::new(Entry { name, content, place: place.clone() });
        self.entries.push(entry.clone());
        for unit in units {
            self.unit(unit, credential.as_ref(), &entry);
        }
        self.file(&entry, delivery);
    }

    fn unit(&mut self, written: &At<UnitEntry>, credential: Option<&CredentialName>, entry: &Arc<Entry>) {
        let place = &written.place;
        let (unit, credential) = match &written.value {
            UnitEntry::Unit(unit) => (Some(unit), credential.cloned()),
            UnitEntry::Options(file::UnitOptions { unit, credential: renamed, .. }) => {
                let renamed = renamed.as_ref().map(|name| self.noted(place, name.parse()));
                (unit.0.as_ref(), renamed.unwrap_or_else(|| credential.cloned()))
            }
        };
        let on_change = match &written.value {
            UnitEntry::Options(file::UnitOptions { on_change: Some(on_change), .. }) => {
                self.on_change(on_change).unwrap_or(OnChange::Nothing)
            }
            _ => OnChange::Nothing,
        };
        let units = unit.and_then(|unit| self.noted(place, unit.parse::<UnitPattern>()));
        let (Some(units), Some(credential)) = (units, credential) else { return };
        if let Some(excess) = units.address_excess(&credential) {
            self.faults.add(
                place,
                format!(
                    "unit {units} and credential \"{credential}\" are {excess} bytes too long together\n\
                     systemd could not even ask (its socket address holds 107 bytes); shorten one of the names"
                ),
            );
        }
        if on_change != OnChange::Nothing {
            self.policy.mirror(entry);
            self.changes.push(Change { entry: entry.clone(), units: units.clone(), action: on_change });
        }
        let rule = Rule { units, credential, entry: entry.clone(), place: place.clone() };
        if let Err(taken) = self.policy.add(rule) {
            let message = format!(
                "{} has a credential \"{}\" already\nit is \"{}\" at {}; a unit can have one secret under one name",
                taken.units, taken.credential, taken.entry.name, taken.place
            );
            self.faults.add(place, message);
        }
    }

    fn on_change(&mut self, written: &file::OnChange) -> Option<OnChange> {
        Some(match written {
            file::OnChange::Action(file::Action::None) => OnChange::Nothing,
            file::OnChange::Action(file::Action::Reload) => OnChange::Reload,
            file::OnChange::Action(file::Action::Restart) => OnChange::Restart,
            file::OnChange::Action(file::Action::ReloadOrRestart) => OnChange::ReloadOrRestart,
            file::OnChange::Signal(file::SendSignal { signal }) => {
                OnChange::Signal(self.valid(signal, str::parse)?)
            }
        })
    }

    fn file(&mut self, entry: &Arc<Entry>, delivery: Delivery<'_>) {
        let owner = self.account(delivery.owner);
        let group = self.account(delivery.group);
        let mode = delivery.mode.as_ref().map_or(Some(0o600), |mode| self.valid(mode, file_mode));
        let mut symlinks = Vec::new();
        for link in delivery.symlinks {
            let Some(target) = self.valid(link, absolute_path) else { continue };
            self.claim_path(&target, &link.place);
            symlinks.push(target);
        }
        let services = self.services(delivery.services);
        let Some(path) = delivery.path else { return };
        self.claim_path(&path.value, &path.place);
        let (Some(owner), Some(group), Some(mode)) = (owner, group, mode) else { return };
        self.policy.mirror(entry);
        self.files.push(MirrorFile {
            entry: entry.clone(),
            optional: delivery.optional,
            path: path.value,
            owner,
            group,
            mode,
            symlinks,
            services,
        });
    }

    /// Two secrets with one path would overwrite each other.
    fn claim_path(&mut self, path: &Path, place: &Place) {
        if let Some(first) = self.paths.insert(path.to_owned(), place.clone()) {
            self.faults
                .add(place, format!("path {path:?} is taken\nby the one at {first}; paths are unique"));
        }
    }

    fn account(&mut self, name: &Option<At<String>>) -> Option<String> {
        let Some(name) = name else { return Some("root".into()) };
        self.valid(name, |name| {
            let valid = !name.is_empty()
                && !name.chars().any(|c| c.is_control() || c.is_whitespace() || ":/,".contains(c));
            valid.then(|| name.to_owned()).ok_or_else(|| format!("{name:?} is no user or group name"))
        })
    }

    fn services(&mut self, services: &Option<Services>) -> Vec<(UnitName, OnChange)> {
        let named: Vec<(&str, &Place, OnChange)> = match services {
            None => Vec::new(),
            Some(Services::Names(names)) => {
                names.iter().map(|name| (name.value.as_str(), &name.place, OnChange::Restart)).collect()
            }
            Some(Services::Options(services)) => services
                .iter()
                .filter_map(|(name, At { value: options, place })| {
                    let action = match (&options.signal, options.restart) {
                        (Some(signal), _) => OnChange::Signal(self.valid(signal, str::parse)?),
                        (None, Some(false)) => OnChange::Nothing,
                        (None, _) => OnChange::Restart,
                    };
                    Some((name.as_str(), place, action))
                })
                .collect(),
        };
        named
            .into_iter()
            .filter_map(|(name, place, action)| Some((self.noted(place, service(name))?, action)))
            .collect()
    }

    fn valid<V, E: Display>(
        &mut self,
        written: &At<String>,
        parse: impl FnOnce(&str) -> Result<V, E>,
    ) -> Option<V> {
        self.noted(&written.place, parse(&written.value))
    }

    fn noted<V, E: Display>(&mut self, place: &Place, result: Result<V, E>) -> Option<V> {
        result.map_err(|error| self.faults.add(place, error)).ok()
    }
}

/// OpNix gives service names without their suffix. They may have dots in them all the same.
fn service(name: &str) -> Result<UnitName, NameError> {
    match name.parse() {
        Err(NameError::NoSuffix(_)) => format!("{name}.service").parse(),
        parsed => parsed,
    }
}

fn deadline_within_limits(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a deadline of 0 would refuse every unit\nthe default is 30s".into()),
        long if long > DEADLINE_MAX => {
            Err(format!("deadline {text:?} is too long\nit can be 1h at the most"))
        }
        duration => Ok(duration),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is no duration\nwrite one such as 500ms, 30s, 15m, 6h or 7d"))
}

fn interval(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "never" => Ok(None),
        _ => match duration(text)? {
            Duration::ZERO => {
                Err("a refresh every 0 seconds would never end\nwrite \"never\" for none".into())
            }
            interval => Ok(Some(interval)),
        },
    }
}

fn keep(written: file::Keep) -> Keep {
    match written {
        file::Keep::Sealed => Keep::Sealed,
        file::Keep::Memory => Keep::Memory,
        file::Keep::Never => Keep::Never,
    }
}

/// 1Password's own limits are what the budget is about; a Connect server's clients have none.
fn budget_for(provider: &Provider, written: Option<&file::Budget>) -> Budget {
    let default = match provider {
        Provider::ServiceAccount { .. } => Budget::SMALLEST_PLAN,
        Provider::Connect(_) | Provider::Local { .. } => Budget::NONE,
    };
    written.map_or(default, |written| Budget {
        hourly: written.hourly.or(default.hourly),
        daily: written.daily.or(default.daily),
    })
}

fn file_mode(text: &str) -> Result<u32, String> {
    let octal = (3..=4).contains(&text.len()).then(|| u32::from_str_radix(text, 8).ok()).flatten();
    octal
        .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| format!("{text:?} is no file mode\nit is 3 or 4 octal digits, such as 0400"))
}

fn server_url(text: &str) -> Result<String, String> {
    let wrong = |why: &str| {
        format!("{text:?} is no address of a Connect server: {why}\nwrite https://host or https://host:port")
    };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        // Not repeated: it may hold a password.
        return Err("the address of a Connect server has no user, password, query or fragment\n\
                    write https://host or https://host:port"
            .into());
    }
    match url.scheme() {
        "https" | "http" => Ok(text.to_owned()),
        scheme => Err(wrong(&format!("{scheme} is not https"))),
    }
}

fn host_name(text: &str) -> Result<String, String> {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let valid = text.contains('.') && text.split('.').all(label);
    valid.then(|| text.to_owned()).ok_or_else(|| {
        format!("{text:?} is no host name\nwrite one such as op.example.org, without scheme, port or path")
    })
}

fn mirror_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.ends_with('/') {
        return Err(format!("{text:?} is no path of a file"));
    }
    tidy(&Path::new(MIRROR_ROOT).join(text))
        .ok_or_else(|| format!("path {text:?} leads upwards\nremove the `..`"))
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') || text.ends_with('/') {
        return Err(format!("{text:?} is no absolute path of a file"));
    }
    tidy(Path::new(text)).ok_or_else(|| format!("path {text:?} leads upwards\nremove the `..`"))
}

/// The path without `.` and doubled slashes, so that equal paths are equal; none with `..`.
fn tidy(path: &Path) -> Option<PathBuf> {
    path.components().all(|component| component != Component::ParentDir).then(|| path.components().collect())
}

/// A `pathTemplate` with its `{name}`s filled in.
fn fill(
    template: &str,
    variables: &BTreeMap<String, String>,
    defaults: Option<&BTreeMap<String, String>>,
) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("`{` is never closed")?;
        let value = variables.get(name).or_else(|| defaults?.get(name));
        filled.push_str(before);
        filled.push_str(
            value.ok_or_else(|| format!("no value for {{{name}}}\nset it in `variables` or `defaults`"))?,
        );
        rest = after;
    }
    Ok(filled + rest)
}

fn stand_in() -> Reference {
    let part = || "faulty".to_owned();
    Reference { vault: part(), item: part(), section: None, field: part(), query: None, kind: Kind::Field }
}

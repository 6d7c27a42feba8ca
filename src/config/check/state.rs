//! What is known so far, and the ways to note a fault.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::decode::At;
use crate::config::fault::{Fault, Faults};
use crate::config::file::File;
use crate::config::valid::{Change, MirrorFile};
use crate::place::Place;
use crate::policy::{Entry, Policy};
use crate::reference::Reference;
use crate::remedy::{Problem, Remedy};
use crate::store::decide::Settings;

/// What is known so far, while the files are gone through one after another.
pub struct Check<'a> {
    pub faults: &'a mut Faults,
    pub warnings: Vec<Fault>,
    pub is_to_be_ours: bool,
    /// The `pathTemplate` and the values for it.
    pub path_template: Option<&'a At<String>>,
    pub path_values: Option<&'a BTreeMap<String, String>>,
    /// Where relative paths start.
    pub mirror_root: PathBuf,
    /// Where files below it have links.
    pub link_root: Option<PathBuf>,
    /// How values are kept, if a secret or template does not say otherwise.
    pub keeping: Settings,
    pub policy: Policy,
    pub entries: Vec<Arc<Entry>>,
    pub changes: Vec<Change>,
    pub files: Vec<MirrorFile>,
    pub settings: HashMap<Reference, Settings>,
    /// The names and paths that are taken, and where.
    pub names: HashMap<String, Place>,
    pub paths: HashMap<PathBuf, Place>,
}

impl Check<'_> {
    /// A setting that may stand in one of the files only.
    pub fn only_one<'f, T>(
        &mut self,
        key: &str,
        files: &'f [(&Path, File)],
        get: impl Fn(&'f File) -> &'f Option<At<T>>,
    ) -> Option<(&'f Path, &'f At<T>)> {
        let mut settings = files.iter().filter_map(|(path, file)| Some((*path, get(file).as_ref()?)));
        let first = settings.next()?;
        for (_, second) in settings {
            self.fault(
                &second.place,
                format!("{key:?} is set a second time"),
                format!("it is set at {}; keep one of them", first.1.place),
            );
        }
        Some(first)
    }

    pub fn valid<V, E: Remedy>(
        &mut self,
        written: &At<String>,
        parse: impl FnOnce(&str) -> Result<V, E>,
    ) -> Option<V> {
        self.noted(&written.place, parse(&written.value))
    }

    pub fn noted<V, E: Remedy>(&mut self, place: &Place, result: Result<V, E>) -> Option<V> {
        result.map_err(|error| self.faults.add(place, &error)).ok()
    }

    pub fn warning(&mut self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(Fault::new(place, &Problem::new(what, remedy)));
    }

    pub fn fault(&mut self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.add(place, &Problem::new(what, remedy));
    }
}

//! Secrets and templates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::state::Check;
use super::values::mirror_path;
use crate::config::decode::At;
use crate::config::file::{self, Common, SecretEntry, TemplateEntry, Unit};
use crate::config::owners::{self, Writers};
use crate::config::sources;
use crate::names::CredentialName;
use crate::place::Place;
use crate::policy::Entry;
use crate::reference::{Kind, Reference};
use crate::remedy::Problem;
use crate::template::Template;

impl Check<'_> {
    pub(super) fn secret(&mut self, secret: &At<SecretEntry>) {
        let At { value: secret, place } = secret;
        let common = &secret.common;
        let kind = match secret.kind {
            None | Some(file::Kind::Field) => Kind::Field,
            Some(file::Kind::File) => Kind::File,
        };
        let reference = secret.reference.0.as_ref();
        let content = reference
            .and_then(|reference| self.valid(reference, str::parse::<Reference>))
            .map(|reference| Template::from(Reference { kind, ..reference }));
        let words = Words {
            variables: Some(&secret.variables),
            defaults: self.path_values,
            name: secret.name.as_ref().map(|name| &*name.value),
        };
        let path = match (&common.path, self.path_template) {
            (Some(path), _) => self.path(path, words),
            (None, Some(template)) if common.units.is_empty() => {
                let path = self.filled(&template.value, words);
                let path = path.map_err(|error| Problem::about("pathTemplate", &error));
                self.noted(place, path).map(|value| At { value, place: place.clone() })
            }
            (None, _) => None,
        };
        if common.units.is_empty() && common.path.is_none() && self.path_template.is_none() {
            self.fault(place, "this secret goes to nobody", "give it `units`, a `path`, or both");
        }
        let needs_name = common.units.iter().any(|unit| match &unit.value {
            Unit::Name(_) => true,
            Unit::Options(options) => options.credential.is_none(),
        });
        if needs_name && secret.name.is_none() {
            self.fault(
                place,
                "a secret with `units` needs a `name`",
                "it is the credential's name in LoadCredential=",
            );
        }
        let entry = self.entry(place, secret.name.as_ref(), content, common);
        self.file(&entry, path, common, secret.services.as_ref());
    }

    pub(super) fn template(&mut self, file: &Path, template: &At<TemplateEntry>) {
        let At { value: template, place } = template;
        let common = &template.common;
        let content = self.template_text(file, place, template);
        if common.units.is_empty() && common.path.is_none() {
            self.fault(place, "this template goes to nobody", "give it `units`, a `path`, or both");
        }
        let name = template.name.0.as_ref().map(|name| &*name.value);
        let words = Words { variables: None, defaults: self.path_values, name };
        let path = common.path.as_ref().and_then(|path| self.path(path, words));
        let entry = self.entry(place, template.name.0.as_ref(), content, common);
        self.file(&entry, path, common, template.services.as_ref());
    }

    fn template_text(&mut self, file: &Path, place: &Place, template: &TemplateEntry) -> Option<Template> {
        match (&template.template, &template.template_file) {
            (Some(text), None) => self.valid(text, Template::parse),
            (None, Some(path)) => {
                let from = file.parent().unwrap_or(Path::new("")).join(&path.value);
                let named = format!("template file {}", from.display());
                // Whoever writes a template names the secrets that are in it.
                let untrusted = self.is_to_be_ours.then(|| owners::look(&from, Writers::of_the_program()));
                let text = match untrusted {
                    Some(Ok(Some(untrusted))) => Err(Problem::about(&named, &untrusted)),
                    _ => sources::read(&from)
                        .map_err(|error| Problem::about(&named, &Problem::plain(error.to_string()))),
                };
                let template = text
                    .and_then(|text| Template::parse(&text).map_err(|error| Problem::about(&named, &error)));
                self.noted(&path.place, template)
            }
            _ => {
                self.fault(
                    place,
                    "a template needs one text",
                    "give it either `template` or `template_file`",
                );
                None
            }
        }
    }

    fn path(&mut self, written: &At<String>, words: Words<'_>) -> Option<At<PathBuf>> {
        let path = self.filled(&written.value, words);
        let value = self.noted(&written.place, path)?;
        Some(At { value, place: written.place.clone() })
    }

    fn filled(&self, text: &str, words: Words<'_>) -> Result<PathBuf, Problem> {
        mirror_path(&words.fill(text)?, &self.mirror_root)
    }

    /// What secrets and templates have in common, up to the file: a name, the values and the units.
    fn entry(
        &mut self,
        place: &Place,
        name: Option<&At<String>>,
        content: Option<Template>,
        common: &Common,
    ) -> Arc<Entry> {
        let credential = name.and_then(|name| {
            if let Some(first) = self.names.insert(name.value.clone(), name.place.clone()) {
                self.fault(
                    &name.place,
                    format!("name {:?} is taken", name.value),
                    format!("by the one at {first}; names are unique"),
                );
            }
            self.valid(name, str::parse::<CredentialName>)
        });
        // The fault of a faulty content is noted already; with a stand-in for it the rest is checked too.
        let content = content.unwrap_or_else(|| Template::from(stand_in()));
        self.keep(&content, common);
        let unnamed = || content.references().next().map(Reference::to_string).unwrap_or_default();
        let name = name.map_or_else(unnamed, |name| name.value.clone());
        let entry = Arc::new(Entry { name, content, place: place.clone() });
        self.entries.push(entry.clone());
        for unit in &common.units {
            self.unit(unit, credential.as_ref(), &entry);
        }
        entry
    }
}

/// What `{word}` in a path stands for.
#[derive(Clone, Copy)]
struct Words<'a> {
    variables: Option<&'a BTreeMap<String, String>>,
    defaults: Option<&'a BTreeMap<String, String>>,
    /// For `{name}`, if nothing else is said for it.
    name: Option<&'a str>,
}

impl Words<'_> {
    /// The text with a value for every `{word}` in it.
    fn fill(self, text: &str) -> Result<String, Problem> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (word, after) = after.split_once('}').ok_or_else(|| Problem::plain("`{` is never closed"))?;
            let value = self.value(word).ok_or_else(|| {
                Problem::new(format!("no value for {{{word}}}"), "set it in `variables` or `defaults`")
            })?;
            filled.push_str(before);
            filled.push_str(value);
            rest = after;
        }
        Ok(filled + rest)
    }

    fn value(&self, word: &str) -> Option<&str> {
        let said = self.variables.and_then(|known| known.get(word));
        let said = said.or_else(|| self.defaults?.get(word)).map(String::as_str);
        said.or(self.name.filter(|_| word == "name"))
    }
}

fn stand_in() -> Reference {
    let part = || "faulty".to_owned();
    Reference { vault: part(), item: part(), section: None, field: part(), query: None, kind: Kind::Field }
}

//! Text with secrets in it: `OPENAI_API_KEY={{ op://Infrastructure Secrets/OpenAI/credential }}`.
//!
//! What a credential is made of is always a template; a plain secret is one with a single reference and no text.

use crate::reference::{Reference, ReferenceError};
use crate::secret::{Draft, Empty, Secret};

/// The parts of a credential, in their order. Holds at least one reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Secret(Reference),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("`{{{{` is never closed\nwrite {{{{ op://vault/item/field }}}}")]
    Open,
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("the template names no secret\nwrite {{{{ op://vault/item/field }}}} where one goes")]
    NoSecret,
}

impl From<Reference> for Template {
    fn from(reference: Reference) -> Self {
        Self(vec![Part::Secret(reference)])
    }
}

impl Template {
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after.split_once("}}").ok_or(TemplateError::Open)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Secret(inside.trim().parse()?));
            rest = after;
        }
        if parts.is_empty() {
            return Err(TemplateError::NoSecret);
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Secret(reference) => Some(reference),
        })
    }

    /// The reference of a plain secret, which needs no rendering.
    pub fn as_plain(&self) -> Option<&Reference> {
        match &self.0[..] {
            [Part::Secret(reference)] => Some(reference),
            _ => None,
        }
    }

    /// The text with `values` in the place of the references, in the order of [`Self::references`].
    pub fn render(&self, values: &[impl AsRef<Secret>]) -> Result<Secret, Empty> {
        let text: usize =
            self.0.iter().map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum();
        let secrets: usize = values.iter().map(|value| value.as_ref().len()).sum();
        let mut draft = Draft::with_capacity(text + secrets);
        let mut values = values.iter();
        for part in &self.0 {
            match part {
                Part::Text(text) => draft.push(text.as_bytes()),
                Part::Secret(_) => draft.push(values.next().ok_or(Empty)?.as_ref().expose()),
            }
        }
        draft.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn values(texts: &[&str]) -> Vec<Arc<Secret>> {
        texts.iter().map(|text| Arc::new(Secret::copy_from(text.as_bytes()).unwrap())).collect()
    }

    #[test]
    fn secrets_stand_where_the_template_names_them() {
        let template = Template::parse("A={{ op://v/i/a }}\nB={{op://v/i/b}}\n").unwrap();
        assert_eq!(template.references().map(|r| r.field.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            template.render(&values(&["1", "{{ op://v/i/b }}"])).unwrap().expose(),
            b"A=1\nB={{ op://v/i/b }}\n"
        );
    }

    #[test]
    fn a_template_without_a_value_for_each_reference_is_not_rendered() {
        let template = Template::parse("{{ op://v/i/a }}{{ op://v/i/b }}").unwrap();
        assert!(template.render(&values(&["1"])).is_err());
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(Template::parse("A={{ op://v/i/a"), Err(TemplateError::Open));
        assert_eq!(Template::parse("plain"), Err(TemplateError::NoSecret));
        assert!(matches!(Template::parse("{{ HOME }}"), Err(TemplateError::Reference(_))));
    }

    #[test]
    fn only_a_lone_reference_is_plain() {
        assert!(Template::parse("{{ op://v/i/a }}").unwrap().as_plain().is_some());
        assert!(Template::parse("{{ op://v/i/a }}\n").unwrap().as_plain().is_none());
    }
}

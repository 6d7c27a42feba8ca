//! Text with secrets in it: `OPENAI_API_KEY={{ op://Infrastructure Secrets/OpenAI/credential }}`.
//!
//! What a credential or a file is made of is always a template; a plain secret is one with a single reference and no text.
//! The syntax is that of `op inject`. What opnix adds is a form: `{{ op://v/i/f | env }}` is quoted for systemd's
//! `EnvironmentFile=`, and `{{ op://v/i/f | json }}` is a JSON string; all of them are in [`Form`].

use sha2::{Digest, Sha256};

use crate::names::CredentialName;
use crate::quote::{Form, RenderError};
use crate::reference::{Reference, ReferenceError};
use crate::remedy::Remedy;
use crate::secret::{Draft, Empty, Secret};

const START: &str = "op://";
const EXAMPLE: &str = "{{ op://vault/item/field }}";

/// The parts of a credential, in their order. Holds at least one reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Secret(Reference, Form),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("`{{{{` is never closed")]
    Open,
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Outside of braces, where it may be no reference at all.
    #[error(transparent)]
    Bare(ReferenceError),
    #[error("{{{{{0}}}}} is no secret")]
    Foreign(String),
    #[error("{0}% is read as {0}, followed by a percent sign")]
    Encoded(String),
    #[error("the template names no secret")]
    NoSecret,
    #[error("unknown form {0:?}")]
    Form(String),
}

impl Remedy for TemplateError {
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Open => Some(format!("write {EXAMPLE}; braces that are to stay are {{{{ \"{{{{\" }}}}")),
            Self::Reference(error) => error.remedy(),
            Self::Bare(error) => {
                let remedy = match error {
                    ReferenceError::Variable(_) => error.remedy().unwrap_or_default(),
                    _ => format!("a reference with other characters in it stands in braces: {EXAMPLE}"),
                };
                Some(format!("{remedy}; text that is to stay is written {{{{ \"op://\" }}}}"))
            }
            Self::Foreign(inside) => {
                let text = inside.replace('\x22', "\\\x22");
                Some(format!(
                    "a secret is {EXAMPLE}; to leave it as it is, write {{{{ \"{{{{{text}}}}}\" }}}}"
                ))
            }
            Self::Encoded(_) => Some(format!("percent-encoded names stand in braces: {EXAMPLE}")),
            Self::NoSecret => Some(format!("write {EXAMPLE} where one goes")),
            Self::Form(_) => {
                let names: Vec<&str> = Form::NAMED.iter().map(|(name, _)| *name).collect();
                Some(format!("after `|` stands one of {}; a | in a name is %7C", names.join(", ")))
            }
        }
    }
}

impl From<Reference> for Template {
    fn from(reference: Reference) -> Self {
        Self(vec![Part::Secret(reference, Form::Verbatim)])
    }
}

impl Template {
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut template = Self(Vec::new());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            template.text(before)?;
            rest = match after.trim_start().strip_prefix('\x22') {
                Some(quoted) => template.literal(quoted)?,
                None => {
                    let (inside, after) = after.split_once("}}").ok_or(TemplateError::Open)?;
                    template.secret(inside)?;
                    after
                }
            };
        }
        template.text(rest)?;
        let is_secret = |part: &Part| matches!(part, Part::Secret(..));
        if template.0.iter().any(is_secret) { Ok(template) } else { Err(TemplateError::NoSecret) }
    }

    /// `{{ op://vault/item/field }}`, perhaps with a form.
    fn secret(&mut self, inside: &str) -> Result<(), TemplateError> {
        if !inside.trim_start().starts_with(START) {
            return Err(TemplateError::Foreign(inside.to_owned()));
        }
        let (reference, form) = match inside.split_once('|') {
            None => (inside, Form::Verbatim),
            Some((reference, form)) => {
                let form = form.trim();
                (reference, Form::named(form).ok_or_else(|| TemplateError::Form(form.to_owned()))?)
            }
        };
        self.0.push(Part::Secret(reference.trim().parse()?, form));
        Ok(())
    }

    /// `{{ "text" }}`: text that is left as it is, in which `\"` stands for a quote. Returns what follows.
    fn literal<'t>(&mut self, quoted: &'t str) -> Result<&'t str, TemplateError> {
        let mut text = String::new();
        let mut rest = quoted;
        loop {
            let (piece, after) = rest.split_once('\x22').ok_or(TemplateError::Open)?;
            rest = after;
            match piece.strip_suffix('\\') {
                Some(piece) => {
                    text.push_str(piece);
                    text.push('\x22');
                }
                None => {
                    text.push_str(piece);
                    break;
                }
            }
        }
        self.0.push(Part::Text(text));
        rest.trim_start().strip_prefix("}}").ok_or(TemplateError::Open)
    }

    /// Text outside of braces, in which a reference can stand too: `op://vault/item/field`, without spaces.
    fn text(&mut self, text: &str) -> Result<(), TemplateError> {
        let (mut plain, mut from) = (0, 0);
        while let Some(at) = text[from..].find(START).map(|at| from + at) {
            from = at + START.len();
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || "-+\\.".contains(c)) {
                continue;
            }
            let within = |c: char| c.is_ascii_alphanumeric() || "-?_./".contains(c);
            // In a query, `=` stands for itself.
            let mut is_query = false;
            let ends = |c: char| {
                is_query |= c == '?';
                !(within(c) || is_query && c == '=')
            };
            let end = text[from..].find(ends).map_or(text.len(), |length| from + length);
            let (reference, after) = (&text[at..end], &text[end..]);
            if after.starts_with('$') {
                let word = after.split_whitespace().next().unwrap_or_default();
                return Err(TemplateError::Bare(ReferenceError::Variable(format!("{reference}{word}"))));
            }
            let reference: Reference = reference.parse().map_err(TemplateError::Bare)?;
            if after.starts_with('%') {
                return Err(TemplateError::Encoded(reference.to_string()));
            }
            self.plain(&text[plain..at]);
            self.0.push(Part::Secret(reference, Form::Verbatim));
            (plain, from) = (end, end);
        }
        self.plain(&text[plain..]);
        Ok(())
    }

    fn plain(&mut self, text: &str) {
        if !text.is_empty() {
            self.0.push(Part::Text(text.to_owned()));
        }
    }

    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Secret(reference, _) => Some(reference),
        })
    }

    /// The name under which the mirror asks for this content. No other content has it, so that a mirror which reads
    /// another configuration never gets the value of something else. It remembers a file by it, too: with another form of this, each
    /// file would be taken for one of another content.
    pub fn mirror_name(&self) -> CredentialName {
        let mut hash = Sha256::new();
        for part in &self.0 {
            let text = match part {
                Part::Text(text) => format!("text {}:{text}", text.len()),
                Part::Secret(reference, form) => format!("{:?} {form:?} {reference}\n", reference.kind),
            };
            hash.update(text);
        }
        let digest: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("mirror-{digest}").parse().expect("valid")
    }

    /// The reference of a plain secret, which needs no rendering.
    pub fn as_plain(&self) -> Option<&Reference> {
        match &self.0[..] {
            [Part::Secret(reference, Form::Verbatim)] => Some(reference),
            _ => None,
        }
    }

    /// The text with `values` in the place of the references, in the order of [`Self::references`].
    pub fn render(&self, values: &[impl AsRef<Secret>]) -> Result<Secret, RenderError> {
        // The size is found out first: a buffer that grows would leave copies of secrets in memory.
        let mut size = 0;
        self.pieces(values, |piece| size += piece.len())?;
        let mut draft = Draft::with_capacity(size);
        self.pieces(values, |piece| draft.push(piece))?;
        Ok(draft.finish()?)
    }

    fn pieces(&self, values: &[impl AsRef<Secret>], mut write: impl FnMut(&[u8])) -> Result<(), RenderError> {
        let mut values = values.iter();
        for part in &self.0 {
            match part {
                Part::Text(text) => write(text.as_bytes()),
                Part::Secret(_, form) => {
                    form.write(values.next().ok_or(Empty)?.as_ref().expose(), &mut write)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn values_of(texts: &[&str]) -> Vec<Arc<Secret>> {
        texts.iter().map(|text| Arc::new(Secret::copy_from(text.as_bytes()).unwrap())).collect()
    }

    #[test]
    fn secrets_stand_where_the_template_names_them() {
        let template = Template::parse("A={{ op://v/i/a }}\nB={{op://v/i/b}}\n").unwrap();
        assert_eq!(template.references().map(|r| r.field.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            template.render(&values_of(&["1", "{{ op://v/i/b }}"])).unwrap().expose(),
            b"A=1\nB={{ op://v/i/b }}\n"
        );
    }

    #[test]
    fn the_name_of_a_content_stays_what_it_is() {
        let name = |text: &str| Template::parse(text).unwrap().mirror_name().to_string();
        assert_eq!(name("A={{ op://v/i/a | env }}\n"), "mirror-2506633f910f239a45b9991bfbc6134f");
    }

    #[test]
    fn a_template_without_a_value_for_each_reference_is_not_rendered() {
        let template = Template::parse("{{ op://v/i/a }}{{ op://v/i/b }}").unwrap();
        assert!(template.render(&values_of(&["1"])).is_err());
    }

    #[test]
    fn references_without_braces_and_literal_text_are_read_as_op_inject_reads_them() {
        let render = |template: &str| {
            let template = Template::parse(template).unwrap();
            let values = vec!["V"; template.references().count()];
            String::from_utf8(template.render(&values_of(&values)).unwrap().expose().to_vec()).unwrap()
        };
        assert_eq!(render("a=op://v/i/f\nb: 'op://v/i/s/f'"), "a=V\nb: 'V'");
        assert_eq!(render("{{op://v/i/f}} op://v/i/f"), "V V");
        assert_eq!(render("op://v/i/f?attribute=otp;x a=op://v/i/f=b"), "V;x a=V=b");
        // Not after a character that could belong to it.
        assert_eq!(render("{{op://v/i/f}} xop://v/i/f +op://v/i/f"), "V xop://v/i/f +op://v/i/f");
        assert_eq!(render(r#"{{ "{{ op://v/i/f }}" }} {{op://v/i/f}}"#), "{{ op://v/i/f }} V");
        assert_eq!(render(r#"{{ "say \"op://\"" }} op://v/i/f"#), r#"say "op://" V"#);
        assert_eq!(Template::parse(r#"{{ "open }}"#), Err(TemplateError::Open));
        assert_eq!(Template::parse(r#"{{ "text" and more }}"#), Err(TemplateError::Open));
        assert!(matches!(Template::parse("x op://v/i"), Err(TemplateError::Bare(_))));
        assert_eq!(Template::parse(r#"{{ "only text" }}"#), Err(TemplateError::NoSecret));
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(Template::parse("A={{ op://v/i/a"), Err(TemplateError::Open));
        assert_eq!(Template::parse("plain"), Err(TemplateError::NoSecret));
        assert_eq!(Template::parse("{{ HOME }}"), Err(TemplateError::Foreign(" HOME ".into())));
    }

    #[test]
    fn the_way_out_of_each_fault_is_one() {
        for foreign in [".Values.x", " .Values.x ", " printf \"%s\" .X | quote ", "", " HOME ", "- end -"] {
            let text = format!("{{{{{foreign}}}}}");
            let error = Template::parse(&format!("{{{{ op://v/i/f }}}} {text}")).unwrap_err();
            assert_eq!(error, TemplateError::Foreign(foreign.into()));
            let remedy = error.remedy().unwrap();
            let written = remedy.split_once("write ").unwrap().1;
            let template = Template::parse(&format!("{{{{ op://v/i/f }}}} {written}")).unwrap();
            assert_eq!(template.render(&values_of(&["V"])).unwrap().expose(), format!("V {text}").as_bytes());
        }
        let error = |text: &str| Template::parse(text).unwrap_err();
        for text in ["see op:// docs", "op://${VAULT:-V}/App/a", "op://$APP/db/password", "op://v/i"] {
            let error = error(text);
            assert!(matches!(error, TemplateError::Bare(_)), "{text}: {error:?}");
            assert!(error.remedy().unwrap().ends_with("written {{ \"op://\" }}"), "{text}");
        }
        assert!(
            error("op://$APP/db/password x").to_string().contains("\"op://$APP/db/password\" has a variable")
        );
        assert!(matches!(error("op://v/i/my%20file"), TemplateError::Encoded(_)));
        assert_eq!(
            Template::parse("{{ op://v/i/my%20file }}").unwrap().references().next().unwrap().field,
            "my file"
        );
    }

    #[test]
    fn only_a_lone_reference_is_plain() {
        assert!(Template::parse("{{ op://v/i/a }}").unwrap().as_plain().is_some());
        assert!(Template::parse("{{ op://v/i/a }}\n").unwrap().as_plain().is_none());
    }

    fn rendered(template: &str, value: &[u8]) -> Result<Vec<u8>, RenderError> {
        let value = [Arc::new(Secret::copy_from(value).unwrap())];
        Ok(Template::parse(template).unwrap().render(&value)?.expose().to_vec())
    }

    #[test]
    fn forms_quote_what_would_mean_something_else() {
        let value = b"a \"b\" \\ $c `d` # e\nf";
        assert_eq!(
            rendered("X={{ op://v/i/f | env }}", value).unwrap(),
            b"X=\"a \\\"b\\\" \\\\ \\$c \\`d\\` # e\nf\""
        );
        assert_eq!(rendered("{{op://v/i/f|json}}", b"\x01\"\n").unwrap(), b"\"\\u0001\\\"\\n\"");
        for form in ["env", "json"] {
            for value in [&b"\xff"[..], b"a\0b"] {
                let template = format!("{{{{ op://v/i/f | {form} }}}}");
                assert!(
                    matches!(rendered(&template, value), Err(RenderError::Unfit { form: said, .. }) if said == form)
                );
            }
        }
        assert!(matches!(Template::parse("{{ op://v/i/f | toml }}"), Err(TemplateError::Form(_))));
        assert!(Template::parse("{{ op://v/i/f | json }}").unwrap().as_plain().is_none());
    }

    proptest::proptest! {
        #[test]
        fn json_stays_json_whatever_the_secret_holds(value in "[^\\x00]{1,60}") {
            let text = rendered("{\"key\": {{ op://v/i/f | json }}}", value.as_bytes()).unwrap();
            let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
            proptest::prop_assert_eq!(read["key"].as_str(), Some(value.as_str()));
        }
    }
}

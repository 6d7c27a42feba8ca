//! A made-up account: vaults, items, fields and files. What it holds can change while a simulator serves it.

use serde_json::Value;

/// Section titles and field values as the tests want them; ids are made from a count, and stay.
#[derive(Debug, Clone)]
pub struct Account {
    pub vaults: Vec<Vault>,
    count: u64,
}

#[derive(Debug, Clone)]
pub struct Vault {
    pub id: String,
    pub name: String,
    pub items: Vec<Item>,
    /// Goes up with every change of an item.
    pub content_version: u64,
    /// Whether the machine's token may read it.
    pub shared: bool,
}

#[derive(Debug, Clone)]
pub struct Item {
    pub id: String,
    pub title: String,
    /// `LOGIN`, `API_CREDENTIAL`, `DOCUMENT`, `SSH_KEY` …
    pub category: &'static str,
    pub archived: bool,
    pub seal: Seal,
    pub notes: String,
    pub fields: Vec<Field>,
    pub files: Vec<File>,
}

/// Whether an item can be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    Good,
    /// It is sealed with another key than its vault's, but for its title in lists.
    BadDetails,
    /// The same of its title.
    Bad,
}

/// The id of the section of fields that are in none: Connect names it with some of them, and lists it nowhere. As the section
/// of a [`Field`] it stands for that.
pub const NO_SECTION: &str = "add more";

#[derive(Debug, Clone)]
pub struct Field {
    pub id: String,
    pub label: String,
    /// The title of its section; empty, or [`NO_SECTION`]: none.
    pub section: String,
    pub value: FieldValue,
}

impl Field {
    /// The title of its section; empty: none.
    pub fn section(&self) -> &str {
        if self.section == NO_SECTION { "" } else { &self.section }
    }
}

#[derive(Debug, Clone)]
pub enum FieldValue {
    Text(String),
    Concealed(String),
    /// An `otpauth://` URI.
    OneTimePassword(String),
    /// Seconds since 1970.
    Date(i64),
    /// As in 202612.
    MonthYear(u32),
    Address {
        street: &'static str,
        city: &'static str,
        state: &'static str,
        zip: &'static str,
        country: &'static str,
    },
    /// A private key in PEM.
    SshKey(String),
}

#[derive(Debug, Clone)]
pub struct File {
    pub id: String,
    pub name: String,
    pub section: String,
    pub content: Vec<u8>,
}

/// An id as 1Password makes them: 16 bytes in base32.
pub fn id(number: u64) -> String {
    const DIGITS: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
    // Spread out, so that ids do not look alike.
    let bits = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(number);
    (0..26)
        .map(|place| if place < 25 { bits >> (123 - 5 * place) & 31 } else { bits << 2 & 31 })
        .map(|digit| DIGITS[digit as usize] as char)
        .collect()
}

impl Account {
    pub fn empty() -> Self {
        Self { vaults: Vec::new(), count: 0 }
    }

    pub fn next_id(&mut self) -> String {
        self.count += 1;
        id(self.count)
    }

    pub fn vault(&mut self, name: &str) -> &mut Vault {
        if let Some(place) = self.vaults.iter().position(|vault| vault.name == name) {
            return &mut self.vaults[place];
        }
        let vault = Vault {
            id: self.next_id(),
            name: name.into(),
            items: Vec::new(),
            content_version: 1,
            shared: true,
        };
        self.vaults.push(vault);
        self.vaults.last_mut().unwrap()
    }

    /// Adds an item; its fields are written as "label" or "section/label".
    pub fn add(&mut self, vault: &str, title: &str, fields: &[(&str, FieldValue)]) -> &mut Item {
        let ids: Vec<String> = (0..=fields.len()).map(|_| self.next_id()).collect();
        let fields = fields.iter().zip(&ids[1..]).map(|((path, value), id)| {
            let (section, label) = path.split_once('/').unwrap_or(("", path));
            Field { id: id.clone(), label: label.into(), section: section.into(), value: value.clone() }
        });
        let item = Item {
            id: ids[0].clone(),
            title: title.into(),
            category: "LOGIN",
            archived: false,
            seal: Seal::Good,
            notes: String::new(),
            fields: fields.collect(),
            files: Vec::new(),
        };
        let vault = self.vault(vault);
        vault.content_version += 1;
        vault.items.push(item);
        vault.items.last_mut().unwrap()
    }

    pub fn attach(&mut self, vault: &str, title: &str, section: &str, name: &str, content: &[u8]) {
        let file =
            File { id: self.next_id(), name: name.into(), section: section.into(), content: content.into() };
        self.change(vault, title, |item| item.files.push(file));
    }

    pub fn change(&mut self, vault: &str, title: &str, change: impl FnOnce(&mut Item)) {
        let vault = self.vault(vault);
        vault.content_version += 1;
        change(vault.items.iter_mut().find(|item| item.title == title).unwrap());
    }

    pub fn set(&mut self, vault: &str, title: &str, label: &str, value: &str) {
        self.change(vault, title, |item| {
            let field = item.fields.iter_mut().find(|field| field.label == label).unwrap();
            field.value = FieldValue::Concealed(value.into());
        });
    }

    /// The secrets of opnix's demo, with made-up values.
    pub fn demo() -> Self {
        let mut account = Self::empty();
        for (title, label, value) in [
            ("OpenAI", "credential", "sk-made-up-openai"),
            ("Datadog", "api key", "made-up-datadog"),
            ("Cloudflare", "token", "cf_made-up"),
            ("Backblaze", "json", "{\"keyID\": \"0\", \"applicationKey\": \"made-up\"}"),
        ] {
            account.add("Infrastructure Secrets", title, &[(label, FieldValue::Concealed(value.into()))]);
        }
        account
    }

    /// Something of everything that a reference can name.
    pub fn everything() -> Self {
        use FieldValue::{Address, Concealed, Date, MonthYear, OneTimePassword, SshKey, Text};
        let text = |text: &str| Text(text.into());
        let mut account = Self::demo();
        account.add(
            "Zoo",
            "Sections",
            &[
                ("username", text("keeper")),
                ("prod/password", Concealed("prod-password".into())),
                ("test/password", Concealed("test-password".into())),
                ("prod/only", text("only-here")),
                ("same/one", text("first")),
            ],
        );
        account.add(
            "Zoo",
            "Kinds",
            &[
                ("extra/empty", text("")),
                ("extra/lines", text("one\ntwo\r\n\tthree \"quoted\" \\ é😀")),
                ("extra/date", Date(1_700_000_000)),
                ("extra/month", MonthYear(202_612)),
                (
                    "extra/home",
                    Address { street: "1 Way", city: "Town", state: "ST", zip: "12345", country: "us" },
                ),
                ("extra/code", OneTimePassword("otpauth://totp/x?secret=JBSWY3DPEHPK3PXP".into())),
                ("extra/", text("without a label")),
                (&format!("{NO_SECTION}/loose"), text("in no section")),
            ],
        );
        account.change("Zoo", "Kinds", |item| item.notes = "a note\nof two lines".into());
        account.add("Zoo", "Twin", &[("value", text("a"))]);
        account.add("Zoo", "twin", &[("value", text("b"))]);
        account.add("Zoo", "Gone", &[("value", text("old"))]).archived = true;
        account.add("Zoo", "Key", &[("private key", SshKey(SSH_KEY.into()))]).category = "SSH_KEY";
        account.add("Zoo", "Papers", &[("value", text("x"))]).category = "DOCUMENT";
        account.attach("Zoo", "Papers", "", "paper.bin", &(0..=255).collect::<Vec<u8>>());
        account.attach("Zoo", "Sections", "prod", "cert.pem", b"-----BEGIN MADE UP-----\n");
        for number in 0..50 {
            account.add(
                "One Vault",
                &format!("Item {number}"),
                &[("value", text(&format!("value-{number}")))],
            );
            account.add(
                &format!("Vault {}", number % 5),
                &format!("Item {number}"),
                &[("value", text(&format!("spread-{number}")))],
            );
        }
        account
    }

    /// What a reference by names should come to, for every field with one value that is text.
    pub fn expected(&self) -> Value {
        let fields = self.vaults.iter().flat_map(|vault| vault.items.iter().map(move |item| (vault, item)));
        let values = fields
            .filter(|(_, item)| !item.archived && !item.title.eq_ignore_ascii_case("twin"))
            .flat_map(|(vault, item)| {
                item.fields.iter().filter_map(move |field| match &field.value {
                    FieldValue::Text(value) | FieldValue::Concealed(value)
                        if !value.is_empty() && !field.label.is_empty() =>
                    {
                        let section = match field.section() {
                            "" => String::new(),
                            section => format!("{section}/"),
                        };
                        Some((
                            format!("op://{}/{}/{section}{}", vault.name, item.title, field.label),
                            Value::from(value.clone()),
                        ))
                    }
                    _ => None,
                })
            });
        Value::Object(values.collect())
    }
}

/// A made-up ed25519 key that opens nothing.
const SSH_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";

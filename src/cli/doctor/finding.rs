//! What doctor finds.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::config::Fault;
use crate::scope;

/// Something that doctor looked at, or could not look at.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// A name for programs.
    pub id: &'static str,
    pub level: Level,
    /// What it is about: `token`, `units` and so on.
    pub area: &'static str,
    pub what: String,
    /// File, line and column, if it has a place.
    #[serde(rename = "where")]
    pub place: Option<Box<str>>,
    /// Why it matters.
    pub why: Option<&'static str>,
    /// What to do: commands, or words.
    pub remedy: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It was looked at, and nothing is wrong.
    Fine,
    /// It could not be looked at.
    Unseen,
    Warning,
    Fault,
}

/// Names for programs and why what they stand for matters. docs/troubleshooting.md lists them.
macro_rules! kinds {
    ($($name:ident = $id:literal: $why:literal;)*) => {
        /// What can be wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($name,)* }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            pub fn why(self) -> &'static str {
                match self { $(Self::$name => $why,)* }
            }
        }
    };
}

kinds! {
    ConfigurationFaulty = "configuration-faulty": "the configuration from before stays in force; where there is none, every unit is refused";
    ConfigurationOld = "configuration-old": "what was changed in the files counts after a reload only";
    ServiceMissing = "service-missing": "nobody answers units";
    Purged = "purged": "no unit is given a secret until that file is gone";
    ServiceStopped = "service-stopped": "the next unit that asks starts it; files are not kept current until then";
    ServiceDoesNotStart = "service-does-not-start": "systemd takes the connections of units in its place, and they wait";
    ServiceSilent = "service-silent": "units wait for it";
    PartFails = "part-fails": "opnix does without this part of it for now";
    SocketStopped = "socket-stopped": "units that ask there do not start";
    SocketDisabled = "socket-disabled": "nobody listens after the next boot, until something else starts it";
    SocketOpen = "socket-open": "only root is to connect there";
    ProgramOld = "program-old": "what the new one mends is not mended until it runs";
    UnitFileOld = "unit-file-old": "systemd goes by what it read before";
    MachineRefuses = "machine-refuses": "no unit can be given a secret on this machine as it is";
    CredentialsFail = "credentials-fail": "systemd cannot set up any credential here, whoever provides it";
    RunFull = "run-full": "files with secrets, and what opnix has to remember, find no room";
    MemoryMissing = "memory-missing": "files with secrets are not written";
    FileMissing = "file-missing": "what reads the file does not start, or does without";
    FileDiffers = "file-differs": "who is to read the file cannot, or others can";
    FileOld = "file-old": "what reads the file goes on with an older value";
    TokenMissing = "token-missing": "without it 1Password cannot be asked";
    TokenInvalid = "token-invalid": "1Password cannot be asked with it";
    TokenOpen = "token-open": "who has the token can read all secrets of its vaults";
    TokenVolatile = "token-volatile": "after a reboot there is none";
    TokenNotInUse = "token-not-in-use": "the service goes on with the one before, as long as that is good";
    TokenRejected = "token-rejected": "nothing new comes from 1Password";
    TokenOfAnotherAccount = "token-of-another-account": "values that came from the account before are not served";
    CoreUnusable = "core-unusable": "1Password cannot be asked without its core library";
    NameUnknown = "name-unknown": "1Password cannot be reached";
    ProxyWrong = "proxy-wrong": "1Password cannot be reached";
    Unreachable = "unreachable": "1Password cannot be reached";
    Untrusted = "untrusted": "1Password cannot be reached safely";
    ClockWrong = "clock-wrong": "certificates and one-time passwords are wrong by a wrong clock, and so are ages of values";
    ProviderFails = "provider-fails": "nothing new comes from 1Password";
    RateLimited = "rate-limited": "1Password answers nothing until the limit is over";
    BudgetSpent = "budget-spent": "only starts ask 1Password, and only for what is not kept";
    Reference = "secret-unavailable": "units that have no value kept for it do not start";
    CacheUnsealed = "cache-unsealed": "after a reboot units depend on the network";
    CacheVolatile = "cache-volatile": "after a reboot units depend on the network";
    CacheUnwritable = "cache-unwritable": "after a reboot opnix has what it had before that, or needs 1Password";
    UnitFile = "unit-file": "the unit does not start, or runs without its secret, or with another one";
    UnitRefused = "unit-refused": "it does not start";
    UnitWaits = "unit-waits": "it is not up";
    UnitGaveUp = "unit-gave-up": "it is down until it is started again";
    UnitFailsOtherwise = "unit-fails-otherwise": "it is down, and nothing that opnix could do helps";
    UnitNotTold = "unit-not-told": "it may go on with an old value";
    StepHangs = "step-hangs": "what could not be looked at may be wrong";
}

impl Finding {
    fn new(id: &'static str, level: Level, area: &'static str, what: impl Into<String>) -> Self {
        Self { id, level, area, what: what.into(), place: None, why: None, remedy: None }
    }

    pub fn fine(area: &'static str, what: impl Into<String>) -> Self {
        Self::new("fine", Level::Fine, area, what)
    }

    pub fn unseen(area: &'static str, what: impl Into<String>) -> Self {
        Self::new("unseen", Level::Unseen, area, what)
    }

    pub fn fault(kind: Kind, area: &'static str, what: impl Into<String>) -> Self {
        Self { why: Some(kind.why()), ..Self::new(kind.id(), Level::Fault, area, what) }
    }

    pub fn warning(kind: Kind, area: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::fault(kind, area, what) }
    }

    #[must_use]
    pub fn mend(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(scope::commands(&remedy.into()).into()), ..self }
    }

    #[must_use]
    pub fn at(self, place: impl Into<String>) -> Self {
        Self { place: Some(place.into().into()), ..self }
    }

    /// What is wrong and what to do, each on lines of its own, as errors have it.
    #[must_use]
    pub fn lines(mut self, lines: &str) -> Self {
        let (what, remedy) = lines.split_once('\n').map_or((lines, None), |(what, rest)| (what, Some(rest)));
        self.what.push_str(what);
        self.remedy = remedy.map(|remedy| scope::commands(remedy).into()).or(self.remedy);
        self
    }

    /// As a fault of a file says it.
    #[must_use]
    pub fn of(self, fault: &Fault) -> Self {
        Self {
            what: fault.what.clone(),
            place: Some(fault.place().to_string().into()),
            remedy: fault.remedy().map(Box::from),
            ..self
        }
    }

    /// As people read it.
    pub fn text(&self) -> String {
        let (word, colour) = match self.level {
            Level::Fine => ("fine", AnsiColor::Green),
            Level::Unseen => ("not seen", AnsiColor::Cyan),
            Level::Warning => ("warning", AnsiColor::Yellow),
            Level::Fault => ("fault", AnsiColor::Red),
        };
        let style = Style::new().fg_color(Some(colour.into())).bold();
        let mut text = format!("{style}{word:<8}{style:#} {}: {}", self.area, indented(&self.what));
        let remedy = self.remedy.as_deref();
        for (name, what) in [("where", self.place.as_deref()), ("why", self.why), ("do", remedy)] {
            if let Some(what) = what {
                // A write to a string does not fail.
                let _ = write!(text, "\n         {name:<5}  {}", indented(what));
            }
        }
        text
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n                ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_name_of_its_own_that_the_docs_explain() {
        let docs = include_str!("../../../docs/troubleshooting.md");
        for (number, kind) in Kind::ALL.iter().enumerate() {
            assert!(Kind::ALL[..number].iter().all(|before| before.id() != kind.id()), "{}", kind.id());
            assert!(docs.contains(&format!("| `{}` |", kind.id())), "{}", kind.id());
            assert!(!kind.why().is_empty());
        }
    }
}

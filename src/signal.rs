//! The name of a signal, as `systemctl kill --signal=` takes it.

use std::fmt;
use std::str::FromStr;

use nix::sys::signal;
use serde::{Deserialize, Serialize};

use crate::remedy::Remedy;

/// A signal that systemd knows, under its full name: `SIGHUP`, `SIGRTMIN+3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signal(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no signal")]
pub struct NoSignal(String);

impl Remedy for NoSignal {
    fn remedy(&self) -> Option<String> {
        Some("write one such as SIGHUP".into())
    }
}

/// The numbers of `SIGRTMIN` and `SIGRTMAX`. The kernel's real-time signals begin at 32; the C library uses the first two
/// itself.
const REAL_TIME_MIN: i32 = 34;
const REAL_TIME_MAX: i32 = 64;

impl Signal {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn number(&self) -> i32 {
        let distance = |text: &str| text.get(1..).and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
        if let Ok(signal) = self.0.parse::<signal::Signal>() {
            signal as i32
        } else if let Some(rest) = self.0.strip_prefix("SIGRTMIN") {
            REAL_TIME_MIN + distance(rest)
        } else if let Some(rest) = self.0.strip_prefix("SIGRTMAX") {
            REAL_TIME_MAX - distance(rest)
        } else {
            self.0.parse().unwrap_or(0)
        }
    }
}

impl FromStr for Signal {
    type Err = NoSignal;

    /// With or without `SIG`, or by its number.
    fn from_str(text: &str) -> Result<Self, NoSignal> {
        let no_signal = || NoSignal(text.to_owned());
        if let Ok(number) = text.parse::<i32>() {
            // Real-time signals stay numbers.
            return match signal::Signal::try_from(number) {
                Ok(signal) => Ok(Self(signal.as_str().to_owned())),
                Err(_) if (REAL_TIME_MIN..=REAL_TIME_MAX).contains(&number) => Ok(Self(number.to_string())),
                Err(_) => Err(no_signal()),
            };
        }
        let name = format!("SIG{}", text.strip_prefix("SIG").unwrap_or(text));
        let is_known = name.parse::<signal::Signal>().is_ok() || is_real_time(&name);
        if is_known { Ok(Self(name)) } else { Err(no_signal()) }
    }
}

fn is_real_time(name: &str) -> bool {
    let distance = match (name.strip_prefix("SIGRTMIN"), name.strip_prefix("SIGRTMAX")) {
        (Some(""), _) | (_, Some("")) => return true,
        (Some(rest), _) => rest.strip_prefix('+'),
        (_, Some(rest)) => rest.strip_prefix('-'),
        _ => None,
    };
    // Digits only: `parse` would take a second `+`.
    let digits = distance.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse::<i32>().ok())
        .is_some_and(|number| number <= REAL_TIME_MAX - REAL_TIME_MIN)
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<String> {
        text.parse::<Signal>().ok().map(|signal| signal.to_string())
    }

    #[test]
    fn a_signal_has_the_number_that_the_kernel_knows() {
        for (text, number) in [
            ("SIGHUP", 1),
            ("SIGUSR1", 10),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("SIGRTMAX-30", 34),
            ("40", 40),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
    }

    #[test]
    fn a_signal_has_a_name_or_a_number() {
        for (text, name) in [
            ("SIGHUP", "SIGHUP"),
            ("HUP", "SIGHUP"),
            ("1", "SIGHUP"),
            ("SIGRTMIN", "SIGRTMIN"),
            ("RTMIN+3", "SIGRTMIN+3"),
            ("SIGRTMAX-30", "SIGRTMAX-30"),
            ("40", "40"),
        ] {
            assert_eq!(parsed(text).as_deref(), Some(name), "{text}");
        }
        for text in [
            "",
            "SIG",
            "SIGNOPE",
            "sighup",
            "SIGSIGHUP",
            " SIGHUP",
            "0",
            "-1",
            "32",
            "65",
            "SIGRTMIN+31",
            "SIGRTMIN++1",
            "SIGRTMIN-1",
            "SIGRTMIN+",
            "HUP;reboot",
            "--help",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}

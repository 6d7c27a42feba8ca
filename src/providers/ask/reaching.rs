//! Where the way to 1Password, or to a Connect server, ends, as far as errors tell.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;

use crate::providers::error::{FetchError, Step};

/// The environment variables that name a proxy. What is in them may be secret.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The one that names a proxy for this process, if there is one. It need not count for each host (`NO_PROXY`).
pub fn proxy() -> Option<&'static str> {
    PROXIES.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// What an HTTP client's error means. `has_proxy`: it may concern the proxy.
pub fn unreachable(error: &reqwest::Error, has_proxy: bool) -> FetchError {
    if error.is_timeout() {
        return FetchError::Unreachable { why: "it did not answer in time".into(), at: Step::Answer };
    }
    let causes = causes(error);
    let (mut why, mut at) = (innermost(error), Step::Unknown);
    for cause in &causes {
        if let Some(of_tls) = cause.downcast_ref::<rustls::Error>() {
            (why, at) = distrust(of_tls);
        } else if let Some(error) = cause.downcast_ref::<io::Error>()
            && let Some(step) = step(error)
        {
            at = step;
        }
        let words = cause.to_string();
        if words == "dns error" {
            at = Step::Name;
        } else if words.starts_with("tunnel error") {
            return FetchError::Unreachable {
                why: format!("the proxy does not lead there: {why}"),
                at: Step::Proxy,
            };
        }
    }
    // Whose name or port it is, the error does not say.
    if has_proxy && matches!(at, Step::Name | Step::Connection) {
        at = Step::Proxy;
    }
    FetchError::Unreachable { why, at }
}

/// What the error of a connection that could not be made means.
pub fn no_connection(host: &str, port: u16, error: &io::Error) -> FetchError {
    // Errors of the resolver have no kind of their own; those of the network all have one.
    let at = step(error).unwrap_or(match error.raw_os_error() {
        None => Step::Name,
        Some(_) => Step::Unknown,
    });
    FetchError::Unreachable { why: format!("{host}:{port}: {error}"), at }
}

fn step(error: &io::Error) -> Option<Step> {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable};
    match error.kind() {
        ConnectionRefused => Some(Step::Connection),
        HostUnreachable | NetworkDown | NetworkUnreachable => Some(Step::Network),
        _ => None,
    }
}

/// Why TLS was given up, with the times where they are known.
fn distrust(error: &rustls::Error) -> (String, Step) {
    let rustls::Error::InvalidCertificate(fault) = error else {
        return (error.to_string(), Step::Tls);
    };
    match fault {
        CertificateError::NotValidYetContext { time, not_before } => (
            format!(
                "its certificate is not valid before {}, and this machine's clock says {}",
                date(*not_before),
                date(*time)
            ),
            Step::Clock,
        ),
        CertificateError::ExpiredContext { time, not_after } => (
            format!(
                "its certificate was valid until {}, and this machine's clock says {}",
                date(*not_after),
                date(*time)
            ),
            Step::Clock,
        ),
        CertificateError::NotValidYet | CertificateError::Expired => (error.to_string(), Step::Clock),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            (error.to_string(), Step::OtherHost)
        }
        _ => (error.to_string(), Step::Trust),
    }
}

fn date(time: UnixTime) -> String {
    // Those of certificates are from 1950 to 9999; earlier than 1970 is 1970 here.
    format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())).to_string()
}

/// The error and all that it came of, also what an [`io::Error`] holds, which is not among its sources.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> Vec<&'e (dyn Error + 'static)> {
    let mut all = vec![error];
    let mut last = error;
    loop {
        let held = last.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let held = held.map(|held| held as &(dyn Error + 'static));
        let Some(next) = held.or_else(|| last.source()) else { return all };
        all.push(next);
        last = next;
    }
}

/// The outer errors repeat the address, and say less.
pub fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedy::Remedy;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_certificate_of_another_time_is_blamed_on_the_clock_with_both_times() {
        let (time, later) = (at(1_000_000_000), at(1_700_000_000));
        let early = CertificateError::NotValidYetContext { time, not_before: later };
        let (why, step) = distrust(&rustls::Error::InvalidCertificate(early));
        assert_eq!(
            why,
            "its certificate is not valid before 2023-11-14T22:13:20Z, and this machine's clock says 2001-09-09T01:46:40Z"
        );
        assert_eq!(step, Step::Clock);
        let late = CertificateError::ExpiredContext { time: later, not_after: time };
        let (why, step) = distrust(&rustls::Error::InvalidCertificate(late));
        let error = FetchError::Unreachable { why, at: step };
        assert!(error.lines().contains("valid until 2001-09-09T01:46:40Z"), "{}", error.lines());
        assert!(error.lines().contains("timedatectl") && !error.lines().contains("check the network"));
    }

    #[test]
    fn what_is_not_trusted_is_told_from_another_host_and_from_what_is_no_tls() {
        let of = |fault| distrust(&rustls::Error::InvalidCertificate(fault)).1;
        assert_eq!(of(CertificateError::UnknownIssuer), Step::Trust);
        assert_eq!(of(CertificateError::NotValidForName), Step::OtherHost);
        assert_eq!(distrust(&rustls::Error::HandshakeNotComplete).1, Step::Tls);
    }

    #[test]
    fn a_name_without_an_address_is_told_from_a_refused_connection() {
        let step = |error: io::Error| match no_connection("host", 443, &error) {
            FetchError::Unreachable { at, .. } => at,
            other => panic!("{other}"),
        };
        assert_eq!(step(io::Error::other("failed to lookup address information")), Step::Name);
        assert_eq!(
            step(io::Error::from_raw_os_error(nix::errno::Errno::ECONNREFUSED as i32)),
            Step::Connection
        );
        assert_eq!(step(io::Error::from_raw_os_error(nix::errno::Errno::EHOSTUNREACH as i32)), Step::Network);
    }
}

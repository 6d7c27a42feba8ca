//! Hosts that the configuration and the variables of proxies name, in each form in which a message may say them.

use std::fs;

use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::names::Names;
use crate::cli::control::SERVICE;
use crate::cli::doctor::Case;

/// Every machine has these.
const OF_EVERY_MACHINE: [&str; 4] = ["localhost", "127.0.0.1", "::1", "*"];

/// `https://host:port/path`, `user:password@host:port`, `[address]:port`, `host`.
pub fn learn(address: &str, names: &mut Names) {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let (user, after_user) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    // A password may have a slash in it, and a path an `@`.
    let is_path = |c| ['/', '?', '#'].contains(&c);
    let before_path = rest.split(is_path).next().unwrap_or(rest);
    for authority in [before_path, after_user] {
        let authority = authority.split(is_path).next().unwrap_or(authority);
        host_and_port(authority.rsplit('@').next().unwrap_or(authority), names);
    }
    // As programs write it that have read it: an address shortened, a name in ASCII.
    let whole = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    if let Some(host) = Url::parse(&whole).ok().as_ref().and_then(Url::host_str) {
        host_and_port(host, names);
    }
    let Some(user) = user else { return };
    let (user, password) = user.split_once(':').map_or((user, None), |(user, word)| (user, Some(word)));
    let parts = [("user", Some(user)), ("password", password)];
    let parts = parts.into_iter().filter_map(|(kind, part)| Some((kind, part?)));
    for (kind, part) in parts.filter(|(_, part)| part.len() > 1) {
        names.of(kind, part);
        names.of(kind, &percent_decode_str(part).decode_utf8_lossy());
    }
}

fn host_and_port(text: &str, names: &mut Names) {
    let is_port = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (host, port) = match (text.strip_prefix('['), text.rsplit_once(':')) {
        (Some(rest), _) => {
            let (host, after) = rest.split_once(']').unwrap_or((rest, ""));
            (host, after.strip_prefix(':').unwrap_or(""))
        }
        // More colons than one: an address without brackets.
        (None, Some((host, port))) if is_port(port) && !host.contains(':') => (host, port),
        _ => (text, ""),
    };
    if host.len() < 2 || OF_EVERY_MACHINE.contains(&host) {
        return;
    }
    let shown = names.of("host", host);
    names.also(&format!("[{host}]"), &shown);
    if !port.is_empty() {
        for form in [format!("{host}:{port}"), format!("[{host}]:{port}")] {
            names.also(&form, &format!("{shown}:{port}"));
        }
    }
    let decoded = percent_decode_str(host).decode_utf8_lossy().into_owned();
    if decoded != host {
        names.also(&decoded, &shown);
    }
}

/// `name=value`: a proxy, or a list of hosts that are reached without one.
pub fn variable(name: &str, value: &str, names: &mut Names) {
    let name = name.to_ascii_uppercase();
    if name == "NO_PROXY" {
        for entry in value.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()) {
            let entry = entry.trim_start_matches("*.").trim_start_matches('.');
            host_and_port(entry.split('/').next().unwrap_or(entry), names);
        }
    } else if name.ends_with("_PROXY") {
        learn(value.trim(), names);
    }
}

/// The variables of this process, of opnix.service as it runs, and as systemd would start it.
pub fn of_the_environment(case: &Case, names: &mut Names) {
    let mut lines: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    if let Some(service) = case.manager().and_then(|mut manager| manager.unit(SERVICE).ok()) {
        lines.extend(service.texts("Environment").map(str::to_owned));
        let pid = service.main_pid();
        let bytes = fs::read(format!("/proc/{pid}/environ")).ok().filter(|_| pid != 0).unwrap_or_default();
        lines.extend(String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned));
    }
    for (name, value) in lines.iter().filter_map(|line| line.split_once('=')) {
        variable(name, value, names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn hidden(names: &mut Names, texts: &[&str], secrets: &[&str]) {
        for text in texts {
            let said = names.replaced(text);
            for secret in secrets {
                assert!(!said.contains(secret), "{secret}: {said}");
            }
        }
    }

    #[test]
    fn a_host_is_replaced_with_and_without_its_port() {
        let mut names = Names::default();
        learn("http://vaultbox:8080", &mut names);
        let said =
            names.replaced("the name vaultbox is not resolved; no connection to vaultbox:8080: refused");
        assert_eq!(said, "the name host-1 is not resolved; no connection to host-1:8080: refused");
        learn("http://[2001:0db8:1:2:3:4:5:6]:8080/v1", &mut names);
        hidden(
            &mut names,
            &[
                "no connection to 2001:db8:1:2:3:4:5:6:8080: refused",
                "[2001:db8:1:2:3:4:5:6] takes the connection, and then: [2001:0db8:1:2:3:4:5:6]:8080",
            ],
            &["db8", "2001"],
        );
        // Of no address that was learned.
        hidden(&mut Names::default(), &["no connection to 2001:db8:1:2:3:4:5:6:8080: refused"], &["db8"]);
    }

    #[test]
    fn a_proxy_is_replaced_with_its_user_and_password() {
        for proxy in [
            "http://proxyuser:geheim@corpproxy:3128",
            "proxyuser:geheim@corpproxy:3128",
            "http://proxyuser:g%65heim@corpproxy:3128/",
            "http://proxyuser:geh/eim@corpproxy:3128",
        ] {
            let mut names = Names::default();
            variable("https_proxy", proxy, &mut names);
            hidden(
                &mut names,
                &[
                    "the proxy corpproxy:3128 cannot be reached: corpproxy, proxyuser, g%65heim",
                    &format!("look at {proxy}, or at \"{proxy}\""),
                ],
                &["corpproxy", "proxyuser", "heim@"],
            );
            if !proxy.contains("geh/") {
                hidden(&mut names, &["geheim"], &["heim"]);
            }
        }
    }

    #[test]
    fn what_no_proxy_names_is_replaced() {
        let mut names = Names::default();
        variable("NO_PROXY", "localhost,.intern, vaultbox:8080,*.acme, 10.9.0.0/16", &mut names);
        hidden(
            &mut names,
            &["vaultbox and a.intern or x.acme and 10.9.0.0/16"],
            &["vaultbox", "intern", "acme", "10.9"],
        );
        assert_eq!(names.replaced("localhost is there"), "localhost is there");
    }
}

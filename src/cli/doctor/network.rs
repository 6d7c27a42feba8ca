//! The way to 1Password, step by step: name, connection, certificate, clock, answer. 1Password's core says of all of them only that
//! there is no connection.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, SystemTime};

use reqwest::header::DATE;
use reqwest::{Client, NoProxy, Proxy, Url};

use super::Case;
use super::finding::{Finding, Kind};
use super::provider::of_everything;
use crate::cli::control::SERVICE;
use crate::cli::token::bring::read;
use crate::config;
use crate::process;
use crate::providers::ask::connect::certificates;
use crate::providers::ask::reaching::unreachable;
use crate::providers::ask::service_account::token::Token;
use crate::providers::child::token::{self, Loaded};
use crate::remedy::Remedy;

const AREA: &str = "network";
const NAME: Duration = Duration::from_secs(10);
const CONNECTION: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// How far this machine's clock may be from the server's.
const CLOCK: Duration = Duration::from_secs(5 * 60);
/// What names a proxy, the most important first.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Where 1Password is, and how to get there.
struct Way {
    url: Url,
    /// Certificates that are trusted besides the public ones.
    authority: Option<PathBuf>,
    /// Of the service.
    environment: BTreeMap<String, String>,
}

pub fn look(case: &Case) -> Vec<Finding> {
    let Some(config) = case.config() else { return Vec::new() };
    if matches!(config.provider, config::Provider::Local { .. }) {
        return Vec::new();
    }
    if case.arguments.offline {
        return vec![Finding::unseen(AREA, "--offline: the way to 1Password was not tried")];
    }
    match Way::find(&config.provider, case) {
        Some(way) => vec![way.go().unwrap_or_else(|finding| finding)],
        // What is wrong with the token is told already.
        None => vec![Finding::unseen(AREA, "where 1Password is only a token tells, and none can be read")],
    }
}

impl Way {
    fn find(provider: &config::Provider, case: &Case) -> Option<Self> {
        let environment = environment(case);
        let trusted = environment.get("SSL_CERT_FILE").map(PathBuf::from);
        let (url, authority) = match provider {
            config::Provider::Connect(server) => (server.url.clone(), server.authority.clone().or(trusted)),
            config::Provider::ServiceAccount { hosts, .. } => (endpoint(case, hosts)?, trusted),
            config::Provider::Local { .. } => return None,
        };
        Some(Self { url: Url::parse(&url).ok()?, authority, environment })
    }

    /// Each step, to the first that fails.
    fn go(&self) -> Result<Finding, Finding> {
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = self.url.port_or_known_default().unwrap_or(443);
        let proxy = self.proxy();
        match &proxy {
            Some(proxy) => through(proxy)?,
            None => {
                let addresses = resolve(&host, port).map_err(|why| {
                    let what = format!("the name {host} is not resolved: {why}");
                    Finding::fault(Kind::NameUnknown, AREA, what)
                        .mend(format!("look at DNS: resolvectl query {host}; cat /etc/resolv.conf"))
                })?;
                connect(&addresses).map_err(|why| {
                    let what = format!("no connection to {host}:{port}: {why}");
                    let mend = format!(
                        "look at the network and firewalls (outgoing TCP to port {port}): ip route get {}",
                        addresses[0].ip()
                    );
                    Finding::fault(Kind::Unreachable, AREA, what).mend(mend)
                })?;
            }
        }
        let (status, date) = self.ask(proxy.as_ref())?;
        if let Some(date) = date {
            let now = SystemTime::now();
            let apart = now.duration_since(date).or_else(|_| date.duration_since(now)).unwrap_or_default();
            if apart > CLOCK {
                return Err(clock(&format!("it is {} there", humantime::format_rfc3339_seconds(date))));
            }
        }
        if status == PROXY_ASKS {
            let what = format!(
                "the proxy {} wants a name and a password",
                proxy.as_ref().map_or(String::new(), shown)
            );
            return Err(Finding::fault(Kind::ProxyWrong, AREA, what).mend(OF_PROXIES));
        }
        // One that does not know the request is there all the same.
        if status >= 500 && status != UNKNOWN_REQUEST {
            let what = format!("{host} answers with {status}");
            return Err(Finding::fault(Kind::ProviderFails, AREA, what)
                .mend("see whether 1Password, or the Connect server, reports an outage"));
        }
        let seen = match (&proxy, self.url.scheme()) {
            (Some(proxy), _) => format!("answers, by the proxy {}", shown(proxy)),
            (None, "http") => "is found and reached, and answers".to_owned(),
            (None, _) => "is found, reached and trusted, and answers".to_owned(),
        };
        Ok(Finding::fine(AREA, format!("{host} {seen}")))
    }

    fn proxy(&self) -> Option<Url> {
        let applies = |name: &&&str| self.url.scheme() == "https" || name.eq_ignore_ascii_case("ALL_PROXY");
        let named = |name: &&str| self.environment.get(*name).filter(|proxy| !proxy.is_empty());
        let proxy = PROXIES.iter().filter(applies).find_map(named)?;
        let host = self.url.host_str()?.trim_matches(['[', ']']);
        if self.exceptions().is_some_and(|list| is_excepted(host, &list)) {
            return None;
        }
        let named = if proxy.contains("://") { proxy.clone() } else { format!("http://{proxy}") };
        Url::parse(&named).ok()
    }

    fn exceptions(&self) -> Option<String> {
        self.environment.get("NO_PROXY").or_else(|| self.environment.get("no_proxy")).cloned()
    }

    /// Asks for nothing in particular: the status of the answer, and when it was given by the clock there.
    fn ask(&self, proxy: Option<&Url>) -> Result<(u16, Option<SystemTime>), Finding> {
        let failed = |why: String| Finding::fault(Kind::Unreachable, AREA, why);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder =
            Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(ANSWER).no_proxy();
        if let Some(proxy) = proxy {
            let proxy = Proxy::all(proxy.clone()).map_err(|error| failed(error.to_string()))?;
            let exceptions = self.exceptions().as_deref().and_then(NoProxy::from_string);
            builder = builder.proxy(proxy.no_proxy(exceptions));
        }
        if let Some(path) = &self.authority {
            let trusted = certificates(path).map_err(|error| {
                Finding::fault(Kind::Untrusted, AREA, error.to_string())
                    .mend("mend that file, or the line that names it")
            })?;
            builder = builder.tls_certs_merge(trusted);
        }
        let client = builder.build().map_err(|error| failed(error.to_string()))?;
        let runtime = process::runtime().map_err(|error| failed(error.to_string()))?;
        // Made inside of the runtime, because it sets its timer at once.
        let request = async { client.get(self.url.clone()).send().await };
        let answer = runtime.block_on(request).map_err(|error| self.explain(&error, proxy))?;
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
        Ok((answer.status().as_u16(), date.and_then(http_date)))
    }

    fn explain(&self, error: &reqwest::Error, proxy: Option<&Url>) -> Finding {
        let error = unreachable(error, proxy.is_some());
        let kind = of_everything(error.kind()).unwrap_or(Kind::Unreachable);
        let host = self.url.host_str().unwrap_or_default();
        let by = proxy.map_or(String::new(), |proxy| format!(" by the proxy {}", shown(proxy)));
        let finding = Finding::fault(kind, AREA, format!("{host} takes the connection{by}, and then: "))
            .lines(&error.lines());
        if kind == Kind::ProxyWrong { finding.mend(OF_PROXIES) } else { finding }
    }
}

/// Statuses of HTTP.
const PROXY_ASKS: u16 = 407;
const UNKNOWN_REQUEST: u16 = 501;

const OF_PROXIES: &str = "look at the variables of opnix.service: systemctl show -p Environment -p EnvironmentFiles opnix.service; \
    systemctl show-environment";

fn shown(proxy: &Url) -> String {
    // Without a name and password.
    format!("{}:{}", proxy.host_str().unwrap_or_default(), proxy.port_or_known_default().unwrap_or(0))
}

fn through(proxy: &Url) -> Result<(), Finding> {
    let wrong = |why: String| {
        let what = format!("the proxy {} cannot be reached: {why}", shown(proxy));
        Finding::fault(Kind::ProxyWrong, AREA, what).mend(OF_PROXIES)
    };
    let host = proxy.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let addresses = resolve(host, proxy.port_or_known_default().unwrap_or(80)).map_err(wrong)?;
    connect(&addresses).map_err(wrong)
}

fn clock(what: &str) -> Finding {
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    let what = format!("this machine's clock may be wrong, by which it is {now}: {what}");
    Finding::fault(Kind::ClockWrong, AREA, what).mend("timedatectl; timedatectl set-ntp true")
}

/// The one of the service, or else ours.
fn environment(case: &Case) -> BTreeMap<String, String> {
    let pid =
        case.manager().and_then(|mut manager| manager.unit(SERVICE).ok()).map_or(0, |unit| unit.main_pid());
    let theirs = fs::read(format!("/proc/{pid}/environ")).ok().filter(|_| pid != 0);
    let theirs = theirs.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    match theirs {
        Some(text) => text
            .split('\0')
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        None => std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    }
}

/// Of the token's account.
fn endpoint(case: &Case, hosts: &[String]) -> Option<String> {
    let named = case.arguments.token_file.clone().map(Loaded::Plain);
    let loaded = named.or_else(|| token::loaded_for_sure().ok().flatten())?;
    // What is no file, such as a socket, gives it to systemd alone.
    if !loaded.path().metadata().ok()?.is_file() {
        return None;
    }
    Token::check(read(&loaded).ok()?, hosts).ok().map(|token| token.url())
}

/// The resolver has no limit of its own.
fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let (say, hear) = channel();
    let name = host.to_owned();
    thread::spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        let _ = say.send(found.map_err(|error| error.to_string()));
    });
    let late = |_| format!("no answer within {}", humantime::format_duration(NAME));
    let found = hear.recv_timeout(NAME).map_err(late)??;
    if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
}

fn connect(addresses: &[SocketAddr]) -> Result<(), String> {
    let mut why = String::new();
    for address in addresses.iter().take(4) {
        match TcpStream::connect_timeout(address, CONNECTION) {
            Ok(_) => return Ok(()),
            Err(error) => why = format!("{}: {error}", address.ip()),
        }
    }
    Err(why)
}

/// As curl reads NO_PROXY: names, those below them, addresses, and `*`.
fn is_excepted(host: &str, list: &str) -> bool {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.trim_start_matches("*.").trim_start_matches('.');
        let (entry, host) = (entry.to_ascii_lowercase(), host.to_ascii_lowercase());
        entry == "*"
            || is_in_network(&host, &entry)
            || host == entry
            || host.strip_suffix(entry.as_str()).is_some_and(|rest| rest.ends_with('.'))
    })
}

/// Whether it is an address in a network such as `10.0.0.0/8`.
fn is_in_network(host: &str, entry: &str) -> bool {
    let Some((network, length)) = entry.split_once('/') else { return false };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    match (host.parse().map(bits), network.parse().map(bits), length.parse::<u32>()) {
        (Ok((host, width)), Ok((network, of)), Ok(length)) if width == of && length <= width => {
            length == 0 || (host ^ network) >> (128 - length) == 0
        }
        _ => false,
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that servers send.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let fields: Vec<&str> = text.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = fields[..] else { return None };
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(url: &str, environment: &[(&str, &str)]) -> Way {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Way { url: Url::parse(url).unwrap(), authority: None, environment }
    }

    #[test]
    fn a_date_of_http_is_read() {
        let date = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(humantime::format_rfc3339_seconds(date).to_string(), "1994-11-06T08:49:37Z");
        for wrong in ["", "yesterday", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 40 Nov 1994 08:49:37 GMT"] {
            assert_eq!(http_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_proxy_is_the_one_that_the_service_would_take() {
        let of = |url: &str, environment: &[(&str, &str)]| {
            way(url, environment).proxy().map(|proxy| shown(&proxy))
        };
        let proxy =
            [("HTTPS_PROXY", "http://user:word@proxy:3128"), ("NO_PROXY", "internal,.example.org, 10.0.0.1")];
        assert_eq!(of("https://my.1password.com", &proxy).as_deref(), Some("proxy:3128"));
        assert_eq!(of("https://op.internal", &proxy), None);
        assert_eq!(of("https://a.example.org", &proxy), None);
        assert_eq!(of("https://10.0.0.1:8443", &proxy), None);
        assert_eq!(of("https://my.1password.com", &[("HTTP_PROXY", "proxy:80")]), None);
        // opnix does not hand that one on to who asks.
        assert_eq!(of("http://127.0.0.1:80", &[("HTTP_PROXY", "proxy:80")]), None);
        assert_eq!(of("http://127.0.0.1:80", &[("HTTPS_PROXY", "proxy:80")]), None);
        let all =
            [("HTTPS_PROXY", ""), ("ALL_PROXY", "proxy:80"), ("NO_PROXY", "::1/128,10.0.0.0/8,OP.internal")];
        assert_eq!(of("https://my.1password.com", &all).as_deref(), Some("proxy:80"));
        assert_eq!(of("http://[::1]:8089", &all), None);
        assert_eq!(of("https://10.1.2.3", &all), None);
        assert_eq!(of("https://op.INTERNAL", &all), None);
        assert_eq!(of("https://11.1.2.3", &all).as_deref(), Some("proxy:80"));
        assert_eq!(of("https://my.1password.com", &[]), None);
    }

    #[test]
    fn each_step_that_fails_has_its_name() {
        let of = |way: Way| way.go().map_or_else(|finding| finding.id, |finding| finding.id);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(of(way("https://nowhere.invalid", &[])), "name-unknown");
        assert_eq!(of(way(&format!("https://127.0.0.1:{port}"), &[])), "unreachable");
        let proxy = format!("http://127.0.0.1:{port}");
        assert_eq!(of(way("https://my.1password.com", &[("HTTPS_PROXY", &proxy)])), "proxy-wrong");
    }
}

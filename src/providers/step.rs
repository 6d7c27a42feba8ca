//! How far the way to 1Password, or to a Connect server, leads, and what to do where it ends.

use serde::{Deserialize, Serialize};

/// How far the way to the provider leads.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// It is not told.
    #[default]
    Unknown,
    /// The host's name has no address.
    Name,
    /// There is no way to the address.
    Network,
    /// The connection is refused.
    Connection,
    /// The proxy cannot be used.
    Proxy,
    /// There is a connection, and no TLS on it.
    Tls,
    /// The certificate is not valid now.
    Clock,
    /// The certificate is nobody's that this machine trusts.
    Trust,
    /// The certificate is another host's.
    OtherHost,
    /// There is no answer.
    Answer,
}

impl Step {
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Unknown => "check the network of this machine, then start the unit again",
            Self::Name => {
                "this machine finds no address for the name: see whether it has a network and a name server (resolvectl status, /etc/resolv.conf)"
            }
            Self::Network => {
                "check the network of this machine: its addresses and routes (ip address, ip route)"
            }
            Self::Connection => {
                "nothing listens there, or a firewall refuses it: check address, port and firewall"
            }
            Self::Proxy => {
                "check the proxy that HTTPS_PROXY or ALL_PROXY names (systemctl show -p Environment opnix.service), or except this host with NO_PROXY"
            }
            Self::Tls => {
                "see whether this machine's clock is right (timedatectl), whether a proxy or firewall is in between, and whether there are certificates of public authorities (package ca-certificates)"
            }
            Self::Clock => {
                "if this machine's clock is wrong, set it: timedatectl. If it is right, the server needs a new certificate"
            }
            Self::Trust => {
                "either a proxy or firewall in between answers, or the server's authority is not trusted here: a private one's certificates are named by `authority`, or by SSL_CERT_FILE for 1Password itself"
            }
            Self::OtherHost => {
                "check the name in \"host\" in secrets.json, and what answers there in its place"
            }
            Self::Answer => {
                "it may hang, or a firewall drops what goes there: check both, then start the unit again"
            }
        }
    }
}

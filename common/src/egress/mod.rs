//! Where callbacks may go: the guard against requests that a client points at our own network.
//!
//! **Invariant:** whoever posts to a client's URL connects only to addresses that [`Guard::resolve`]
//! answered for this very attempt. A name is looked up once, so a second answer cannot differ from
//! the one that was checked.

mod ranges;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use url::{Host, Url};

/// Longer URLs are refused. Browsers and proxies cut near here as well.
pub const MAX_URL_BYTES: usize = 2048;

/// Bounds one name lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a callback may not go to a URL.
///
/// Each text is written for the client who gave the URL and holds neither path nor query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    #[error("callback_url is no URL: {0}")]
    NotAUrl(url::ParseError),
    #[error("callback_url has more than {MAX_URL_BYTES} bytes")]
    TooLong,
    #[error("callback_url must start with http:// or https://")]
    Scheme,
    #[error("callback_url names no host")]
    NoHost,
    #[error("callback_url must not carry a user name or password")]
    UserInfo,
    #[error("callback_url names port 0")]
    Port,
    /// It leads, by itself or by a name, to an address that is not allowed.
    #[error("callback_url leads to {address}, {kind}; allow it with callbacks.allow_networks")]
    Forbidden {
        address: IpAddr,
        /// What the address is, with its article: `a loopback address`.
        kind: &'static str,
    },
    /// The name could not be looked up: this may pass.
    #[error("callback_url's host {host} cannot be resolved: {reason}")]
    Unresolved { host: String, reason: String },
}

/// Decides where callbacks may go.
///
/// Only addresses of the public internet are allowed, and the networks of the configuration.
#[derive(Debug, Clone)]
pub struct Guard {
    allow: Arc<[IpNet]>,
}

impl Guard {
    /// A guard that lets callbacks into `allow` as well. A range of IPv4 covers every IPv6 form that
    /// carries such an address.
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self { allow: allow.into() }
    }

    /// Checks a URL as far as that goes without a lookup: for the moment a client hands it in.
    ///
    /// A literal address is judged in whatever spelling it comes; so is `localhost`.
    ///
    /// # Errors
    /// Anything but `Unresolved`.
    pub fn check_url(&self, url: &str) -> Result<Url, EgressError> {
        if url.len() > MAX_URL_BYTES {
            return Err(EgressError::TooLong);
        }
        let url = Url::parse(url).map_err(EgressError::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(EgressError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressError::UserInfo);
        }
        if url.port() == Some(0) {
            return Err(EgressError::Port);
        }
        match url.host().ok_or(EgressError::NoHost)? {
            Host::Ipv4(ip) => self.check(ip.into())?,
            Host::Ipv6(ip) => self.check(ip.into())?,
            Host::Domain(name) if is_localhost(name) => {
                self.localhost(0)?;
            }
            Host::Domain(_) => {}
        }
        Ok(url)
    }

    /// Looks the host up once and answers its addresses, all of them allowed: connect to these and
    /// to no others.
    ///
    /// # Errors
    /// `Forbidden` if any of them is forbidden, `Unresolved` if there is none.
    pub async fn resolve(&self, url: &Url) -> Result<Vec<SocketAddr>, EgressError> {
        let port = url.port_or_known_default().ok_or(EgressError::Scheme)?;
        match url.host().ok_or(EgressError::NoHost)? {
            Host::Ipv4(ip) => self.judged(vec![(ip, port).into()]),
            Host::Ipv6(ip) => self.judged(vec![(ip, port).into()]),
            Host::Domain(name) => self.resolve_name(name, port).await,
        }
    }

    /// As [`Guard::resolve`], for a host that is a name.
    pub async fn resolve_name(
        &self,
        name: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, EgressError> {
        if is_localhost(name) {
            return self.localhost(port);
        }
        let unresolved = |reason: String| EgressError::Unresolved { host: name.to_owned(), reason };
        let lookup = tokio::net::lookup_host((name, port));
        let found = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(found)) => found.collect::<Vec<_>>(),
            Ok(Err(error)) => return Err(unresolved(error.to_string())),
            Err(_) => {
                let secs = LOOKUP_TIMEOUT.as_secs();
                return Err(unresolved(format!("no answer within {secs} s")));
            }
        };
        if found.is_empty() {
            return Err(unresolved("it has no address".to_owned()));
        }
        self.judged(found)
    }

    pub fn allows(&self, ip: IpAddr) -> bool {
        self.verdict(ip).is_none()
    }

    /// One forbidden address spoils them all: a receiver with both kinds is not one of ours to
    /// judge by the luck of the order.
    fn judged(&self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, EgressError> {
        for address in &addresses {
            self.check(address.ip())?;
        }
        Ok(addresses)
    }

    /// RFC 6761 section 6.3: such names are loopback whatever a resolver says. Whichever family is
    /// allowed is used.
    fn localhost(&self, port: u16) -> Result<Vec<SocketAddr>, EgressError> {
        let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        let allowed = [v4, v6].into_iter().filter(|ip| self.allows(*ip));
        let addresses: Vec<_> = allowed.map(|ip| SocketAddr::new(ip, port)).collect();
        if addresses.is_empty() {
            self.check(v4)?;
        }
        Ok(addresses)
    }

    fn check(&self, address: IpAddr) -> Result<(), EgressError> {
        match self.verdict(address) {
            Some(kind) => Err(EgressError::Forbidden { address, kind }),
            None => Ok(()),
        }
    }

    /// What makes `ip` forbidden; `None`: nothing.
    fn verdict(&self, ip: IpAddr) -> Option<&'static str> {
        if self.allow.iter().any(|net| net.contains(&ip)) {
            return None;
        }
        let ip = match ip {
            IpAddr::V4(ip) => return ranges::forbidden_v4(ip),
            IpAddr::V6(ip) => ip,
        };
        let carried = ranges::carried_v4(ip);
        if carried.is_empty() {
            return ranges::forbidden_v6(ip);
        }
        carried.into_iter().find_map(|ip| self.verdict(ip.into()))
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests;

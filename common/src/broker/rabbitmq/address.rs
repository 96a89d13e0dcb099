//! Where RabbitMQ is, read from `broker.url`.

use lapin::uri::AMQPUri;
use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

/// Seconds between heartbeats; a silent peer is given up after two of them.
const HEARTBEAT_SECS: u16 = 10;

/// Bytes of one frame. lapin keeps buffers of 64 frames for each connection, and our messages are
/// small: a quarter of the protocol's usual 128 KiB saves 12 MB in every process.
const FRAME_MAX: u32 = 32 * 1024;

/// A parsed `broker.url`. Has no `Debug`: it holds the password.
pub(super) struct Address {
    uri: AMQPUri,
    place: String,
}

impl Address {
    /// The error is a sentence for an operator and holds nothing of the URL.
    pub(super) fn parse(url: &SecretString) -> Result<Self, String> {
        let text = url.expose_secret();
        let parsed = Url::parse(text).map_err(|error| format!("broker.url is no URL: {error}"))?;
        let mut uri: AMQPUri = text.parse().map_err(|_| {
            "broker.url must be amqp://user:password@host:5672/vhost (amqps:// for TLS), with \
             numbers in its parameters"
                .to_owned()
        })?;
        // lapin's own parser takes an IPv6 address for no host, and connects to localhost.
        match parsed.host() {
            Some(Host::Ipv6(ip)) => uri.authority.host = ip.to_string(),
            Some(_) => {}
            None => return Err("broker.url names no host".to_owned()),
        }
        // By the letter `amqp://host/` is a virtual host with an empty name; nobody means that.
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
        uri.query.frame_max.get_or_insert(FRAME_MAX);
        let place = format!("{}:{}", uri.authority.host, uri.authority.port);
        Ok(Self { uri, place })
    }

    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    /// `host:port`, for people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, String> {
        Address::parse(&SecretString::from(url))
    }

    #[test]
    fn user_password_and_virtual_host_are_decoded() {
        let address = parse("amqp://a%40b:p%2Fw%25@broker.example:5673/my%2Fhost").unwrap();
        let uri = address.uri();
        assert_eq!(uri.authority.userinfo.username, "a@b");
        assert_eq!(uri.authority.userinfo.password, "p/w%");
        assert_eq!(uri.vhost, "my/host");
        assert_eq!(address.place(), "broker.example:5673");
    }

    #[test]
    fn what_is_left_out_has_its_usual_value() {
        for url in ["amqp://localhost", "amqp://localhost/", "amqp://localhost/%2f"] {
            let address = parse(url).unwrap();
            assert_eq!(address.uri().vhost, "/", "{url}");
            assert_eq!(address.place(), "localhost:5672");
            assert_eq!(address.uri().query.heartbeat, Some(HEARTBEAT_SECS));
        }
        assert_eq!(parse("amqps://localhost").unwrap().place(), "localhost:5671");
    }

    #[test]
    fn an_ipv6_host_is_not_taken_for_localhost() {
        let address = parse("amqp://[2001:db8::1]:5672/").unwrap();
        assert_eq!(address.uri().authority.host, "2001:db8::1");
    }

    #[test]
    fn a_bad_url_is_refused_without_its_password() {
        for url in ["amqp://u:secret@:x/", "amqp://u:secret@host?heartbeat=x", "amqp:secret"] {
            let Err(reason) = parse(url) else { panic!("{url} was taken") };
            assert!(!reason.contains("secret"), "{reason}");
        }
    }
}

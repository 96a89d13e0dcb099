//! How settings are shown: with every secret taken out.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::Serializer;
use url::Url;

const HIDDEN: &str = "***";

/// For `#[serde(serialize_with)]` on the address of a server: user and host stay, the password and
/// the query (which may hold another) go.
pub(super) fn server_url<S: Serializer>(
    url: &SecretString,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_password(url.expose_secret()))
}

/// For `#[serde(serialize_with)]`: only whether it is set.
#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
pub(super) fn secret<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_some(&secret.as_ref().map(|_| HIDDEN))
}

/// For `#[serde(serialize_with)]`: only how many there are.
pub(super) fn secrets<S: Serializer>(
    secrets: &[SecretString],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(|_| HIDDEN))
}

/// For `#[serde(serialize_with)]`: names only; a value may be a credential.
pub(super) fn header_names<S: Serializer>(
    headers: &BTreeMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.keys().map(|name| (name, HIDDEN)))
}

pub(super) fn without_password(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return HIDDEN.to_owned() };
    if url.query().is_some() {
        url.set_query(Some(HIDDEN));
    }
    if url.password().is_some() && url.set_password(Some(HIDDEN)).is_err() {
        return HIDDEN.to_owned();
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_password_and_query() {
        for (url, shown) in [
            ("postgres://me:pw@db:5432/jobs", "postgres://me:***@db:5432/jobs"),
            ("postgres://me@db/jobs?password=pw", "postgres://me@db/jobs?***"),
            ("postgresql:///jobs?host=/run&password=pw", "postgresql:///jobs?***"),
            ("amqps://me:p%40w@mq:5671/%2f?heartbeat=5", "amqps://me:***@mq:5671/%2f?***"),
            ("sqlite://.inferq/inferq.db", "sqlite://.inferq/inferq.db"),
            ("sqlite:jobs.db?mode=rwc", "sqlite:jobs.db?***"),
            ("memory:", "memory:"),
            ("postgres://me:p w@d b/jobs", "***"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}

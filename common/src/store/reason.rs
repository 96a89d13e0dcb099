//! What a store's error goes back to, for whoever has to put it right.

use std::fmt;

use super::StoreError;
use crate::tls;

/// What a store's error goes back to, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// There is no TLS with its server.
    Tls(String),
    /// Its server does not let us in, or has no such database.
    Login(String),
    Other(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Tls(words) | Self::Login(words) | Self::Other(words)) = self;
        f.write_str(words)
    }
}

impl StoreError {
    /// What was wrong in the first place, without the layers around it.
    pub fn reason(&self) -> Reason {
        if let Some(error) = tls::error_in(self) {
            return Reason::Tls(tls::words(error));
        }
        let mut root: &(dyn std::error::Error + 'static) = self;
        while let Some(source) = root.source() {
            let by_database = root.downcast_ref().and_then(sqlx::Error::as_database_error);
            if let Some(refusal) = by_database {
                // Its own words: `Display` adds the line of the server's source.
                let words = refusal.message().to_owned();
                return if is_login(&refusal.code().unwrap_or_default()) {
                    Reason::Login(words)
                } else {
                    Reason::Other(words)
                };
            }
            root = source;
        }
        Reason::Other(root.to_string())
    }
}

/// Whether this is a SQLSTATE of class 28 (invalid authorization) or 3D (no such database). SQLite
/// has numbers of up to four digits.
fn is_login(code: &str) -> bool {
    code.len() == 5 && ["28", "3D"].iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::CertificateError::UnknownIssuer;

    use super::*;

    #[test]
    fn a_reason_is_the_innermost_error() {
        let unavailable = |error: sqlx::Error| StoreError::Unavailable(error.into()).reason();
        let tls = rustls::Error::InvalidCertificate(UnknownIssuer);
        let untrusted = unavailable(sqlx::Error::Tls(Box::new(tls.clone())));
        assert_eq!(untrusted, Reason::Tls(tls::words(&tls)));
        let within = unavailable(sqlx::Error::Io(io::Error::other(tls.clone())));
        assert_eq!(within, Reason::Tls(tls::words(&tls)));
        let refused = unavailable(sqlx::Error::Io(io::Error::other("refused")));
        assert_eq!(refused, Reason::Other("refused".to_owned()));
    }

    #[test]
    fn a_refused_login_is_told_from_other_refusals() {
        for (code, login) in
            [("28000", true), ("28P01", true), ("3D000", true), ("53300", false), ("2826", false)]
        {
            assert_eq!(is_login(code), login, "{code}");
        }
    }
}

//! What goes wrong with TLS, in a person's words: the same for broker, vendors and callbacks.

use std::{error::Error, io};

use rustls::{CertificateError, InvalidMessage};

/// The TLS error that a chain of errors is about, if it is about one.
pub fn error_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // The source of an I/O error is not the error it wraps but that one's source.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// Says why there is no TLS with a server. Goes on after "TLS failed: ".
pub fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(reason) => certificate(reason),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS".to_owned()
        }
        other => other.to_string(),
    }
}

fn certificate(reason: &CertificateError) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
        NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    let words = match reason {
        // An authority made anew under its old name is taken for that one, and its signature is wrong.
        UnknownIssuer | BadSignature => "its certificate is of no authority that is trusted here",
        NotValidForName | NotValidForNameContext { .. } => "its certificate is for other names",
        Expired | ExpiredContext { .. } => "its certificate has expired",
        NotValidYet | NotValidYetContext { .. } => "its certificate is not valid yet",
        other => return format!("its certificate cannot be used: {other}"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("an error around it")]
    struct Around(#[source] io::Error);

    #[test]
    fn a_tls_error_is_found_below_others() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let around = Around(io::Error::other(io::Error::other(tls.clone())));
        assert_eq!(error_in(&around), Some(&tls));
        assert_eq!(error_in(&Around(io::ErrorKind::UnexpectedEof.into())), None);
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_without_jargon() {
        let certificate =
            |reason: CertificateError| words(&rustls::Error::InvalidCertificate(reason));
        for (reason, expected) in [
            (
                CertificateError::UnknownIssuer,
                "its certificate is of no authority that is trusted here",
            ),
            (
                CertificateError::BadSignature,
                "its certificate is of no authority that is trusted here",
            ),
            (CertificateError::NotValidForName, "its certificate is for other names"),
            (CertificateError::Expired, "its certificate has expired"),
            (CertificateError::NotValidYet, "its certificate is not valid yet"),
        ] {
            assert_eq!(certificate(reason), expected);
        }
        let revoked = certificate(CertificateError::Revoked);
        assert!(revoked.starts_with("its certificate cannot be used: "), "{revoked}");
        let plain = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert_eq!(words(&plain), "the server does not speak TLS");
    }
}

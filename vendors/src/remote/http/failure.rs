//! Says in a person's words why an exchange broke. Never names a path, a query or a credential.

use std::{error::Error, io, time::Duration};

use inferq_common::{error::ErrorClass, tls};

use crate::error::{VendorError, excerpt};

/// How far the exchange had come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    /// Before the head of the response.
    Head { connect_timeout: Duration },
    /// In the middle of its body.
    Body,
}

/// The error of an exchange with `peer` (`host:port`).
pub(super) fn explain(error: &reqwest::Error, stage: Stage, peer: &str) -> VendorError {
    let chain = Chain::of(error);
    let class = if matches!(stage, Stage::Body) && chain.is_bad_encoding(error) {
        ErrorClass::Protocol
    } else {
        ErrorClass::Transient
    };
    VendorError::new(class, words(error, &chain, stage, peer))
}

fn words(error: &reqwest::Error, chain: &Chain<'_>, stage: Stage, peer: &str) -> String {
    if let Some(tls) = chain.tls {
        return format!("TLS with {peer} failed: {}", excerpt(&tls::words(tls)));
    }
    if error.is_dns() {
        return format!("the address of {peer} cannot be found: {}", root_cause(error));
    }
    match stage {
        Stage::Head { connect_timeout } if error.is_timeout() && error.is_connect() => {
            format!("{peer} did not take a connection within {connect_timeout:?}")
        }
        Stage::Head { .. } if error.is_connect() => match chain.io.map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => {
                format!("{peer} refused the connection: nothing listens there")
            }
            _ => format!("cannot connect to {peer}: {}", root_cause(error)),
        },
        Stage::Head { .. } if chain.is_head_too_large() => {
            format!("the head of the answer of {peer} is too large")
        }
        Stage::Head { .. } if chain.is_not_http() => {
            format!("{peer} answered something that is not HTTP")
        }
        Stage::Head { .. } if chain.is_closed() => {
            format!("{peer} closed the connection before it answered")
        }
        Stage::Head { .. } => format!("the call to {peer} broke off: {}", root_cause(error)),
        Stage::Body if chain.is_closed() => {
            format!("{peer} closed the connection in the middle of its answer")
        }
        Stage::Body if chain.is_bad_encoding(error) => {
            format!("the compression of the answer of {peer} is broken: {}", root_cause(error))
        }
        Stage::Body => format!("the answer of {peer} broke off: {}", root_cause(error)),
    }
}

/// The innermost error in words: what happened, without the layers it came through.
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = inner(cause) {
        cause = source;
    }
    // An error of reqwest's own may name the URL.
    match cause.downcast_ref::<reqwest::Error>() {
        Some(_) => "no reason is known".to_owned(),
        None => excerpt(&cause.to_string()),
    }
}

/// The errors in a chain that tell what happened.
struct Chain<'a> {
    io: Option<&'a io::Error>,
    tls: Option<&'a rustls::Error>,
    http: Option<&'a hyper::Error>,
}

impl<'a> Chain<'a> {
    fn of(error: &'a reqwest::Error) -> Self {
        let mut chain = Self { io: None, tls: None, http: None };
        let mut next: Option<&'a (dyn Error + 'static)> = Some(error);
        while let Some(error) = next {
            chain.io = error.downcast_ref().or(chain.io);
            chain.tls = error.downcast_ref().or(chain.tls);
            chain.http = error.downcast_ref().or(chain.http);
            next = inner(error);
        }
        chain
    }

    fn is_head_too_large(&self) -> bool {
        self.http.is_some_and(hyper::Error::is_parse_too_large)
    }

    fn is_not_http(&self) -> bool {
        self.http.is_some_and(hyper::Error::is_parse)
    }

    fn is_closed(&self) -> bool {
        let by_http = self.http.is_some_and(|error| {
            error.is_incomplete_message() || error.is_closed() || error.is_canceled()
        });
        let by_io = self.io.is_some_and(|error| {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        });
        by_http || by_io
    }

    /// The bytes came, but they do not decompress.
    fn is_bad_encoding(&self, error: &reqwest::Error) -> bool {
        error.is_decode() && self.http.is_none() && !self.is_closed()
    }
}

/// The error inside an error. The source of an I/O error is not the error it wraps but that one's
/// source, hence the detour.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

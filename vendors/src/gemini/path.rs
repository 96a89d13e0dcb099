//! Builds the addresses of Google's APIs; pure.

use url::Url;

use crate::{
    error::{VendorError, invalid},
    remote::Mode,
};

/// Refuses a model's name that would change what stands around it in an address.
///
/// # Errors
/// `InvalidRequest`.
pub(crate) fn check_name(name: &str) -> Result<(), VendorError> {
    if name.contains(['?', '&', '#', '\\']) || name.contains("..") {
        let message = "the model's name must not hold '..', '?', '&', '#' or '\\'";
        return Err(invalid(format!("{message}: {name}")));
    }
    if name.split('/').any(|segment| segment.is_empty() || segment == ".") {
        return Err(invalid(format!("the model's name has an empty part between slashes: {name}")));
    }
    Ok(())
}

/// `base`, the version and `path`, whose segments are percent-encoded. An address that ends in a
/// version of its own keeps that one.
pub(crate) fn url<'a>(base: &Url, version: &str, path: impl IntoIterator<Item = &'a str>) -> Url {
    let own = base.path_segments().and_then(|mut segments| segments.rfind(|it| !it.is_empty()));
    let has_version = own.is_some_and(is_version);
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty();
        if !has_version {
            segments.push(version);
        }
        segments.extend(path);
    }
    url
}

/// `v1`, `v1beta`, `v1beta1`.
fn is_version(segment: &str) -> bool {
    let mut rest = segment.strip_prefix('v').unwrap_or_default().chars();
    rest.next().is_some_and(|c| c.is_ascii_digit()) && rest.all(|c| c.is_ascii_alphanumeric())
}

/// Asks for server-sent events where the answer is streamed; without it, it is one JSON list.
pub(crate) fn ask_for_events(url: &mut Url, mode: Mode) {
    if mode == Mode::Stream {
        url.query_pairs_mut().append_pair("alt", "sse");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(base: &str) -> String {
        url(&base.parse().unwrap(), "v1beta", ["models", "bad model/x:go"]).to_string()
    }

    #[test]
    fn the_version_is_added_unless_the_address_has_one() {
        let expected = "http://h/v1beta/models/bad%20model%2Fx:go";
        assert_eq!(at("http://h"), expected);
        assert_eq!(at("http://h/"), expected);
        assert_eq!(at("http://h/gw/"), "http://h/gw/v1beta/models/bad%20model%2Fx:go");
        for version in ["v1", "v1beta1", "v1alpha"] {
            let base = format!("http://h/gw/{version}/");
            assert_eq!(at(&base), format!("{base}models/bad%20model%2Fx:go"));
        }
        assert!(at("http://h/vertex").contains("/vertex/v1beta/"));
    }

    #[test]
    fn a_name_cannot_change_the_address_around_it() {
        for model in ["a", "tunedModels/a b", "claude@2025", "a:b", "é"] {
            assert_eq!(check_name(model), Ok(()), "{model}");
        }
        for model in ["../a", "a?key=1", "a&b", "a#b", "a//b", "/a", "a/", "a/./b", "a\\b"] {
            assert!(check_name(model).is_err(), "{model}");
        }
    }
}

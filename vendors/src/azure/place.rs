//! Where at a resource an endpoint is found; pure.

use inferq_common::job::Route;
use url::Url;

use crate::{
    error::{VendorError, invalid},
    openai::wire,
};

/// The last version of the classic surface that is no preview.
const CLASSIC_VERSION: &str = "2024-10-21";
/// Responses came later.
const CLASSIC_RESPONSES_VERSION: &str = "2025-04-01-preview";
const INFERENCE_VERSION: &str = "2024-05-01-preview";
/// Versions before it refuse `stream_options`.
const FIRST_WITH_USAGE_OPTION: &str = "2024-09";

/// What people copy with the endpoint, though it belongs to a surface.
const SURFACE_PATHS: &[&[&str]] =
    &[&["openai", "v1"], &["anthropic", "v1"], &["openai"], &["anthropic"], &["models"]];

/// The ways a resource is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Surface {
    /// The deployment stands in the body, and no version is needed.
    V1,
    /// The deployment stands in the path.
    Classic,
    /// Models of other vendors.
    Inference,
}

/// A resource, and the surface of it that is configured.
#[derive(Debug)]
pub(super) struct Place {
    endpoint: Url,
    surface: Surface,
    version: Option<String>,
}

impl Place {
    /// # Errors
    /// A sentence for an operator: `api` names no surface.
    pub(super) fn of(
        endpoint: Url,
        api: Option<&str>,
        version: Option<String>,
    ) -> Result<Self, String> {
        let surface = match api {
            None | Some("" | "v1") => Surface::V1,
            Some("classic") => Surface::Classic,
            Some("inference") => Surface::Inference,
            Some(_) => return Err("api: must be v1, classic or inference".to_owned()),
        };
        let version = version.filter(|version| !version.is_empty());
        Ok(Self { endpoint: bare(endpoint), surface, version })
    }

    /// The address of an endpoint for a deployment.
    ///
    /// # Errors
    /// `InvalidRequest`: the surface has no such endpoint, or no path can name the deployment.
    pub(super) fn url(&self, route: Route, deployment: &str) -> Result<Url, VendorError> {
        use Surface::{Classic, Inference, V1};
        let mut url = self.endpoint.clone();
        let Ok(mut path) = url.path_segments_mut() else {
            return Err(invalid("vendors.azure.base_url: has no path"));
        };
        path.pop_if_empty();
        match (self.surface, route) {
            (_, Route::Messages) => path.extend(["anthropic", "v1", "messages"]),
            (_, Route::CountTokens) => path.extend(["anthropic", "v1", "messages", "count_tokens"]),
            (V1, _) => path.extend(["openai", "v1"]).extend(wire::path(route)),
            (Classic, Route::Responses) => path.extend(["openai", "responses"]),
            (Classic, _) if matches!(deployment, "." | "..") => {
                return Err(invalid("azure: no path can name a deployment '.' or '..'"));
            }
            (Classic, _) => {
                path.extend(["openai", "deployments", deployment]).extend(wire::path(route))
            }
            (Inference, Route::ChatCompletions | Route::Embeddings) => {
                path.extend(["models"]).extend(wire::path(route))
            }
            (Inference, _) => {
                return Err(invalid(format!(
                    "azure: api 'inference' has no endpoint '{route}'; set vendors.azure.api to v1"
                )));
            }
        };
        drop(path);
        if let Some(version) = self.version(route) {
            url.query_pairs_mut().append_pair("api-version", version);
        }
        Ok(url)
    }

    /// Whether the deployment's name goes into the body.
    pub(super) fn is_model_in_body(&self, route: Route) -> bool {
        self.surface != Surface::Classic || route == Route::Responses
    }

    /// Whether a stream of this endpoint can be asked for its usage.
    pub(super) fn knows_usage_option(&self, route: Route) -> bool {
        let version = self.version(route).unwrap_or(CLASSIC_VERSION);
        let is_old = self.surface == Surface::Classic && version < FIRST_WITH_USAGE_OPTION;
        wire::has_usage_option(route) && !is_old
    }

    fn version(&self, route: Route) -> Option<&str> {
        let own = self.version.as_deref();
        match (self.surface, route) {
            (_, Route::Messages | Route::CountTokens) => None,
            // It takes `preview`; a date is meant for the classic surface.
            (Surface::V1, _) => own.filter(|own| !own.starts_with(|c: char| c.is_ascii_digit())),
            (Surface::Classic, Route::Responses) => own.or(Some(CLASSIC_RESPONSES_VERSION)),
            (Surface::Classic, _) => own.or(Some(CLASSIC_VERSION)),
            (Surface::Inference, _) => own.or(Some(INFERENCE_VERSION)),
        }
    }
}

/// The endpoint without slashes and a surface's path at its end.
fn bare(mut endpoint: Url) -> Url {
    let mut segments: Vec<_> = endpoint.path().split('/').map(str::to_owned).collect();
    segments.retain(|segment| !segment.is_empty());
    if let Some(path) = SURFACE_PATHS.iter().find(|path| segments.ends_with(&owned(path))) {
        segments.truncate(segments.len() - path.len());
    }
    endpoint.set_path(&segments.join("/"));
    endpoint
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|&segment| segment.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use inferq_common::error::ErrorClass;

    use super::*;

    const ENDPOINT: &str = "https://r.openai.azure.com";

    fn place(endpoint: &str, api: Option<&str>, version: Option<&str>) -> Place {
        Place::of(endpoint.parse().unwrap(), api, version.map(str::to_owned)).unwrap()
    }

    #[test]
    fn every_surface_has_its_addresses() {
        use Route::{ChatCompletions, Completions, CountTokens, Embeddings, Messages, Responses};
        for (api, version, route, expected) in [
            (None, None, ChatCompletions, "/openai/v1/chat/completions"),
            (None, None, Completions, "/openai/v1/completions"),
            (None, None, Embeddings, "/openai/v1/embeddings"),
            (Some("v1"), None, Responses, "/openai/v1/responses"),
            (Some("v1"), Some("preview"), Responses, "/openai/v1/responses?api-version=preview"),
            (Some("v1"), Some("2024-10-21"), Responses, "/openai/v1/responses"),
            (
                Some("classic"),
                None,
                ChatCompletions,
                "/openai/deployments/d%2F1%3F%23%25/chat/completions?api-version=2024-10-21",
            ),
            (
                Some("classic"),
                Some("2023-07-01-preview"),
                Completions,
                "/openai/deployments/d%2F1%3F%23%25/completions?api-version=2023-07-01-preview",
            ),
            (
                Some("classic"),
                None,
                Embeddings,
                "/openai/deployments/d%2F1%3F%23%25/embeddings?api-version=2024-10-21",
            ),
            (Some("classic"), None, Responses, "/openai/responses?api-version=2025-04-01-preview"),
            (
                Some("inference"),
                None,
                ChatCompletions,
                "/models/chat/completions?api-version=2024-05-01-preview",
            ),
            (
                Some("inference"),
                None,
                Embeddings,
                "/models/embeddings?api-version=2024-05-01-preview",
            ),
            (Some("classic"), None, Messages, "/anthropic/v1/messages"),
            (None, Some("preview"), CountTokens, "/anthropic/v1/messages/count_tokens"),
        ] {
            let url = place(ENDPOINT, api, version).url(route, "d/1?#%").unwrap();
            assert_eq!(url.as_str(), format!("{ENDPOINT}{expected}"));
        }
    }

    #[test]
    fn an_endpoint_may_be_given_with_what_belongs_to_a_surface() {
        for end in
            ["", "/", "//", "/openai", "/openai/v1/", "/models", "/anthropic", "/anthropic/v1"]
        {
            let place = place(&format!("{ENDPOINT}{end}"), None, None);
            let url = place.url(Route::Responses, "d").unwrap();
            assert_eq!(url.as_str(), format!("{ENDPOINT}/openai/v1/responses"), "{end}");
        }
        let url = place("http://127.0.0.1:9/team/x", None, None).url(Route::Responses, "d");
        assert_eq!(url.unwrap().as_str(), "http://127.0.0.1:9/team/x/openai/v1/responses");
    }

    #[test]
    fn what_cannot_be_addressed_is_refused() {
        for name in [".", ".."] {
            let error = place(ENDPOINT, Some("classic"), None)
                .url(Route::ChatCompletions, name)
                .unwrap_err();
            assert_eq!(error.class(), ErrorClass::InvalidRequest);
        }
        let error = place(ENDPOINT, Some("inference"), None).url(Route::Responses, "d");
        assert_eq!(
            error.unwrap_err().to_string(),
            "azure: api 'inference' has no endpoint 'responses'; set vendors.azure.api to v1"
        );
        let error = Place::of(ENDPOINT.parse().unwrap(), Some("v2"), None).unwrap_err();
        assert_eq!(error, "api: must be v1, classic or inference");
    }

    #[test]
    fn old_versions_are_not_asked_for_usage() {
        let knows =
            |api, version| place(ENDPOINT, api, version).knows_usage_option(Route::ChatCompletions);
        assert!(knows(None, Some("2023-05-15")));
        assert!(knows(Some("inference"), None));
        assert!(knows(Some("classic"), None));
        assert!(knows(Some("classic"), Some("2024-09-01-preview")));
        assert!(!knows(Some("classic"), Some("2024-06-01")));
        assert!(!place(ENDPOINT, None, None).knows_usage_option(Route::Responses));
    }

    #[test]
    fn only_the_classic_surface_has_the_deployment_in_its_path() {
        let in_body = |api, route| place(ENDPOINT, api, None).is_model_in_body(route);
        assert!(!in_body(Some("classic"), Route::ChatCompletions));
        assert!(in_body(Some("classic"), Route::Responses));
        assert!(in_body(None, Route::ChatCompletions));
        assert!(in_body(Some("inference"), Route::ChatCompletions));
    }
}

//! Which of a vendor's endpoints a job goes to; decided at submit, so that no vendor has to be asked.

mod anthropic;
mod azure;
pub mod bedrock;
mod cohere;
mod fireworks_ai;
mod gemini;
mod launch;
mod llmengine;
mod openai;
pub mod vertex_ai;

use crate::{job::Route, members::NotAnObject, vendor::Vendor};

/// Why no endpoint can be chosen. Says nothing of what the arguments hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("args must be a JSON object")]
    NotAnObject,
    /// What is looked for, in words.
    #[error("args fit no endpoint: {0}; inference_configuration.route names the endpoint outright")]
    NoMember(&'static str),
    /// More than one endpoint would take them.
    #[error("args fit more than one endpoint: {0}; name one in inference_configuration.route")]
    Ambiguous(&'static str),
    #[error("{vendor} has no endpoint '{route}'")]
    NotOfVendor { vendor: Vendor, route: Route },
    #[error("model cannot be used: {0}")]
    Model(&'static str),
    #[error("args cannot be used: {0}")]
    Unusable(&'static str),
}

impl From<NotAnObject> for RouteError {
    fn from(NotAnObject: NotAnObject) -> Self {
        Self::NotAnObject
    }
}

/// The endpoints a vendor has.
pub fn of_vendor(vendor: Vendor) -> &'static [Route] {
    match vendor {
        Vendor::Anthropic => anthropic::ROUTES,
        Vendor::Gemini => gemini::ROUTES,
        Vendor::VertexAi => vertex_ai::ROUTES,
        Vendor::Cohere => cohere::ROUTES,
        Vendor::OpenAi => openai::OWN_ROUTES,
        Vendor::ModelZoo | Vendor::Xai => openai::ROUTES,
        Vendor::Azure => azure::ROUTES,
        Vendor::Bedrock => bedrock::ROUTES,
        Vendor::FireworksAi => fireworks_ai::ROUTES,
        Vendor::Launch => launch::ROUTES,
        Vendor::LlmEngine => llmengine::ROUTES,
    }
}

/// Whether an endpoint of the vendor's can answer in parts.
pub fn can_be_streamed(vendor: Vendor, route: Route) -> bool {
    match route {
        Route::ChatCompletions
        | Route::Completions
        | Route::Responses
        | Route::Messages
        | Route::Chat
        | Route::GenerateContent
        | Route::Interactions
        | Route::RawPredict
        | Route::Converse
        | Route::Invoke
        | Route::CompletionsSync
        | Route::SyncTask => of_vendor(vendor).contains(&route),
        Route::Embeddings
        | Route::Rerank
        | Route::CountTokens
        | Route::Embed
        | Route::EmbedContent
        | Route::BatchEmbedContents
        | Route::Predict
        | Route::AsyncTask => false,
    }
}

/// The endpoint for `args`: `chosen`, or the one that the names of their top-level members tell.
/// A member that is `null` counts as absent. Cost: one pass over the text, no copy.
///
/// # Errors
/// `NotAnObject` for any other JSON value, also where `chosen` is given; `NotOfVendor` for a chosen
/// endpoint the vendor does not have; `NoMember` or `Ambiguous` where `args` do not tell it; `Model`
/// for a model's name that names an endpoint it should not.
pub fn choose(
    vendor: Vendor,
    model: &str,
    args: &str,
    chosen: Option<Route>,
) -> Result<Route, RouteError> {
    if let Some(route) = chosen {
        return if !of_vendor(vendor).contains(&route) {
            Err(RouteError::NotOfVendor { vendor, route })
        } else if !args.trim_start().starts_with('{') {
            Err(RouteError::NotAnObject)
        } else if vendor == Vendor::Bedrock {
            bedrock::chosen(model, route)
        } else {
            Ok(route)
        };
    }
    match vendor {
        Vendor::Anthropic => anthropic::route(args),
        Vendor::Gemini => gemini::route(args),
        Vendor::VertexAi => vertex_ai::route(args, model),
        Vendor::Cohere => cohere::route(args),
        Vendor::OpenAi | Vendor::ModelZoo | Vendor::Xai => openai::route(args, model),
        Vendor::Azure => azure::route(args, model),
        Vendor::Bedrock => bedrock::route(args, model),
        Vendor::FireworksAi => fireworks_ai::route(args, model),
        Vendor::Launch => Ok(Route::SyncTask),
        Vendor::LlmEngine => llmengine::route(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(args: &str, chosen: Option<Route>) -> Result<Route, RouteError> {
        super::choose(Vendor::OpenAi, "gpt-5", args, chosen)
    }

    #[test]
    fn a_chosen_endpoint_wins() {
        let args = r#"{"messages":[]}"#;
        assert_eq!(choose(args, Some(Route::Responses)), Ok(Route::Responses));
        assert_eq!(choose(args, None), Ok(Route::ChatCompletions));
    }

    #[test]
    fn what_counts_embeds_or_ranks_answers_in_one_piece() {
        for &vendor in Vendor::ALL {
            for &route in of_vendor(vendor) {
                let name = route.as_str();
                let in_one_piece =
                    ["embed", "count", "rerank"].iter().any(|word| name.contains(word))
                        || matches!(route, Route::Predict | Route::AsyncTask);
                assert_eq!(can_be_streamed(vendor, route), !in_one_piece, "{vendor} {route}");
            }
        }
        assert!(!can_be_streamed(Vendor::OpenAi, Route::Converse));
    }

    #[test]
    fn an_endpoint_of_another_vendor_is_refused() {
        let error = choose("{}", Some(Route::Converse)).unwrap_err();
        assert_eq!(error.to_string(), "openai has no endpoint 'converse'");
    }

    #[test]
    fn arguments_must_be_an_object_however_the_endpoint_is_chosen() {
        for args in ["[]", "1", "\"messages\"", "null"] {
            for chosen in [None, Some(Route::Embeddings)] {
                let error = choose(args, chosen).unwrap_err();
                assert_eq!(error.to_string(), "args must be a JSON object");
            }
        }
    }
}

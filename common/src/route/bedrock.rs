//! The endpoints of AWS Bedrock, and what may stand before the id of one of its models.

use std::fmt;

use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::RouteError;
use crate::{
    job::Route,
    members::{NotAnObject, each_member},
};

/// Bedrock's own endpoints, and the two that speak OpenAI's format.
pub(super) const ROUTES: &[Route] =
    &[Route::Converse, Route::Invoke, Route::CountTokens, Route::ChatCompletions, Route::Responses];

const NO_MEMBER: RouteError = RouteError::NoMember(
    "converse needs 'messages' whose content is a list of blocks such as {\"text\": …}; invoke the \
     body of the model's own vendor ('anthropic_version', 'inputText', 'texts', 'prompt' and so on); \
     count_tokens 'input' with 'converse' or 'invokeModel'; responses 'input'",
);
const BOTH: RouteError = RouteError::Ambiguous(
    "some members are converse's, others belong to the body of a model's own vendor",
);
const MESSAGES_AND_INPUT: RouteError = RouteError::Ambiguous(
    "'messages' belong to converse or to the body of a model's own vendor, 'input' to responses or \
     count_tokens",
);
const TEXT_OR_TYPED: RouteError = RouteError::Ambiguous(
    "'messages' with texts or typed blocks as their content are not for converse; they can be the \
     body of a model's own vendor (invoke) or OpenAI's format (chat_completions)",
);
const OTHER_WORD: RouteError = RouteError::Model(
    "what stands before a Bedrock model's id may be converse/ or invoke/ and nothing else; other \
     endpoints are named in inference_configuration.route",
);
const OTHER_REGION: RouteError = RouteError::Model(
    "a region cannot stand before a Bedrock model's id; set vendors.bedrock.region, or the region of \
     this model under vendors.bedrock.models",
);
const EMPTY: RouteError = RouteError::Model("the Bedrock model's id is empty");
const TWO_ROUTES: RouteError = RouteError::Model(
    "what stands before the Bedrock model's id names another endpoint than \
     inference_configuration.route",
);

/// Words that LiteLLM puts before an id, and which we do not speak.
const OTHER_WORDS: &[&str] = &[
    "agent",
    "agentcore",
    "async_invoke",
    "chat_completions",
    "count_tokens",
    "converse_like",
    "deepseek_r1",
    "llama",
    "mantle",
    "moonshot",
    "nova",
    "nova-2",
    "openai",
    "qwen2",
    "qwen3",
    "responses",
];

/// Members that only converse takes.
const CONVERSE: &[&str] = &[
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "guardrailConfig",
    "outputConfig",
    "performanceConfig",
    "promptVariables",
    "requestMetadata",
    "serviceTier",
];
/// Members that begin the body of some model's own vendor: Anthropic, Amazon (Nova, Titan), Cohere,
/// Meta, Mistral, AI21, Stability.
const INVOKE: &[&str] = &[
    "anthropic_beta",
    "anthropic_version",
    "embeddingConfig",
    "images",
    "inputImage",
    "inputText",
    "input_type",
    "message",
    "prompt",
    "schemaVersion",
    "taskType",
    "text_prompts",
    "texts",
];

/// Parts the name of a model: the endpoint that stands before it, if any, and Bedrock's own id.
///
/// # Errors
/// `Model` for the words and regions that other software allows there.
pub fn model(name: &str) -> Result<(Option<Route>, &str), RouteError> {
    let (route, id) = match name.split_once('/') {
        _ if name.starts_with("arn:") => (None, name),
        Some(("converse", id)) => (Some(Route::Converse), id),
        Some(("invoke", id)) => (Some(Route::Invoke), id),
        Some((word, _)) if OTHER_WORDS.contains(&word) => return Err(OTHER_WORD),
        Some((word, _)) if is_region(word) => return Err(OTHER_REGION),
        _ => (None, name),
    };
    if id.is_empty() { Err(EMPTY) } else { Ok((route, id)) }
}

/// The chosen endpoint and the model's name, if they do not contradict each other.
pub(super) fn chosen(name: &str, route: Route) -> Result<Route, RouteError> {
    match model(name)?.0 {
        Some(named) if named != route => Err(TWO_ROUTES),
        _ => Ok(route),
    }
}

/// Chooses the endpoint for `args`: the one before the model's id, else by the names of their
/// top-level members and the shape of the first message. Cost: one pass over the text, and one over
/// the messages up to the first that tells.
///
/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>.
pub(super) fn route(args: &str, name: &str) -> Result<Route, RouteError> {
    let (named, id) = model(name)?;
    let seen = Seen::of(args)?;
    if let Some(route) = named {
        return Ok(route);
    }
    match seen {
        Seen { shape: Some(_), counts, input, .. } if counts || input => Err(MESSAGES_AND_INPUT),
        Seen { counts: true, .. } => Ok(Route::CountTokens),
        Seen { converse: true, invoke: true, .. } => Err(BOTH),
        Seen { invoke: true, .. } => Ok(Route::Invoke),
        Seen { shape: Some(Shape::Other), converse: true, .. } => Err(BOTH),
        Seen { shape: Some(Shape::Other), .. } if id.contains("anthropic.") => Ok(Route::Invoke),
        Seen { shape: Some(Shape::Other), .. } if id.contains("openai.") => {
            Ok(Route::ChatCompletions)
        }
        Seen { shape: Some(Shape::Other), .. } => Err(TEXT_OR_TYPED),
        Seen { converse: true, .. } | Seen { shape: Some(_), .. } => Ok(Route::Converse),
        Seen { input: true, .. } => Ok(Route::Responses),
        _ => Err(NO_MEMBER),
    }
}

/// `us-east-1`, `us-gov-west-1`: words of letters, then a digit.
fn is_region(word: &str) -> bool {
    let Some((place, number)) = word.rsplit_once('-') else { return false };
    place.contains('-')
        && place.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        && number.len() == 1
        && number.bytes().all(|b| b.is_ascii_digit())
}

/// What tells the endpoints apart.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact about the arguments")]
struct Seen {
    /// Something only converse takes.
    converse: bool,
    /// Something only a model's own vendor takes.
    invoke: bool,
    /// `input` of a count of tokens.
    counts: bool,
    /// `input` of a response.
    input: bool,
    shape: Option<Shape>,
}

/// How messages are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Blocks without a type: converse.
    Blocks,
    /// Texts, or blocks with a type: anyone else.
    Other,
    /// No message, or none with content.
    Empty,
}

impl Seen {
    fn of(args: &str) -> Result<Self, NotAnObject> {
        let mut seen = Self::default();
        each_member(args, |member| match member.key.as_ref() {
            _ if member.is_null() => {}
            "messages" => seen.shape = Some(shape(member.value)),
            "input" if has_member(member.value, &["converse", "invokeModel"]) => seen.counts = true,
            "input" => seen.input = true,
            name if CONVERSE.contains(&name) => seen.converse = true,
            name if INVOKE.contains(&name) => seen.invoke = true,
            _ => {}
        })?;
        Ok(seen)
    }
}

fn has_member(value: &str, names: &[&str]) -> bool {
    let mut found = false;
    let read = each_member(value, |member| found |= names.contains(&member.key.as_ref()));
    read.is_ok() && found
}

fn shape(messages: &str) -> Shape {
    let found = first(messages, |message| {
        let mut content = None;
        each_member(message, |member| {
            if member.key == "content" {
                content = Some(member.value);
            }
        })
        .ok()?;
        let content = content?;
        if content.starts_with('"') {
            return Some(Shape::Other);
        }
        first(content, |block| {
            let shape = if has_member(block, &["type"]) { Shape::Other } else { Shape::Blocks };
            Some(shape)
        })
    });
    found.unwrap_or(Shape::Empty)
}

/// What the first element of a list, of which it answers something, tells. Reads no further.
fn first<T>(list: &str, tell: impl FnMut(&str) -> Option<T>) -> Option<T> {
    struct First<'a, T, F>(F, &'a mut Option<T>);

    impl<'de, T, F: FnMut(&str) -> Option<T>> Visitor<'de> for First<'_, T, F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(())
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(element) = list.next_element::<&'de RawValue>()? {
                *self.1 = (self.0)(element.get());
                if self.1.is_some() {
                    return Err(A::Error::custom("the rest need not be read"));
                }
            }
            Ok(())
        }
    }

    let mut found = None;
    let _ = serde_json::Deserializer::from_str(list).deserialize_any(First(tell, &mut found));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOVA: &str = "us.amazon.nova-lite-v1:0";
    const CLAUDE: &str = "us.anthropic.claude-haiku-4-5-20251001-v1:0";
    const PROFILE: &str =
        "arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/a1b2";

    #[test]
    fn the_shape_of_the_arguments_chooses_the_endpoint() {
        for (args, name, expected) in [
            (r#"{"messages":[{"role":"user","content":[{"text":"a"}]}]}"#, NOVA, Route::Converse),
            (r#"{"messages":[{"content":[{"text":"a"}]}],"system":[]}"#, CLAUDE, Route::Converse),
            (r#"{"messages":[]}"#, NOVA, Route::Converse),
            (r#"{"messages":[{"content":[]},{"content":"a"}],"a":1}"#, CLAUDE, Route::Invoke),
            (r#"{"promptVariables":{}}"#, PROFILE, Route::Converse),
            (r#"{"messages":[{"content":"a"}],"max_tokens":5}"#, CLAUDE, Route::Invoke),
            (r#"{"messages":[{"content":[{"type":"text"}]}]}"#, CLAUDE, Route::Invoke),
            (r#"{"anthropic_version":"x","messages":[{"content":"a"}]}"#, PROFILE, Route::Invoke),
            (
                r#"{"schemaVersion":"messages-v1","messages":[{"content":[{"text":"a"}]}]}"#,
                NOVA,
                Route::Invoke,
            ),
            (r#"{"inputText":"a"}"#, "amazon.titan-embed-text-v2:0", Route::Invoke),
            (r#"{"texts":["a"],"input_type":"x"}"#, "cohere.embed-v4:0", Route::Invoke),
            (r#"{"prompt":"a"}"#, "meta.llama3-70b-instruct-v1:0", Route::Invoke),
            (r#"{"messages":[{"content":"a"}]}"#, "openai.gpt-oss-20b-1:0", Route::ChatCompletions),
            (r#"{"input":"a"}"#, "openai.gpt-oss-20b", Route::Responses),
            (r#"{"input":[{"role":"user"}]}"#, "openai.gpt-oss-20b", Route::Responses),
            (r#"{"input":{"converse":{"messages":[]}}}"#, CLAUDE, Route::CountTokens),
            (r#"{"input":{"invokeModel":{"body":"e30="}}}"#, CLAUDE, Route::CountTokens),
            (r#"{"prompt":null,"messages":[{"content":[{"text":"a"}]}]}"#, NOVA, Route::Converse),
        ] {
            assert_eq!(route(args, name), Ok(expected), "{args} for {name}");
        }
    }

    #[test]
    fn what_fits_two_endpoints_or_none_is_refused() {
        let typed = r#"{"messages":[{"content":"a"}],"max_tokens":5}"#;
        assert_eq!(route(typed, NOVA), Err(TEXT_OR_TYPED));
        assert_eq!(route(typed, PROFILE), Err(TEXT_OR_TYPED));
        let both = r#"{"anthropic_version":"x","guardrailConfig":{}}"#;
        assert_eq!(route(both, CLAUDE), Err(BOTH));
        let mixed = r#"{"messages":[{"content":"a"}],"guardrailConfig":{}}"#;
        assert_eq!(route(mixed, CLAUDE), Err(BOTH));
        for input in [r#""a""#, r#"{"converse":{"messages":[]}}"#] {
            let two = format!(r#"{{"messages":[{{"content":[{{"text":"a"}}]}}],"input":{input}}}"#);
            assert_eq!(route(&two, NOVA), Err(MESSAGES_AND_INPUT), "{two}");
        }
        for nothing in ["{}", r#"{"temperature":1}"#, r#"{"messages":null}"#] {
            let error = route(nothing, NOVA).unwrap_err();
            assert_eq!(error, NO_MEMBER);
            assert!(error.to_string().contains("inference_configuration.route"), "{error}");
        }
        assert_eq!(route("[]", NOVA), Err(RouteError::NotAnObject));
    }

    #[test]
    fn an_endpoint_before_the_id_is_taken_off_it() {
        let named = format!("invoke/{NOVA}");
        let args = r#"{"messages":[{"content":[{"text":"a"}]}]}"#;
        assert_eq!(route(args, &named), Ok(Route::Invoke));
        assert_eq!(model(&named), Ok((Some(Route::Invoke), NOVA)));
        assert_eq!(model(&format!("converse/{PROFILE}")), Ok((Some(Route::Converse), PROFILE)));
        assert_eq!(model(PROFILE), Ok((None, PROFILE)));
        assert_eq!(model(NOVA), Ok((None, NOVA)));
        assert_eq!(route("[]", &named), Err(RouteError::NotAnObject));
        assert_eq!(chosen(&named, Route::Invoke), Ok(Route::Invoke));
        assert_eq!(chosen(&named, Route::Converse), Err(TWO_ROUTES));
    }

    #[test]
    fn other_words_and_regions_before_the_id_are_refused() {
        for word in ["mantle", "chat_completions", "openai", "nova"] {
            assert_eq!(model(&format!("{word}/{NOVA}")), Err(OTHER_WORD), "{word}");
        }
        for region in ["us-west-2", "us-gov-west-1", "ap-southeast-1"] {
            assert_eq!(model(&format!("{region}/{NOVA}")), Err(OTHER_REGION), "{region}");
        }
        assert_eq!(model("converse/"), Err(EMPTY));
        assert_eq!(model("acme/x"), Ok((None, "acme/x")));
    }

    #[test]
    fn broken_messages_are_left_to_the_vendor() {
        for messages in ["7", "{}", "[7]", r#"["a"]"#, r#"[{"content":7}]"#, r#"[{"content":[7]}]"#]
        {
            let args = format!(r#"{{"messages":{messages}}}"#);
            assert_eq!(route(&args, NOVA), Ok(Route::Converse), "{args}");
        }
    }
}

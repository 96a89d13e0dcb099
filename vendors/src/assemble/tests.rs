use proptest::prelude::*;

use super::*;

/// What is assembled of these chunks.
#[track_caller]
fn whole(mut assemble: Box<dyn Assemble>, chunks: &[&str]) -> String {
    for chunk in chunks {
        assemble.push(&Json::parse(*chunk).unwrap());
    }
    assemble.finish().as_str().to_owned()
}

#[test]
fn a_chat_is_one_message() {
    let chunks = [
        r#"{"id":"c1","object":"chat.completion.chunk","created":12345678901234567890,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"xy"}"#,
        r#"{"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"h\u00e9\ud83d"},"logprobs":{"content":[{"token":"h","logprob":-1.50}],"refusal":null}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"\ude00","reasoning_content":"so"},"logprobs":{"content":[{"token":"i","logprob":-0e0}]},"finish_reason":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"service_tier":"default"}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":3,"cost":1.50},"citations":["u"]}"#,
    ];
    let expected = r#"{"id":"c1","object":"chat.completion","created":12345678901234567890,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"h\u00e9\ud83d\ude00","refusal":null,"reasoning_content":"so"},"logprobs":{"content":[{"token":"h","logprob":-1.50},{"token":"i","logprob":-0e0}],"refusal":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"cost":1.50},"service_tier":"default","citations":["u"]}"#;
    assert_eq!(whole(openai(), &chunks), expected);
}

#[test]
fn choices_are_told_apart_by_their_index() {
    let chunks = [
        r#"{"choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"A"},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"index":1,"delta":{"content":"B"},"finish_reason":"length"}]}"#,
    ];
    let expected = r#"{"choices":[{"index":0,"message":{"content":"aA","role":"assistant"},"finish_reason":"stop"},{"index":1,"message":{"content":"bB","role":"assistant"},"finish_reason":"length"}]}"#;
    assert_eq!(whole(openai(), &chunks), expected);
}

/// The tool calls of the one message that these deltas make.
fn calls(deltas: &[&str]) -> String {
    let chunks: Vec<String> = deltas
        .iter()
        .map(|calls| format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{calls}]}}}}]}}"#))
        .collect();
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    let whole = whole(openai(), &chunks);
    let (_, calls) = whole.split_once(r#""tool_calls":"#).unwrap();
    calls.split_once(r#","role""#).unwrap().0.to_owned()
}

#[test]
fn tool_calls_are_joined_by_their_index() {
    let joined = calls(&[
        r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}"#,
        r#"{"index":0,"id":"","function":{"arguments":"{\"n\":"}}"#,
        r#"{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":"{}"}},{"index":0,"function":{"arguments":"1.50}"}}"#,
    ]);
    let expected = r#"[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"n\":1.50}"}},{"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]"#;
    assert_eq!(joined, expected);
}

#[test]
fn tool_calls_without_an_index_or_all_with_the_same_stay_apart() {
    for index in ["", r#""index":0,"#] {
        let call = |id: &str| {
            format!(
                r#"{{{index}"id":"{id}","function":{{"name":"f","arguments":{{"n":"{id}"}}}}}}"#
            )
        };
        let joined = calls(&[&call("a"), &call("b")]);
        let expected = r#"[{"id":"a","function":{"name":"f","arguments":{"n":"a"}}},{"id":"b","function":{"name":"f","arguments":{"n":"b"}}}]"#;
        assert_eq!(joined, expected, "{index}");
    }
}

#[test]
fn a_content_in_parts_keeps_them() {
    let content = |pieces: &[&str]| {
        let chunk = |it: &&str| format!(r#"{{"choices":[{{"delta":{{"content":{it}}}}}]}}"#);
        let chunks: Vec<String> = pieces.iter().map(chunk).collect();
        let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
        whole(openai(), &chunks)
    };
    let thought = r#"[{"type":"thinking","thinking":[{"type":"text","text":"a"}]}]"#;
    let expected = r#"{"choices":[{"message":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"a"},{"type":"text","text":"a"}]},{"type":"text","text":"cd"}],"role":"assistant"}}]}"#;
    assert_eq!(content(&[r#""""#, thought, thought, r#""c""#, r#""d""#]), expected);
    let expected = r#"{"choices":[{"message":{"content":[{"type":"text","text":"cd"},{"type":"x"}],"role":"assistant"}}]}"#;
    let list = r#"[{"type":"text","text":"d"},{"type":"x"}]"#;
    assert_eq!(content(&[r#""c""#, list, "null"]), expected);
}

#[test]
fn a_completion_is_one_text() {
    let chunks = [
        r#"{"object":"text_completion","choices":[{"text":"a","index":0,"logprobs":{"tokens":["a"]},"finish_reason":null}]}"#,
        r#"{"object":"text_completion","choices":[{"text":"b","index":0,"logprobs":{"tokens":["b"]},"finish_reason":"stop"}]}"#,
    ];
    let expected = r#"{"object":"text_completion","choices":[{"text":"ab","index":0,"logprobs":{"tokens":["a","b"]},"finish_reason":"stop"}]}"#;
    assert_eq!(whole(openai(), &chunks), expected);
}

#[test]
fn a_response_is_the_one_that_the_last_event_has() {
    for kind in ["completed", "incomplete", "failed"] {
        let last = format!(r#"{{"type":"response.{kind}","response":{{ "id":"r","n":1.50 }}}}"#);
        let chunks = [
            r#"{"type":"response.created","response":{"id":"r","status":"in_progress"}}"#,
            r#"{"type":"response.output_text.delta","delta":"a"}"#,
            &last,
        ];
        assert_eq!(whole(responses(), &chunks), r#"{ "id":"r","n":1.50 }"#);
    }
}

const START: &str = r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"stop_reason":null,"usage":{"input_tokens":7,"cache_read_input_tokens":2,"output_tokens":1,"service_tier":"standard"}}}"#;

#[test]
fn a_message_has_its_blocks() {
    let chunks = [
        START,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"sig=="}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":"","citations":[]}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"h\n"}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"citations_delta","citation":{"at":1.50}}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"i"}}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"n\": 123456789012345678"}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"90.50}"}}"#,
        r#"{"type":"content_block_start","index":3,"content_block":{"type":"web_search_tool_result","tool_use_id":"t","content":[{"url":"u"}]}}"#,
        r#"{"type":"content_block_start","index":4,"content_block":{"type":"server_tool_use","id":"s","name":"g","input":{}}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":9,"input_tokens":null},"context_management":{"x":1}}"#,
        r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{}}"#,
    ];
    let expected = r#"{"id":"m","type":"message","role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"sig=="},{"type":"text","text":"h\ni","citations":[{"at":1.50}]},{"type":"tool_use","id":"t","name":"f","input":{"n": 12345678901234567890.50}},{"type":"web_search_tool_result","tool_use_id":"t","content":[{"url":"u"}]},{"type":"server_tool_use","id":"s","name":"g","input":{}}],"stop_reason":"tool_use","usage":{"input_tokens":7,"cache_read_input_tokens":2,"output_tokens":9,"service_tier":"standard"},"stop_sequence":null,"context_management":{"x":1}}"#;
    assert_eq!(whole(messages(), &chunks), expected);
}

#[test]
fn an_input_that_was_cut_off_or_is_too_deep_stays_a_text() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for said in [r#"{\"a\": \"b"#, &deep, r"\ud800"] {
        let piece = format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"input_json_delta","partial_json":"{said}"}}}}"#
        );
        let chunks = [
            START,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","input":{}}}"#,
            &piece,
        ];
        let expected = format!(r#""input":{{"INVALID_JSON":"{said}"}}"#);
        assert!(whole(messages(), &chunks).contains(&expected));
    }
}

#[test]
fn generated_texts_are_joined_but_for_thoughts_and_signatures() {
    let chunk = |parts: &str, rest: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{parts}],"role":"model"}}{rest}}}],"usageMetadata":{{"promptTokenCount":4}},"responseId":"r"}}"#
        )
    };
    let chunks = [
        chunk(r#"{"text":"hm","thought":true}"#, ""),
        chunk(r#"{"text":"m","thought":true},{"text":"a"}"#, r#","groundingMetadata":{"x":1}"#),
        chunk(r#"{"text":"b"},{"text":"c","thoughtSignature":"s=="},{"text":"d"}"#, ""),
        chunk(r#"{"functionCall":{"name":"f","args":{"n":1.50}}},{"text":""}"#, r#","groundingMetadata":{}"#),
        r#"{"candidates":[{"finishReason":"STOP","citationMetadata":{"citationSources":[1]}}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2},"modelVersion":"v"}"#.to_owned(),
        r#"{"candidates":[{"citationMetadata":{"citationSources":[2]}}]}"#.to_owned(),
    ];
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    let expected = r#"{"candidates":[{"content":{"parts":[{"text":"hmm","thought":true},{"text":"ab"},{"text":"c","thoughtSignature":"s=="},{"text":"d"},{"functionCall":{"name":"f","args":{"n":1.50}}}],"role":"model"},"groundingMetadata":{"x":1},"finishReason":"STOP","citationMetadata":{"citationSources":[1,2]}}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2},"responseId":"r","modelVersion":"v"}"#;
    assert_eq!(whole(generate_content(), &chunks), expected);
}

#[test]
fn a_blocked_prompt_has_no_candidates() {
    let blocked = r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{}}"#;
    assert_eq!(whole(generate_content(), &[blocked]), blocked);
}

#[test]
fn an_interaction_gets_its_steps() {
    let chunks = [
        r#"{"event_type":"interaction.created","interaction":{"id":"v1","status":"in_progress"}}"#,
        r#"{"event_type":"step.start","index":0,"step":{"type":"thought"}}"#,
        r#"{"event_type":"step.delta","index":0,"delta":{"type":"thought_summary","content":{"type":"text","text":"so"}}}"#,
        r#"{"event_type":"step.delta","index":0,"delta":{"type":"thought_signature","signature":"s=="}}"#,
        r#"{"event_type":"step.start","index":1,"step":{"type":"model_output"}}"#,
        r#"{"event_type":"step.delta","index":1,"delta":{"type":"text","text":"a"}}"#,
        r#"{"event_type":"step.delta","index":1,"delta":{"type":"text","text":"b"}}"#,
        r#"{"event_type":"step.start","index":2,"step":{"type":"function_call","name":"f","arguments":{}}}"#,
        r#"{"event_type":"step.delta","index":2,"delta":{"type":"arguments_delta","arguments":"{\"n\":1.50}"}}"#,
        r#"{"event_type":"step.stop","index":2}"#,
        r#"{"event_type":"interaction.completed","interaction":{"id":"v1","status":"completed","usage":{"total_tokens":3}}}"#,
    ];
    let expected = r#"{"id":"v1","status":"completed","usage":{"total_tokens":3},"steps":[{"type":"thought","summary":[{"type":"text","text":"so"}],"signature":"s=="},{"type":"model_output","content":[{"type":"text","text":"ab"}]},{"type":"function_call","name":"f","arguments":{"n":1.50}}]}"#;
    assert_eq!(whole(interactions(), &chunks), expected);
    let told =
        r#"{"event_type":"interaction.completed","interaction":{"id":"v1","steps":[ 1.50 ]}}"#;
    let chunks = [&chunks[..10], &[told]].concat();
    assert!(whole(interactions(), &chunks).ends_with(r#""steps":[ 1.50 ]}"#));
}

#[test]
fn a_chat_of_coheres_is_one_message() {
    let chunks = [
        r#"{"id":"c","type":"message-start","delta":{"message":{"role":"assistant","content":[],"tool_plan":"","tool_calls":[],"citations":[]}}}"#,
        r#"{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"I "}}}"#,
        r#"{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"do"}}}"#,
        r#"{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":{"id":"t","type":"function","function":{"name":"f","arguments":""}}}}}"#,
        r#"{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":{"arguments":"{}"}}}}}"#,
        r#"{"type":"tool-call-end","index":0}"#,
        r#"{"type":"content-start","index":0,"delta":{"message":{"content":{"type":"text","text":""}}}}"#,
        r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"a"}}},"logprobs":{"text":"a","logprobs":[-1.50]}}"#,
        r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"b"}}},"logprobs":{"text":"b","logprobs":[-0.5]}}"#,
        r#"{"type":"citation-start","index":0,"delta":{"message":{"citations":{"start":0}}}}"#,
        r#"{"type":"citation-start","index":0,"delta":{"message":{"citations":{"start":1}}}}"#,
        r#"{"type":"content-end","index":0}"#,
        r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"tokens":{"input_tokens":5.0}}}}"#,
    ];
    let expected = r#"{"id":"c","message":{"role":"assistant","tool_plan":"I do","tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}],"content":[{"type":"text","text":"ab"}],"citations":[{"start":0},{"start":1}]},"logprobs":[{"text":"a","logprobs":[-1.50]},{"text":"b","logprobs":[-0.5]}],"finish_reason":"COMPLETE","usage":{"tokens":{"input_tokens":5.0}}}"#;
    assert_eq!(whole(cohere(), &chunks), expected);
}

#[test]
fn a_conversation_has_its_message_usage_and_metrics() {
    let chunks = [
        r#"{"messageStart":{"p":"abc","role":"assistant"}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":0,"delta":{"text":""},"p":"a"}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":1,"delta":{"reasoningContent":{"text":"h"}}}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":1,"delta":{"reasoningContent":{"text":"m"}}}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":1,"delta":{"reasoningContent":{"signature":"s=="}}}}"#,
        r#"{"contentBlockStop":{"contentBlockIndex":1}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":2,"delta":{"text":"a"}}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":2,"delta":{"text":"b"}}}"#,
        r#"{"contentBlockStart":{"contentBlockIndex":3,"start":{"toolUse":{"toolUseId":"t","name":"f"}}}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":3,"delta":{"toolUse":{"input":"{\"n\":"}}}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":3,"delta":{"toolUse":{"input":"1.50}"}}}}"#,
        r#"{"contentBlockStart":{"contentBlockIndex":4,"start":{"toolUse":{"toolUseId":"u","name":"g"}}}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":5,"delta":{"text":"c"}}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":5,"delta":{"citation":{"title":"d"}}}}"#,
        r#"{"messageStop":{"p":"ab","stopReason":"tool_use"}}"#,
        r#"{"metadata":{"usage":{"inputTokens":3},"metrics":{"latencyMs":753},"p":"a"}}"#,
    ];
    let expected = r#"{"output":{"message":{"role":"assistant","content":[{"reasoningContent":{"reasoningText":{"text":"hm","signature":"s=="}}},{"text":"ab"},{"toolUse":{"toolUseId":"t","name":"f","input":{"n":1.50}}},{"toolUse":{"toolUseId":"u","name":"g","input":{}}},{"citationsContent":{"content":[{"text":"c"}],"citations":[{"title":"d"}]}}]}},"stopReason":"tool_use","usage":{"inputTokens":3},"metrics":{"latencyMs":753}}"#;
    assert_eq!(whole(converse(), &chunks), expected);
}

#[test]
fn an_invoked_model_answers_in_its_own_format() {
    let metrics = r#""amazon-bedrock-invocationMetrics":{"inputTokenCount":2}"#;
    for (chunks, expected) in [
        (
            [
                r#"{"generation":"a","prompt_token_count":3,"stop_reason":null}"#,
                r#"{"generation":"b","prompt_token_count":null,"stop_reason":"stop"}"#,
            ],
            r#"{"generation":"ab","prompt_token_count":3,"stop_reason":"stop"}"#,
        ),
        (
            [
                r#"{"outputs":[{"text":"a","stop_reason":null}]}"#,
                r#"{"outputs":[{"text":"b","stop_reason":"stop"}]}"#,
            ],
            r#"{"outputs":[{"text":"ab","stop_reason":"stop"}]}"#,
        ),
        (
            [
                r#"{"outputText":"a","index":0,"totalOutputTextTokenCount":null,"completionReason":null,"inputTextTokenCount":3}"#,
                r#"{"outputText":"b","index":0,"totalOutputTextTokenCount":2,"completionReason":"FINISH","inputTextTokenCount":null}"#,
            ],
            r#"{"results":[{"outputText":"ab","completionReason":"FINISH","tokenCount":2}],"inputTextTokenCount":3}"#,
        ),
        (
            [
                r#"{"is_finished":false,"text":"a"}"#,
                r#"{"is_finished":true,"finish_reason":"COMPLETE","text":"b"}"#,
            ],
            r#"{"generations":[{"text":"ab","finish_reason":"COMPLETE"}]}"#,
        ),
        (
            [
                r#"{"event_type":"text-generation","text":"a"}"#,
                r#"{"event_type":"stream-end","response":{"text":"a"}}"#,
            ],
            r#"{"text":"a"}"#,
        ),
        (
            [
                r#"{"messageStart":{"role":"assistant"}}"#,
                r#"{"contentBlockDelta":{"delta":{"text":"a"},"contentBlockIndex":0}}"#,
            ],
            r#"{"output":{"message":{"role":"assistant","content":[{"text":"a"}]}}}"#,
        ),
        (
            [r#"{"choices":[{"delta":{"content":"a"}}]}"#, r#"{"choices":[]}"#],
            r#"{"choices":[{"message":{"content":"a","role":"assistant"}}]}"#,
        ),
        ([START, r#"{"type":"message_stop"}"#], &START[34..START.len() - 1]),
    ] {
        let last = chunks[1].replacen('{', &format!("{{{metrics},"), 1);
        assert_eq!(whole(invoke(), &[chunks[0], &last]), expected);
    }
}

#[test]
fn a_raw_prediction_tells_its_format_with_its_first_event() {
    let chat = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    assert!(whole(raw_predict(), &[chat]).contains("\"message\":"));
    assert_eq!(whole(raw_predict(), &[START]), &START[34..START.len() - 1]);
}

#[test]
fn llm_engines_completion_is_one_text() {
    let chunks = [
        r#"{"request_id":"q","output":{"text":"a","finished":false,"num_prompt_tokens":null,"token":{"token":"a","log_prob":-1.50}},"error":null}"#,
        r#"{"request_id":"q","output":{"text":"b","finished":true,"num_prompt_tokens":3,"num_completion_tokens":2,"token":null},"error":null}"#,
    ];
    let expected = r#"{"request_id":"q","output":{"text":"ab","num_prompt_tokens":3,"tokens":[{"token":"a","log_prob":-1.50}],"num_completion_tokens":2}}"#;
    assert_eq!(whole(llmengine(), &chunks), expected);
}

#[test]
fn tasks_are_what_their_model_said() {
    let task =
        |result: &str| format!(r#"{{"status":"SUCCESS","result":{result},"traceback":null}}"#);
    let said = [task(r#"{"result":"{\"n\":1.50}"}"#), task(r#"{"result":"words"}"#), task("7")];
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    assert_eq!(whole(tasks(), &said), r#"[{"n":1.50},"words",7]"#);
    let wrapped = task(&format!(r#"{{"result":{CHUNK}}}"#));
    assert_eq!(whole(tasks(), &[&wrapped, &wrapped]), CHAT);
    assert_eq!(whole(tasks(), &[&wrapped, &task("7")]), format!("[{CHUNK},7]"));
}

const CHUNK: &str = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
const CHAT: &str = r#"{"choices":[{"message":{"content":"aa","role":"assistant"}}]}"#;

#[test]
fn a_container_says_what_it_likes() {
    let own = r#"{"status":"SUCCESS","result":7}"#;
    assert_eq!(whole(container(), &[own, "8"]), format!("[{own},8]"));
    assert_eq!(whole(container(), &[CHUNK, CHUNK]), CHAT);
    assert_eq!(whole(container(), &[CHUNK, "7"]), format!("[{CHUNK},7]"));
    assert_eq!(whole(container(), &["7", CHUNK]), format!("[7,{CHUNK}]"));
}

/// Every shape there is.
const ALL: &[fn() -> Box<dyn Assemble>] = &[
    openai,
    responses,
    messages,
    raw_predict,
    generate_content,
    interactions,
    cohere,
    converse,
    invoke,
    llmengine,
    container,
];

#[test]
fn a_strange_chunk_makes_the_answer_a_list_of_all() {
    let word = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    for strange in [
        "7",
        "\"no JSON\"",
        "null",
        "[]",
        r#"{"choices":{}}"#,
        r#"{"choices":[7]}"#,
        r#"{"choices":[{"index":-1}]}"#,
        r#"{"choices":[{"delta":[]}]}"#,
        r#"{"choices":[{"delta":{"content":7}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":{}}}]}"#,
    ] {
        let expected = format!("[{word},{strange},{word}]");
        assert_eq!(whole(openai(), &[word, strange, word]), expected);
    }
    for shape in ALL {
        assert_eq!(whole(shape(), &[]), "[]");
        assert_eq!(whole(shape(), &["7"]), "[7]");
    }
}

/// Chunks with members that the shapes look for, of any kind.
fn chunks() -> impl Strategy<Value = String> {
    let words = [
        "choices",
        "delta",
        "content",
        "index",
        "type",
        "message",
        "tool_calls",
        "function",
        "arguments",
        "candidates",
        "parts",
        "text",
        "step",
        "event_type",
        "contentBlockDelta",
        "contentBlockIndex",
        "toolUse",
        "input",
        "output",
        "outputs",
        "result",
        "status",
        "usage",
        "logprobs",
        "citations",
        "reasoningContent",
        "messageStart",
        "role",
        "generation",
    ];
    let kinds = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "input_json_delta",
        "step.start",
        "step.delta",
        "content-start",
        "content-delta",
        "message-start",
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("0".to_owned()),
        Just("18446744073709551615".to_owned()),
        Just(r#""\ud800""#.to_owned()),
        prop::sample::select(kinds.to_vec()).prop_map(|kind| format!("\"{kind}\"")),
    ];
    leaf.prop_recursive(5, 24, 4, move |inner| {
        let key = prop::sample::select(words.to_vec());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec((key, inner), 1..4).prop_map(|members| {
                let members = members.iter().map(|(key, value)| format!("\"{key}\":{value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_chunks_break_a_shape(chunks in prop::collection::vec(chunks(), 0..8)) {
        let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
        for shape in ALL {
            whole(shape(), &chunks);
        }
    }
}

/// Each piece is added to what is there: nothing is read or copied a second time.
#[test]
fn twenty_thousand_chunks_are_one_answer() {
    const N: usize = 20_000;
    let mut chat = openai();
    let mut message = messages();
    let mut content = generate_content();
    let mut many = openai();
    let started =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    for start in [START, started] {
        message.push(&Json::parse(start).unwrap());
    }
    for n in 0..N {
        let json = |text: String| Json::parse(text).unwrap();
        chat.push(&json(format!(r#"{{"choices":[{{"delta":{{"content":"{}"}}}}]}}"#, n % 10)));
        message.push(&json(format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{}"}}}}"#, n % 10)));
        content.push(&json(format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{}"}}]}}}}]}}"#,
            n % 10
        )));
        many.push(&json(format!(r#"{{"m{n}":{n},"choices":[{{"index":{n},"delta":{{"tool_calls":[{{"index":{n},"id":"{n}"}}]}}}}]}}"#)));
    }
    let text = "0123456789".repeat(N / 10);
    for assembled in [chat.finish(), message.finish(), content.finish()] {
        assert!(assembled.as_str().contains(&text));
    }
    let many: serde_json::Value = serde_json::from_str(many.finish().as_str()).unwrap();
    assert_eq!(many["choices"].as_array().unwrap().len(), N);
    assert_eq!(many.as_object().unwrap().len(), N + 1);
}

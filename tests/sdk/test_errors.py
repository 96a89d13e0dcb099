"""What is wrong with a request, in FastAPI's words; and what every answer has."""

import json

import pytest

JSON = {"content-type": "application/json"}

# The body, and the kind and place of each problem.
BODIES = [
    ('{"args":{}}', [("missing", ["body", "model"])]),
    ('{"model":1}', [("string_type", ["body", "model"])]),
    ('{"model":"model_zoo/echo","args":[]}', [("dict_type", ["body", "args"])]),
    ('{"model":"model_zoo/echo","inference_configuration":{"timeout_seconds":"soon"}}',
     [("int_parsing", ["body", "inference_configuration", "timeout_seconds"])]),
    ('{"model":"model_zoo/echo","inference_configuration":{"timeout_seconds":1.5}}',
     [("int_from_float", ["body", "inference_configuration", "timeout_seconds"])]),
    ('{"model":"model_zoo/echo","stream":"maybe"}', [("bool_parsing", ["body", "stream"])]),
    ('{"model":"model_zoo/echo","stream":[]}', [("bool_type", ["body", "stream"])]),
    ('{"model":"model_zoo/echo"', [("json_invalid", ["body", 25])]),
    ("[]", [("model_attributes_type", ["body"])]),
    ("", [("missing", ["body"])]),
    ('{"model":1,"args":[],"inference_configuration":{"num_retries":"x"},"stream":2}',
     [("string_type", ["body", "model"]), ("dict_type", ["body", "args"]),
      ("int_parsing", ["body", "inference_configuration", "num_retries"]),
      ("bool_parsing", ["body", "stream"])]),
]


@pytest.mark.parametrize("body, expected", BODIES, ids=range(len(BODIES)))
def test_a_wrong_body_is_told_as_fastapi_does(http, body, expected):
    answer = http.post("/v5/inference", content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    detail = answer.json()["detail"]
    assert [(problem["type"], problem["loc"]) for problem in detail] == expected
    assert all(isinstance(problem["msg"], str) for problem in detail)


def test_what_was_given_comes_back(http):
    answer = http.post("/v5/inference", content='{"args":{}}', headers=JSON).json()
    assert answer == {"detail": [{"type": "missing", "loc": ["body", "model"],
                                  "msg": "Field required", "input": {"args": {}}}]}
    answer = http.post("/v5/inference", content='{"a":', headers=JSON).json()["detail"][0]
    assert (answer["input"], set(answer["ctx"])) == ({}, {"error"})
    answer = http.post("/v5/inference", content="", headers=JSON).json()["detail"][0]
    assert answer["input"] is None


@pytest.mark.parametrize("given", ["false", "null", '"no"', '"0"', '"off"', '"f"', "0"])
def test_words_for_false_are_read(http, given):
    body = '{"model":"model_zoo/echo","stream":%s}' % given
    answer = http.post("/v5/inference", content=body, headers=JSON)
    # The document says that null is no truth value; the seeds say that it may be given.
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("given", ["true", '"yes"', '"1"', '"on"', '"t"', "1"])
def test_words_for_true_are_read(http, given):
    body = '{"model":"model_zoo/echo","args":{"a":1},"stream":%s}' % given
    answer = http.post("/v5/inference", content=body, headers=JSON)
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_another_content_type_is_taken_as_a_text(http):
    answer = http.post("/v5/inference", content='{"model":"a/b"}',
                       headers={"content-type": "text/plain"})
    problem = answer.json()["detail"][0]
    assert (answer.status_code, problem["type"], problem["loc"]) == (
        422, "model_attributes_type", ["body"])


@pytest.mark.parametrize("query, expected", [
    ("limit=0", ("greater_than_equal", ["query", "limit"])),
    ("limit=abc", ("int_parsing", ["query", "limit"])),
    ("limit=1001", ("less_than_equal", ["query", "limit"])),
    ("model_vendor=acme", ("enum", ["query", "model_vendor"])),
])
def test_a_wrong_query_is_told_as_fastapi_does(http, query, expected):
    answer = http.get(f"/v5/models?{query}")
    problem = answer.json()["detail"][0]
    assert (problem["type"], problem["loc"]) == expected
    if query == "limit=0":
        assert problem["ctx"] == {"ge": 1}
    if expected[0] == "enum":
        assert "'openai'" in problem["ctx"]["expected"]


def test_unknown_routes_and_methods_are_told_as_json(http):
    answer = http.get("/v5/nothing")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    answer = http.get("/v5/inference")
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("method, path, status", [
    ("GET", "/v5/models", 200), ("GET", "/v5/models/nothing", 404), ("GET", "/v4/serving", 200),
    ("GET", "/v4/serving/a/nothing", 404), ("GET", "/v5/jobs/nothing", 404),
    ("POST", "/v4/serving/nothing/rollback", 404), ("DELETE", "/v5/models/nothing", 404),
    ("GET", "/v1/async-tasks/nothing", 404), ("GET", "/nothing", 404), ("PUT", "/v5/models", 405),
])
def test_every_answer_is_json_with_a_request_id(http, method, path, status):
    # The SDKs call every body JSON, also where they send none.
    answer = http.request(method, path, headers=JSON)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    json.loads(answer.text)


def test_the_key_is_required_everywhere(http, platform):
    for path in ["/v5/models", "/v4/serving", "/v5/jobs", "/v1/model-endpoints"]:
        answer = http.get(path, headers={"x-api-key": ""})
        assert (answer.status_code, set(answer.json())) == (401, {"detail"})

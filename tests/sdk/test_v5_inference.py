"""POST /v5/inference through scale-gp-beta."""

import datetime
import json
import time

import pytest
import scale_gp_beta as sgp
from scale_gp_beta.types import InferenceResponse

from helpers import MODEL, chat, ended, eventually, problems, raised

ECHO = "model_zoo/echo"


def echo(caller, args, **options):
    return caller(lambda client: client.inference.create(model=ECHO, args=args, **options))


def test_a_request_with_nothing_but_a_model_is_enough(v5):
    answer = v5(lambda client: client.inference.create(model=ECHO))
    assert type(answer) is InferenceResponse
    assert (answer.object, answer.response) == ("generic_inference", {})


def test_the_response_keeps_every_json_value(v5):
    args = {"big": 12345678901234567890123, "list": [1, 1.5, None, True], "text": "h\u00e9 \u2028 \U0001f980"}
    response = echo(v5, args).response
    assert response == args
    assert isinstance(response["big"], int)


@pytest.mark.parametrize("text, value", [("1", 1.0), ('"hi"', "hi"), ("true", True), ("null", None),
                                         ("[1]", [1])])
def test_a_response_need_not_be_an_object(v5, name, text, value):
    create = lambda client: client.inference.create(
        model="launch/m", args={"name": name, "answer": json.loads(text)})
    response = v5(create).response
    assert response == value
    assert type(response) is type(value)


def test_numbers_and_keys_pass_as_they_are_spelt(http):
    body = '{"model":"model_zoo/echo","args":{ "z":1.50, "a":1e400, "n":123456789012345678901234 }}'
    text = http.post("/v5/inference", content=body, headers={"content-type": "application/json"}).text
    assert '"response":{ "z":1.50, "a":1e400, "n":123456789012345678901234 }' in text


def test_the_configuration_reaches_the_job(v5, http):
    raw = v5(lambda client: client.inference.with_raw_response.create(
        model=ECHO, args={}, inference_configuration={"timeout_seconds": 5, "num_retries": 1}))
    job = http.get(f"/v5/jobs/{raw.headers['x-job-id']}").json()
    assert (job["timeout_seconds"], job["num_retries"], job["status"]) == (5, 1, "succeeded")


def test_a_hosted_model_answers_through_the_queue(v5, vendor, name):
    answer = v5(lambda client: client.inference.create(model=MODEL, args=chat(name=name, answer="hi")))
    assert answer.response["choices"][0]["message"]["content"] == "hi"
    assert len(vendor.calls(name)) == 1


def test_extra_headers_and_bodies_reach_the_platform(v5, http):
    headers = {"Prefer": "respond-async"}
    raw = v5(lambda client: client.inference.with_raw_response.create(
        model=ECHO, args={"a": 1}, extra_headers=headers,
        extra_body={"metadata": {"k": "v"}, "priority": "high"}))
    assert raw.status_code == 202
    assert raw.headers["preference-applied"] == "respond-async"
    job = ended(http, raw.headers["x-job-id"])
    assert (job["metadata"], job["priority"], job["response"]) == ({"k": "v"}, "high", {"a": 1})
    assert raw.headers["location"] == f"/v5/jobs/{job['id']}"


def test_an_idempotency_key_makes_a_repeat_the_same_job(v5, name):
    headers = {"Idempotency-Key": name, "Prefer": "respond-async"}
    create = lambda client: client.inference.with_raw_response.create(
        model=ECHO, args={"n": name}, extra_headers=headers)
    first, second = v5(create), v5(create)
    assert first.headers["x-job-id"] == second.headers["x-job-id"]


def test_a_repeat_that_waits_while_the_first_runs_is_a_conflict(make_v5, vendor, name):
    client = make_v5()
    arguments = {"model": MODEL, "args": chat(name=name, delay=1)}
    client.inference.with_raw_response.create(
        **arguments, extra_headers={"Idempotency-Key": name, "Prefer": "respond-async"})
    error = raised(sgp.ConflictError, lambda: client.inference.create(
        **arguments, extra_headers={"Idempotency-Key": name}))
    assert error.response.headers["x-should-retry"] == "false"
    error = raised(sgp.UnprocessableEntityError, lambda: client.inference.create(
        model=ECHO, extra_headers={"Idempotency-Key": name}))
    assert problems(error) == [("value_error", ["header", "idempotency-key"])]
    assert len(vendor.calls(name)) <= 1


def test_datetimes_are_taken_as_the_sdk_writes_them(v5, http):
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    raw = v5(lambda client: client.inference.with_raw_response.create(
        model=ECHO, extra_body={"run_at": later}, extra_headers={"Prefer": "respond-async"}))
    job = raw.http_response.json()
    assert datetime.datetime.fromisoformat(job["run_at"].replace("Z", "+00:00")) == later
    http.post(f"/v5/jobs/{job['id']}/cancel")


def test_a_large_answer_comes_compressed_and_whole(v5):
    text = "x" * 100_000
    raw = v5(lambda client: client.inference.with_raw_response.create(model=ECHO, args={"t": text}))
    assert raw.headers["content-encoding"] == "gzip"
    assert raw.http_response.json()["response"]["t"] == text


@pytest.mark.parametrize("status, kind, seen", [
    (400, sgp.BadRequestError, 400),
    (404, sgp.NotFoundError, 404),
    (429, sgp.RateLimitError, 429),
    (401, sgp.InternalServerError, 502),
    (500, sgp.InternalServerError, 502),
])
def test_a_failure_of_the_vendor_is_raised_once(v5, vendor, name, status, kind, seen):
    error = raised(kind, lambda: v5(lambda client: client.inference.create(
        model=MODEL, args=chat(name=name, status=status),
        inference_configuration={"num_retries": 0})))
    assert error.status_code == seen
    assert error.response.headers["x-should-retry"] == "false"
    assert error.body["error"]["vendor_status"] == status
    assert error.body["job_id"] == error.response.headers["x-job-id"]
    assert len(vendor.calls(name)) == 1, "the SDK has not tried again"


def test_retries_are_the_platforms(make_v5, vendor, name):
    answer = make_v5().inference.create(
        model=MODEL, args=chat(name=name, status=503, fail_times=1),
        inference_configuration={"num_retries": 2})
    assert answer.response["object"] == "chat.completion"
    assert len(vendor.calls(name)) == 2


def test_a_timeout_is_a_504_that_is_not_repeated(make_v5, vendor, name):
    error = raised(sgp.InternalServerError, lambda: make_v5().inference.create(
        model=MODEL, args=chat(name=name, delay=3),
        inference_configuration={"timeout_seconds": 1, "num_retries": 0}))
    assert error.status_code == 504
    assert len(vendor.calls(name)) == 1


def test_a_call_that_outlasts_the_read_timeout_stays_alive(make_v5, vendor, name):
    client = make_v5(timeout=2.0, max_retries=0)
    begun = time.monotonic()
    answer = client.inference.create(model=MODEL, args=chat(name=name, delay=3, answer="late"))
    assert answer.response["choices"][0]["message"]["content"] == "late"
    assert time.monotonic() - begun > 2.5
    assert len(vendor.calls(name)) == 1


def test_a_late_failure_stands_in_the_body(make_v5, name):
    client = make_v5(timeout=2.0, max_retries=0)
    answer = client.inference.create(model=MODEL, args=chat(name=name, delay=3, status=400),
                                     inference_configuration={"num_retries": 0})
    assert answer.response is None
    assert answer.error["class"] == "invalid_request"


def test_a_repeat_by_the_sdk_joins_the_job_that_runs(http, vendor, name):
    body = {"model": MODEL, "args": chat(name=name, delay=1.5)}
    first = http.post("/v5/inference", json=body, headers={"prefer": "respond-async"})
    eventually("the first call to run", lambda: vendor.calls(name))
    second = http.post("/v5/inference", json=body, headers={"x-stainless-retry-count": "1"})
    assert second.headers["x-job-id"] == first.headers["x-job-id"]
    assert second.json()["response"]["object"] == "chat.completion"
    assert len(vendor.calls(name)) == 1
    third = http.post("/v5/inference", json=body | {"args": chat(name=name)})
    assert third.headers["x-job-id"] != first.headers["x-job-id"]


def test_a_wrong_request_is_the_error_of_its_status(v5):
    error = raised(sgp.UnprocessableEntityError, lambda: v5(
        lambda client: client.inference.create(model=1, args=[])))
    assert problems(error) == [("string_type", ["body", "model"]), ("dict_type", ["body", "args"])]


def test_a_wrong_key_or_account_is_the_error_of_its_status(make_v5):
    for options, kind in [({"api_key": "nobody's"}, sgp.AuthenticationError),
                          ({"account_id": "other"}, sgp.PermissionDeniedError)]:
        client = make_v5(**options)
        error = raised(kind, lambda: client.inference.create(model=ECHO))
        assert isinstance(error.body["detail"], str)

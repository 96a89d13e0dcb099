"""Streams, as the SDKs' own decoders read them; and as bytes."""

import json
import time

import httpx
import pytest
import scale_gp as sgp4
import scale_gp_beta as sgp5
from scale_gp.types import GenericModelResponse
from scale_gp_beta.types import InferenceResponseChunk

from helpers import KEY, MODEL, chat, ended, raised

ECHO = "model_zoo/echo"


@pytest.fixture
def alias(http, name):
    made = http.post("/v4/serving", json={"model_deployment_id": MODEL, "name": "m", "alias": name})
    assert made.status_code == 200, made.text
    return name


def events(http, path, body):
    """The status, the headers and the events of a stream as they came: (name, data) each."""
    with http.stream("POST", path, json=body) as response:
        text = response.read().decode()
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        if not any(lines):
            continue
        fields = [line.split(": ", 1) for line in lines]
        assert {field for field, _ in fields} <= {"event", "data"}, "no id, no retry"
        names = [value for field, value in fields if field == "event"]
        data = "\n".join(value for field, value in fields if field == "data")
        found.append((names[0] if names else None, data))
    return response, found, text


def words(chunks):
    """What the deltas of a chat completion say together."""
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    return "".join(choice["delta"].get("content", "") for choice in choices)


@pytest.mark.parametrize("where", ["args", "top"])
def test_a_v5_stream_is_decoded_chunk_by_chunk(v5, name, where):
    args = chat(name=name, chunks=4)
    body = {"model": MODEL, "args": args}
    (args if where == "args" else body)["stream"] = True
    items, error = v5.items("/v5/inference", body, InferenceResponseChunk)
    assert error is None
    assert {type(item) for item in items} == {InferenceResponseChunk}
    assert {item.object for item in items} == {"generic_inference.chunk"}
    assert words(item.response for item in items) == "part0 part1 part2 part3 "


def test_a_plain_call_on_a_stream_returns_its_text(make_v5, platform, alias):
    # With strict validation both SDKs refuse what is no JSON.
    text = make_v5().inference.create(model=MODEL, args={**chat(name=alias), "stream": True})
    assert isinstance(text, str)
    assert text.endswith("event: done\ndata: [DONE]\n\n")
    with sgp4.SGPClient(api_key=KEY, base_url=platform.url) as client:
        text = client.alias.execute(alias, stream=True, extra_body=chat(name=alias))
    assert isinstance(text, str)
    assert "part2" in text


def test_the_lines_of_a_stream_are_read_as_they_come(make_v5, name):
    client = make_v5()
    with client.inference.with_streaming_response.create(
            model=MODEL, args={**chat(name=name, chunks=3, gap=0.3), "stream": True}) as response:
        at = [time.monotonic() for line in response.iter_lines() if line.startswith("data: {")]
    assert at[-1] - at[0] > 0.3, "the first chunk did not wait for the last"


def test_a_v4_stream_is_the_models_own_chunks(v4, alias):
    items, error = v4.items(f"/v4/serving/a/{alias}/execute", {"stream": True, **chat(name=alias)},
                            GenericModelResponse)
    assert error is None
    assert words(item.to_dict() for item in items) == "part0 part1 part2 "


def test_the_framing_is_one_that_all_clients_read(http, alias):
    body = {**chat(name=alias), "stream": True}
    for path, body in [("/v5/inference", {"model": MODEL, "args": body}),
                       (f"/v4/serving/a/{alias}/execute", body)]:
        response, found, text = events(http, path, body)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert "content-encoding" not in response.headers
        assert text.endswith("\n\n"), "the last event is closed"
        *chunks, last = found
        assert last == ("done", "[DONE]")
        assert {name for name, _ in chunks} == {None}
        for _, data in chunks:
            json.loads(data)


def test_a_streamed_job_keeps_its_whole_answer(http, name):
    body = {"model": MODEL, "args": chat(name=name), "stream": True}
    response, _, _ = events(http, "/v5/inference", body)
    job = ended(http, response.headers["x-job-id"])
    assert job["status"] == "succeeded"
    message = job["response"]["choices"][0]["message"]
    assert message["content"] == "part0 part1 part2 "


def test_the_built_in_model_streams_too(v5):
    items, error = v5.items("/v5/inference",
                            {"model": ECHO, "args": {"text": "x" * 50}, "stream": True},
                            InferenceResponseChunk)
    assert error is None
    assert len(items) > 1


def test_what_fails_before_the_first_byte_is_a_status(v5, v4, alias, vendor):
    failing = {**chat(name=alias, status=400), "stream": True}
    _, error = v5.items("/v5/inference", {"model": MODEL, "args": failing}, InferenceResponseChunk)
    assert type(error) is sgp5.BadRequestError
    _, error = v4.items(f"/v4/serving/a/{alias}/execute", failing, GenericModelResponse)
    assert type(error) is sgp4.BadRequestError
    assert len(vendor.calls(alias)) == 2, "neither SDK has tried again"
    _, error = v5.items("/v5/inference", {"model": MODEL, "args": [], "stream": "maybe"},
                        InferenceResponseChunk)
    assert type(error) is sgp5.UnprocessableEntityError


def test_a_v5_stream_that_breaks_off_ends_with_an_error_chunk(v5, name):
    body = {"model": MODEL, "args": chat(name=name, chunks=5, cut=2), "stream": True}
    items, error = v5.items("/v5/inference", body, InferenceResponseChunk)
    assert error is None
    *chunks, last = items
    assert words(item.response for item in chunks) == "part0 part1 "
    assert last.response is None
    assert last.error["status_code"] == 502
    assert last.error["message"]


def test_a_v4_stream_that_breaks_off_raises(v4, alias):
    body = {**chat(name=alias, chunks=5, cut=2), "stream": True}
    items, error = v4.items(f"/v4/serving/a/{alias}/execute", body, GenericModelResponse)
    assert words(item.to_dict() for item in items) == "part0 part1 "
    assert type(error) is sgp4.APIStatusError
    assert "502" in json.dumps(error.body)


def test_a_broken_stream_never_ends_cleanly(http, alias):
    body = {**chat(name=alias, chunks=5, cut=2), "stream": True}
    for path, body in [("/v5/inference", {"model": MODEL, "args": body}),
                       (f"/v4/serving/a/{alias}/execute", body)]:
        _, found, text = events(http, path, body)
        assert "[DONE]" not in text
        assert found[-1][0] == (None if path == "/v5/inference" else "error")


def test_a_gap_in_a_stream_does_not_outlast_the_read_timeout(make_v5, name):
    with make_v5(timeout=2.0, max_retries=0).inference.with_streaming_response.create(
            model=MODEL, args={**chat(name=name, chunks=2, gap=3.0), "stream": True}) as response:
        lines = list(response.iter_lines())
    assert ": ping" in lines
    assert lines[-2] == "data: [DONE]" or lines[-1] == "data: [DONE]"


def test_a_reader_that_leaves_does_not_stop_its_job(http, name):
    for cancel, expected in [(False, "succeeded"), (True, "cancelled")]:
        body = {"model": MODEL, "args": chat(name=name, chunks=4, gap=0.2), "stream": True,
                "cancel_on_disconnect": cancel}
        with http.stream("POST", "/v5/inference", json=body) as response:
            next(response.iter_lines())
        assert ended(http, response.headers["x-job-id"])["status"] == expected


def test_a_job_is_followed_again_from_where_its_reader_stopped(http, platform, name):
    body = {"model": MODEL, "args": chat(name=name, chunks=4), "stream": True}
    response, found, _ = events(http, "/v5/inference", body)
    path = f"/v5/jobs/{response.headers['x-job-id']}/events"
    ended(http, response.headers["x-job-id"])

    def follow(client, **headers):
        numbers, chunks = [], []
        name = None
        with client.stream("GET", path, headers=headers) as stream:
            for line in stream.iter_lines():
                if line.startswith("id: "):
                    numbers.append(int(line[4:]))
                elif line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: ") and name == "chunk":
                    chunks.append(line)
        return numbers, chunks

    numbers, chunks = follow(http)
    assert numbers == list(range(1, numbers[-1] + 1)), "no gap, no repeat"
    assert len(chunks) == len(found) - 1
    urls = [platform.url] + (platform.others[:1] if platform.mode == "distributed" else [])
    for url in urls:
        with httpx.Client(base_url=url, headers=http.headers) as client:
            for after in numbers[:-1]:
                rest, _ = follow(client, **{"last-event-id": str(after)})
                assert rest == numbers[after:]


def test_the_sdk_stops_reading_when_it_likes(make_v5, name):
    client = make_v5()
    stream = client.post("/v5/inference", cast_to=object, stream=True,
                         stream_cls=sgp5.Stream[InferenceResponseChunk],
                         body={"model": MODEL, "args": chat(name=name, chunks=50, gap=0.05),
                               "stream": True})
    first = next(iter(stream))
    stream.close()
    assert first.object == "generic_inference.chunk"


def test_what_answers_in_one_piece_is_not_streamed(make_v5):
    error = raised(sgp5.UnprocessableEntityError, lambda: make_v5().inference.create(
        model="openai/m", args={"input": "x", "stream": True},
        inference_configuration={"route": "embeddings"}))
    assert error.body["detail"][0]["loc"][0] == "body"



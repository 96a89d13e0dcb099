"""Launch's tasks: through scale-launch, and as the bytes that its later versions send."""

import base64
import hmac
import json

import httpx
import launch
import launch.model_endpoint
import pytest
from launch.model_endpoint import AsyncEndpoint, EndpointRequest, SyncEndpoint

from helpers import KEY, MODEL, PATIENCE, chat, ended, eventually

ECHO = "model_zoo/echo"
IMAGE = {"registry": "registry.example", "repository": "acme/m", "tag": "1", "command": ["serve"]}


@pytest.fixture
def client(platform, monkeypatch):
    """The client as it comes, but that it asks again sooner than after 2 s."""
    pause = launch.model_endpoint.time.sleep
    monkeypatch.setattr(launch.model_endpoint.time, "sleep", lambda _: pause(0.05))
    return launch.LaunchClient(KEY, endpoint=f"{platform.url}/v1/hosted_inference")


@pytest.fixture
def tasks(platform):
    """Requests as version 0.4.2 sends them: the key as the user name of Basic authentication."""
    token = base64.b64encode(f"{KEY}:".encode()).decode()
    with httpx.Client(base_url=platform.url, timeout=PATIENCE,
                      headers={"authorization": f"Basic {token}"}) as client:
        yield client


def model(http, name, endpoint_type):
    made = http.post("/v5/models", json={
        "name": name, "model_vendor": "launch",
        "vendor_configuration": {"model_image": IMAGE,
                                 "model_infra": {"endpoint_type": endpoint_type}}})
    assert made.status_code == 200, made.text
    return made.json()


def alias(http, name, deployment):
    made = http.post("/v4/serving", json={
        "model_deployment_id": deployment, "name": name, "alias": name})
    assert made.status_code == 200, made.text
    return made.json()


def test_the_client_predicts_asynchronously(client, http, name):
    alias(http, name, ECHO)
    endpoint = client.get_model_endpoint(name)
    assert type(endpoint) is AsyncEndpoint
    assert endpoint.status() == "READY"
    future = endpoint.predict(EndpointRequest(args={"x": 2, "delay_ms": 200}, return_pickled=False))
    response = future.get()
    assert response.status == "SUCCESS"
    assert json.loads(response.result) == {"x": 2, "delay_ms": 200}
    job = http.get(f"/v5/jobs/{future.async_task_id}").json()
    assert (job["status"], job["alias"]) == ("succeeded", name)


def test_the_client_predicts_synchronously(client, http, name):
    model(http, name, "sync")
    endpoint = client.get_model_endpoint(name)
    assert type(endpoint) is SyncEndpoint
    response = endpoint.predict(
        EndpointRequest(args={"name": name, "answer": [1, {"a": 2}]}, return_pickled=False))
    assert (response.status, json.loads(response.result)) == ("SUCCESS", [1, {"a": 2}])


def test_the_client_is_told_of_a_failure(client, http, name):
    alias(http, name, MODEL)
    endpoint = client.get_model_endpoint(name)
    request = EndpointRequest(args=chat(name=name, status=400), return_pickled=False)
    response = endpoint.predict(request).get()
    assert (response.status, response.result) == ("FAILURE", None)
    assert "400" in response.traceback


def test_the_client_lists_endpoints_and_misses_unknown_ones(client, http, name):
    alias(http, name, ECHO)
    names = [endpoint.model_endpoint.name for endpoint in client.list_model_endpoints()]
    assert name in names
    assert client.get_model_endpoint(f"no-{name}") is None


def test_the_client_raises_what_is_not_supported(client, http, name):
    alias(http, name, ECHO)
    endpoint = client.get_model_endpoint(name)
    for request in [EndpointRequest(args={"x": 1}), EndpointRequest(url="https://example.com/x")]:
        with pytest.raises(launch.errors.APIError) as error:
            endpoint.predict(request)
        assert error.value.status_code == 422
        assert "return_pickled" in str(error.value)


def test_an_endpoint_is_found_by_name_and_given_a_task(tasks, http, name):
    server = alias(http, name, ECHO)
    found = tasks.get("/v1/model-endpoints", params={"name": name}).json()["model_endpoints"]
    assert [(one["id"], one["name"], one["endpoint_type"], one["status"]) for one in found] == [
        (server["model_server_id"], name, "async", "READY")]
    body = {"args": {"x": 2}, "return_pickled": False}
    made = tasks.post("/v1/async-tasks", params={"model_endpoint_id": found[0]["id"]}, json=body)
    assert made.status_code == 200 and set(made.json()) == {"task_id"}

    def look():
        task = tasks.get(f"/v1/async-tasks/{made.json()['task_id']}").json()
        assert task["status"] in {"PENDING", "STARTED", "SUCCESS"}
        return task if task["status"] == "SUCCESS" else None

    task = eventually("the task to succeed", look)
    assert (task["status_code"], task["traceback"]) == (200, None)
    assert json.loads(task["result"]["result"]) == {"x": 2}


def test_a_synchronous_task_tells_its_end(tasks, name):
    query = {"model_endpoint_id": MODEL}
    body = {"args": chat(name=name, answer="7"), "return_pickled": False, "timeout_seconds": 5.5,
            "num_retries": 0}
    task = tasks.post("/v1/sync-tasks", params=query, json=body).json()
    assert (task["status"], task["status_code"]) == ("SUCCESS", 200)
    assert json.loads(task["result"]["result"])["choices"][0]["message"]["content"] == "7"
    body["args"] = chat(name=name, status=500)
    answer = tasks.post("/v1/sync-tasks", params=query, json=body)
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["status_code"]) == ("FAILURE", 502)
    assert answer.json()["traceback"]


def test_a_streaming_task_is_events_without_an_end_mark(tasks, http, name):
    made = model(http, name, "streaming")
    body = {"args": {"name": name, "chunks": 3}, "return_pickled": False}
    with tasks.stream("POST", "/v1/streaming-tasks", json=body,
                      params={"model_endpoint_id": made["id"]}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        data = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    # This is what Launch's client does with every event.
    chunks = [json.loads(one) for one in data]
    assert {(chunk["status"], chunk["status_code"]) for chunk in chunks} == {("SUCCESS", 200)}
    assert [json.loads(chunk["result"]["result"]) for chunk in chunks] == [
        {"n": 0}, {"n": 1}, {"n": 2}]


def test_cancelled_tasks_are_failures_and_unknown_ones_are_not_found(tasks, http, platform, name):
    made = tasks.post("/v1/async-tasks", params={"model_endpoint_id": MODEL},
                      json={"args": chat(name=name, delay=5)}).json()
    http.post(f"/v5/jobs/{made['task_id']}/cancel")
    ended(http, made["task_id"])
    task = tasks.get(f"/v1/async-tasks/{made['task_id']}").json()
    assert (task["status"], task["status_code"]) == ("FAILURE", 409)
    for task_id in ["nothing", "0199a000-0000-7000-8000-000000000000"]:
        assert tasks.get(f"/v1/async-tasks/{task_id}").status_code == 404
    key = platform.another_key("sdk-launch")
    answer = httpx.get(f"{platform.url}/v1/async-tasks/{made['task_id']}", auth=(key, ""))
    assert answer.status_code == 404, "another account's task"
    answer = tasks.post("/v1/async-tasks", params={"model_endpoint_id": "end_1"}, json={"args": {}})
    assert (answer.status_code, set(answer.json())) == (404, {"detail"})


def test_a_callback_comes_signed_and_after_a_failure_too(tasks, platform, vendor, name):
    body = {"args": chat(name=name, status=400), "return_pickled": False,
            "callback_url": f"{vendor.address}/callback/{name}"}
    task = tasks.post("/v1/async-tasks", params={"model_endpoint_id": MODEL}, json=body).json()
    [(headers, text)] = eventually("the callback", lambda: vendor.callbacks(name))
    told = json.loads(text)
    assert (told["type"], told["data"]["id"]) == ("job.failed", task["task_id"])
    assert told["data"]["error"]["class"] == "invalid_request"
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{text}".encode()
    secret = base64.b64decode(platform.callback_secret().removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
    assert f"v1,{signature}" in headers["webhook-signature"].split()


def test_what_launch_takes_and_inferq_does_not_is_refused(tasks):
    query = {"model_endpoint_id": ECHO}
    body = {"url": "https://example.com/x", "cloudpickle": "x", "return_pickled": True,
            "callback_auth": {"kind": "basic", "username": "u", "password": "p"},
            "destination_path": "/other"}
    for member, value in body.items():
        answer = tasks.post("/v1/async-tasks", params=query, json={"args": {}, member: value})
        assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", member]]


def test_keys_are_taken_as_bearer_tokens_too(platform):
    for headers, status in [({"authorization": f"Bearer {KEY}"}, 200), ({"x-api-key": KEY}, 200),
                            ({"authorization": "Bearer nobody's"}, 401), ({}, 401)]:
        assert httpx.get(f"{platform.url}/v1/model-endpoints", headers=headers).status_code == status

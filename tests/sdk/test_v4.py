"""Model servers and their aliases through scale-gp."""

import pytest
import scale_gp as sgp
from scale_gp.types import GenericModelResponse

from helpers import KEY, MODEL, chat, raised

ECHO = "model_zoo/echo"


@pytest.fixture
def server(v4, name):
    """A model server of this test's own, by its alias."""
    return v4(lambda client: client.model_servers.create(
        model_deployment_id=ECHO, name="Echo", alias=name))


def execute(caller, alias, **options):
    return caller(lambda client: client.alias.execute(alias, **options))


def test_a_model_server_is_made_and_found(v4, server, name):
    assert (server.account_id, server.name, server.alias) == ("default", "Echo", name)
    assert server.model_deployment_id == ECHO
    assert v4(lambda client: client.alias.retrieve(name)) == server
    assert v4(lambda client: client.model_servers.retrieve(server.model_server_id)) == server
    deployment = v4(lambda client: client.model_servers.deployment.retrieve(server.model_server_id))
    assert deployment.model_deployment_id == ECHO
    assert server in v4.every(lambda client: client.model_servers.list())


def test_an_alias_is_unique_and_the_conflict_is_not_repeated(v4, server, name):
    error = raised(sgp.ConflictError, lambda: v4(lambda client: client.model_servers.create(
        model_deployment_id=ECHO, name="Another", alias=name)))
    assert error.response.headers["x-should-retry"] == "false"
    assert error.request.headers["x-stainless-retry-count"] == "0"


def test_execute_needs_no_more_than_an_alias(v4, server, name):
    answer = execute(v4, name)
    assert type(answer) is GenericModelResponse
    assert (answer.status, answer.status_code, answer.error_message) == ("SUCCESS", 200, None)
    assert answer.result == {}


def test_the_body_is_the_models_own(v4, server, name, http):
    raw = v4(lambda client: client.alias.with_raw_response.execute(
        name, stream=False, extra_body={"input": "h\u00e9", "big": 12345678901234567890}))
    answer = raw.http_response.json()
    assert answer["result"] == {"input": "h\u00e9", "big": 12345678901234567890}
    assert answer["job_id"] == raw.headers["x-job-id"]
    job = http.get(f"/v5/jobs/{answer['job_id']}").json()
    assert (job["operation"], job["alias"]) == ("execute", name)


def test_execute_by_id_is_the_same(v4, server):
    answer = v4(lambda client: client.model_servers.execute(
        server.model_server_id, extra_body={"a": 1}))
    # The SDK types this answer as any object.
    answer = answer if isinstance(answer, dict) else answer.to_dict()
    assert (answer["status"], answer["result"]) == ("SUCCESS", {"a": 1})


def test_an_alias_needs_no_account(platform, server, name):
    with sgp.SGPClient(api_key=KEY, base_url=platform.url) as client:
        assert client.alias.execute(name, extra_body={"a": 1}).result == {"a": 1}


def test_a_failure_of_the_model_stands_in_a_200(v4, vendor, name):
    v4(lambda client: client.model_servers.create(
        model_deployment_id=MODEL, name="m", alias=name))
    answer = execute(v4, name, extra_body=chat(name=name, status=400))
    assert (answer.status, answer.status_code, answer.result) == ("FAILURE", 400, None)
    assert "400" in answer.error_message
    assert answer.error["class"] == "invalid_request"
    assert len(vendor.calls(name)) == 1


def test_headers_say_what_the_body_cannot(v4, server, name):
    raw = v4(lambda client: client.alias.with_raw_response.execute(
        name, extra_headers={"Prefer": "respond-async", "X-Timeout-Seconds": "7"}))
    job = raw.http_response.json()
    assert (raw.status_code, job["timeout_seconds"]) == (202, 7)


def test_errors_have_the_classes_of_their_status(v4, platform, loop, name):
    error = raised(sgp.NotFoundError, lambda: execute(v4, f"no-{name}"))
    assert isinstance(error.body["detail"], str)
    raised(sgp.NotFoundError, lambda: v4(lambda client: client.model_servers.retrieve("nothing")))
    error = raised(sgp.UnprocessableEntityError, lambda: v4(
        lambda client: client.model_servers.create(model_deployment_id="nothing", name="n")))
    assert error.body["detail"][0]["loc"] == ["body", "model_deployment_id"]
    with sgp.SGPClient(api_key="nobody's", base_url=platform.url) as client:
        raised(sgp.AuthenticationError, lambda: client.alias.execute("a"))


def test_aliases_of_another_account_are_not_found(platform, server, name):
    key = platform.another_key("sdk-other")
    with sgp.SGPClient(api_key=key, base_url=platform.url) as client:
        raised(sgp.NotFoundError, lambda: client.alias.execute(name))
        raised(sgp.NotFoundError, lambda: client.model_servers.retrieve(server.model_server_id))


def test_a_backend_is_switched_and_rolled_back(v4, server, name, http):
    runs = lambda: http.get(f"/v5/jobs/{execute(v4, name, extra_body=chat()).job_id}").json()["model"]
    assert runs() == ECHO
    switched = v4(lambda client: client.model_servers.update_backend(
        server.model_server_id, new_model_deployment_id=MODEL))
    assert (switched.old_model_deployment_id, switched.new_model_deployment_id) == (ECHO, MODEL)
    assert (switched.account_id, switched.model_server_id, switched.name, switched.alias) == (
        "default", server.model_server_id, "Echo", name)
    assert runs() == MODEL
    # A POST without a body, which still says that it is JSON.
    back = v4(lambda client: client.model_servers.rollback(server.model_server_id))
    assert (back.from_deployment, back.rolled_back_to_deployment) == (MODEL, ECHO)
    assert runs() == ECHO
    deployment = v4(lambda client: client.model_servers.deployment.retrieve(server.model_server_id))
    assert deployment.model_deployment_id == ECHO


def test_a_switch_counts_on_every_process_at_once(v4, platform, server, name):
    fronts = [platform.url] + platform.others[:1]
    for model in (MODEL, ECHO) * 2:
        v4(lambda client: client.model_servers.update_backend(
            server.model_server_id, new_model_deployment_id=model))
        for url in fronts:
            with sgp.SGPClient(api_key=KEY, base_url=url) as client:
                answer = client.alias.execute(name, extra_body=chat())
                assert ("choices" in answer.result) == (model == MODEL)


def test_a_deleted_model_server_is_gone(v4, server, name):
    answer = v4(lambda client: client.delete(
        f"/v4/serving/{server.model_server_id}", cast_to=object))
    assert answer, "a body that is JSON"
    raised(sgp.NotFoundError, lambda: execute(v4, name))

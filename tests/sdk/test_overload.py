"""What the SDKs do when inferq takes no more."""

import tempfile
import threading

import pytest
import scale_gp_beta

from conftest import Platform
from helpers import KEY, eventually, raised


@pytest.fixture(scope="module")
def narrow(vendor):
    """A platform that serves one request at a time, and small ones only."""
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform("embedded", vendor, folder, INFERQ__API__MAX_CONCURRENT_REQUESTS="1",
                            INFERQ__API__MAX_BODY_BYTES="65536")
        try:
            platform.is_ready()
            yield platform
        finally:
            platform.stop()


@pytest.fixture
def client(narrow):
    with scale_gp_beta.SGPClient(api_key=KEY, account_id="default", base_url=narrow.url) as client:
        yield client


def slow(client, stop):
    """Keeps the one place taken until told to stop."""
    while not stop.is_set():
        client.inference.create(model="model_zoo/echo", args={"delay_ms": 300})


def test_an_overloaded_platform_is_asked_again(client):
    stop = threading.Event()
    other = threading.Thread(target=slow, args=(client.with_options(max_retries=20), stop))
    other.start()
    try:
        def refused():
            try:
                client.with_options(max_retries=0).models.list()
            except scale_gp_beta.InternalServerError as error:
                return error
            return None

        error = eventually("an overload", refused)
        assert error.status_code == 503
        assert error.response.headers["retry-after"]
        assert error.response.headers.get("x-should-retry") != "false"
    finally:
        stop.set()
    answer = client.with_options(max_retries=20).inference.with_raw_response.create(
        model="model_zoo/echo", args={"delay_ms": 0})
    other.join()
    assert answer.parse().response == {"delay_ms": 0}


def test_a_body_that_is_too_large_is_told_once(client):
    args = {"text": "x" * 70_000}
    error = raised(scale_gp_beta.APIStatusError,
                   lambda: client.inference.create(model="model_zoo/echo", args=args))
    assert error.status_code == 413
    assert "65536" in str(error.body["detail"])

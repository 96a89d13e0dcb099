"""The server and its OpenAPI document agree, by schemathesis."""

import datetime
import json
import os
import subprocess
import sys

import httpx
import pytest

from helpers import KEY, ended

HERE = os.path.dirname(os.path.abspath(__file__))

# For each operation; with the seed they are the same in every run.
EXAMPLES = 30

CHECKS = ",".join(["not_a_server_error", "status_code_conformance", "content_type_conformance",
                   "response_headers_conformance", "response_schema_conformance",
                   "negative_data_rejection", "ignored_auth"])


def things(http, name, **request):
    """Something of each kind that an id or a name in a path can mean."""
    job = http.post("/v5/inference", headers={"prefer": "respond-async"}, json={
        "model": "model_zoo/echo", "args": {"a": 1}, "callback_url": "http://127.0.0.1:9/",
        **request}).json()["id"]
    model = http.post("/v5/models", json={
        "name": name, "model_vendor": "openai", "model_type": "chat_completion"}).json()["id"]
    server = http.post("/v4/serving", json={
        "model_deployment_id": "model_zoo/echo", "name": name, "alias": name,
    }).json()["model_server_id"]
    http.put(f"/v5/credentials/{name}", json={"vendor": "openai", "api_key": "sk-none"})
    return {"job_id": job, "task_id": job, "model_id": model, "model_server_id": server,
            "alias": name, "name": name}


@pytest.fixture
def there(http, name):
    path = things(http, name)
    ended(http, path["job_id"])
    deliveries = http.get(f"/v5/jobs/{path['job_id']}/deliveries").json()["items"]
    path["delivery_id"] = deliveries[0]["id"]
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    return {"path": path, "spare": things(http, f"{name}-spare", run_at=later.isoformat()),
            "endpoints": ["model_zoo/echo", path["model_server_id"]]}


@pytest.mark.embedded  # The document is the same on every store.
def test_every_answer_is_a_documented_one(platform, there):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{platform.url}/openapi.json",
               "--experimental=openapi-3.1", "--checks", CHECKS, "-H", f"x-api-key: {KEY}",
               "--hypothesis-seed=1", "--hypothesis-derandomize",
               f"--hypothesis-max-examples={EXAMPLES}", "--hypothesis-deadline=None",
               "--generation-with-security-parameters=false", "--request-timeout=20000",
               "--schemathesis-io-telemetry=false", "--sanitize-output=false", "--workers=2",
               "--hypothesis-suppress-health-check=filter_too_much"]
    environment = {**os.environ, "INFERQ_CONTRACT": json.dumps(there), "PYTHONPATH": HERE,
                   "SCHEMATHESIS_HOOKS": "contract_hooks"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110,
                          check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert httpx.get(f"{platform.url}/readyz").status_code == 200

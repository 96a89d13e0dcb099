"""What the tests have in common."""

import json
import time

KEY = "a-key-for-the-tests-of-the-sdks"

# Nothing takes this long unless it hangs.
PATIENCE = 30.0

# A model of the fake vendor.
MODEL = "openai/m"


def eventually(what, look):
    """What `look` answers, once that is true."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def chat(**content):
    """Arguments of a chat completion that tell the vendor what to do."""
    return {"messages": [{"role": "user", "content": json.dumps(content)}]}


def ended(http, job_id):
    """A job once it has ended."""
    def look():
        job = http.get(f"/v5/jobs/{job_id}", headers={"prefer": "wait=10"}).json()
        return job if job["finished_at"] else None

    return eventually(f"job {job_id} to end", look)


def raised(kind, call):
    """The error of this very class that `call()` raises."""
    try:
        answer = call()
    except kind as error:
        assert type(error) is kind, type(error)
        return error
    raise AssertionError(f"no error: {answer}")


def problems(error):
    """The kinds and places of a 422."""
    return [(problem["type"], problem["loc"]) for problem in error.body["detail"]]

"""A running inferq, a vendor behind it, and the clients in front of it.

`scripts/test-sdks` names the binary and, beside test servers, an empty database and virtual host.
"""

import asyncio
import inspect
import itertools
import os
import random
import socket
import subprocess
import tempfile

import httpx
import pytest
import scale_gp
import scale_gp_beta

from helpers import KEY, PATIENCE, eventually
from vendor import Vendor

BINARY = os.environ.get("INFERQ_SDK_BINARY", "target/debug/inferq")
DATABASE = os.environ.get("INFERQ_SDK_DATABASE_URL")
BROKER = os.environ.get("INFERQ_SDK_BROKER_URL")

# The settings of others must not reach the processes that are started here.
FOREIGN = ("INFERQ__", "DATABASE_URL", "AMQP_URL", "OPENAI_", "ANTHROPIC_", "COHERE_", "CO_API_",
           "GOOGLE_", "GEMINI_", "AZURE_", "AWS_", "XAI_", "FIREWORKS_", "LAUNCH_", "LLM_ENGINE_",
           "SGP_")


def pytest_generate_tests(metafunc):
    if "platform" in metafunc.fixturenames:
        both = DATABASE and not metafunc.definition.get_closest_marker("embedded")
        names = ["embedded", "distributed"] if both else ["embedded"]
        metafunc.parametrize("platform", names, indirect=True, scope="session")


def free_port():
    """Below the ports that Linux lends to connections, one of which might take it at once."""
    while True:
        port = random.randrange(16384, 32768)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Platform:
    """Processes of inferq on one store."""

    def __init__(self, mode, vendor, folder, **settings):
        self.mode, self.vendor, self.folder = mode, vendor, folder
        self.processes = []
        self.settings = {
            "INFERQ__AUTH__BOOTSTRAP_KEY": KEY,
            "INFERQ__VENDORS__OPENAI__BASE_URL": vendor.address + "/v1",
            "INFERQ__VENDORS__OPENAI__API_KEY": "vendor-key",
            "INFERQ__VENDORS__LAUNCH__BASE_URL": vendor.address,
            "INFERQ__VENDORS__LAUNCH__API": "direct",
            "INFERQ__VENDORS__LAUNCH__API_KEY": "vendor-key",
            "INFERQ__CALLBACKS__ALLOW_NETWORKS": "127.0.0.0/8",
            **settings,
        }
        if mode == "embedded":
            self.url = self.start("dev", "--data-dir", os.path.join(folder, "data"))
            self.others = []
        else:
            self.settings["INFERQ__DATABASE__URL"] = DATABASE
            self.settings["INFERQ__BROKER__URL"] = BROKER
            self.run("migrate")
            self.url = self.start("api")
            self.others = [self.start("api"), self.start("worker")]

    def environment(self):
        own = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
        return {**own, **self.settings}

    def run(self, *arguments):
        command = [BINARY, *arguments]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True,
                              timeout=PATIENCE, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def start(self, role, *arguments):
        listen = f"127.0.0.1:{free_port()}"
        log = open(os.path.join(self.folder, f"{role}-{len(self.processes)}.log"), "w+b")
        process = subprocess.Popen([BINARY, role, "--listen", listen, *arguments],
                                   env=self.environment(), stdout=log, stderr=log,
                                   stdin=subprocess.DEVNULL)
        self.processes.append((process, log))
        return f"http://{listen}"

    def is_ready(self):
        for url in [self.url, *self.others]:
            eventually(f"{url} to be ready", lambda: self._ready(url))

    def _ready(self, url):
        for process, log in self.processes:
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"inferq ended: {log.read().decode()[-4000:]}")
        try:
            return httpx.get(f"{url}/readyz").json()["status"] == "ok"
        except httpx.TransportError:
            return False

    def key(self, *arguments):
        """What `inferq key` prints."""
        if self.mode == "embedded":
            arguments += ("--data-dir", os.path.join(self.folder, "data"))
        return self.run("key", *arguments).strip()

    def another_key(self, account):
        """A key of another account."""
        return self.key("create", "--account", account)

    def callback_secret(self):
        """What signs the callbacks of the default account."""
        return self.key("webhook-secret", "show").splitlines()[0]

    def stop(self):
        for process, _ in self.processes:
            process.terminate()
        for process, log in self.processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()


@pytest.fixture(scope="session")
def vendor():
    vendor = Vendor()
    yield vendor
    vendor.stop()


@pytest.fixture(scope="session")
def platform(request, vendor):
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(request.param, vendor, folder)
        try:
            platform.is_ready()
            yield platform
        finally:
            platform.stop()


@pytest.fixture
def http(platform):
    """Plain HTTP, for bytes that no client would send or show."""
    with httpx.Client(base_url=platform.url, headers={"x-api-key": KEY}, timeout=PATIENCE) as client:
        yield client


_names = itertools.count()


@pytest.fixture
def name(platform):
    """A name of this test's own."""
    return f"n{next(_names)}-{platform.mode}"


class Caller:
    """A client of an SDK, synchronous or asynchronous, called alike."""

    def __init__(self, client, loop=None):
        self.client, self.loop = client, loop

    def __call__(self, call):
        """What `call(client)` answers or raises."""
        answer = call(self.client)
        return self.loop.run_until_complete(answer) if inspect.isawaitable(answer) else answer

    def every(self, call):
        """All items of the list that `call(client)` begins, page by page."""
        pages = call(self.client)
        if self.loop is None:
            return list(pages)

        async def collect():
            return [item async for item in pages]

        return self.loop.run_until_complete(collect())

    def items(self, path, body, cast):
        """The events of a streamed POST, as the SDK's own decoder reads them; with what it raised."""
        kind = self._module().AsyncStream if self.loop else self._module().Stream
        options = {"body": body, "cast_to": object, "stream": True, "stream_cls": kind[cast]}
        items = []
        try:
            if self.loop is None:
                for item in self.client.post(path, **options):
                    items.append(item)
            else:
                async def collect():
                    async for item in await self.client.post(path, **options):
                        items.append(item)

                self.loop.run_until_complete(collect())
        except Exception as error:  # Which one is for the test to say.
            return items, error
        return items, None

    def _module(self):
        v4 = isinstance(self.client, (scale_gp.SGPClient, scale_gp.AsyncSGPClient))
        return scale_gp if v4 else scale_gp_beta


@pytest.fixture(scope="session")
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


VARIANTS = list(itertools.product(["sync", "async"], ["normal", "strict"]))


def caller(module, platform, loop, variant, **options):
    kind, validation = variant
    options = {"api_key": KEY, "account_id": "default", "base_url": platform.url,
               "_strict_response_validation": validation == "strict", **options}
    if kind == "sync":
        return Caller(module.SGPClient(**options))
    return Caller(module.AsyncSGPClient(**options), loop)


@pytest.fixture(params=VARIANTS, ids="-".join)
def v5(request, platform, loop):
    """scale-gp-beta, whose API is v5."""
    caller_ = caller(scale_gp_beta, platform, loop, request.param)
    yield caller_
    caller_(lambda client: client.close())


@pytest.fixture(params=VARIANTS, ids="-".join)
def v4(request, platform, loop):
    """scale-gp, whose API is v4."""
    caller_ = caller(scale_gp, platform, loop, request.param)
    yield caller_
    caller_(lambda client: client.close())


@pytest.fixture
def make_v5(platform, loop):
    """Makes a v5 client with options of its own, synchronous and normal."""
    made = []

    def make(**options):
        made.append(scale_gp_beta.SGPClient(**{"api_key": KEY, "account_id": "default",
                                               "base_url": platform.url, **options}))
        return made[-1]

    yield make
    for client in made:
        client.close()


"""A vendor that does what a request's content tells it, and remembers what it was asked.

It speaks OpenAI's chat completions, where the content of the last message is a JSON object, and a
Launch container's `/predict` and `/stream`, where the body itself is that object:

    name        the calls are remembered under it
    delay       seconds before the answer
    status      fails with this status ...
    fail_times  ... this many times; always, if it is not given
    answer      what is answered; else a fixed text
    chunks      how many chunks a stream has (3)
    gap         seconds between two of them
    cut         the stream breaks off after this many chunks

It is also a receiver of callbacks: what is posted to `/callback/NAME` is kept under that name.
"""

import json
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Vendor:
    def __init__(self):
        self._calls = defaultdict(list)
        self._callbacks = defaultdict(list)
        self._lock = threading.Lock()
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                vendor._serve(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = "http://127.0.0.1:%d" % self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def calls(self, name):
        """The bodies of the calls of this name so far, as they came."""
        with self._lock:
            return list(self._calls[name])

    def callbacks(self, name):
        """What was posted to `/callback/NAME` so far: headers and body each."""
        with self._lock:
            return list(self._callbacks[name])

    def _serve(self, handler):
        text = handler.rfile.read(int(handler.headers["content-length"])).decode()
        if handler.path.startswith("/callback/"):
            with self._lock:
                self._callbacks[handler.path[len("/callback/"):]].append((handler.headers, text))
            return self._answer(handler, 200, "{}")
        body = json.loads(text)
        chat = handler.path == "/v1/chat/completions"
        try:
            wanted = json.loads(body["messages"][-1]["content"]) if chat else body
        except ValueError:
            wanted = {}
        with self._lock:
            calls = self._calls[wanted.get("name")]
            calls.append(text)
            number = len(calls)
        time.sleep(wanted.get("delay", 0))
        try:
            if "status" in wanted and number <= wanted.get("fail_times", number):
                self._answer(handler, wanted["status"], failure(wanted["status"]))
            elif chat and body.get("stream") or handler.path == "/stream":
                self._stream(handler, wanted, chat)
            else:
                self._answer(handler, 200, completion(wanted) if chat else json.dumps(wanted.get("answer")))
        except (BrokenPipeError, ConnectionResetError):
            pass  # The caller has left, as some tests mean it to.
        return None

    def _answer(self, handler, status, text):
        data = text.encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _stream(self, handler, wanted, chat):
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()

        def event(data):
            text = f"data: {data}\n\n".encode()
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))

        for index in range(wanted.get("chunks", 3)):
            if index == wanted.get("cut"):
                handler.close_connection = True
                handler.connection.shutdown(2)
                return
            if index:
                time.sleep(wanted.get("gap", 0))
            event(delta(index) if chat else json.dumps({"n": index}))
        if chat:
            event('{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m",'
                  '"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
            event("[DONE]")
        handler.wfile.write(b"0\r\n\r\n")


def failure(status):
    return json.dumps({"error": {"message": f"told to fail with {status}", "type": "t", "code": None}})


def completion(wanted):
    answer = wanted.get("answer", "hello")
    return json.dumps({
        "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": answer}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    })


def delta(index):
    return json.dumps({
        "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": None, "delta": {"content": f"part{index} "}}],
    })

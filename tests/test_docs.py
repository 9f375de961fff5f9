"""The documentation is true: what it lists exists, what exists is listed, its commands run."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import falcon.inspect
import pytest

from llmrs import errors
from llmrs.backends.protocols import TEI, Embed, Ollama, OpenAI
from llmrs.config import OPTIONS, load, reference_table
from llmrs.flags import COMMANDS
from llmrs.models.families import FAMILIES
from llmrs.server.app import create_app
from tests.bench import bench_module
from tests.engines import FakeBackend
from tests.models.hub_server import HubServer
from tests.models.makers import make_model
from tests.processes import ROOT, Server, clean_environment, llmrs, run

READMES = ["README.md", "README-ZH.md"]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
ADDRESS = "http://127.0.0.1:3000"
ADMIN_KEY = "the-admins-key"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [body for found, body in BLOCK.findall(text(name)) if found == language]


def curl_commands(name: str) -> Iterator[str]:
    """Every curl command of a document, continuation lines joined."""
    for block in blocks(name, "bash"):
        for command in block.replace("\\\n", " ").splitlines():
            if command.lstrip().startswith("curl"):
                yield command.strip()


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """A server whose address the documents' examples are pointed at; they come from any folder."""
    with llmrs(ADMIN_KEY=ADMIN_KEY) as server:
        yield server


@pytest.mark.parametrize(
    ("document", "least"), [*((readme, 11) for readme in READMES), ("docs/models.md", 2)]
)
def test_every_curl_line_works(document: str, least: int, running: Server) -> None:
    commands = list(curl_commands(document))
    assert len(commands) >= least
    for command in commands:
        ours = command.replace(ADDRESS, running.url)
        assert ours != command
        done = subprocess.run(
            ["bash", "-c", f"{ours} --fail-with-body"],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "ADMIN_KEY": ADMIN_KEY},
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        json.loads(done.stdout)


def test_the_commands_that_get_a_model_work(tmp_path: Path) -> None:
    """With a hub of our own; what would serve says instead what it would serve."""
    section = text("docs/models.md").partition("## Getting a model")[2].partition("\n## ")[0]
    script = "\n".join(body for language, body in BLOCK.findall(section) if language == "bash")
    model, commit = re.findall(r"fetch (\S+)@(\w{40})", script)[0]
    make_model(tmp_path / "repository")
    with HubServer(tmp_path / "repository", model) as hub:
        hub.commits["main"] = commit
        program = f"{shlex.quote(sys.executable)} -m llmrs"
        script = re.sub(r"\bllmrs$", f"{program} models", script, flags=re.MULTILINE)
        script = script.replace("llmrs fetch", f"{program} fetch")
        done = subprocess.run(
            ["bash", "-ec", script], capture_output=True, text=True, timeout=120, cwd=tmp_path,
            env=clean_environment(HF_ENDPOINT=hub.address, HF_HOME=str(tmp_path / "home")),
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"/snapshots/{commit}\n") == 3
    assert done.stdout.count(" up\n") == 3
    assert (tmp_path / "models.tar").stat().st_size
    assert hub.fetched


@pytest.mark.parametrize("readme", READMES)
def test_every_python_example_works(readme: str, running: Server, tmp_path: Path) -> None:
    # tests/adapters/ runs the one that needs their libraries.
    examples = [example for example in blocks(readme, "python") if "llmrs.langchain" not in example]
    assert len(examples) >= 2
    outputs = []
    for example in examples:
        script = tmp_path / "example.py"
        script.write_text(example.replace(ADDRESS, running.url), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, timeout=60, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.strip())
    assert outputs == ["2 384 7", "(2, 384)"]


def test_the_line_the_server_prints_is_the_readmes(running: Server) -> None:
    printed = next(line for line in running.log.splitlines() if "ready; try: " in line).split("try: ")[1]
    assert printed.replace(running.url, ADDRESS) in text("README.md")


@pytest.mark.parametrize(("document", "least"), [*((readme, 7) for readme in READMES), ("docs/models.md", 2)])
def test_every_example_of_settings_is_a_valid_configuration(document: str, least: int) -> None:
    examples = [
        line.split("#")[0].split()
        for block in blocks(document, "bash")
        for line in block.splitlines()
        if re.match(r"[A-Z_]+=\S+ .*\bllmrs\b", line)
    ]
    assert len(examples) >= least
    for *settings, command in examples:
        assert command == "llmrs"
        environ = dict(setting.split("=", 1) for setting in settings)
        assert load(environ=environ, path="/dev/null").sources


@pytest.mark.parametrize("document", [*READMES, "docs/models.md"])
def test_every_configuration_file_is_valid(document: str, tmp_path: Path) -> None:
    examples = blocks(document, "toml")
    assert examples
    for example in examples:
        path = tmp_path / "config.toml"
        path.write_text(example, encoding="utf-8")
        assert load(environ={}, path=str(path)).served


@pytest.mark.parametrize("readme", READMES)
def test_every_make_target_and_command_exists(readme: str) -> None:
    makefile = text("Makefile")
    commands = "\n".join(blocks(readme, "bash"))
    targets = set(re.findall(r"^make (\w+)", commands, re.MULTILINE))
    assert {"serve", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for command in set(re.findall(r"`llmrs ([a-z][a-z-]*)", text(readme))):
        assert command in COMMANDS
    for command in COMMANDS:
        assert f"`{command}`" in text(readme) or f"`llmrs {command}" in text(readme)


def test_the_configuration_table_is_the_programs_own() -> None:
    assert reference_table() in text("README.md")


@pytest.mark.parametrize("readme", READMES)
def test_every_setting_is_listed_with_its_default(readme: str) -> None:
    rows = {line.split("|")[1].strip(): line for line in text(readme).splitlines() if line.startswith("| `")}
    for option in OPTIONS:
        row = rows[f"`{option.name}`"]
        for cell in (option.env, option.flag, option.kind.show(option.default)):
            assert f"`{cell}`" in row, (option.name, cell)


@pytest.mark.parametrize("readme", READMES)
def test_every_error_code_is_listed_with_its_status(readme: str) -> None:
    table = [line for line in text(readme).splitlines() if re.match(r"\| [45]\d\d \|", line)]
    listed = {(line[2:5], code) for line in table for code in re.findall(r"`(\w+)`", line.split("|")[2])}
    classes = [
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, errors.ServiceError)
    ]
    known = {(str(each.status), each.code) for each in classes if each.code}
    assert listed == known


def test_the_handbook_says_what_to_do_about_every_error_code() -> None:
    table = text("docs/operations.md").partition("## When something fails")[2]
    listed = {
        code
        for line in table.splitlines()
        if line.startswith("| `")
        for code in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    classes = [each for _, each in inspect.getmembers(errors, inspect.isclass)]
    assert listed == {each.code for each in classes if issubclass(each, errors.ServiceError) and each.code}


@pytest.mark.parametrize("readme", READMES)
def test_every_route_is_listed(readme: str) -> None:
    app = create_app([FakeBackend()], load(environ={"ADMIN_KEY": ADMIN_KEY}, path="/dev/null"))
    try:
        routes = falcon.inspect.inspect_routes(app._falcon)
        paths = {route.path.replace("{name:path}", "{name}") for route in routes}
        for route in routes:
            for method in route.methods:
                if method.method in ("GET", "POST") and not method.internal:
                    name = route.path.replace("{name:path}", "{name}")
                    assert f"`{method.method} {name}`" in text(readme)
    finally:
        app.close()
    named = set(re.findall(r"`(?:GET|POST) (/[\w/{}]*)`", text(readme)))
    backends = {"/embed", "/v1/embeddings", "/api/embed"}
    assert named <= paths | backends


def test_every_family_of_models_is_listed() -> None:
    table = text("docs/models.md").partition("## Families")[2].partition("##")[0].partition("|---")[2]
    cells = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    listed = {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)} - {"alibi"}
    assert listed == FAMILIES.keys()


@pytest.mark.parametrize("readme", READMES)
def test_every_backend_protocol_is_listed(readme: str) -> None:
    for protocol in (Embed, OpenAI, TEI, Ollama):
        assert f"| `{protocol.name}` |" in text(readme)


@pytest.mark.parametrize(
    "document",
    [
        *READMES,
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/performance.md",
        "docs/operations.md",
        "docs/models.md",
        "docs/decisions/0001-tokenizer-config.md",
    ],
)
def test_links_and_paths_lead_somewhere(document: str) -> None:
    body = text(document)
    for target in re.findall(r"\]\(([^)#:]+)\)", body):
        assert ((ROOT / document).parent / target).exists(), target
    for path in re.findall(r"`((?:llmrs|tests|bench|scripts)/[\w./-]+)`", body):
        assert (ROOT / path).exists(), path
    anchors = {anchor(line) for line in body.splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(#([^)]+)\)", body):
        assert target in anchors, target


def anchor(heading: str) -> str:
    """The anchor that code forges give a heading."""
    title = heading.lstrip("#").strip().lower()
    return re.sub(r"[^\w\- ]", "", title).replace(" ", "-")


def test_both_readmes_have_the_same_parts() -> None:
    shapes = []
    for readme in READMES:
        body = text(readme)
        headings = [len(line) - len(line.lstrip("#")) for line in body.splitlines() if line.startswith("#")]
        tables = sum(line.startswith("|--") for line in body.splitlines())
        shapes.append((headings, tables, sorted(language for language, _ in BLOCK.findall(body))))
    assert shapes[0] == shapes[1]


def test_the_benchmark_tables_are_what_was_measured() -> None:
    report = bench_module("report")
    results = report.load("comparison"), report.load("gateway")
    for language in (report.ENGLISH, report.CHINESE):
        section = text(language.readme).partition(report.BEGIN)[2].partition(report.END)[0]
        assert section == report.section(*results, language)
        assert text(f"bench/results/{language.chart}") == report.chart(results[0], language)


def test_the_sample_configuration_names_every_setting_and_changes_nothing() -> None:
    for option in OPTIONS:
        assert re.search(rf"^#? ?{option.name} = ", text("config.toml"), re.MULTILINE), option.name
    shown = run("check-config", cwd=ROOT)
    assert shown.returncode == 0
    assert load(environ={}, path=str(ROOT / "config.toml")) == load(environ={}, path="/dev/null")


def test_the_embed_command_prints_a_vector() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmrs", "embed", "Hello, world"],
        capture_output=True, text=True, timeout=60, env=clean_environment(),
    )  # fmt: skip
    assert len(json.loads(done.stdout)) == 384


def test_the_handbooks_figures_are_those_that_were_measured() -> None:
    handbook = text("docs/operations.md")
    results = {
        name: json.loads(text(f"bench/results/{name}.json"))
        for name in ("overload", "flood", "stop", "processes", "neighbours")
    }
    figures = [row[key] for row in results["overload"]["rows"].values() for key in ("rate", "goodput")]
    for rows in results["flood"]["rows"].values():
        figures += [
            row[key] for row in rows for key in ("clients", "vectors_per_second", "refused_per_second")
        ]
    figures += results["stop"]["requests"].values()
    figures += [row["rps"] for rows in results["processes"]["results"].values() for row in rows]
    figures += [row[key] for row in results["neighbours"]["rows"] for key in ("rate", "p50_ms", "p99_ms")]
    for figure in figures:
        assert f"{figure:,.0f}" in handbook, figure
    for name, result in results.items():
        assert result["command"].startswith(f"python bench/{name}.py")
        assert f"`python bench/{name}.py`" in handbook


def test_the_figures_of_engines_are_those_that_were_measured() -> None:
    found = json.loads(text("bench/results/engines.json"))
    assert f"`{found['command']}`" in text("docs/models.md")
    for row in found["rows"]:
        line = (
            f"| {row['way']} | {row['dtype']} | {row['load_s']:.1f} s | {row['memory_mb']:.0f} MB "
            f"| {row['one_ms']:.1f} ms | {row['texts_s']:.0f} texts/s |\n"
        )
        assert line in text("docs/models.md")

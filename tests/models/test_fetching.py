"""What is fetched from a hub, and that it is what the hub has: checksums, faults, strangers."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import pytest

from llmrs.backends import needs_download
from llmrs.backends.model import is_static
from llmrs.config import Config
from llmrs.errors import ModelError
from llmrs.models import hub as hub_module
from llmrs.models import transfer
from llmrs.models.folder import read_folder
from llmrs.models.resolve import is_here, resolve
from tests.models.hub_server import COMMIT, HubServer
from tests.models.makers import change_json, make_model
from tests.processes import clean_environment

MODEL = "someone/tiny-model"
SECRET = "hf_averysecrettoken"
WEIGHTS = "model.safetensors"
ONNX, INT8, XML, IR = (
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
    "openvino/openvino_model.xml",
    "openvino/openvino_model.bin",
)
BASIC = {"config.json", "tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json"}


@pytest.fixture
def hub(tmp_path):
    """A hub with one small model."""
    folder = tmp_path / "repository"
    make_model(folder)
    with HubServer(folder, MODEL) as server:
        yield server


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def fetch(hub, cache):
    """Resolve the model as serving it would."""
    return lambda name=MODEL, **how: resolve(name, endpoint=hub.address, cache=cache, **how)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)


def put(hub, *names, body=None):
    """Add files, each of another content unless it is given: equal ones are fetched once."""
    for name in names:
        (hub.folder / name).parent.mkdir(exist_ok=True)
        (hub.folder / name).write_bytes(name.encode() if body is None else body)


def refusal(fetch, **how) -> str:
    with pytest.raises(ModelError) as raised:
        fetch(**how)
    message = str(raised.value)
    assert "\n" not in message
    return message


# -- which files ----------------------------------------------------------------------------------


def test_one_variant_is_fetched(hub, fetch):
    put(
        hub,
        ONNX,
        INT8,
        XML,
        IR,
        "pytorch_model.bin",
        "vocab.txt",
        "rust_model.ot",
        "config.py",
        ".gitattributes",
    )
    fetch()
    assert hub.fetched == BASIC | {WEIGHTS}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"model_file": INT8}, {INT8}),
        ({"model_file": ONNX}, {ONNX, f"{ONNX}_data"}),
        ({"model_file": XML}, {XML, IR}),
        ({"model_file": WEIGHTS}, {WEIGHTS}),
        ({"engine": "torch"}, {WEIGHTS, "vocab.txt", "spm.model"}),
    ],
)
def test_what_is_asked_for_is_fetched(hub, fetch, how, expected):
    put(hub, ONNX, f"{ONNX}_data", INT8, XML, IR, "spm.model", "code.py", "onnx/code.py", "pytorch_model.bin")
    put(hub, "vocab.txt", "special_tokens_map.json")
    folder = fetch(**how)
    assert hub.fetched - BASIC == {*expected, "special_tokens_map.json"}
    assert fetch(offline=True, **how) == folder
    if "engine" not in how:
        refusal(fetch, offline=True, engine="torch")


def test_without_safetensors_the_exported_model_is_fetched(hub, fetch):
    (hub.folder / WEIGHTS).unlink()
    put(hub, XML, IR)
    folder = fetch()
    assert hub.fetched == BASIC | {XML, IR}
    assert read_folder(folder).encoder.file == folder / XML
    asked = len(hub.requests)
    assert fetch() == folder
    assert len(hub.requests) == asked


def test_a_family_that_cannot_be_built(hub, fetch):
    change_json(hub.folder / "config.json", model_type="luke")
    put(hub, "vocab.txt", "2_Dense/model.safetensors")
    fetch()
    assert hub.fetched - BASIC == {WEIGHTS, "vocab.txt", "2_Dense/model.safetensors"}, (
        "as PyTorch may need it"
    )
    put(hub, ONNX)
    hub.requests.clear()
    fetch(update=True)
    assert hub.fetched == {ONNX}


def test_a_vocabulary_is_fetched_where_there_is_no_tokenizer_json(hub, fetch):
    """And is not where there is one."""
    change_json(hub.folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    (hub.folder / "tokenizer.json").unlink()
    assert "no tokenizer.json there, and no vocab.txt in its place" in refusal(fetch)
    put(hub, "vocab.txt", "spm.model", "added_tokens.json")
    folder = fetch()
    assert hub.fetched == (BASIC - {"tokenizer.json"}) | {WEIGHTS, "vocab.txt", "added_tokens.json"}
    assert fetch(offline=True) == folder


def test_a_static_model(hub, fetch):
    shutil.rmtree(hub.folder / "1_Pooling")
    (hub.folder / "tokenizer_config.json").unlink()
    for name in ("config.json", "tokenizer.json", WEIGHTS):
        put(hub, f"0_StaticEmbedding/{name}", body=(hub.folder / name).read_bytes())
        (hub.folder / name).unlink()
    (hub.folder / "0_StaticEmbedding" / "config.json").unlink()
    modules = [{"path": "0_StaticEmbedding", "type": "sentence_transformers.models.StaticEmbedding"}]
    (hub.folder / "modules.json").write_text(json.dumps(modules))
    put(hub, ONNX)
    fetch()
    assert hub.fetched == {"modules.json", "0_StaticEmbedding/tokenizer.json", f"0_StaticEmbedding/{WEIGHTS}"}


def test_one_of_several_exports_is_not_guessed(hub, fetch):
    (hub.folder / WEIGHTS).unlink()
    put(hub, INT8, "onnx/model_int8.onnx")
    message = refusal(fetch)
    assert "set model_file to one of" in message
    assert INT8 in message
    assert "no such file" in refusal(fetch, model_file="onnx/model_q4.onnx")


def test_an_export_does_not_stand_for_the_model(hub, fetch, cache, monkeypatch):
    """One variant in the cache is that variant: without `model_file` the weights are what counts."""
    put(hub, INT8)
    monkeypatch.setattr(transfer.constants, "HF_HUB_CACHE", str(cache))
    fetch(model_file=INT8)
    assert is_here(MODEL, model_file=INT8)
    assert not is_here(MODEL)
    fetch()
    assert is_here(MODEL)
    assert hub.fetched == BASIC | {INT8, WEIGHTS}


def test_whoever_looks_at_a_model_looks_for_the_same_files(hub, fetch, cache, monkeypatch):
    put(hub, INT8)
    monkeypatch.setattr(transfer.constants, "HF_HUB_CACHE", str(cache))
    fetch(model_file=INT8)
    config = Config(model_path=MODEL, model_file=INT8, offline=True)
    assert not needs_download(config)
    assert not is_static(config)


def test_what_is_in_the_cache_is_found_without_the_hubs_client(hub, fetch, cache):
    fetch()
    code = (
        "import sys; from llmrs.models.resolve import is_here;"
        f"assert is_here({MODEL!r});"
        "print(*{'huggingface_hub.hf_api', 'httpx2', 'httpx', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        env=clean_environment(HF_HUB_CACHE=str(cache)),
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("\n", "")


# -- revisions ------------------------------------------------------------------------------------


def test_a_commit_is_a_revision(hub, fetch):
    folder = fetch(f"{MODEL}@{COMMIT}")
    assert folder.name == COMMIT
    hub.stop()
    assert fetch(f"{MODEL}@{COMMIT}") == folder


@pytest.mark.parametrize("branch", ["main", "refs/pr/1"])
def test_a_branch_stays_what_it_was_until_it_is_updated(hub, fetch, branch):
    name = f"{MODEL}@{branch}"
    hub.commits[branch] = COMMIT
    folder = fetch(name)
    hub.commits[branch] = newer = hashlib.sha1(b"the next").hexdigest()
    change_json(hub.folder / "config.json", note="changed")
    assert fetch(name) == folder
    hub.requests.clear()
    updated = fetch(name, update=True)
    assert updated.name == newer
    assert hub.fetched == {"config.json"}, "the other files are the same"
    assert json.loads((updated / "config.json").read_text())["note"] == "changed"
    assert fetch(name) == updated


def test_an_update_that_fails_leaves_what_there_was(hub, fetch):
    folder = fetch()
    hub.commits["main"] = hashlib.sha1(b"the next").hexdigest()
    put(hub, WEIGHTS, body=b"other weights")
    hub.damaged[WEIGHTS] = 9
    refusal(fetch, update=True)
    assert fetch(offline=True) == folder


@pytest.mark.parametrize("revision", ["../../x", "a b", "..", "", "/etc"])
def test_what_is_no_revision(hub, fetch, revision):
    with pytest.raises(ModelError, match="no branch, tag or commit"):
        fetch(f"{MODEL}@{revision}")
    assert not hub.requests


# -- checksums ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_damaged_file_is_fetched_again(hub, fetch, name):
    hub.damaged[name] = 1
    folder = fetch()
    assert (folder / name).read_bytes() == (hub.folder / name).read_bytes()
    assert [each for each, *_ in hub.ranges].count(name) == 2


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_file_that_is_damaged_twice_is_refused(hub, fetch, cache, name):
    hub.damaged[name] = 2
    message = refusal(fetch)
    assert f"as {name} has another checksum" in message
    assert [each for each, *_ in hub.ranges].count(name) == 2
    assert not list(cache.rglob("*.incomplete"))
    assert not list(cache.rglob(f"snapshots/*/{name}"))
    refusal(fetch, offline=True)
    assert (fetch() / name).read_bytes() == (hub.folder / name).read_bytes()


def test_a_damaged_beginning_is_not_gone_on_with(hub, fetch, cache):
    """What an earlier attempt left is checked with the rest, and is not trusted again."""
    body = (hub.folder / WEIGHTS).read_bytes()
    blobs = cache / "models--someone--tiny-model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(body).hexdigest()}.incomplete").write_bytes(b"garbage")
    assert (fetch() / WEIGHTS).read_bytes() == body
    assert [start for name, start, _ in hub.ranges if name == WEIGHTS] == [len(b"garbage"), 0]


@pytest.mark.parametrize("more", [1, 10_000_000])
def test_a_beginning_longer_than_the_file(hub, fetch, cache, more):
    body = (hub.folder / WEIGHTS).read_bytes()
    blobs = cache / "models--someone--tiny-model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(body).hexdigest()}.incomplete").write_bytes(body + b"x" * more)
    assert (fetch() / WEIGHTS).read_bytes() == body


def test_a_truncated_file_in_the_cache_is_fetched_again(hub, fetch):
    folder = fetch()
    blob = (folder / WEIGHTS).resolve()
    blob.write_bytes(blob.read_bytes()[:-1])
    refusal(fetch, offline=True)
    assert (fetch() / WEIGHTS).read_bytes() == (hub.folder / WEIGHTS).read_bytes()


def test_hashing_is_paid_once(hub, fetch, monkeypatch):
    fetch()
    monkeypatch.setattr(transfer, "checksum_of", None)
    fetch()
    fetch(update=True)


# -- faults ---------------------------------------------------------------------------------------


def test_a_connection_that_breaks_is_gone_on_with(hub, fetch, monkeypatch):
    monkeypatch.setattr(transfer.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut = WEIGHTS
    folder = fetch()
    assert (folder / WEIGHTS).read_bytes() == (hub.folder / WEIGHTS).read_bytes()
    first, second = (each for each in hub.ranges if each[0] == WEIGHTS)
    assert 0 < second[1] <= first[2]


def test_answers_that_may_pass_are_waited_for(hub, fetch):
    hub.failures = [503, 500, 502]
    assert (fetch() / WEIGHTS).exists()
    assert not hub.failures


def test_but_not_for_ever(hub, fetch):
    hub.failures = [503] * 100
    assert "the hub answers 503" in refusal(fetch)
    assert len(hub.failures) == 100 - 1 - len(transfer.PAUSES)


@pytest.mark.parametrize(
    ("refuse", "asked", "expected"),
    [
        ((503, ""), 5, "the hub answers 503"),
        ((429, ""), 5, "asked too often"),
        ((403, ""), 1, "does not allow it"),
        ((403, "DisabledRepo"), 1, ""),
        ((401, "RepoNotFound"), 1, "or it is private (set HF_TOKEN)"),
        ((404, "RepoNotFound"), 1, "no such model"),
        ((418, ""), 1, "the hub answers 418"),
    ],
)
def test_a_hub_that_refuses(hub, fetch, refuse, asked, expected):
    hub.refuse = refuse
    assert expected in refusal(fetch)
    assert len(hub.requests) == asked


def test_a_file_that_is_listed_and_not_there(hub, fetch):
    hub.entries["2_Dense/config.json"] = {"size": 2, "blobId": "0" * 40}
    assert "lists a file that it does not have" in refusal(fetch)


def test_a_hub_that_is_not_one(hub, fetch, monkeypatch):
    monkeypatch.setattr(HubServer, "_send_listing", lambda self, request, revision: request.send_error(200))
    assert "does not answer as expected" in refusal(fetch)


@pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1", "http://[::1"])
def test_an_address_that_is_none(cache, address):
    with pytest.raises(ModelError, match="HF_ENDPOINT is no address"):
        resolve(MODEL, endpoint=address, cache=cache)


def test_no_room(hub, fetch, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    assert "has room for 0" in refusal(fetch)
    assert not hub.fetched


# -- strangers ------------------------------------------------------------------------------------

FINE = {"size": 2, "blobId": "0" * 40}


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("../config.json", FINE),
        ("1_x/../../../config.json", FINE),
        ("/etc/config.json", FINE),
        ("a//config.json", FINE),
        ("./config.json", FINE),
        ("a\\config.json", FINE),
        ("con\nfig.json", FINE),
        ("a" * 600, FINE),
        ("config_x.json", {"size": -1, "blobId": "0" * 40}),
        ("config_x.json", {"blobId": "0" * 40}),
        ("config_x.json", {"size": 2}),
        ("config_x.json", {"size": 2, "blobId": "../../x"}),
        ("config_x.json", {"size": 1 << 40, "blobId": "0" * 40}),
        (WEIGHTS, {"size": 1 << 60, "blobId": "0" * 40}),
    ],
)
def test_a_listing_that_cannot_be_right(hub, fetch, cache, tmp_path, name, entry):
    hub.entries[name] = entry
    before = set(tmp_path.rglob("*")) - set(cache.rglob("*"))
    refusal(fetch)
    assert set(tmp_path.rglob("*")) - {cache, *cache.rglob("*")} == before
    assert not list(cache.rglob(WEIGHTS))


def test_a_listing_without_end(hub, fetch):
    hub.entries.update({f"{number}.txt": FINE for number in range(20_001)})
    assert "more than 20000 files" in refusal(fetch)


@pytest.mark.parametrize("commit", ["../../x", "main", "0" * 39])
def test_a_commit_that_is_none(hub, fetch, commit):
    hub.commits["main"] = commit
    assert "names no commit" in refusal(fetch)


def test_more_bytes_than_were_listed(hub, fetch, cache):
    put(hub, WEIGHTS, body=bytes(3_000_000))
    body = (hub.folder / WEIGHTS).read_bytes()[:1000]
    digest = hashlib.sha256(body).hexdigest()
    hub.entries[WEIGHTS] = {
        "size": 1000,
        "blobId": "0" * 40,
        "lfs": {"sha256": digest, "size": 1000, "pointerSize": 9},
    }
    assert "sends more than it says" in refusal(fetch)
    assert sum(path.stat().st_size for path in cache.rglob("*.incomplete")) <= 1000


def test_the_token_stays_with_the_hub(hub, fetch, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with HubServer(hub.folder, MODEL) as cdn:
        hub.cdn = cdn.address
        fetch()
        assert hub.tokens == {f"Bearer {SECRET}"}
        assert cdn.tokens == {None}
        assert cdn.fetched == {WEIGHTS}


def test_a_token_file_is_read(hub, fetch, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(SECRET)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(transfer.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    fetch()
    assert hub.tokens == {f"Bearer {SECRET}"}


# -- caches of other programs ---------------------------------------------------------------------


def forget_listing(cache):
    shutil.rmtree(cache / "models--someone--tiny-model" / "llmrs")


def test_a_cache_that_others_filled(hub, fetch, cache):
    """Whether a file of it is missing or absent is known only from the hub's listing."""
    folder = fetch()
    forget_listing(cache)
    asked = len(hub.requests)
    assert fetch() == folder
    assert hub.requests[asked:] == [f"GET /api/models/{MODEL}/revision/{COMMIT}"]
    assert fetch(offline=True) == folder
    (folder / "tokenizer.json").unlink()
    refusal(fetch, offline=True)
    assert fetch() == folder


def test_a_cache_that_others_filled_offline(hub, fetch, cache):
    folder = fetch()
    forget_listing(cache)
    message = refusal(fetch, offline=True)
    assert f"what another program left in {folder} may lack files" in message
    assert "run `llmrs fetch` once with a network, or set MODEL_PATH to that folder" in message
    assert resolve(str(folder), offline=True) == folder.resolve()
    hub.refuse = (403, "")
    message = refusal(fetch)
    assert "the hub does not allow it" in message
    assert "may lack files" in message


def test_what_a_program_left_that_read_no_list_of_modules(hub, cache, fetch):
    """As `AutoModel.from_pretrained` does; the model would be pooled otherwise without it."""
    from huggingface_hub import snapshot_download

    change_json(
        hub.folder / "1_Pooling/config.json", pooling_mode_cls_token=True, pooling_mode_mean_tokens=False
    )
    names = ["config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS]
    left = snapshot_download(MODEL, endpoint=hub.address, cache_dir=cache, allow_patterns=names)
    assert not is_here(MODEL)
    refusal(fetch, offline=True)
    hub.requests.clear()
    folder = fetch()
    assert str(folder) == left
    assert hub.fetched == {"modules.json", "1_Pooling/config.json"}
    assert read_folder(folder).steps[0].modes == ("cls",)


def test_what_others_left_is_not_changed_for_a_newer_commit(hub, cache, fetch):
    folder = fetch()
    forget_listing(cache)
    hub.commits["old"] = COMMIT
    hub.commits["main"] = hashlib.sha1(b"the next").hexdigest()
    assert fetch() == folder
    assert fetch(update=True) != folder


def test_what_others_fetched_is_taken_over(hub, cache, fetch):
    from huggingface_hub import snapshot_download

    folder = snapshot_download(MODEL, endpoint=hub.address, cache_dir=cache, allow_patterns=["*.safetensors"])
    refusal(fetch, offline=True)
    hub.requests.clear()
    assert str(fetch()) == folder
    assert hub.fetched == BASIC


def test_others_find_what_was_fetched(hub, cache, fetch):
    from huggingface_hub import hf_hub_download, scan_cache_dir

    folder = fetch()
    found = hf_hub_download(MODEL, WEIGHTS, cache_dir=cache, local_files_only=True)
    assert found == str(folder / WEIGHTS)
    scanned = scan_cache_dir(cache)
    assert not scanned.warnings
    scanned.delete_revisions(COMMIT).execute()
    refusal(fetch, offline=True)


def test_a_cache_without_links(hub, cache, fetch, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    folder = fetch()
    assert not (folder / WEIGHTS).is_symlink()
    assert fetch(offline=True) == folder


def test_a_cache_that_cannot_be_written(hub, cache, fetch):
    cache.write_text("a file where the cache should be")
    assert "(NotADirectoryError)" in refusal(fetch) or "(FileExistsError)" in refusal(fetch)


def test_a_hub_that_hangs(hub, fetch, monkeypatch):
    monkeypatch.setattr(hub_module, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(HubServer, "answer", lambda self, request: self.go_on.wait(60))
    assert "cannot be reached" in refusal(fetch)

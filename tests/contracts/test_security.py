"""What docs/SECURITY.md says of this code and can be read off it: nothing is unpickled outside named places, no code
from a model's repository by default, token mode wherever a cluster is described, and every file that it names exists.

It reads files and imports none of them. The second half feeds the scan what it must find.
"""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCANNED = ("embinv", "jobs", "serve_app", "cluster", ".ci", "benchmarks")
# file -> what it may do that others may not, each told in docs/SECURITY.md
NAMED = {
    "embinv/data/dumps/qdrant_store.py": "unpickles by a reader that knows no class",
    "jobs/deepspeed_engine.py": "DeepSpeed reads its own state",
    "jobs/train_universal.py": "DeepSpeed reads its own state",
}
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
READS = {"load", "loads", "Unpickler", "open"}
# Loaders of the hub that read no weights.
WITHOUT_WEIGHTS = {"AutoTokenizer", "AutoConfig", "PreTrainedTokenizerFast", "TextTokenizer"}
WORD = "trust_remote_code"


def dotted(node):
    """`torch.load` for such a node; `?.load` where it is called on what something gave."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def given(call, name):
    """The argument of that name, or None."""
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def is_constant(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def breaches(source):
    """What runs, or could run, code out of a file; one sentence each, with its line."""
    tree = ast.parse(source)
    modules, names = {}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [full(dotted(base), modules, names) for base in node.bases]
            yield from (f"{node.lineno}: a reader of pickles" for base in bases if base.endswith(".Unpickler"))
        elif isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {breach}" for breach in of_call(node, full(dotted(node.func), modules, names)))


def full(name, modules, names):
    """A name as it is called where it comes from: `np.load` is `numpy.load`."""
    first, dot, rest = name.partition(".")
    return names.get(first, modules.get(first, first)) + dot + rest


def of_call(call, name):
    """The breaches of one call."""
    module, _, function = name.rpartition(".")
    if module.split(".")[0] in PICKLES and function in READS:
        yield f"{name} unpickles"
    if function == "read_pickle" or name in {"eval", "exec", "builtins.eval", "builtins.exec", "os.system", "os.popen"}:
        yield f"{name} runs what it is given"
    if name == "torch.load" and not is_constant(given(call, "weights_only"), True):
        yield "torch.load without weights_only=True"
    pickled = given(call, "allow_pickle")
    if pickled is not None and not is_constant(pickled, False):
        yield f"{name} with allow_pickle"
    if name.startswith("yaml.") and function in {"load", "load_all", "unsafe_load", "full_load"}:
        loader = given(call, "Loader") or (call.args[1] if len(call.args) > 1 else None)
        if "Safe" not in (dotted(loader) if loader is not None else ""):
            yield f"{name} makes objects of any kind"
    if (function == "load_checkpoint" and module != "embinv.checkpoint") or "ds_to_universal" in module.split("."):
        yield f"{name} unpickles DeepSpeed's state"
    if is_constant(given(call, "shell"), True):
        yield f"{name} with a shell"
    trusted = given(call, WORD)
    if trusted is not None and not is_constant(trusted, False) and dotted(trusted).rpartition(".")[2] != WORD:
        yield f"{name}: {WORD} is not what the config says"
    weights = module.rpartition(".")[2] not in WITHOUT_WEIGHTS
    if function == "from_pretrained" and weights and not is_constant(given(call, "use_safetensors"), True):
        yield f"{name} without use_safetensors=True"


def test_nothing_is_unpickled_and_no_code_is_run_outside_the_named_places():
    found, places = [], set()
    for path in sorted(path for folder in SCANNED for path in (ROOT / folder).rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        if here := list(breaches(path.read_text(encoding="utf-8"))):
            places.add(where)
            found += [f"{where}:{breach}" for breach in here if where not in NAMED]
    assert not found, "\n".join(found)
    assert places == NAMED.keys(), "a named place does no such thing any more: take it out here and in docs/SECURITY.md"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import pickle\npickle.load(f)", "2: pickle.load unpickles"),
        ("import pickle as p\np.loads(b)", "2: pickle.loads unpickles"),
        ("from pickle import loads as read\nread(b)", "2: pickle.loads unpickles"),
        ("import pickle\ndef f():\n    return pickle.Unpickler(x).load()", "3: pickle.Unpickler unpickles"),
        ("import pickle\nclass R(pickle.Unpickler):\n    pass", "2: a reader of pickles"),
        ("from ray import cloudpickle\ncloudpickle.loads(b)", ""),  # Ray's own, not a file's; see below
        ("import cloudpickle\ncloudpickle.loads(b)", "cloudpickle.loads unpickles"),
        ("import joblib\njoblib.load(f)", "joblib.load unpickles"),
        ("import shelve\nshelve.open(f)", "shelve.open unpickles"),
        ("import pandas as pd\npd.read_pickle(f)", "runs what it is given"),
        ("import torch\ntorch.load(f)", "torch.load without weights_only=True"),
        ("import torch\ntorch.load(f, weights_only=False)", "torch.load without weights_only=True"),
        ("from torch import load\nload(f)", "torch.load without weights_only=True"),
        ("import torch\ntorch.load(f, weights_only=True)", ""),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "numpy.load with allow_pickle"),
        ("import numpy as np\nnp.load(f, allow_pickle=asked)", "numpy.load with allow_pickle"),
        ("import numpy as np\nnp.load(f)", ""),
        ("import yaml\nyaml.load(t, yaml.Loader)", "makes objects of any kind"),
        ("import yaml\nyaml.unsafe_load(t)", "makes objects of any kind"),
        ("import yaml\nyaml.load(t, Loader=yaml.CSafeLoader)", ""),
        ("eval(text)", "eval runs what it is given"),
        ("model.eval()\nmake(x).eval()", ""),
        ("from embinv.checkpoint import load_checkpoint\nload_checkpoint(f)", ""),
        ("import re\nre.compile(text)", ""),
        ("import subprocess\nsubprocess.run(text, shell=True)", "with a shell"),
        ("engine.load_checkpoint(f)", "unpickles DeepSpeed's state"),
        ("from deepspeed.checkpoint import ds_to_universal\nds_to_universal.main(a)", "unpickles DeepSpeed's state"),
        ("AutoTokenizer.from_pretrained(n, trust_remote_code=True)", "is not what the config says"),
        ("AutoTokenizer.from_pretrained(n, trust_remote_code=spec.trust_remote_code)", ""),
        ("AutoModel.from_pretrained(n)", "without use_safetensors=True"),
        ("AutoModel.from_pretrained(n, use_safetensors=False)", "without use_safetensors=True"),
    ],
)  # fmt: skip
def test_the_scan_sees_a_breach_and_nothing_else(source, said):
    found = list(breaches(source))
    assert (len(found) >= 1 and any(said in breach for breach in found)) if said else found == []


def test_no_config_and_no_served_application_runs_code_of_a_repository():
    files = [*ROOT.glob("configs/*.yaml"), *ROOT.glob("serve_app/*.yaml"), *ROOT.glob("cluster/**/*.yaml")]
    assert len(files) > 6
    for file in files:
        assert not re.search(rf"{WORD}['\"]?\s*[:=]\s*(true|yes|on|1)\b", file.read_text(encoding="utf-8"), re.I), file


def described_clusters():
    """Files under cluster/ that describe a cluster, and what they say."""
    for file in sorted((ROOT / "cluster").rglob("*")):
        if file.suffix in {".yaml", ".yml", ".env", ".sh"} or file.name.startswith("Dockerfile"):
            yield file, file.read_text(encoding="utf-8")


def test_token_mode_is_on_wherever_a_cluster_is_described_and_off_nowhere():
    described = 0
    for file, text in described_clusters():
        assert not re.search(
            r"RAY_AUTH_MODE\W+(name:|value:)?\s*\"?disabled|authOptions:\s*\{?\s*mode:\s*disabled", text
        ), file
        if "ray start" in text:
            described += 1
            assert "RAY_AUTH_MODE=token" in text or file.suffix == ".env", file
        if re.search(r"^\s+rayVersion:", text, re.M):
            described += 1
            assert re.search(r"authOptions:\s*(#.*)?\{?\s*mode:\s*token", text), file
    assert described >= 2


def test_a_file_of_a_cluster_holds_no_secret():
    secret = (
        r"AKIA[0-9A-Z]{16}|-----BEGIN|hf_[A-Za-z0-9]{30}|embinv_[A-Za-z0-9_-]{43}|RAY_AUTH_TOKEN=\w|sk-[A-Za-z0-9]{20}"
    )
    for file, text in described_clusters():
        assert not re.search(secret, text), file
        for document in yaml.safe_load_all(text) if file.suffix == ".yaml" else ():
            kind = document.get("kind") if isinstance(document, dict) else None
            assert kind != "Secret" or not (document.get("data") or document.get("stringData")), file


# docs/SECURITY.md


def document():
    return (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")


def named_files(text):
    """Paths in the document: with a folder, or with an ending that only files of this tree have."""
    yield from sorted({*re.findall(r"`((?:\.ci|[\w-]+)/[\w./-]*\w\.\w+|constraints\.txt|cluster/\w+)`", text)})
    yield from sorted(set(re.findall(r"\bdocs/\w+\.md\b", text)) - {"docs/RUNBOOK.md"})


def test_every_file_that_the_document_names_is_there():
    names = list(named_files(document()))
    assert len(names) > 25 and [name for name in names if not (ROOT / name).exists()] == []


def test_every_place_that_may_unpickle_is_told():
    assert [place for place in NAMED if f"`{place}`" not in document()] == []


def test_the_limits_that_it_tells_are_those_of_the_server():
    source = (ROOT / "serve_app" / "settings.py").read_text(encoding="utf-8")
    for setting, value in {
        "max_body_bytes": r"16 \* 2\*\*20",
        "body_timeout_s": "20.0",
        "max_vectors": "256",
        "max_queued_vectors": "512",
        "request_timeout_s": "60.0",
    }.items():
        assert re.search(rf"{setting}: \w+ = Field\(\s*default={value},", source), setting
    assert (
        "16 MiB and 20 seconds for a body, 256 texts a request, 512 under way for each encoder, 60 seconds"
        in document()
    )


def test_what_it_says_of_revisions_is_so():
    pinned = [
        f.name for f in ROOT.glob("configs/*.yaml") if re.search(r"^\s*\w*revision:\s*\w", f.read_text("utf-8"), re.M)
    ]
    assert ("and ours have none" in document()) is (not pinned), pinned


def test_what_it_says_of_versions_and_rights_is_so():
    recipe = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8")
    packages = " ".join(re.findall(r"--no-install-recommends((?: \\\n)?[^\n&]*)", recipe))
    assert "rsync" in packages and ("in an image are pinned by nothing" in document()) is ("=" not in packages)
    gcp = yaml.safe_load((ROOT / "cluster" / "gcp.yaml").read_text(encoding="utf-8"))["metadata"]["head_permissions"]
    far = {"compute.instances.delete", "compute.instances.setMetadata"} & {*gcp}
    assert ("it may delete every machine there" in document()) is bool(far)


def test_each_way_to_a_cluster_stands_under_tokens_and_under_ports():
    tokens, ports = re.findall(r"^- \*\*(?:Tokens|Ports)\*\*.*?(?=^- )", document(), re.M | re.S)
    assert "cluster/aws.yaml" in tokens and "cluster/kuberay" in tokens and "cluster/kuberay" in ports


# What is told: the file, and the measurements there that hold each of its decimal numbers.
FIGURES = {
    "token F1 80.1%, 15.5% of texts whole, 37.1% of": (
        "README.md",
        "15.5% ± 0.8% | 80.1% ± 0.3% | 57.1 ± 0.6 | 37.1% ± 0.7% |",
    ),
    "the nearest training text has 69.6%, 0% and 18.7%": ("README.md", "69.6% ± 0.3% | 44.2 ± 0.4 | 18.7%"),
    "71.6%, as without either (71.9%)": (
        "docs/LOG.md",
        "| noise | 0.1 of the norm | 1536 | 71.6% |",
        "| int8 |  | 384 | 71.6% |",
        "| none |  | 1536 | 71.9% |",
    ),
    "token F1 67.4%": ("docs/LOG.md", "| binary |  | 48 | 67.4% |"),
    "7.2%; 71.5% once he has": ("docs/LOG.md", "| PCA | 192 dimensions | 768 | 7.2% | 0.0% | 71.5% |"),
    "4.7%; 54.5% with 50 known pairs, 71.5% with 200": (
        "docs/LOG.md",
        "| rotation | secret | 1536 | 4.7% |",
        "| 50 | 54.5% | 75.9% |",
        "| 200 | 71.5% | 99.5% |",
    ),
    "67.3% with 5,000 known pairs; 70.9%": (
        "docs/LOG.md",
        "60.1% ± 1.7%, ridge 1 | 67.3% ± 1.5%",
        "The encoder's own vectors give 70.9% ± 1.7%",
    ),
    "redaction: 0.7% of values": ("docs/LOG.md", "| redaction |  | 1536 | 55.6% | 0.7% |"),
}  # fmt: skip


@pytest.mark.parametrize("told", FIGURES)
def test_a_figure_that_it_tells_was_measured(told):
    file, *measured = FIGURES[told]
    text = (ROOT / file).read_text(encoding="utf-8")
    assert told in document() and [line for line in measured if line not in text] == []
    assert {*re.findall(r"\d+\.\d+%", told)} <= {*re.findall(r"\d+\.\d+%", " ".join(measured))}


def test_every_decimal_figure_of_the_table_and_beside_it_is_compared():
    [part] = re.findall(r"^## What it makes possible\n(.*?)^## ", document(), re.M | re.S)
    assert {*re.findall(r"\d+\.\d+%", part)} == {*re.findall(r"\d+\.\d+%", " ".join(FIGURES))}

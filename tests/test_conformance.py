"""Files of golden vectors, their manifest, and the command that writes and checks them."""

import hashlib
import inspect
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mxcompile import cli, conformance, conformance_check, vectors
from mxcompile.errors import ConfigError, ExportError, FormatError
from mxcompile.formats import FORMATS, get_format


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of every format. Not to be changed."""
    made = tmp_path_factory.mktemp("vectors") / "all"
    conformance.write_vectors(made)
    return made


def arrays_of(folder: Path, name: str) -> dict[str, Any]:
    with np.load(folder / f"{name}.npz") as data:
        return dict(data)


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return content


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.cli, ["conformance", *map(str, arguments)], prog_name="mxcompile")


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_two_runs_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    conformance.write_vectors(tmp_path / "again")
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(["manifest.json", *(f"{name}.npz" for name in FORMATS)])
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with zipfile.ZipFile(folder / "amxfp4.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_vectors_are_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000


def test_the_manifest_tells_every_array_and_value(folder: Path) -> None:
    content = manifest(folder)
    assert content["tool"] == "mxcompile"
    assert set(content["inputs"]) == set(vectors.INPUTS)
    assert [entry["name"] for entry in content["formats"]] == list(FORMATS)
    for entry in content["formats"]:
        data = (folder / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["bytes"] == len(data)
        arrays = arrays_of(folder, entry["name"])
        told = {name: (array["dtype"], tuple(array["shape"])) for name, array in entry["arrays"].items()}
        assert told == {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
        assert arrays["format"] == entry["name"]
        assert {name.rpartition("__")[2] for name in arrays} == {*content["arrays"], "format"}
        assert len(entry["code_values"]) == 2 ** entry["bits"]


def test_the_manifests_rules_are_those_of_the_docstrings_without_markup(folder: Path) -> None:
    content = manifest(folder)
    for entry in content["formats"]:
        numbers = [int(rule.partition(".")[0]) for rule in entry["rules"]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers
        texts = [*entry["rules"], *entry["notes"], *entry.get("scale_rules", []), entry["scale_layout"]]
        assert not [text for text in texts if "`" in text or "\n" in text or "Attributes" in text]
    told = {entry["name"]: entry for entry in content["formats"]}
    assert told["amxfp4"]["rules"][4].startswith("5. Decoding multiplies element and scale: exact in float32")
    assert "Byte of a block with NaN or Inf, Scale.nan: 0x7F." in told["amxfp4"]["scale_rules"]
    assert any(rule.startswith("EVEN: FLOOR, plus 1") for rule in told["mxfp4_even"]["scale_rules"])
    assert not any(rule.startswith("EVEN: ") for rule in told["mxfp4"]["scale_rules"])
    assert "p = 13; half steps: yes" in told["dint4"]["notes"]


def test_value_tables(folder: Path) -> None:
    told = {entry["name"]: entry for entry in manifest(folder)["formats"]}
    half = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    assert told["amxfp4"]["code_values"] == [*half, *(-value for value in half)]
    assert told["amxfp4"]["scale_values"][0x3C] == 1
    assert told["amxfp4"]["scale_values"][0x7C] == "inf"
    assert told["amxfp4"]["scale_values"][0xFC] == "-inf"
    assert told["amxfp4"]["scale_values"][0x7F] is None
    assert told["dint3"]["code_values"] == [0, 1, 2, 3, 4, 5, 0.5, -0.5]
    assert told["int4"]["code_values"] == list(range(16))
    assert told["mxint8"]["code_values"][0x81] == -127 / 64


def test_named_formats_only_and_each_once(tmp_path: Path) -> None:
    content = conformance.write_vectors(tmp_path / "out", ["mxfp4_b16", "amxfp4_b32", "amxfp4"])
    assert [entry["name"] for entry in content["formats"]] == ["mxfp4_b16", "amxfp4"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "amxfp4.npz",
        "manifest.json",
        "mxfp4_b16.npz",
    ]
    assert not conformance_check.check_vectors(tmp_path / "out" / "mxfp4_b16.npz").failed


def test_existing_files_are_replaced_only_if_forced(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"manifest.json: exists already; add --force"):
        conformance.write_vectors(tmp_path, ["mxfp4"])
    assert not (tmp_path / "mxfp4.npz").exists()
    conformance.write_vectors(tmp_path, ["mxfp4"], force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert manifest(tmp_path)["formats"][0]["name"] == "mxfp4"


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(ExportError, match="out: could not be written: No space left on device"):
        conformance.write_vectors(tmp_path / "out", ["mxfp4"])
    assert list(tmp_path.iterdir()) == []


def test_bad_places_are_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="file: is a file, not a folder"):
        conformance.write_vectors(tmp_path / "file")
    with pytest.raises(ExportError, match=r"there is no folder .*missing; create it first"):
        conformance.write_vectors(tmp_path / "missing" / "out")
    with pytest.raises(FormatError, match="unknown format 'fp4'"):
        conformance.write_vectors(tmp_path / "out", ["fp4"])


def test_without_docstrings_there_are_no_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "getdoc", lambda _object: None)
    with pytest.raises(ConfigError, match="run without -OO"):
        conformance.write_vectors(tmp_path / "out", ["mxfp4"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["amxfp4", "mxfp6_e2m3", "mxfp8_e5m2", "nvfp4", "dint4", "int8"])
def test_the_manifests_rule_gives_the_dot_products_from_the_file_alone(folder: Path, name: str) -> None:
    entry = next(entry for entry in manifest(folder)["formats"] if entry["name"] == name)
    square = 2.0 ** int(re.search(r"dot = 2\*\*(-?\d+) ", entry["dot_rule"]).group(1))  # type: ignore[union-attr]
    arrays = arrays_of(folder, name)
    sums, scales = arrays["normal__dot_sums"].astype(np.float64), arrays["normal__scales"]
    if "2 words" in entry["dot_rule"]:
        sums = sums[..., :1] * 2.0**32 + sums[..., 1:]
    if "scale_values" in entry:
        values = np.array([math.nan if value is None else float(value) for value in entry["scale_values"]])[scales]
    elif name == "nvfp4":
        e4m3 = FORMATS["mxfp8_e4m3"].element.decode_table
        values = np.ascontiguousarray(scales[:, :4, 0]).view("<f4")[..., None] * e4m3[scales[:, 4:]]
    else:
        values = np.ascontiguousarray(scales[..., :4]).view("<f4")
    a, w = (values[arrays[f"normal__dot_{side}"]].astype(np.float64) for side in "aw")
    terms = square * (a[..., :, None] * w[..., None, :]).reshape(sums.shape) * sums
    # Three factors and at most 16 terms round once each; a sum of two words rounds once.
    assert (np.abs(terms.sum(axis=(1, 2)) - arrays["normal__dot"]) <= 20 * 2.0**-53 * np.abs(terms).sum((1, 2))).all()


def test_the_command_writes_and_checks(tmp_path: Path) -> None:
    result = run("-o", tmp_path / "out", "--format", "amxfp4", "--format", "mxfp4_b16")
    assert result.exit_code == 0, result.output
    assert "mxfp4_b16.npz" in result.stdout
    result = run("--check", tmp_path / "out" / "amxfp4.npz")
    assert result.exit_code == 0, result.output
    assert re.search(r"^nonfinite__decoded +384 +0", result.stdout, re.MULTILINE)
    result = run("-o", tmp_path / "out", "--format", "amxfp4")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_the_command_prints_json(tmp_path: Path) -> None:
    out = tmp_path / "out"
    content = json.loads(run("-o", out, "--format", "amxfp4", "--json").stdout)
    assert content == {"manifest": str(out / "manifest.json"), "files": ["amxfp4.npz"]}
    content = json.loads(run("--check", out / "amxfp4.npz", "--json").stdout)
    assert content["ok"]
    assert content["arrays"][0] == {"name": "normal__codes", "compared": 384, "differing": 0, "first": None}


def test_the_command_exits_with_1_at_a_difference(tmp_path: Path) -> None:
    arrays = conformance.vector_arrays(get_format("amxfp4"))
    arrays["ties__codes"][0, 0] ^= 1
    arrays["note"] = np.array("hello")
    path = saved(tmp_path / "theirs.npz", **arrays)
    result = run("--check", path)
    assert result.exit_code == 1
    assert re.search(r"^ties__codes +\d+ +1 +\[0, 0\] in block 0: ours", result.stdout, re.MULTILINE)
    assert "not looked at: note" in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        f"error: {path}: 1 of 64 arrays differ from amxfp4; first ties__codes[0, 0] in block 0: ours"
    )
    result = run("--check", path, "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert not content["ok"]
    first = next(array["first"] for array in content["arrays"] if array["name"] == "ties__codes")
    assert (first["index"], first["ours"], first["ours_bits"], first["theirs_bits"]) == ([0, 0], -6, "0b1111", "0b1110")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-o", "out", "--check", "a.npz"),
        ("--check", "a.npz", "--force"),
        ("--check", "a.npz", *["--format", "f"] * 2),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "either -o DIR, or --check FILE.npz" in result.stderr

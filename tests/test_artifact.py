"""The artifact directory: what goes in comes out, and whatever was not saved is refused by name."""

import hashlib
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from explainer_runtime.artifact import (
    Fitted,
    load,
    manifest,
    pack,
    save,
    strict_json,
    tensors,
    unpack,
    verify,
)
from explainer_runtime.artifact.replace import replace
from explainer_runtime.errors import InvalidArtifact
from explainer_runtime.spec import AnchorImage, Counterfactual, Grid, Inputs

INPUTS = Inputs(shape=(4, 4, 1), low=-0.5, high=0.5, classes=3, class_names=("cat", "dog", "Käfer"))
FITTED = Fitted(AnchorImage(segmentation=Grid()), INPUTS, {"background": np.arange(6, dtype="float32")})
fixed = settings(derandomize=True, deadline=None, database=None, max_examples=60)


@pytest.fixture
def saved(tmp_path) -> Path:
    return save(FITTED, tmp_path / "artifact")


def rewrite(root: Path, change, files: Mapping[str, bytes] | None = None) -> None:
    """Change a saved artifact as someone would who also knows how to mend sizes, digests and checksum."""
    value = json.loads((root / "explainer.json").read_bytes())
    for name, data in (files or {}).items():
        (root / name).write_bytes(data)
        value["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    change(value)
    (root / "explainer.json").write_bytes(manifest.dump(value))


def write_plain(root: Path, change) -> None:
    """Change `explainer.json` without mending its checksum."""
    value = json.loads((root / "explainer.json").read_bytes())
    change(value)
    (root / "explainer.json").write_text(json.dumps(value, sort_keys=True, indent=1))


# --- what goes in comes out ---------------------------------------------------------------------------

values = {
    "b": st.booleans(),
    "i": None,
    "u": None,
    "f": st.floats(width=16, allow_nan=False, allow_infinity=False),
}
arrays = st.sampled_from(sorted(tensors.DTYPES.values())).flatmap(
    lambda name: hnp.arrays(
        name,
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        elements=values[np.dtype(name).kind],
    )
)


@fixed
@given(st.dictionaries(st.from_regex(r"[a-z0-9_]{1,64}", fullmatch=True), arrays, max_size=4))
def test_arrays_come_back_bit_for_bit(some):
    back = unpack(pack(Fitted(FITTED.spec, INPUTS, some))).arrays
    assert back.keys() == some.keys()
    for name, array in some.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[::-1, ::2], lambda a: a.astype(">f4")])
def test_arrays_come_back_equal_however_they_lie_in_memory(view):
    array = view(np.arange(24, dtype="float32").reshape(4, 6))
    np.testing.assert_array_equal(unpack(pack(Fitted(FITTED.spec, INPUTS, {"a": array}))).arrays["a"], array)


@fixed
@given(
    st.one_of(
        st.builds(AnchorImage, threshold=st.floats(0.01, 0.99), seed=st.integers(0, 2**63 - 1)),
        st.builds(
            Counterfactual,
            target_class=st.one_of(st.just("same"), st.integers(0, 9)),
            tol=st.floats(1e-9, 1),
            feature_range=st.just((-0.5, 0.1)),
        ),
    ),
    st.builds(
        Inputs,
        shape=st.tuples(st.integers(2, 9), st.integers(2, 9), st.just(1)),
        layout=st.sampled_from(["channels_last", "channels_first"]),
        low=st.floats(-1e15, 0),
        high=st.floats(1e-30, 1e15),
        classes=st.just(10),
        class_names=st.one_of(st.none(), st.tuples(*[st.text()] * 10)),
    ),
)
def test_spec_and_inputs_come_back_equal(spec, inputs):
    back = unpack(pack(Fitted(spec, inputs)))
    assert back.spec == spec
    assert back.inputs == inputs


def test_an_artifact_comes_back_from_its_directory(saved):
    back = load(saved)
    assert (back.spec, back.inputs) == (FITTED.spec, FITTED.inputs)
    np.testing.assert_array_equal(back.arrays["background"], FITTED.arrays["background"])


def test_loaded_arrays_are_read_only(saved):
    with pytest.raises(ValueError, match="read-only"):
        load(saved).arrays["background"][0] = 1


def test_the_same_values_at_the_same_time_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1500000000")
    one, two = save(FITTED, tmp_path / "one"), save(FITTED, tmp_path / "two")
    assert (one / "explainer.json").read_bytes() == (two / "explainer.json").read_bytes()
    assert (one / "arrays.safetensors").read_bytes() == (two / "arrays.safetensors").read_bytes()
    assert verify(one).manifest["created"] == "2017-07-14T02:40:00Z"


def test_an_artifact_without_arrays_is_one_file(tmp_path):
    root = save(Fitted(FITTED.spec, INPUTS), tmp_path / "artifact")
    assert [path.name for path in root.iterdir()] == ["explainer.json"]


def test_verify_reports_digest_and_sizes(saved):
    report = verify(saved)
    assert report.digest == hashlib.sha256((saved / "explainer.json").read_bytes()).hexdigest()
    assert report.bytes == sum(path.stat().st_size for path in saved.iterdir())
    assert report.manifest == json.loads((saved / "explainer.json").read_bytes())


def test_verify_reports_what_makes_the_size(saved):
    parts = verify(saved).parts
    assert sum(parts.values()) == verify(saved).bytes
    assert {name: parts[name] for name in FITTED.arrays} == {
        name: array.nbytes for name, array in FITTED.arrays.items()
    }
    assert list(parts.values()) == sorted(parts.values(), reverse=True)


def test_load_takes_only_the_digest_it_is_given(saved):
    load(saved, digest=verify(saved).digest)
    with pytest.raises(InvalidArtifact, match=r"explainer\.json: expected an artifact with digest 0000"):
        load(saved, digest="0" * 64)


def test_loading_needs_no_tensorflow_without_models(saved):
    code = (
        f"import sys, explainer_runtime as e; e.load({str(saved)!r}); sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_depends_on_neither_folder_nor_umask(saved, tmp_path):
    code = (
        f"import os, explainer_runtime as e; os.umask(0o777); e.load({saved.name!r}); e.verify('./artifact/')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_an_artifact_may_be_reached_through_a_link(saved, tmp_path):
    (tmp_path / "current").symlink_to(saved)
    load(tmp_path / "current")


def test_settings_of_a_server_may_lie_beside_and_are_not_read(saved):
    (saved / "model-settings.json").write_bytes(b"\xff not JSON")
    assert "model-settings.json" not in verify(saved).files


def test_hard_links_are_files_like_others(saved, tmp_path):
    os.link(saved / "arrays.safetensors", tmp_path / "second name")
    load(saved)


# --- saving is all or nothing -------------------------------------------------------------------------


def test_saving_again_replaces_the_artifact_and_keeps_the_settings_beside_it(saved):
    (saved / "model-settings.json").write_text("{}")
    save(Fitted(Counterfactual(), INPUTS), saved)
    assert load(saved).spec == Counterfactual()
    assert sorted(os.listdir(saved)) == ["explainer.json", "model-settings.json"]
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.array(["x"])}, r"arrays\.safetensors: 'a' has dtype <U1"),
        ({"a": np.array([object()])}, "dtype object"),
        ({"a": np.array([1j])}, "dtype complex128"),
        ({"a": np.array([1.0, np.nan])}, "'a' has NaN or infinite values"),
        ({"A": np.zeros(1)}, "'A' cannot name an array"),
        ({"../a": np.zeros(1)}, "cannot name an array"),
        ({"a\n": np.zeros(1)}, "cannot name an array"),
    ],
)
def test_a_failed_save_says_why_and_leaves_the_old_artifact_alone(saved, arrays, message):
    before = verify(saved)
    with pytest.raises(InvalidArtifact, match=message):
        save(Fitted(FITTED.spec, INPUTS, arrays), saved)
    assert verify(saved) == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_disk_error_while_writing_leaves_the_old_artifact_alone(saved):
    with pytest.raises(OSError, match="too long"):
        replace(saved, {"explainer.json": b"{}", "models/" + "n" * 300: b""})
    load(saved)
    assert os.listdir(saved.parent) == [saved.name]


def test_text_that_has_no_utf8_form_cannot_be_saved(tmp_path):
    inputs = INPUTS.model_copy(update={"class_names": ("\ud800", "b", "c")})
    with pytest.raises(InvalidArtifact, match=r"explainer\.json: cannot be written"):
        save(Fitted(FITTED.spec, inputs), tmp_path / "artifact")
    assert os.listdir(tmp_path) == []


def _plain_file(path: Path) -> None:
    path.write_text("mine")


def _folder_of_notes(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def _artifact_with_notes(path: Path) -> None:
    save(FITTED, path)
    (path / "notes.txt").write_text("mine")


def _foreign_explainer(path: Path) -> None:
    path.mkdir()
    (path / "explainer.json").write_text('{"format": "theirs"}')


def _link_to_an_artifact(path: Path) -> None:
    path.symlink_to(save(FITTED, path.with_name("elsewhere")))


@pytest.mark.parametrize(
    "make", [_plain_file, _folder_of_notes, _artifact_with_notes, _foreign_explainer, _link_to_an_artifact]
)
def test_what_is_not_an_artifact_is_never_replaced(tmp_path, make):
    path = tmp_path / "mine"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidArtifact, match=r"will not be replaced|symbolic link"):
        save(FITTED, path)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_and_a_damaged_artifact_are_replaced(tmp_path):
    path = tmp_path / "artifact"
    path.mkdir()
    save(FITTED, path)
    (path / "arrays.safetensors").write_bytes(b"")
    load(save(FITTED, path))


def test_permissions_are_those_of_any_new_file_and_folder(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    root = save(FITTED, tmp_path / "artifact")
    assert stat.S_IMODE(root.stat().st_mode) == stat.S_IMODE((tmp_path / "folder").stat().st_mode)
    assert (root / "explainer.json").stat().st_mode == (tmp_path / "file").stat().st_mode


def test_a_reader_sees_the_old_artifact_or_the_new_one_and_never_a_mixture(tmp_path):
    path = tmp_path / "artifact"
    options = [Fitted(AnchorImage(seed=n), INPUTS, {"seed": np.full(1000, n)}) for n in range(2)]
    save(options[0], path)
    writer = threading.Thread(target=lambda: [save(options[n % 2], path) for n in range(1, 20)])
    writer.start()
    seen, refused = [], []
    while writer.is_alive():
        try:
            seen.append(load(path))
        except InvalidArtifact as error:
            refused.append(str(error))
    writer.join()
    for fitted in [*seen, load(path)]:
        assert (fitted.arrays["seed"] == fitted.spec.seed).all()
    # For a moment there is none, or the one being read has just been removed; nothing worse is ever seen.
    assert all("No such file" in message or "is missing" in message for message in refused), refused


# --- whatever was not saved is refused, by name -------------------------------------------------------


def _deep(root: Path) -> None:
    (root / "explainer.json").write_bytes(b'{"spec":' + b"[" * 100_000)


def _twice(root: Path) -> None:
    text = (root / "explainer.json").read_text()
    (root / "explainer.json").write_text(text.replace('"kind": "grid"', '"kind": "slic", "kind": "grid"'))


def _swap_for_link(root: Path) -> None:
    (root / "arrays.safetensors").rename(root.parent / "arrays")
    (root / "arrays.safetensors").symlink_to(root.parent / "arrays")


def _link_models(root: Path) -> None:
    (root.parent / "elsewhere").mkdir()
    (root / "models").symlink_to(root.parent / "elsewhere")


def _pipe(root: Path) -> None:
    (root / "explainer.json").unlink()
    os.mkfifo(root / "explainer.json")


def _socket(root: Path) -> None:
    here = os.getcwd()
    os.chdir(root)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("arrays")
    finally:
        os.chdir(here)


def _raw_name(root: Path) -> None:
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff\x1b[31m"))).write_bytes(b"")


def _header(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _arrays(data: bytes, described=None):
    def act(root: Path) -> None:
        rewrite(root, lambda v: v.update(arrays=described or v["arrays"]), {"arrays.safetensors": data})

    return act


def _set(**changes):
    return lambda root: rewrite(root, lambda value: value.update(changes))


def _list(name: str):
    return lambda root: rewrite(root, lambda v: v["files"].update({name: {"bytes": 0, "sha256": "0" * 64}}))


def _add(name: str, data: bytes = b""):
    def act(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)

    return act


def _one(dtype: str, shape: list[int], data: bytes) -> bytes:
    entry = {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}
    return _header(json.dumps(entry).encode(), data)


ARRAYS, MANIFEST = r"arrays\.safetensors", r"explainer\.json"
TAMPERING = {
    "no manifest": (lambda r: (r / "explainer.json").unlink(), rf"{MANIFEST}: is missing"),
    "a manifest of 2 MiB": (
        _add("explainer.json", b" " * 2**21),
        rf"{MANIFEST}: has more than the 1048576 bytes",
    ),
    "nesting without end": (_deep, rf"{MANIFEST}: .* more than 64 lists"),
    "a key given twice": (_twice, rf"{MANIFEST}: .*'kind' is given twice"),
    "not UTF-8": (_add("explainer.json", b'"\xff"'), rf"{MANIFEST}: .*utf-8"),
    "half a surrogate pair": (_add("explainer.json", b'{"a": "\\ud800"}'), rf"{MANIFEST}: .*surrogates"),
    "NaN": (_add("explainer.json", b'{"a": NaN}'), rf"{MANIFEST}: .*NaN is not a number"),
    "a number too large": (_add("explainer.json", b'{"a": 1e999}'), rf"{MANIFEST}: .*too large a number"),
    "a list": (_add("explainer.json", b"[]"), rf"{MANIFEST}: expected a JSON object"),
    "another format": (
        lambda r: write_plain(r, lambda v: v.update(format="x")),
        "expected format 'explainer_r",
    ),
    "a later version": (
        lambda r: write_plain(r, lambda v: v.update(format_version=2)),
        rf"{MANIFEST}: expected format_version 1, the only one this release reads, got 2",
    ),
    "an edited threshold": (
        lambda r: write_plain(r, lambda v: v["spec"].update(threshold=0.5)),
        rf"{MANIFEST}: its checksum does not match",
    ),
    "no checksum": (
        lambda r: write_plain(r, lambda v: v.pop("checksum")),
        rf"{MANIFEST}: expected one .checksum",
    ),
    "an unknown field": (_set(predictor="http://x"), rf"{MANIFEST}: 'predictor'"),
    "an unknown kind": (_set(spec={"kind": "x"}), rf"{MANIFEST}: .*kind"),
    "another kind": (_set(kind="counterfactual"), rf"{MANIFEST}: kind is 'counterfactual'"),
    "a spec out of range": (
        lambda r: rewrite(r, lambda v: v["spec"].update(threshold=2.0)),
        rf"{MANIFEST}: .*threshold",
    ),
    "inputs that contradict": (
        lambda r: rewrite(r, lambda v: v["inputs"].update(low=1.0)),
        rf"{MANIFEST}: inputs: .*low",
    ),
    "a size that is a string": (
        lambda r: rewrite(r, lambda v: v["files"]["arrays.safetensors"].update(bytes="88")),
        rf"{MANIFEST}: 'files\.arrays\.safetensors\.bytes'",
    ),
    "a list of more than may be read": (
        lambda r: rewrite(r, lambda v: v["files"]["arrays.safetensors"].update(bytes=2**31)),
        rf"{MANIFEST}: lists 2147\d+ bytes, at most 2147483648",
    ),
    "a listed file missing": (lambda r: (r / "arrays.safetensors").unlink(), rf"{ARRAYS}: is listed in"),
    "an unlisted model": (_add("models/a.json"), r"models/a\.json: is not listed"),
    "an unlisted note": (_add("notes.txt"), r"notes\.txt': an artifact has no such file"),
    "a folder of other things": (
        lambda r: ((r / "explainer.json").unlink(), (r / "notes.txt").touch()),
        rf"{MANIFEST}: is missing; this is not the directory of an artifact",
    ),
    "a hidden file": (_add(".hidden"), r"'\.hidden': an artifact has no such file"),
    "a name in capitals": (_add("models/A.json"), r"models/A\.json': an artifact has no such file"),
    "a name no terminal should see": (_raw_name, r"\\x1b\[31m': an artifact has no such file"),
    **{
        f"a file of {ending}": (
            _add(f"models/weights.{ending}"),
            rf"weights\.{ending}': an artifact has no such",
        )
        for ending in (
            "h5",
            "hdf5",
            "pkl",
            "pickle",
            "npy",
            "npz",
            "joblib",
            "dill",
            "keras",
            "py",
            "so",
            "zip",
        )
    },
    **{
        f"{name!a} listed": (_list(name), rf"{MANIFEST}: lists .* no file of an artifact")
        for name in (
            "../x.json",
            "/etc/passwd",
            "models/../x",
            "models\\a.json",
            "models/a\n.json",
            "a.h5",
            "",
        )
    },
    "a link in place of a file": (_swap_for_link, rf"{ARRAYS}': is a symbolic link"),
    "a dangling link": (lambda r: (r / "x").symlink_to("nowhere"), "'x': is a symbolic link"),
    "a link to a folder": (_link_models, "'models': is a symbolic link"),
    "another folder": (lambda r: (r / "extra").mkdir(), "'extra': is a folder"),
    "a folder among the models": (lambda r: (r / "models/x").mkdir(parents=True), "'models/x': is a folder"),
    "a file called models": (_add("models"), "'models': an artifact has no such file"),
    "a folder called manifest": (
        lambda r: ((r / "explainer.json").unlink(), (r / "explainer.json").mkdir()),
        rf"{MANIFEST}': is a folder",
    ),
    "a pipe": (_pipe, rf"{MANIFEST}': is not a regular file"),
    "a socket": (_socket, "'arrays': is not a regular file"),
    "a byte less": (
        lambda r: os.truncate(r / "arrays.safetensors", 10),
        rf"{ARRAYS}: expected \d+ bytes, got 10; copy the artifact again",
    ),
    "a byte more": (
        lambda r: os.truncate(r / "arrays.safetensors", 1000),
        rf"{ARRAYS}: has more than the \d+ bytes",
    ),
    "not safetensors": (_arrays(b"\x80\x04K*."), rf"{ARRAYS}: is not a safetensors file"),
    "a header of a terabyte": (
        _arrays(struct.pack("<Q", 2**40)),
        rf"{ARRAYS}: is not a safetensors file: .* 1099511627776 bytes",
    ),
    "a tensor larger than its data": (
        _arrays(_one("F32", [2**40], b"\0" * 4)),
        rf"{ARRAYS}: is not a safetensors file",
    ),
    "more axes than NumPy has": (
        _arrays(_one("F32", [1] * 100, b"\0" * 4), {"a": {"dtype": "float32", "shape": [1] * 100}}),
        rf"{ARRAYS}: 'a' has a shape that cannot be",
    ),
    "a dtype NumPy has not": (_arrays(_one("BF16", [1], b"\0\0")), rf"{ARRAYS}: 'a' has dtype BF16"),
    "a truth value of 2": (_arrays(_one("BOOL", [1], b"\2")), rf"{ARRAYS}: 'a' has truth values"),
    "NaN in an array": (_arrays(_one("F16", [1], b"\0\x7e")), rf"{ARRAYS}: 'a' has NaN"),
    "infinity in an array": (_arrays(_one("F32", [1], b"\0\0\x80\x7f")), rf"{ARRAYS}: 'a' has NaN or inf"),
    "an array more than is described": (
        _arrays(_one("U8", [1], b"\0")),
        rf"{ARRAYS}: names, dtypes or shapes",
    ),
    "arrays described, but no file": (
        lambda r: ((r / "arrays.safetensors").unlink(), rewrite(r, lambda v: v["files"].clear())),
        rf"{ARRAYS}: names, dtypes or shapes",
    ),
    "an array with an odd name": (
        _arrays(tensors.dump({"a b": np.zeros(1)}, ""), {"a b": {"dtype": "float64", "shape": [1]}}),
        "'a b' cannot name an array",
    ),
}


@pytest.mark.parametrize("check", [load, verify])
@pytest.mark.parametrize(("tamper", "message"), TAMPERING.values(), ids=TAMPERING)
def test_tampering_is_refused_by_name(saved, tamper, message, check):
    tamper(saved)
    with pytest.raises(InvalidArtifact, match=f"^{saved}: .*{message}"):
        check(saved)


def test_messages_carry_neither_control_characters_nor_a_flood(saved):
    rewrite(saved, lambda value: value["spec"].update({f"\x1b[31m{n}\n": n for n in range(1000)}))
    with pytest.raises(InvalidArtifact, match=r"\\x1b\[31m0\\n") as caught:
        load(saved)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("path", ["nowhere", "file", "\0"])
def test_a_path_without_a_directory_is_refused(tmp_path, path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArtifact, match="expected the directory of an artifact"):
        load(tmp_path / path)


def test_more_files_than_an_artifact_has_are_not_listed_to_the_end(saved):
    (saved / "models").mkdir()
    for number in range(4097):
        (saved / f"models/m{number}.json").touch()
    with pytest.raises(InvalidArtifact, match="more than 4096 files"):
        load(saved)


def test_a_lower_limit_on_bytes_is_kept(saved):
    size = verify(saved).bytes
    load(saved, max_bytes=size)
    with pytest.raises(InvalidArtifact, match=f"lists {size} bytes, at most {size - 1}"):
        load(saved, max_bytes=size - 1)


@fixed
@given(data=st.data())
def test_a_change_of_any_byte_of_any_file_is_refused(tmp_path_factory, data):
    root = save(FITTED, tmp_path_factory.mktemp("changed") / "artifact")
    path = data.draw(st.sampled_from(sorted(root.iterdir())))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(InvalidArtifact, match=path.name.replace(".", r"\.")):
        verify(root)


@fixed
@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,\\ea1.-u', max_size=60).map(str.encode))
def test_json_is_parsed_to_an_object_or_refused(data):
    try:
        value = strict_json.parse(data, "f")
    except InvalidArtifact:
        return
    assert strict_json.parse(strict_json.dump(value, "f"), "f") == value == json.loads(data)


@fixed
@given(data=st.data())
def test_damaged_tensors_are_parsed_to_finite_arrays_or_refused(data):
    content = bytearray(tensors.dump({"a": np.ones((2, 3), "float16"), "b": np.array([True])}, "f"))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = tensors.parse(bytes(content), "f")
    except InvalidArtifact:
        return
    for array in found.values():
        assert array.dtype.name in tensors.DTYPES.values()
        assert np.isfinite(array).all()

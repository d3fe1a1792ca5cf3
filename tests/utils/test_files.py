"""Files of models hold tensors, text and plain containers; reading one runs no code."""

import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import scrcl
from scrcl.utils import files

from ..helpers import build, simulate
from ..saved.make_golden import in_space, several, train


class Bomb:
    """Pickled, it writes a file when it is made again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def globals_of(path: Path) -> set[str]:
    """Everything that a file names to be made."""
    with zipfile.ZipFile(path) as file:
        (name,) = (name for name in file.namelist() if name.endswith("data.pkl"))
        content = file.read(name)
    return {
        f"{argument}"
        for operation, argument, _ in __import__("pickletools").genops(content)
        if operation.name == "GLOBAL"
    }


def same(found, expected) -> None:
    """Compare nested containers."""
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    elif not isinstance(expected, pd.DataFrame):
        assert found == expected


@pytest.mark.parametrize(
    ("make", "setup"),
    [
        (simulate, {"layer": None}),
        (several, {"modalities": {"rna": "rna", "prot": "protein"}}),
        (in_space, {"spatial_key": "spatial", "sample_key": "slice"}),
    ],
)
def test_nothing_but_plain_content_is_saved(tmp_path, make, setup):
    data = make()
    model = train(data, setup)
    model.save(tmp_path / "model")
    named = globals_of(tmp_path / "model" / "model.pt")
    assert {name.split()[0].split(".")[0] for name in named} <= {"torch", "collections"}
    assert not [name for name in named if "pickle" in name]
    loaded = scrcl.SCRCL.load(tmp_path / "model", adata=make(), accelerator="cpu")
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    pd.testing.assert_frame_equal(
        loaded.history["train_loss"].astype(float), model.history["train_loss"].astype(float), check_column_type=False
    )
    same(loaded.reference_["features"], model.reference_["features"])
    assert loaded.init_params_ == model.init_params_
    loaded.save(tmp_path / "again")
    again = torch.load(tmp_path / "again" / "model.pt", weights_only=True)
    first = torch.load(tmp_path / "model" / "model.pt", weights_only=True)
    assert again["versions"] == first["versions"]
    assert again["versions"]["scvi-tools"]


def test_what_is_no_plain_content_is_not_saved(tmp_path, adata):
    model = build(adata)
    model.odd_ = {"of": [lambda: 0]}
    with pytest.raises(TypeError, match=r"odd_\['of'\]\[0\] is of type function"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("place", ["attr_dict", "model_state_dict", "versions"])
def test_code_in_a_file_is_not_run(tmp_path, trained, place):
    folder, sign = tmp_path / "model", tmp_path / "sign"
    trained.save(folder)
    content = torch.load(folder / "model.pt", weights_only=True)
    content[place]["odd_"] = Bomb(sign)
    torch.save(content, folder / "model.pt")
    for read in (lambda: scrcl.SCRCL.load(folder, adata=False), lambda: scrcl.SCRCL.load_registry(folder)):
        with pytest.raises(
            ValueError, match=r"is not read, as it could run code: it holds .*system, by which code may be run"
        ):
            read()
    assert not sign.exists()
    torch.load(folder / "model.pt", weights_only=False)
    assert sign.exists()  # it would have been


def test_a_bare_pickle_is_not_run(tmp_path):
    folder, sign = tmp_path / "model", tmp_path / "sign"
    folder.mkdir()
    with (folder / "model.pt").open("wb") as file:
        pickle.dump({"attr_dict": Bomb(sign)}, file)
    with pytest.raises(ValueError, match="cannot be read"):
        scrcl.SCRCL.load(folder, adata=False)
    assert not sign.exists()


def test_errors_quote_the_cause_and_the_versions(tmp_path, trained):
    folder = tmp_path / "model"
    trained.save(folder)
    content = torch.load(folder / "model.pt", weights_only=True)
    content["versions"]["scrcl"] = "99.1"
    del content["attr_dict"]["reference_"]["features"]
    torch.save(content, folder / "model.pt")
    with pytest.raises(ValueError, match=r"missing .* 'features'.*saved by scrcl 99\.1 \(here") as raised:
        scrcl.SCRCL.load(folder, adata=False)
    assert "torch" not in str(raised.value)  # which is the same
    whole = (folder / "model.pt").read_bytes()
    (folder / "model.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot be read: RuntimeError: .*Copy it again"):
        scrcl.SCRCL.load(folder, adata=False)


def test_plain_and_back():
    value = {
        "numbers": np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1],
        "flags": np.array([True, False]),
        "scalar": np.float32(0.5),
        "names": np.array(["a", "b"], dtype=object),
        "path": Path("x"),
        "nested": [(1, None), {"of": "text"}],
    }
    plain = files.to_plain(value, "value")
    assert isinstance(plain, dict)
    assert isinstance(plain["numbers"], torch.Tensor)
    back = files.from_plain(plain)
    np.testing.assert_array_equal(back["numbers"], value["numbers"])
    assert back["numbers"].dtype == np.int16
    assert back["flags"].dtype == bool
    assert (back["scalar"], back["names"], back["path"]) == (0.5, ["a", "b"], "x")
    assert back["nested"] == [(1, None), {"of": "text"}]


@dataclass(frozen=True)
class Part:
    kind: ClassVar[str] = "part"
    values: np.ndarray


@dataclass(frozen=True)
class Other(Part):
    kind: ClassVar[str] = "other"
    name: str = "o"


@dataclass(frozen=True)
class Whole:
    parts: dict[str, list[Part]]
    graph: sp.csr_array
    names: pd.Index | None
    labels: tuple[str, ...]
    missing: Part | None = None


def test_an_object_of_dataclasses_is_plain_and_back():
    graph = sp.random_array((3, 3), density=0.5, format="csr", rng=np.random.default_rng(0))
    parts = {"a": [Other(np.arange(2.0), "x"), Part(np.ones(1))]}
    whole = Whole(parts, graph, pd.Index(["i", "j", "k"]), ("t", "u"))
    state = files.to_state(whole)
    assert b"test_files" not in pickle.dumps(state)
    again = files.from_state(Whole, files.from_plain(files.to_plain(state, "state")))
    assert [type(part) for part in again.parts["a"]] == [Other, Part]
    assert again.parts["a"][0].name == "x"
    np.testing.assert_array_equal(again.parts["a"][0].values, [0, 1])
    np.testing.assert_array_equal(again.graph.toarray(), graph.toarray())
    assert (list(again.names), again.labels, again.missing) == (["i", "j", "k"], ("t", "u"), None)
    del state["missing"]
    assert files.from_state(Whole, state).missing is None
    del state["labels"]
    with pytest.raises(TypeError, match="labels"):
        files.from_state(Whole, state)

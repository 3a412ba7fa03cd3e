"""The models of a folder: which one answers a request, and what is said where none can."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from service.errors import ModelNotReady, ModelRequired, ModelUnloaded, UnknownModel
from service.golden import Golden
from service.manifest import GOLDEN, MANIFEST
from service.repository import Repository
from service.settings import Settings
from tests.bundles import BLUE, GREEN, RED, ROLLED, Net, bands, write_bundle


def loaded(
    folder: Path, default: str | None = None, ready: Literal["all", "any"] = "all", variant: str = "auto"
) -> Repository:
    """The folder's models, opened."""
    repository = Repository(Settings(models=folder, default_model=default, ready=ready, variant=variant))
    repository.load()
    return repository


def write_policy(folder: Path, policy: object) -> None:
    text = policy if isinstance(policy, str) else json.dumps(policy)
    (folder / "repository.json").write_text(text)


def write_wrong(folder: Path, name: str, version: int = 1) -> None:
    """A bundle that is refused: its graph is not the one that was proved."""
    shutil.copy(
        write_bundle(folder / ".wrong", f"{name}{version}", nets=Net(weights=ROLLED)) / "model.onnx",
        write_bundle(folder, name, version) / "model.onnx",
    )


def test_a_model_answers_by_its_name(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    write_bundle(tmp_path, "b")
    repository = loaded(tmp_path)
    assert repository.get("b").name == "b"
    assert repository.catalog.names == ("a", "b")
    assert [model.name for model in repository.serving()] == ["a", "b"]
    assert repository.problems() == []


def test_the_only_model_answers_requests_that_name_none(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    assert loaded(tmp_path).get().name == "a"


def test_of_several_models_one_must_be_named_and_they_are_listed(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    write_bundle(tmp_path, "b")
    repository = loaded(tmp_path)
    assert repository.default() is None
    with pytest.raises(ModelRequired, match=r"model=.*a, b"):
        repository.get()


def test_the_settings_name_the_default_and_repository_json_beats_them(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    write_bundle(tmp_path, "b")
    repository = loaded(tmp_path, default="a")
    assert repository.get().name == "a"
    write_policy(tmp_path, {"default": "b"})
    assert repository.get().name == "b"


def test_a_refused_model_beside_the_only_usable_one_leaves_none_the_only_one(tmp_path: Path) -> None:
    # Otherwise requests would silently go to another model while one is broken.
    write_bundle(tmp_path, "a")
    write_wrong(tmp_path, "b")
    with pytest.raises(ModelRequired):
        loaded(tmp_path).get()


@pytest.mark.parametrize("name", ["A", "rgb2", ""])
def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path, "a")
    write_bundle(tmp_path, "b")
    with pytest.raises(ModelRequired if not name else UnknownModel, match="a, b"):
        loaded(tmp_path).get(name)


def test_the_highest_version_answers_and_highest_is_a_number(tmp_path: Path) -> None:
    for version in (2, 9, 10):
        write_bundle(tmp_path, "a", version)
    assert loaded(tmp_path).get("a").version == 10


def test_a_request_may_name_a_version(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, "a", version)
    repository = loaded(tmp_path)
    assert repository.get("a", 1).version == 1
    assert repository.get(None, 1).version == 1


def test_a_version_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    for version in (1, 3):
        write_bundle(tmp_path, "a", version)
    with pytest.raises(UnknownModel, match=r"a has no version 2.*1, 3"):
        loaded(tmp_path).get("a", 2)


def test_a_pinned_version_answers_unless_another_is_asked_for(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, "a", version)
    write_policy(tmp_path, {"pin": {"a": 1}})
    repository = loaded(tmp_path)
    assert repository.get("a").version == 1
    assert repository.get("a", 2).version == 2
    assert [model.version for model in repository.serving()] == [1]


def test_a_refused_version_leaves_the_others_alone(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a", 1)
    write_wrong(tmp_path, "a", 2)
    write_bundle(tmp_path, "b")
    repository = loaded(tmp_path)
    assert repository.get("a").version == 1
    assert repository.get("b").segmenter(bands(RED, GREEN, BLUE)).mask.max() == 2
    assert repository.problems() == []
    (refusal,) = repository.catalog.refused
    assert (refusal.name, refusal.version) == ("a", 2)
    assert "sha256" in refusal.reason


def test_a_refused_version_that_is_asked_for_is_not_ready_and_says_why(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a", 1)
    write_wrong(tmp_path, "a", 2)
    with pytest.raises(ModelNotReady, match="sha256"):
        loaded(tmp_path).get("a", 2)


def test_a_pinned_version_that_is_refused_is_a_problem(tmp_path: Path) -> None:
    write_wrong(tmp_path, "a", 1)
    write_bundle(tmp_path, "a", 2)
    write_policy(tmp_path, {"pin": {"a": 1}})
    repository = loaded(tmp_path)
    with pytest.raises(ModelNotReady, match="sha256"):
        repository.get("a")
    assert len(repository.problems()) == 1


@pytest.mark.parametrize(
    "manifest", ["", "{}", '{"name": "bad\\u0000name"}', "\udcff"], ids=["empty", "bare", "zero byte", "no text"]
)
def test_a_broken_manifest_refuses_that_bundle_only(tmp_path: Path, manifest: str) -> None:
    write_bundle(tmp_path, "a")
    (write_bundle(tmp_path, "b") / MANIFEST).write_bytes(manifest.encode("utf-8", "surrogateescape"))
    repository = loaded(tmp_path)
    assert repository.get("a").name == "a"
    with pytest.raises(ModelNotReady, match=MANIFEST):
        repository.get("b")


def test_a_net_that_fails_on_its_golden_picture_refuses_that_bundle_only(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    picture = bands(RED, GREEN, BLUE)
    golden = Golden(picture, {"fp32": picture.argmax(axis=2).astype(np.uint8)})
    write_bundle(tmp_path, "b", nets=Net(only=(48, 64)), golden=golden)
    repository = loaded(tmp_path)
    assert repository.get("a").name == "a"
    assert len(repository.problems()) == 1


def test_a_damaged_golden_file_refuses_that_bundle_only(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    path = write_bundle(tmp_path, "b") / GOLDEN
    data = bytearray(path.read_bytes())
    data[len(data) // 3 :] = data[len(data) // 3 :][::-1]
    path.write_bytes(data)
    repository = loaded(tmp_path)
    assert repository.get("a").name == "a"
    assert len(repository.problems()) == 1


@pytest.mark.parametrize(("ready", "problems"), [("all", 1), ("any", 0)])
def test_ready_means_all_models_or_any(tmp_path: Path, ready: Literal["all", "any"], problems: int) -> None:
    write_bundle(tmp_path, "a")
    write_wrong(tmp_path, "b")
    assert len(loaded(tmp_path, ready=ready).problems()) == problems


@pytest.mark.parametrize("ready", ["all", "any"])
def test_where_no_model_is_usable_the_service_is_not_ready(tmp_path: Path, ready: Literal["all", "any"]) -> None:
    write_wrong(tmp_path, "a")
    (problem,) = loaded(tmp_path, ready=ready).problems()
    assert "sha256" in problem


@pytest.mark.parametrize("folder", ["empty", "missing"])
@pytest.mark.parametrize("ready", ["all", "any"])
def test_a_folder_without_models_is_a_problem_that_names_it(
    tmp_path: Path, folder: str, ready: Literal["all", "any"]
) -> None:
    (tmp_path / "empty").mkdir()
    repository = loaded(tmp_path / folder, ready=ready)
    (problem,) = repository.problems()
    assert str(tmp_path / folder) in problem
    with pytest.raises(ModelNotReady, match="holds no models"):
        repository.get()
    with pytest.raises(UnknownModel, match="none"):
        repository.get("a")


def test_before_loading_nothing_is_ready(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    repository = Repository(Settings(models=tmp_path))
    assert repository.problems() == ["the models are still loading"]
    for ask in (repository.serving, repository.get, lambda: repository.get("a")):
        with pytest.raises(ModelNotReady, match="loading"):
            ask()


def test_what_is_not_a_finished_bundle_is_not_looked_at(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    shutil.copytree(tmp_path / "a" / "1", tmp_path / "a" / ".2.partial")
    shutil.copytree(tmp_path / "a" / "1", tmp_path / "a" / "latest")
    shutil.copytree(tmp_path / "a", tmp_path / ".trash")
    (write_bundle(tmp_path, "b") / MANIFEST).unlink()
    (tmp_path / "README.md").write_text("models")
    repository = loaded(tmp_path)
    assert repository.catalog.names == ("a",)
    assert repository.catalog.refused == ()


def test_loading_again_finds_what_is_new_and_forgets_what_is_gone(tmp_path: Path) -> None:
    first = write_bundle(tmp_path, "a", 1)
    repository = loaded(tmp_path)
    before = repository.catalog
    write_bundle(tmp_path, "a", 2)
    shutil.rmtree(first)
    repository.load()
    assert list(repository.catalog.models["a"]) == [2]
    assert list(before.models["a"]) == [1]


def test_the_variant_of_the_settings_is_the_one_that_serves(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a", nets={"fp32": Net(), "slow": Net(turns=50_000)})
    assert loaded(tmp_path, variant="slow").get("a").variant.id == "slow"


def test_a_changed_repository_json_counts_at_once(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, "a", version)
    write_bundle(tmp_path, "b")
    repository = loaded(tmp_path)
    write_policy(tmp_path, {"default": "b", "pin": {"a": 1}})
    assert (repository.get().name, repository.get("a").version) == ("b", 1)
    write_policy(tmp_path, {"default": "a", "pin": {"a": 2}})
    assert (repository.get().name, repository.get("a").version) == ("a", 2)
    (tmp_path / "repository.json").unlink()
    with pytest.raises(ModelRequired):
        repository.get()


def test_a_default_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    write_policy(tmp_path, {"default": "b"})
    repository = loaded(tmp_path)
    with pytest.raises(ModelNotReady, match=r"'b'.*a"):
        repository.get()
    assert any("'b'" in problem for problem in repository.problems())
    assert repository.get("a").name == "a"


@pytest.mark.parametrize(
    ("policy", "place"),
    [("{", "JSON"), ({"defualt": "a"}, "defualt"), ({"pin": {"a": "newest"}}, r"pin\.a"), ([], "object")],
)
def test_a_broken_repository_json_is_named_with_its_place(tmp_path: Path, policy: object, place: str) -> None:
    write_bundle(tmp_path, "a")
    write_policy(tmp_path, policy)
    repository = loaded(tmp_path)
    with pytest.raises(ModelNotReady, match=rf"repository\.json: .*{place}"):
        repository.get("a")
    assert any("repository.json" in problem for problem in repository.problems())
    assert repository.serving() == []


def test_while_repository_json_is_broken_the_last_good_one_holds(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, "a", version)
    write_policy(tmp_path, {"pin": {"a": 1}})
    repository = loaded(tmp_path)
    assert repository.get("a").version == 1
    (tmp_path / "repository.json").write_text('{"pin": ')
    assert repository.get("a").version == 1
    assert any("repository.json" in problem for problem in repository.problems())
    write_policy(tmp_path, {"pin": {"a": 2}})
    assert repository.get("a").version == 2
    assert repository.problems() == []


def test_a_version_asked_for_is_served_whatever_repository_json_says(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    (tmp_path / "repository.json").write_text("{")
    repository = loaded(tmp_path)
    assert repository.get("a", 1).version == 1
    with pytest.raises(ModelNotReady, match=r"repository\.json"):
        repository.get("a")


def test_a_pin_to_what_is_not_there_is_the_operators_problem_not_the_clients(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    write_policy(tmp_path, {"pin": {"a": 7}})
    repository = loaded(tmp_path)
    with pytest.raises(ModelNotReady, match="pinned to version 7"):
        repository.get("a")
    assert any("pinned to version 7" in problem for problem in repository.problems())


def test_a_bundle_that_fails_in_an_unforeseen_way_keeps_no_other_from_being_served(tmp_path: Path) -> None:
    write_bundle(tmp_path, "good")
    bad = write_bundle(tmp_path, "bad")
    (bad / "model.onnx").unlink()
    (bad / "model.onnx").symlink_to("model.onnx")
    repository = loaded(tmp_path)
    assert [model.name for model in repository.serving()] == ["good"]
    assert [refusal.name for refusal in repository.catalog.refused] == ["bad"]


def test_a_folder_whose_name_no_model_can_have_is_passed_over(tmp_path: Path) -> None:
    write_bundle(tmp_path, "good")
    shutil.copytree(tmp_path / "good", tmp_path / os.fsdecode(b"\xff\xfe"))
    assert loaded(tmp_path).catalog.names == ("good",)


def test_what_makes_the_service_itself_unusable_is_why_it_is_never_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise OSError("no machine code, and no place for it")

    write_bundle(tmp_path)
    repository = Repository(Settings(models=tmp_path))
    monkeypatch.setattr("service.repository.warm", broken)
    with pytest.raises(OSError, match="no place"):
        repository.load()
    (reason,) = repository.problems()
    assert "no machine code" in reason
    with pytest.raises(ModelNotReady, match="no machine code"):
        repository.get()


def test_a_new_version_is_opened_once_it_has_settled_and_then_serves(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a", 1)
    repository = loaded(tmp_path)
    old = repository.get("a")
    write_bundle(tmp_path, "a", 2)
    repository.refresh(frozenset(), at_once=False)
    assert repository.get("a") is old  # it may still be on its way
    repository.refresh(frozenset(), at_once=False)
    assert repository.get("a").version == 2
    assert repository.get("a", 1) is old
    shutil.rmtree(tmp_path / "a" / "2")
    repository.refresh(frozenset(), at_once=False)
    assert repository.get("a") is old


def test_a_wrong_new_version_is_refused_and_the_old_one_goes_on(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a", 1)
    repository = loaded(tmp_path)
    write_wrong(tmp_path, "a", 2)
    repository.refresh(frozenset(), at_once=True)
    assert repository.get("a").version == 1
    (refusal,) = repository.catalog.refused
    assert (refusal.version, "sha256" in refusal.reason) == (2, True)
    assert repository.problems() == []
    assert repository.get("a", 1).version == 1
    with pytest.raises(ModelNotReady, match="sha256"):
        repository.get("a", 2)


def test_a_half_copied_bundle_is_opened_when_the_rest_has_come(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    repository = loaded(tmp_path)
    folder = write_bundle(tmp_path, "b")
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        repository.refresh(frozenset(), at_once=False)
    assert [refusal.name for refusal in repository.catalog.refused] == ["b"]
    (folder / "model.onnx").write_bytes(whole)
    for _ in range(2):
        repository.refresh(frozenset(), at_once=False)
    assert repository.catalog.refused == ()
    assert repository.get("b").name == "b"


def test_a_version_that_is_overwritten_by_a_wrong_one_goes_on_as_it_was(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "a")
    repository = loaded(tmp_path)
    old = repository.get("a")
    (folder / "model.onnx").write_bytes(b"something else")
    repository.refresh(frozenset(), at_once=True)
    assert repository.get("a") is old
    assert [refusal.name for refusal in repository.catalog.refused] == ["a"]


def test_an_unloaded_model_is_not_served_and_is_no_reason_not_to_be_ready(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_bundle(tmp_path, name)
    repository = loaded(tmp_path, default="a")
    repository.refresh(frozenset({"a"}), at_once=True)
    with pytest.raises(ModelUnloaded, match="unloaded"):
        repository.get()
    assert [model.name for model in repository.serving()] == ["b"]
    assert repository.problems() == []
    assert repository.catalog.names == ("a", "b")
    repository.refresh(frozenset(), at_once=True)
    assert repository.get().name == "a"


def test_a_model_that_is_unloaded_from_the_beginning_is_not_opened(tmp_path: Path) -> None:
    write_bundle(tmp_path, "a")
    write_wrong(tmp_path, "b")
    repository = Repository(Settings(models=tmp_path))
    repository.load(frozenset({"b"}))
    assert repository.catalog.refused == ()
    assert repository.problems() == []


def test_who_asks_while_a_model_goes_is_told_of_what_was_there_at_one_moment(tmp_path: Path) -> None:
    models, aside = tmp_path / "models", tmp_path / "aside"
    for name in ("a", "b"):
        write_bundle(models, name)
    repository = loaded(models)
    ended = threading.Event()

    def come_and_go() -> None:
        for _ in range(40):
            (models / "b").rename(aside)
            repository.refresh(frozenset(), at_once=True)
            aside.rename(models / "b")
            repository.refresh(frozenset(), at_once=True)
        ended.set()

    keeper = threading.Thread(target=come_and_go)
    keeper.start()
    while not ended.is_set():
        assert repository.problems() == []
        assert [model.name for model in repository.serving()] in (["a"], ["a", "b"])
        assert repository.versions("b") in ([], [1])
    keeper.join()


def test_while_the_folder_cannot_be_read_everything_stays_as_it_is(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_bundle(models, "a")
    repository = loaded(models)
    models.rename(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="models"):
        repository.refresh(frozenset(), at_once=False)
    assert repository.get("a").name == "a"

"""What differs between two trees, compared folder by folder, is what git finds."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from reconciler.desired.source.command import printable
from reconciler.desired.source.git import Source
from tests.support import Repository

NAMES = ["a", "b", "a.b", "a-b", "ü", "with space", "line\nbreak", "A"]


def change(root: Path, chance: random.Random) -> None:
    """Change some files and folders: contents, modes, types."""
    for _ in range(chance.randint(1, 8)):
        path = root.joinpath(*chance.choices(NAMES, k=chance.randint(1, 4)))
        for parent in path.relative_to(root).parents:
            above = root / parent
            if above.is_symlink() or above.is_file():
                above.unlink()
        match chance.choice(["write", "write", "write", "remove", "link", "mode"]):
            case "remove":
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            case "mode" if path.is_file():
                path.chmod(0o755)
            case kind:
                if path.is_dir():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == "link":
                    path.symlink_to("target")
                else:
                    path.write_text(str(chance.randint(0, 3)))


@pytest.mark.parametrize("seed", range(6))
def test_what_differs_is_what_git_finds_in_one_go(repository: Repository, seed: int) -> None:
    chance = random.Random(seed)
    files = repository.path / "files"
    source = Source(repository.path / ".git", repository.path, None, "")
    trees = []
    for _ in range(5):
        files.mkdir(exist_ok=True)
        change(files, chance)
        repository.commit()
        trees.append(source.revision().tree)
    for old, new in zip(trees, [*trees[1:], trees[0]], strict=True):
        raw = source.run("diff-tree", "-r", "-z", "--raw", "--no-renames", old, new).stdout
        fields = iter(raw.split(b"\0"))
        expected = []
        for facts, path in zip(fields, fields, strict=False):
            before, after, old_id, new_id = facts.decode().lstrip(":").split(" ")[:4]
            expected.append((printable(path), before, old_id, after, new_id))
        found = source.changed_files(old, new)
        assert found is not None
        seen = []
        for one in found:
            sides = [
                (side.mode, side.object_id) if side is not None else ("000000", "0" * 40)
                for side in (one.old, one.new)
            ]
            seen.append((one.path, *sides[0], *sides[1]))
        assert sorted(seen) == sorted(expected)
    assert source.changed_files(trees[0], trees[0]) == []
    assert source.changed_files(trees[0], "0" * 39 + "1") is None

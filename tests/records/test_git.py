"""What git is set to locally decides nothing of what a record says, and runs nothing."""

import os
import shutil
import socket
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from gessl.audit import repository
from gessl.records import git as door
from gessl.records import provenance
from gessl.records.git import GitError, Objects
from gessl.records.present import digest
from tests.support.repositories import commit, git, write

FILES = {
    "gessl/__init__.py": "",
    "gessl/rng.py": "seed = 1\n",
    "config/config.yaml": "name: x\n",
    "workflow/rules/all.smk": "rule all:\n",
    "Snakefile": "include: 'x'\n",
    "README.md": "not read by any step\n",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a small package of ours, whose state is asked for."""
    home = tmp_path / "home"
    for name in FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
    write(home, FILES)
    commit(home)
    monkeypatch.setattr(provenance, "PACKAGE", home / "gessl")
    monkeypatch.setattr(repository, "HOME", home)
    return home


def state() -> dict[str, str | None]:
    return provenance.code_state.__wrapped__()


def test_a_clean_clone_is_clean_and_its_commit_has_what_it_has(home: Path) -> None:
    (home / "README.md").write_text("changed\n", encoding="utf-8")  # decides nothing
    (home / "gessl/.rng.py.swp").write_text("x", encoding="utf-8")
    found = state()
    assert (found["commit"], found["dirty"]) == (git(home, "rev-parse", "HEAD"), None)
    assert repository.states_at(str(found["commit"])) == {key: found[key] for key in ("sources", "rules")}
    assert "git" not in found


def replaced(home: Path) -> None:
    honest = git(home, "rev-parse", "HEAD")
    write(home, {"gessl/rng.py": "seed = 2\n"})
    forged = commit(home)
    git(home, "reset", "--quiet", "--soft", honest)
    git(home, "replace", honest, forged)


def grafted(home: Path) -> None:
    honest = git(home, "rev-parse", "HEAD")
    write(home, {"gessl/rng.py": "seed = 2\n"})
    (home / ".git/info/grafts").write_text(f"{honest} {commit(home)}\n", encoding="utf-8")
    git(home, "reset", "--quiet", "--soft", honest)


def told_to_look_away(how: str, name: str) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        git(home, "update-index", how, name)
        write(home, {name: "other\n"})

    return change


def ignored(home: Path) -> None:
    (home / ".git/info/exclude").write_text("new.py\n", encoding="utf-8")
    write(home, {"gessl/new.py": "x = 1\n"})


def filtered(home: Path) -> None:
    (home / ".git/info/attributes").write_text("*.py filter=hide\n", encoding="utf-8")
    git(home, "config", "filter.hide.clean", f"touch {home}/ran; echo 'seed = 1'")
    write(home, {"gessl/rng.py": "seed = 2\n"})


def sparse(home: Path) -> None:
    git(home, "sparse-checkout", "set", "--no-cone", "/gessl", "/Snakefile", "/workflow")
    assert not (home / "config").exists()


def line_ends(home: Path) -> None:
    git(home, "config", "core.autocrlf", "true")
    (home / "gessl/rng.py").write_bytes(b"seed = 1\r\n")


CHANGES: dict[str, Callable[[Path], object]] = {
    "replaced": replaced,
    "grafted": grafted,
    "assumed unchanged": told_to_look_away("--assume-unchanged", "workflow/rules/all.smk"),
    "not in the work tree": told_to_look_away("--skip-worktree", "config/config.yaml"),
    "the workflow": told_to_look_away("--assume-unchanged", "Snakefile"),
    "ignored": ignored,
    "filtered": filtered,
    "sparse": sparse,
    "line ends": line_ends,
    "a link": lambda home: ((home / "gessl/rng.py").unlink(), (home / "gessl/rng.py").symlink_to("../README.md")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_whatever_git_was_told(home: Path, name: str) -> None:
    honest = git(home, "rev-parse", "HEAD")
    true = repository.states_at(honest)
    CHANGES[name](home)
    found = state()
    assert (found["commit"], bool(found["dirty"])) == (honest, True)
    assert repository.states_at(honest) == true
    assert {key: found[key] for key in true} != true
    assert not (home / "ran").exists()


@pytest.mark.parametrize(
    "setting", ["core.autocrlf=true", "core.eol=crlf", "core.fileMode=true", "core.ignoreCase=true"]
)
def test_a_setting_made_after_the_clone_changes_nothing(home: Path, setting: str) -> None:
    before = state()
    git(home, "config", *setting.split("="))
    (home / ".git/info/attributes").write_text("* text=auto eol=crlf ident\n", encoding="utf-8")
    (home / "gessl/rng.py").chmod(0o755)
    assert state() == before
    assert repository.states_at(str(before["commit"]))["sources"] == before["sources"]


def test_what_a_hook_or_a_shell_told_git_counts_for_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state()
    other = tmp_path / "other"
    other.mkdir()
    write(other, {"x": ""})
    commit(other)
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git/index",
        "GIT_OBJECT_DIRECTORY": other / ".git/objects",
        "GIT_CEILING_DIRECTORIES": home.parent,
        "GIT_NAMESPACE": "x",
    }.items():
        monkeypatch.setenv(name, str(value))
    assert state() == before


def test_no_command_of_a_repositorys_settings_runs(home: Path) -> None:
    """Those of hooks, monitors, pagers, textconv, and of the remote of a clone that lacks objects."""
    ran, before = home.parent / "ran", git(home, "rev-parse", "HEAD")
    evil = home.parent / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {ran}\n", encoding="utf-8")
    evil.chmod(0o755)
    write(home, {"gessl/rng.py": "seed = 2\n", ".gitattributes": "* diff=evil filter=evil\n"})
    after = commit(home)
    for key in ("core.fsmonitor", "core.sshCommand", "core.pager", "diff.evil.textconv", "diff.external"):
        git(home, "config", key, str(evil))
    for key in ("filter.evil.clean", "filter.evil.smudge", "diff.evil.command", "remote.origin.uploadpack"):
        git(home, "config", key, str(evil))
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": "ssh://example.invalid/x",
        "protocol.allow": "always",
    }.items():
        git(home, "config", key, value)
    subprocess.run(["git", "-C", str(home), "-c", "core.fsmonitor=false", "status"], capture_output=True)
    ran.unlink(missing_ok=True)
    state()
    assert [file["path"] for file in repository.changed_files(before, after) or []] == ["gessl/rng.py"]
    blob = git(home, "-c", "core.fsmonitor=false", "rev-parse", f"{before}:gessl/rng.py")
    (home / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(GitError, match=f"git object {blob[:12]} is not in this repository|git: "):
        repository.states_at(before)
    assert not ran.exists()


FAKE_GIT = """#!/bin/sh
echo "fatal: detected dubious ownership in repository at 'home'" >&2
echo "To add an exception for this directory, call: ..." >&2
exit 128
"""


@pytest.mark.parametrize("refuses", [True, False])
def test_a_git_that_refuses_or_is_not_there_is_told_in_one_line(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refuses: bool
) -> None:
    before = state()
    tools = tmp_path / "tools"
    tools.mkdir()
    if refuses:
        (tools / "git").write_text(FAKE_GIT, encoding="utf-8")
        (tools / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin" if refuses else str(tools))
    why = "git: detected dubious ownership in repository at 'home'" if refuses else "git is not installed"
    found = state()
    assert found == before | {"commit": None, "git": why}
    assert capsys.readouterr().err == f"gessl: {why}; what is made now names no commit\n"
    with pytest.raises(GitError, match=why):
        repository.states_at(str(before["commit"]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_clone_of_another_user_is_one_that_git_refuses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home.parent))  # no exception of one's own
    os.chown(home, 12345, 12345)
    os.chown(home / ".git", 12345, 12345)
    found = state()
    assert found["commit"] is None
    assert "dubious ownership" in str(found["git"])


def test_odd_files_are_facts_and_stop_nothing(home: Path, tmp_path: Path) -> None:
    """An editor's locks, links to folders and in rings, a repository in the repository, sockets, names of any bytes."""
    clean = state()
    (home / "config/.#config.yaml").symlink_to("someone@host.1234:5678")
    os.mkfifo(home / "gessl/pipe.py")
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(home / "config")  # a socket's path is short
        server.bind("socket")
        os.chdir(before)
    assert state() == clean, "what no commit can hold, or nobody reads"
    (tmp_path / "elsewhere").mkdir()
    (home / "config/folder").symlink_to(tmp_path / "elsewhere")
    with_link = state()
    (tmp_path / "elsewhere/x.yaml").write_text("x", encoding="utf-8")
    assert state() == with_link, "a link counts by its target's text"
    (home / "config/folder").unlink()
    (home / "config/folder").symlink_to(tmp_path / "elsewhere2")
    (home / "gessl/ring.py").symlink_to("ring.py")
    (home / "gessl/loose.py").symlink_to("nowhere")
    write(home / "config/nested", {"x.yaml": "x"})
    (home / os.fsdecode(b"config/\xff.yaml")).write_text("x", encoding="utf-8")
    odd = state()
    assert len({clean["dirty"], with_link["dirty"], odd["dirty"]}) == 3
    assert odd["commit"] == clean["commit"]
    assert digest(home / "config", link=False) == "unreadable: Is a directory"
    assert digest(home / "gone", link=False) is None


@pytest.mark.parametrize("name", ["HEAD", "main", "HEAD~0", "v1", "{short}", "{tag}", "{tree}", "--help", "", "A" * 40])
def test_only_the_whole_hash_of_a_commit_is_one(home: Path, name: str) -> None:
    git(home, "branch", "--force", "other")
    git(home, "tag", "--annotate", "--message", "x", "v1")
    known = {key: git(home, "rev-parse", text) for key, text in {"tag": "v1", "tree": "HEAD^{tree}"}.items()}
    with pytest.raises(GitError):
        repository.states_at(name.format(short=git(home, "rev-parse", "--short", "HEAD"), **known))


def test_an_object_that_does_not_hold_what_its_name_says_is_refused(home: Path) -> None:
    blob = git(home, "rev-parse", "HEAD:gessl/rng.py")
    place = home / ".git/objects" / blob[:2] / blob[2:]
    place.unlink()
    place.write_bytes(zlib.compress(b"blob 9\0seed = 2\n"))
    with pytest.raises(GitError):
        repository.states_at(git(home, "rev-parse", "HEAD"))


def test_a_commit_of_a_million_paths_is_refused_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few folders that hold each other many times over."""
    monkeypatch.setattr(door, "MOST", 2000)

    def tree(lines: str) -> str:
        done = subprocess.run(["git", "-C", str(home), "mktree"], input=lines, capture_output=True, encoding="utf-8")
        return done.stdout.strip()

    inner = tree(f"100644 blob {git(home, 'rev-parse', 'HEAD:README.md')}\tx\n")
    for _ in range(8):
        inner = tree("".join(f"040000 tree {inner}\t{name}\n" for name in "abcdefghij"))
    forged = git(home, "commit-tree", "-m", "x", tree(f"040000 tree {inner}\tgessl\n"))
    with pytest.raises(GitError, match="holds more than 2000 files"):
        repository.states_at(forged)


def test_a_project_in_a_folder_of_its_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = tmp_path / "top"
    for name in FILES:
        (top / "below" / name).parent.mkdir(parents=True, exist_ok=True)
    write(top, {f"below/{name}": text for name, text in FILES.items()})
    whole = commit(top)
    monkeypatch.setattr(provenance, "PACKAGE", top / "below/gessl")
    monkeypatch.setattr(repository, "HOME", top / "below")
    found = state()
    assert (found["commit"], found["dirty"]) == (whole, None)
    assert repository.file_at(whole, Path("config/config.yaml")) == b"name: x\n"
    with Objects(top) as objects:
        assert set(objects.files(whole, ["gessl"], "below")) == {
            PurePosixPath("gessl/__init__.py"),
            PurePosixPath("gessl/rng.py"),
        }


def worktree(home: Path, place: Path) -> None:
    git(home, "worktree", "add", "--quiet", "--detach", str(place))


def submodule(home: Path, place: Path) -> None:
    above = place.parent / "above"
    above.mkdir()
    git(above, "init", "--quiet")
    git(above, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(home), "inner")
    place.symlink_to(above / "inner")


def shallow(home: Path, place: Path) -> None:
    write(home, {"gessl/rng.py": "seed = 3\n"})
    commit(home)
    git(home, "clone", "--quiet", "--depth", "1", home.as_uri(), str(place))


def packed(home: Path, place: Path) -> None:
    git(home, "clone", "--quiet", str(home), str(place))
    git(place, "gc", "--quiet", "--aggressive", "--prune=now")
    git(place, "pack-refs", "--all")


def borrowed(home: Path, place: Path) -> None:
    git(home, "clone", "--quiet", "--shared", str(home), str(place))


def of_longer_hashes(home: Path, place: Path) -> None:
    git(place.parent, "init", "--quiet", "--object-format=sha256", str(place))
    shutil.copytree(home, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", "x")


@pytest.mark.parametrize("form", [worktree, submodule, shallow, packed, borrowed, of_longer_hashes])
def test_a_repository_of_any_form_is_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Callable[[Path, Path], None]
) -> None:
    place = tmp_path / "place"
    form(home, place)
    monkeypatch.setattr(provenance, "PACKAGE", place / "gessl")
    monkeypatch.setattr(repository, "HOME", place)
    found = state()
    assert (found["commit"], found["dirty"]) == (git(place, "rev-parse", "HEAD"), None)
    assert repository.states_at(str(found["commit"])) == {key: found[key] for key in ("sources", "rules")}
    write(place, {"gessl/rng.py": "seed = 9\n"})
    assert state()["dirty"] is not None

import shutil
import subprocess
from pathlib import Path

import pytest

from gessl.audit.signing import HEAD, SIGNATURE, sign, signed_head
from gessl.cli import main
from gessl.errors import UserError
from tests.support.toy_project import RUN, scored

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


def _key(folder: Path, name: str) -> Path:
    path = folder / name
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return _key(tmp_path, "lead")


@pytest.fixture
def signers(key: Path) -> Path:
    """Those whose signatures count: the lead."""
    path = key.with_name("signers")
    path.write_text(f"lead@example.org {key.with_suffix('.pub').read_text(encoding='utf-8')}", encoding="utf-8")
    return path


def _head(capsys: pytest.CaptureFixture[str]) -> str:
    main(["audit"])
    return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("head: "))[6:]


def test_a_signed_tree_passes_and_the_signer_is_named(
    project: Path, key: Path, signers: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = _head(capsys)
    assert main(["sign", str(key)]) == 0
    assert capsys.readouterr().out == f"{SIGNATURE}\n"
    assert HEAD.read_text(encoding="utf-8") == f"{head}\n"
    assert main(["audit", "--signed", str(signers)]) == 0
    told = capsys.readouterr()
    assert told.err == f"{head}: signed by lead@example.org\n" and told.out.startswith("audit passed")
    assert signed_head(project / "results", signers) == (head, "lead@example.org")
    monkeypatch.chdir("results/runs")
    assert signed_head(Path(".."), signers) == (head, "lead@example.org")


def test_openssh_itself_accepts_the_signature(project: Path, key: Path, signers: Path) -> None:
    sign(key)
    command = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "lead@example.org", "-n", "gessl", "-s", SIGNATURE]
    with open(HEAD, "rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and "Good" in done.stdout


def test_results_written_anew_since_are_found(
    project: Path, key: Path, signers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole report removed, record and all: nothing is left that could miss it, but the head."""
    sign(key)
    shutil.rmtree("results/report/grid")
    assert main(["audit"]) == 0
    assert main(["audit", "--signed", str(signers)]) == 1
    assert "its head is" in capsys.readouterr().out


def test_what_was_not_signed_so_does_not_pass(
    project: Path, key: Path, signers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "--signed", str(signers)]) == 2
    assert "no signatures/results.head.sig" in capsys.readouterr().err
    sign(_key(tmp_path, "stranger"))
    with pytest.raises(UserError, match="by nobody in"):
        signed_head(Path(), signers)
    sign(key)
    good = HEAD.read_text(encoding="utf-8")
    HEAD.write_text(good.replace(good[0], "0" if good[0] != "0" else "1", 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"no valid signature of signatures/results\.head by lead"):
        signed_head(Path(), signers)
    HEAD.write_bytes(b"\xff" + good.encode())
    with pytest.raises(UserError, match=r"no valid signature of signatures/results\.head by lead"):
        signed_head(Path(), signers)
    HEAD.write_text(good, encoding="utf-8")
    other = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", "git", str(HEAD)]
    SIGNATURE.unlink()
    subprocess.run(other, check=True, capture_output=True)
    with pytest.raises(UserError, match="no valid signature"):
        signed_head(Path(), signers)
    with pytest.raises(UserError, match="absent: no such file"):
        signed_head(Path(), Path("absent"))


def test_faulty_results_are_not_signed(project: Path, key: Path) -> None:
    (scored(RUN) / "scores.csv").write_text("id\n", encoding="utf-8")
    with pytest.raises(UserError, match="results: not signed, the audit found faults"):
        sign(key)
    assert not HEAD.exists() and not SIGNATURE.exists()


def test_bad_keys_are_one_line_and_leave_nothing(
    project: Path, key: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["sign", "absent"]) == 2
    Path("rubbish").write_text("no key\n", encoding="utf-8")
    assert main(["sign", "rubbish"]) == 2
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["sign", str(key)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [error.split(":")[1].strip() for error in errors] == ["absent", "rubbish", "ssh-keygen"]
    assert not HEAD.parent.exists()

"""A signature of the results' head by an SSH key: who vouches for every byte that the records name.

Made and checked by `ssh-keygen -Y` (OpenSSH 8.1 or later), without network. The head and its signature lie next to
`results/`, not in it, where they would belong to no record, and are small enough for git.
"""

import subprocess
import tempfile
from pathlib import Path

from gessl.audit.audit import FOUND, audit, project_root
from gessl.errors import UserError
from gessl.files import atomic_text, read_bounded
from gessl.layout import RESULTS

NAMESPACE = "gessl"  # of the signature: one made for another purpose does not pass
HEAD = Path("signatures/results.head")
SIGNATURE = Path("signatures/results.head.sig")
HEAD_BYTES = 1 << 10  # most bytes of a head: it has 65


def sign(key: Path) -> Path:
    """Audit the project in the working directory and sign its head; returns the path of the signature.

    Args:
        key: a private key, or the public half of one that the SSH agent holds. A passphrase is asked for.

    Raises:
        UserError: the audit found faults, or `ssh-keygen` cannot sign with the key.
    """
    if not key.is_file():
        raise UserError(f"{key}: no such key; `ssh-keygen -t ed25519 -f {key}` makes one")
    verdict = audit()
    if verdict.exit_code == FOUND:
        raise UserError(f"{RESULTS}: not signed, the audit found faults; `gessl audit` names them and how to fix them")
    text = f"{verdict.head}\n"
    with tempfile.TemporaryDirectory() as folder:
        message = Path(folder) / HEAD.name
        message.write_text(text, encoding="utf-8")
        _ssh_keygen(f"{key}: cannot sign with it", "sign", "-f", key, "-n", NAMESPACE, message)
        signature = message.with_name(SIGNATURE.name).read_text(encoding="utf-8")
    atomic_text(HEAD, text)
    atomic_text(SIGNATURE, signature)
    return SIGNATURE


def signed_head(project: Path, allowed_signers: Path) -> tuple[str, str]:
    """The head that was signed, and by whom, once the signature is verified.

    Args:
        project: the project's root, or its folder of results.
        allowed_signers: whose signatures count: lines of a name and a public key (see `man ssh-keygen`).

    Raises:
        UserError: nothing was signed, or not by one of `allowed_signers`, or the head was altered since.
    """
    root = project_root(project)
    if not (root / SIGNATURE).is_file() or not (root / HEAD).is_file():
        raise UserError(f"{project}: no {SIGNATURE} next to the results; `gessl sign` makes it")
    if not allowed_signers.is_file():
        raise UserError(f"{allowed_signers}: no such file; it names those whose signatures count, with their keys")
    path, message = root / SIGNATURE, read_bounded(root / HEAD, HEAD_BYTES).decode(errors="replace")
    common = ("-f", allowed_signers, "-s", path)
    found = _ssh_keygen(f"{path}: by nobody in {allowed_signers}", "find-principals", *common)
    signer = next((line for line in found.splitlines() if not line.startswith("!")), "")  # `!name`: all but that one
    if not signer:
        raise UserError(f"{path}: by a key of which {allowed_signers} says only whose it is not; name its owner there")
    fault = f"{path}: no valid signature of {root / HEAD} by {signer}"
    _ssh_keygen(fault, "verify", *common, "-I", signer, "-n", NAMESPACE, text=message)
    return message.strip(), signer


def _ssh_keygen(fault: str, verb: str, *arguments: str | Path, text: str = "") -> str:
    """What `ssh-keygen -Y VERB` printed; `fault` is said where it refuses."""
    try:
        command = ["ssh-keygen", "-Y", verb, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"ssh-keygen: cannot be started ({error.strerror}); install the OpenSSH client") from None
    if done.returncode:
        reason = "; ".join((done.stderr or done.stdout).split("\n")).strip("; \r")
        raise UserError(f"{fault} ({reason})")
    return done.stdout

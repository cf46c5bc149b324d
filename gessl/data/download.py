"""Downloads that go on where they broke off, and are hashed while their bytes arrive.

What has come of a file is `work/fetch/<data set>/<file>.part`; `<file>.json` next to it says of which version it is. A
server that knows ranges (RFC 9110, sections 13.1.5 and 14) sends the rest of the same version; from any other the file
is begun again.
"""

import errno
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from gessl.data.fields import RawFile
from gessl.data.part import BLOCK, Mismatch, Part
from gessl.data.progress_bar import ProgressBar
from gessl.notices import say

TIMEOUT = 60  # seconds without an answer
WAITS = (1, 2, 4, 8, 16)
"""Seconds before each new try. After a byte has come they begin anew."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of a server that may serve later."""
NO_FILE = (ValueError, OSError, http.client.HTTPException)
"""What a download may raise that comes to nothing; `ValueError` of an address or a header."""


def download(file: RawFile, folder: Path) -> Path:
    """Have a published file, whole and as its registry says, in `folder`.

    Args:
        file: what to get, by http or https.
        folder: where what has come of it is, and stays if this fails for a reason that may pass.

    Returns:
        The path of the file, to which nobody may write.

    Raises:
        Mismatch: size or checksum are not the published ones; nothing is kept.
        UserError: no room, or another process is getting it.
        OSError, ValueError, http.client.HTTPException: it cannot be had, or not now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with Part(file, folder) as part:
            continued = part.size > 0
            continued |= _get(part)
            wrong = next(part.differences(), None)
            if wrong and continued:
                say(f"{file.source}: {wrong[0]} differs after it broke off; getting it once more from the start")
                part.restart()
                _get(part)
                wrong = next(part.differences(), None)
            if wrong:
                part.remove()
                raise Mismatch(*wrong)
            return part.path
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def _get(part: Part) -> bool:
    """Receive until the file is whole; whether it took more than one connection."""
    tries = connections = 0
    while True:
        before, connections = part.size, connections + 1
        try:
            _receive(part)
            return connections > 1
        except NO_FILE as error:
            tries = 0 if part.size > before else tries
            if not _passes(error) or tries == len(WAITS):
                raise
            wait = WAITS[tries]
            say(f"{part.file.source}: {_reason(error)}; trying again in {wait} s, from byte {part.size:,}")
            time.sleep(wait)
            tries += 1


def _receive(part: Part) -> None:
    """All that is missing, from one connection.

    Raises:
        ConnectionError: it broke off.
    """
    if part.is_whole():
        return
    try:
        with urllib.request.urlopen(part.request(), timeout=TIMEOUT) as answer:
            part.begin(answer)
            with ProgressBar(f"{part.file.name}: downloaded", part.total or 0, "bytes", part.size) as progress:
                while block := answer.read1(BLOCK):
                    part.add(block)
                    progress.add(len(block))
    except urllib.error.HTTPError as error:
        if error.code != 416 or not part.size:  # there is no such range
            raise
        whole = re.fullmatch(r"bytes \*/([0-9]+)", error.headers.get("Content-Range", ""))
        if whole and int(whole[1]) == part.size:
            return
        part.restart()
        raise ConnectionError("has no such range") from None
    if part.total is not None and part.size < part.total:
        raise ConnectionError(f"broke off after {part.size} of {part.total} bytes")


def _passes(error: Exception) -> bool:
    """Whether it may go better in a while."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in PASSING
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError | http.client.InvalidURL):
        return False
    if isinstance(cause, socket.gaierror):
        return cause.errno == socket.EAI_AGAIN
    lost = isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return lost or isinstance(cause, ConnectionError | TimeoutError | http.client.HTTPException | ssl.SSLError)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error or type(error).__name__)

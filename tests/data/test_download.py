"""Downloads over a line that breaks, from servers that know ranges or not, serve another file, lie, or fall silent."""

import contextlib
import hashlib
import http.server
import os
import re
import shutil
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gessl.data import download as downloading
from gessl.data import dvc_store, part, progress_bar
from gessl.data.download import download
from gessl.data.fetch import fetch
from gessl.data.fields import RawFile
from gessl.data.part import Mismatch
from gessl.data.pin import verify_raw
from gessl.errors import UserError
from tests.support.disk import KILLED, Fault, attempt

CONTENT = bytes(range(256)) * 4000
HALF = len(CONTENT) // 2


class Site:
    """Serves `content`; what is set aside in `moods` is done to one request each, in turn.

    Attributes:
        asked: the `Range` and `If-Range` of each request.
    """

    def __init__(self) -> None:
        self.content, self.tag, self.ranges = CONTENT, '"one"', True
        self.moods: list[Callable[[http.server.BaseHTTPRequestHandler], bool]] = []
        self.asked: list[tuple[str | None, str | None]] = []
        self.address = ""

    def serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """As RFC 9110 has it."""
        span, version = handler.headers["Range"], handler.headers["If-Range"]
        self.asked.append((span, version))
        if self.moods and self.moods.pop(0)(handler):
            return
        start = int(span[6:-1]) if span and self.ranges and version in (None, self.tag) else 0
        if start and start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.tag:
            handler.send_header("ETag", self.tag)
        handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        handler.wfile.write(self.content[start:])


def breaks(at: int = HALF) -> Callable[[Any], bool]:
    """The line breaks after that many bytes of what the server has at that time."""

    def mood(handler: Any) -> bool:
        write = handler.wfile.write

        def some(data: bytes) -> None:
            write(data[:at])

        handler.wfile.write = lambda data: write(data) if data.startswith(b"HTTP/") else some(data)
        return False

    return mood


def says(status: int) -> Callable[[Any], bool]:
    def mood(handler: Any) -> bool:
        handler.send_error(status)
        return True

    return mood


def silent(handler: Any) -> bool:
    time.sleep(0.6)
    return True


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloading, "WAITS", (0, 0))
    it = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                it.serve(self)

        def log_message(self, *arguments: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    it.address = f"http://127.0.0.1:{server.server_address[1]}/a.bin"
    yield it
    server.shutdown()
    thread.join()
    server.server_close()


def raw_file(site: Site, content: bytes = CONTENT, **changes: Any) -> RawFile:
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "md5": None} | changes
    return RawFile("a.bin", site.address, **facts)


def unknown(site: Site) -> RawFile:
    return raw_file(site, bytes=None, sha256=None)


@pytest.mark.parametrize("known", [raw_file, unknown])
def test_it_goes_on_where_the_line_broke(site: Site, tmp_path: Path, known: Callable[..., RawFile]) -> None:
    site.moods = [breaks(), breaks(1000), says(503)]
    assert download(known(site), tmp_path / "mine").read_bytes() == CONTENT
    assert site.asked == [
        (None, None),
        (f"bytes={HALF}-", '"one"'),
        (f"bytes={HALF + 1000}-", '"one"'),
        (f"bytes={HALF + 1000}-", '"one"'),
    ]


def test_what_came_is_kept_and_the_next_attempt_goes_on(site: Site, tmp_path: Path) -> None:
    site.moods = [breaks(), says(500), says(429)]
    with pytest.raises(OSError, match="Too Many Requests"):
        download(raw_file(site), tmp_path)
    assert (tmp_path / "a.bin.part").stat().st_size == HALF
    site.asked.clear()
    assert download(raw_file(site), tmp_path).read_bytes() == CONTENT
    assert site.asked == [(f"bytes={HALF}-", '"one"')]
    site.asked.clear()
    assert download(raw_file(site), tmp_path).read_bytes() == CONTENT and not site.asked, "whole: nobody is asked"


def test_a_server_without_ranges_is_asked_from_the_start(site: Site, tmp_path: Path) -> None:
    site.ranges, site.moods = False, [breaks()]
    assert download(raw_file(site), tmp_path).read_bytes() == CONTENT
    assert len(site.asked) == 2


@pytest.mark.parametrize("known", [True, False])
def test_another_file_at_the_second_try_is_taken_from_its_start(site: Site, tmp_path: Path, known: bool) -> None:
    other = CONTENT[::-1]

    def changed(handler: Any) -> bool:
        site.content, site.tag = other, '"two"'
        return False

    site.moods = [breaks(), changed]
    file = raw_file(site, other) if known else unknown(site)
    assert download(file, tmp_path).read_bytes() == other
    assert site.asked[1] == (f"bytes={HALF}-", '"one"')


def test_another_file_without_a_word_is_found_by_its_hash(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.tag = ""
    other = CONTENT[::-1]
    site.content, site.moods = other, [breaks()]

    def published(handler: Any) -> bool:
        site.content = CONTENT
        return False

    site.moods.append(published)
    assert download(raw_file(site), tmp_path).read_bytes() == CONTENT
    assert site.asked == [(None, None), (f"bytes={HALF}-", None), (None, None)]
    assert "SHA-256 differs after it broke off; getting it once more" in capsys.readouterr().err
    site.content = other
    shutil.rmtree(tmp_path)
    with pytest.raises(Mismatch):
        download(raw_file(site), tmp_path)
    assert not tmp_path.exists()


def test_without_hash_and_version_nothing_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    site.tag, site.moods = "", [breaks(), says(500), says(500)]
    with pytest.raises(OSError, match="Internal Server Error"):
        download(unknown(site), tmp_path)
    site.asked.clear()
    assert download(unknown(site), tmp_path).read_bytes() == CONTENT
    assert site.asked == [(None, None)]


def test_more_bytes_than_stated_end_it(site: Site, tmp_path: Path) -> None:
    def endless(handler: Any) -> bool:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(CONTENT)

    site.moods = [endless]
    with pytest.raises(ValueError, match=f"more than the published {len(CONTENT)} bytes"):
        download(raw_file(site), tmp_path / "mine")
    assert not (tmp_path / "mine").exists() and len(site.asked) == 1


def test_another_size_than_published_is_known_from_the_first_answer(site: Site, tmp_path: Path) -> None:
    site.content = CONTENT[:-1]
    with pytest.raises(Mismatch) as error:
        download(raw_file(site), tmp_path / "mine")
    assert error.value.args == ("size", len(CONTENT) - 1, len(CONTENT)) and not (tmp_path / "mine").exists()


def test_a_server_that_falls_silent_is_left(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT", 0.2)
    site.moods = [breaks(), silent]
    assert download(raw_file(site), tmp_path).read_bytes() == CONTENT
    assert f"timed out; trying again in 0 s, from byte {HALF:,}" in capsys.readouterr().err
    site.moods = [silent] * 3
    with pytest.raises(TimeoutError):
        download(raw_file(site), tmp_path / "other")


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (503, 3)])
def test_only_what_may_pass_is_tried_again(site: Site, tmp_path: Path, status: int, times: int) -> None:
    site.moods = [says(status)] * 5
    with pytest.raises(urllib.error.HTTPError, match=str(status)):
        download(raw_file(site), tmp_path / "mine")
    assert len(site.asked) == times and not (tmp_path / "mine").exists()


@pytest.mark.parametrize("spoilt", ["bytes", "facts", "source", "linked", "longer"])
def test_what_is_here_is_not_taken_on_trust(site: Site, tmp_path: Path, spoilt: str) -> None:
    site.moods = [breaks(), says(500), says(500)]
    with pytest.raises(OSError, match="Internal Server Error"):
        download(raw_file(site), tmp_path)
    came, facts = tmp_path / "a.bin.part", tmp_path / "a.bin.json"
    if spoilt == "bytes":
        came.write_bytes(b"x" * HALF)
    elif spoilt == "facts":
        facts.write_text("{", encoding="utf-8")
    elif spoilt == "source":
        facts.write_text(facts.read_text(encoding="utf-8").replace("a.bin", "b.bin"), encoding="utf-8")
    elif spoilt == "linked":
        os.link(came, tmp_path / "mine")
    else:
        came.write_bytes(CONTENT * 2)
    assert download(raw_file(site), tmp_path).read_bytes() == CONTENT
    if spoilt == "linked":
        assert (tmp_path / "mine").read_bytes() == CONTENT[:HALF]


def test_a_disk_that_will_not_do_is_known_before_the_first_byte(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": len(CONTENT) - 1}))
    with pytest.raises(UserError, match=r"1\.0 MiB are needed and 1\.0 free; make room"):
        download(raw_file(site), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_two_do_not_write_to_one_file(site: Site, tmp_path: Path) -> None:
    with part.Part(raw_file(site), tmp_path), pytest.raises(UserError, match="another process is downloading it"):
        download(raw_file(site), tmp_path)


def test_a_log_says_how_far_it_is(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_bar, "EVERY", 0)
    download(raw_file(site), tmp_path)
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"gessl: a\.bin: downloaded 1\.0 of 1\.0 MB, [\d,.]+ MB/s, about 0 s left", line)


@pytest.fixture
def two_files(site: Site, register: Callable[..., None], project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data set `mine` of two files that are served, without DVC and its seconds; its raw folder."""
    monkeypatch.setattr(dvc_store, "restore", lambda *arguments: [])
    monkeypatch.setattr(dvc_store, "add", _pin)
    files = [vars(raw_file(site)), vars(raw_file(site)) | {"name": "b.bin"}]
    register("mine", "digits", files=files)
    return project / "data/raw/mine"


def _pin(name: str) -> None:
    from gessl.data.pin import write_pin

    write_pin(name)


def test_a_file_that_is_whole_is_not_fetched_again_with_the_next(site: Site, two_files: Path) -> None:
    site.moods = [lambda handler: False, *[says(500)] * 3]
    with pytest.raises(UserError, match=r"cannot download \(Internal Server Error\); try again"):
        fetch("mine")
    assert not two_files.exists() and Path("work/fetch/mine/a.bin.part").stat().st_size == len(CONTENT)
    site.asked.clear()
    fetch("mine")
    verify_raw("mine")
    assert len(site.asked) == 1 and not Path("work/fetch/mine").exists()
    assert [path.name for path in sorted(two_files.iterdir())] == ["a.bin", "b.bin"]
    assert all(path.stat().st_nlink == 1 for path in two_files.iterdir())


@pytest.mark.parametrize("most", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_killed_anywhere_the_data_are_there_whole_or_not_at_all_and_come_with_the_next(
    site: Site, two_files: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(part, "BLOCK", 1 << 18)
    monkeypatch.setattr(downloading, "BLOCK", 1 << 18)
    peaceful = attempt(["fetch", "mine"])
    assert peaceful.code == 0, peaceful.err
    downloads = 0
    for at in range(0, len(peaceful.operations), max(1, len(peaceful.operations) // most)):
        for gone in ("data/raw", "work", "results"):
            shutil.rmtree(gone, ignore_errors=True)
        met = attempt(["fetch", "mine"], Fault(at))
        if met.code != KILLED:  # fewer operations than in peace: bytes come in pieces of any size
            assert met.code == 0
            continue
        downloads += Path("work/fetch/mine").exists()
        for path in two_files.glob("*"):
            assert path.read_bytes() == CONTENT, peaceful.operations[at]
        again = attempt(["fetch", "mine"])
        assert again.code == 0, f"{peaceful.operations[at]}: {again.err}"
        assert sorted(path.name for path in two_files.iterdir()) == ["a.bin", "b.bin"]
        assert all(path.read_bytes() == CONTENT for path in two_files.iterdir())
        assert not Path("work/fetch/mine").exists() and not Path("data/raw/.mine.part").exists()
    assert downloads > 2

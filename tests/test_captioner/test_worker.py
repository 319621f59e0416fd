"""The worker alone, without a store: every pin gets exactly one row, whatever is wrong with its image."""

import hashlib
import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.checkpoint import CheckpointError
from pincaption.captioner.model import Decoding
from pincaption.captioner.worker import Worker
from pincaption.images.fetch import Fetcher
from pincaption.store.work import Caption, Pin

from .pins import by_pin, pins, tiny


def test_a_caption_is_what_the_model_says_of_the_picture(opt, images):
    rows = by_pin(Worker(opt)(pins(images, "0.png", "1.png")))
    pixels = np.asarray(Image.open(images / "0.png").resize((32, 32), Image.Resampling.BICUBIC))
    said = opt.caption(np.stack([pixels]), [""], Decoding())[0]
    assert (
        rows["0:0.png"].text == " ".join(said.text.split())[: len(rows["0:0.png"].text)].strip()
        or rows["0:0.png"].reason
    )
    assert rows["0:0.png"].status in ("ok", "rejected")
    assert len(rows["0:0.png"].image_sha256) == 64


def test_every_pin_gets_its_row_and_a_reason_if_it_failed(builtin, images, tmp_path):
    odd = [
        Pin("none", None),
        Pin("blank", " "),
        Pin("relative", "0.png"),
        Pin("folder", str(images)),
        Pin("missing", str(images / "no.png")),
        Pin("scheme", "data:image/png;base64,AAAA"),
    ]
    rows = by_pin(
        Worker(builtin)(
            [*pins(images, "2.png", "broken.jpg", "cut.png", "empty.png", "text.png", "3.png"), *odd]
        )
    )
    assert {pin_id: row.reason for pin_id, row in rows.items()} == {
        "0:2.png": None,
        "1:broken.jpg": "broken image",
        "2:cut.png": "truncated image",
        "3:empty.png": "image file is empty",
        "4:text.png": "not an image, or a format that is not supported",
        "5:3.png": None,
        "none": "no image",
        "blank": "no image",
        "relative": "neither an absolute path nor a URL",
        "folder": "not a regular file",
        "missing": "image file not found",
        "scheme": "a kind of address that is not supported",
    }
    assert {row.status for row in rows.values()} == {"ok", "failed"}
    assert rows["2:cut.png"].image_sha256  # a failure of the bytes is remembered with them
    assert all(row.text is None for row in rows.values() if row.status == "failed")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.sampled_from(
            [
                "0.png",
                "1.png",
                "2.png",
                "3.png",
                "copy.png",
                "broken.jpg",
                "cut.png",
                "empty.png",
                "missing.png",
            ]
        ),
        max_size=30,
    ),
    prompts=st.lists(st.sampled_from(["", "a photo of", "a " * 200, "<image>"]), min_size=30, max_size=30),
    known=st.booleans(),
    batch_size=st.sampled_from([None, 1, 2, 5, 100]),
    threads=st.sampled_from([1, 3, 8]),
)
def test_any_mix_gives_the_same_row_for_every_pin(opt, images, names, prompts, known, batch_size, threads):
    """The other pins, the batch size and the number of threads make no difference."""
    asked = [
        Pin(f"{i}", str(images / name), prompt, "recipe", "known" if known and name == "3.png" else None)
        for i, (name, prompt) in enumerate(zip(names, prompts, strict=False))
    ]

    def remembered(keys):
        caption = Caption("another pin", "recipe", "ok", "remembered", image_sha256="known")
        return {key: caption for key in keys if key[0] == "known"}

    worker = Worker(
        opt, Decoding(max_new_tokens=8), batch_size=batch_size, threads=threads, find_captions=remembered
    )
    rows = by_pin(worker(asked))
    assert set(rows) == {pin.pin_id for pin in asked}
    for pin, name in zip(asked, names, strict=False):
        row = rows[pin.pin_id]
        if pin.image_sha256 == "known":
            assert (row.text, row.shared, row.pin_id) == ("remembered", True, pin.pin_id)
        else:
            assert (row.status, row.text, row.reason) == alone(opt, images, name, pin.prompt)


_alone: dict[tuple[str, str], tuple[str, str | None, str | None]] = {}


def alone(model: Blip2, images: Path, name: str, prompt: str) -> tuple[str, str | None, str | None]:
    if (name, prompt) not in _alone:
        row = next(
            Worker(model, Decoding(max_new_tokens=8), batch_size=1, threads=1)(
                [Pin("x", str(images / name), prompt, "recipe")]
            )
        )
        _alone[name, prompt] = row.status, row.text, row.reason
    return _alone[name, prompt]


class TestSharing:
    """The same image bytes with the same prompt are captioned once."""

    @pytest.fixture
    def asked(self, builtin, monkeypatch) -> list[int]:
        """How many pictures the model was given, call by call."""
        sizes: list[int] = []
        begin = builtin.begin
        monkeypatch.setattr(
            builtin,
            "begin",
            lambda pictures, prompts, decoding: (
                sizes.append(len(prompts)) or begin(pictures, prompts, decoding)
            ),
        )
        return sizes

    @pytest.mark.parametrize("batch_size", [1, 4, 50])
    def test_the_same_image_is_captioned_once(self, builtin, images, asked, batch_size):
        rows = by_pin(
            Worker(builtin, batch_size=batch_size)(
                pins(images, "0.png", "copy.png", "1.png", "0.png", "0.png", "copy.png")
            )
        )
        assert sum(asked) == 2
        assert len({row.text for name, row in rows.items() if not name.endswith(":1.png")}) == 1
        assert sorted(row.shared for row in rows.values()) == [False, False, True, True, True, True]
        assert len({row.image_sha256 for row in rows.values()}) == 2

    def test_another_prompt_is_another_caption(self, builtin, images, asked):
        image = str(images / "0.png")
        rows = by_pin(
            Worker(builtin)(
                [
                    Pin("a", image, ""),
                    Pin("b", image, "a photo of"),
                    Pin("c", image, "a photo of"),
                    Pin("d", image, "", "another recipe"),
                ]
            )
        )
        assert sum(asked) == 3
        assert sorted(row.shared for row in rows.values()) == [False, False, False, True]
        assert rows["d"].recipe_id == "another recipe"

    def test_what_the_store_knows_is_not_captioned_again(self, builtin, images, asked):
        first = next(Worker(builtin)(pins(images, "0.png")))
        worker = Worker(
            builtin, find_captions=lambda keys: {key: first for key in keys if key[0] == first.image_sha256}
        )
        rows = by_pin(worker(pins(images, "copy.png", "0.png")))
        assert sum(asked) == 1
        assert {(row.text, row.shared) for row in rows.values()} == {(first.text, True)}

    def test_only_so_many_images_are_remembered(self, builtin, images, asked, monkeypatch):
        monkeypatch.setattr("pincaption.captioner.worker.MAX_REMEMBERED", 5)
        rows = by_pin(
            Worker(builtin, batch_size=1, threads=1)(
                pins(images, *[f"{i}.png" for i in range(10)], "9.png", "0.png")
            )
        )
        assert rows["10:9.png"].shared
        assert not rows["11:0.png"].shared
        assert sum(asked) == 11

    def test_a_failure_is_not_shared(self, builtin, images, asked):
        rows = by_pin(Worker(builtin)(pins(images, "cut.png", "cut.png")))
        assert [(row.status, row.shared) for row in rows.values()] == [("failed", False)] * 2
        assert asked == []


class TestReadingAhead:
    """Pins are read as they are needed: the source may be endless, or a queue that several workers share."""

    def endless(self, images: Path, taken: list[int], names: list[str], **known: str) -> Iterator[Pin]:
        for i in range(1_000_000):
            taken.append(i)
            yield Pin(str(i), str(images / names[i % len(names)]), **known)

    def test_a_little_over_two_batches(self, opt, images):
        taken: list[int] = []
        worker = Worker(opt, Decoding(max_new_tokens=5), batch_size=4, threads=3)
        first = next(worker.batches(self.endless(images, taken, [f"{i}.png" for i in range(40)])))
        assert len(first) == 4
        assert len(taken) <= 4 + 2 * 4 + 3

    @pytest.mark.parametrize(
        "names",
        [["broken.jpg"], ["0.png"], ["0.png", "broken.jpg", "broken.jpg"]],
        ids=["all-broken", "all-the-same", "nearly-all-broken"],
    )
    def test_also_where_the_model_has_little_to_do(self, opt, images, names):
        taken: list[int] = []
        rows = Worker(opt, Decoding(max_new_tokens=5), batch_size=4, threads=3).batches(
            self.endless(images, taken, names)
        )
        for _ in range(5):
            assert 4 <= len(next(rows)) <= 5 * 4 + 1
        assert len(taken) <= 5 * (5 * 4 + 1) + 2 * 4 + 3

    def test_also_where_everything_is_known(self, opt, images):
        taken: list[int] = []
        worker = Worker(
            opt, batch_size=4, find_captions=lambda keys: dict.fromkeys(keys, Caption("x", "", "ok", "known"))
        )
        assert len(next(worker.batches(self.endless(images, taken, ["0.png"], image_sha256="abc")))) == 4
        assert len(taken) == 4

    def test_nothing_is_read_before_it_is_asked_for(self, opt, images):
        taken: list[int] = []
        rows = Worker(opt).batches(self.endless(images, taken, ["0.png"]))
        assert taken == []
        rows.close()

    def test_no_pins(self, opt):
        assert list(Worker(opt)([])) == []

    def test_threads_end_with_the_work(self, opt, images):
        before = threading.active_count()
        worker = Worker(opt, Decoding(max_new_tokens=5), batch_size=4, threads=8)
        list(worker(pins(images, *[f"{i}.png" for i in range(12)])))
        rows = worker.batches(self.endless(images, [], ["0.png", "1.png"]))
        next(rows)
        rows.close()
        assert within(60, lambda: threading.active_count() <= before)

    @pytest.mark.slow
    def test_memory_does_not_grow(self, opt, images):
        worker = Worker(opt, Decoding(max_new_tokens=2, min_new_tokens=0), batch_size=32, threads=4)
        resident, process = [], psutil.Process()
        for i, rows in enumerate(worker.batches(tiny(4000))):
            assert rows
            if i % 15 == 0:
                resident.append(process.memory_info().rss / 1e6)
        assert len(resident) >= 8
        assert resident[-1] - resident[2] < 30, resident


def within(seconds: float, true: object) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def server() -> Iterator[str]:
    """A web server on this machine: /picture is a picture, /hang never answers, /late answers late."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, "PNG")
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "hang" in self.path:
                ended.wait(300)
            else:
                if "late" in self.path:
                    ended.wait(3)
                self.send_response(200)
                self.send_header("Content-Length", str(len(file.getvalue())))
                self.end_headers()
                self.wfile.write(file.getvalue())

        def log_message(self, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Clients hang up in these tests. That must not write into the output of another test.
    httpd.handle_error = lambda *_: None
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    ended.set()
    httpd.shutdown()


class TestHanging:
    @pytest.fixture
    def fetcher(self) -> Fetcher:
        return Fetcher(timeout=60, allow_private=True)

    def test_a_hanging_image_fails_and_holds_up_nobody(self, builtin, server, images, fetcher):
        worker = Worker(builtin, batch_size=2, threads=2, fetcher=fetcher, seconds_per_image=4)
        hanging = [Pin(f"h{i}", f"{server}/hang{i}") for i in range(4)]
        began, seen = time.monotonic(), {}
        for row in worker(
            [*hanging, Pin("web", f"{server}/picture"), *pins(images, *[f"{i}.png" for i in range(10)])]
        ):
            seen[row.pin_id] = (row.status, row.reason, time.monotonic() - began)
        assert len(seen) == 15
        assert {reason for pin_id, (_, reason, _) in seen.items() if pin_id.startswith("h")} == {
            "took longer than 4 seconds to read"
        }
        assert {status for pin_id, (status, _, _) in seen.items() if not pin_id.startswith("h")} == {"ok"}
        assert max(after for _, _, after in seen.values()) < 4 * 4  # two at a time

    def test_decoders_that_hang_hold_up_nobody(self, builtin, images, monkeypatch):
        """Only so many threads decode at a time, and some may never end."""
        monkeypatch.setattr("pincaption.captioner.worker.TURN_SECONDS", 0.1)
        worker = Worker(builtin, batch_size=4)
        while worker._decoders.acquire(blocking=False):  # as a thread that hangs does
            ...
        rows = by_pin(worker(pins(images, *[f"{i}.png" for i in range(6)])))
        assert {row.status for row in rows.values()} == {"ok"}
        assert not worker._decoders.acquire(blocking=False)  # nobody gave back what was not theirs

    def test_a_picture_that_comes_too_late_is_not_counted_twice(self, builtin, server, fetcher):
        worker = Worker(builtin, threads=2, fetcher=fetcher, seconds_per_image=2)
        rows = by_pin(
            worker(
                [
                    Pin("late", f"{server}/late"),
                    Pin("a", f"{server}/hang"),
                    Pin("b", f"{server}/hang"),
                    Pin("c", f"{server}/hang"),
                ]
            )
        )
        assert {row.reason for row in rows.values()} == {"took longer than 2 seconds to read"}

    def test_a_slow_server_does_not_hold_up_the_pins_behind_it(self, builtin, server, images, fetcher):
        worker = Worker(builtin, batch_size=4, threads=3, fetcher=fetcher, seconds_per_image=30)
        rows = worker([Pin("slow", f"{server}/hang"), *pins(images, *[f"{i}.png" for i in range(12)])])
        began = time.monotonic()
        assert [next(rows).status for _ in range(12)] == ["ok"] * 12
        assert time.monotonic() - began < 25  # of the 30 that the slow one may take
        rows.close()

    def test_stop_ends_promptly_and_keeps_the_batch_in_hand(self, builtin, server, images, fetcher):
        began: list[float] = []

        last = hashlib.sha256((images / "1.png").read_bytes()).hexdigest()

        def find_captions(keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Caption]:
            """Called for the pictures that were read."""
            if last in [image_sha256 for image_sha256, _ in keys]:
                began.append(time.monotonic())
                threading.Timer(1, worker.stop.set).start()
            return {}

        worker = Worker(builtin, batch_size=8, threads=1, fetcher=fetcher, find_captions=find_captions)
        rows = list(worker([*pins(images, "broken.jpg", "0.png", "1.png"), Pin("slow", f"{server}/hang")]))
        assert 0.9 < time.monotonic() - began[0] < 20
        assert sorted(row.status for row in rows) == ["failed", "ok", "ok"]

    def test_stop_between_batches_takes_no_further_pins(self, builtin, images):
        worker, taken = Worker(builtin, batch_size=2, threads=2), []
        rows = worker.batches(TestReadingAhead().endless(images, taken, [f"{i}.png" for i in range(40)]))
        assert len(next(rows)) == 2
        before = len(taken)
        worker.stop.set()
        assert list(rows) == []
        assert len(taken) == before

    def test_a_named_pipe_is_no_image(self, builtin, tmp_path):
        import os

        os.mkfifo(tmp_path / "pipe.jpg")
        assert next(Worker(builtin)([Pin("p", str(tmp_path / "pipe.jpg"))])).reason == "not a regular file"

    def test_the_process_ends_although_a_thread_hangs(self, server, tmp_path):
        code = """
import sys
from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.find import find_checkpoint
from pincaption.images.fetch import Fetcher
from pincaption.captioner.worker import Worker
from pincaption.store.claims import Pin
fetcher = Fetcher(timeout=300, allow_private=True)
worker = Worker(Blip2(find_checkpoint("builtin")), fetcher=fetcher, seconds_per_image=0.5)
print([row.reason for row in worker([Pin("p", sys.argv[1])])])
"""
        done = subprocess.run(
            [sys.executable, "-c", code, f"{server}/hang"],
            capture_output=True,
            text=True,
            timeout=250,
            check=True,
        )
        assert done.stdout == "['took longer than 0.5 seconds to read']\n"
        assert done.stderr == ""


def test_more_new_tokens_than_the_model_has_room_for(opt):
    with pytest.raises(CheckpointError, match="tiny-opt has no room for captions of 500 new tokens"):
        Worker(opt, Decoding(max_new_tokens=500))


def test_a_prompt_too_long_for_the_model_fails_alone(opt, images):
    image = str(images / "0.png")
    rows = by_pin(Worker(opt)([Pin("long", image, "a photo of " * 100), Pin("short", image, "a photo of")]))
    assert (rows["long"].status, rows["long"].reason) == ("failed", "the prompt is too long for the model")
    assert rows["short"].status != "failed"

"""What captioning and training do on a GPU: one command, no download, every figure printed as it is had, and
a table last.

    python benchmarks/gpu.py --minutes 9                       all parts
    python benchmarks/gpu.py --minutes 4 --parts f,b,c --batches 256 --loops 256,512 --seconds 5
    python benchmarks/gpu.py --toy                             the same code on a CPU, at toy size

a  captions of the built-in checkpoint: the same on the GPU as on the CPU?
b  full-size BLIP-2 (the configuration of blip2-opt-2.7b, random bfloat16 weights, 20 new tokens) from files
   of 700 px into the store: images/s by batch size, the share of each stage, how long the GPU idles; beside
   it bare `generate`
c  what the device could do: its matrix rate on the vision tower's shapes, its copy rates, the images/s that
   they allow
d  two processes on one GPU; a batch that is too large for the memory
e  `embed train`: pairs/s in bfloat16 and float32
f  the model alone: images/s, what its stages take, and whether its tokens are those of `generate`
g  what the GPU and the interpreter do during steps of `embed train`
h  the attention of one new token: torch's and ours

A part that fails prints one line, and the others go on. The weights of b, d and f are random: their
captions are no words.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    began, chosen = time.monotonic(), arguments()
    work = chosen.work or Path(tempfile.mkdtemp(prefix="captioner-gpu-"))
    work.mkdir(parents=True, exist_ok=True)
    if chosen.toy:
        os.environ["OMP_NUM_THREADS"] = "1"  # small tensors, and a machine that may be busy
    data = make_data(work, chosen)
    # Importing torch takes seconds, in which the data are made.
    from gpu_bench import Bench
    from gpu_captions import bound, end_to_end, same_captions, together_and_too_large
    from gpu_model import attention, model_alone
    from gpu_training import embed_training, recorded_training

    functions = same_captions, end_to_end, bound, together_and_too_large, embed_training, model_alone
    parts = dict(zip("abcdefgh", (*functions, recorded_training, attention), strict=True))
    bench = Bench(began, work, data, chosen)
    device = about(bench.cuda)
    print(f"{device}\n{time.monotonic() - began:.1f} s to import", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the table comes all the same
    failed = []
    try:
        for name in chosen.parts.split(","):
            if bench.left() < 5:
                print(f"part {name}: no time left", flush=True)
                failed.append(name)
                continue
            started = time.monotonic()
            try:
                parts[name](bench)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                print(f"part {name} failed: {type(error).__name__}: {str(error)[:500]} ({place})", flush=True)
                failed.append(name)
            print(f"part {name}: {time.monotonic() - started:.0f} s", flush=True)
            bench.free()
    finally:
        print(f"\n{device}\n\n| part | what | figure |\n|---|---|---|")
        for row in bench.figures:
            print(f"| {' | '.join(row)} |", flush=True)
        data.kill()  # nothing to it where it has ended
    if failed:
        sys.exit(f"failed or left out: {', '.join(failed)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--parts", default="a,f,b,c,d,h,e,g")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--batches", help="batch sizes of b, comma-separated")
    parser.add_argument("--loops", help="batch sizes of f, comma-separated")
    parser.add_argument(
        "--seconds", type=float, default=11, help="of steady work that a figure is taken from"
    )
    parser.add_argument("--work", type=Path, help="folder that the files are made in, and stay in")
    return parser.parse_args()


def make_data(work: Path, chosen: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Begins to make the pictures and the export that the chosen parts need."""
    toy = chosen.toy
    wanted = {
        "plain": (12 if toy else 400, "af"),
        "pictures": (150 if toy else round(45_000 * chosen.seconds / 11), "bdf"),
        "export": (400 if toy else 20_000, "eg"),
    }
    amounts = [f"--{name}={n}" for name, (n, users) in wanted.items() if set(users) & set(chosen.parts)]
    return subprocess.Popen([sys.executable, str(HERE / "gpu_data.py"), str(work), *amounts])


def about(cuda: bool) -> str:
    """The device and the versions, in a line."""
    import torch
    import transformers

    device = "CPU"
    if cuda:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
        found = torch.cuda.get_device_properties(0)
        device = f"{found.name}, {found.total_memory / 2**30:.0f} GiB, driver {driver}"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{device}; {versions}, Python {sys.version.split()[0]}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()

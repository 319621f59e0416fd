"""The `captioner` command: which commands there are, and in which order help lists them.

Results go to standard output, everything else to standard error. Libraries that take long to load are
imported inside the commands, so that `captioner --help` and `captioner stats` answer at once.
"""

from __future__ import annotations

import sys
from typing import TextIO, cast

import click

from . import __version__
from .commands import embed_probe, embed_recall, embed_search  # noqa: F401 (they add their commands to embed)
from .commands.aggregate import aggregate
from .commands.browse import browse
from .commands.captions import captions
from .commands.demo import demo
from .commands.doctor import doctor
from .commands.embed import embed
from .commands.eval import evaluate
from .commands.export import export
from .commands.ingest import ingest
from .commands.run import run
from .commands.stats import stats
from .commands.verbs import ReaderMayLeave, Verbs


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="captioner")
def cli() -> None:
    """Makes pins and products findable: fills in missing descriptions with BLIP-2 captions, in one store.

    \b
    captioner demo                            try everything on drawn pictures
    captioner ingest images my.db ~/photos    turn a folder of images into a store
    captioner run my.db --model Salesforce/blip2-opt-2.7b
    captioner aggregate boards my.db --boards boards.parquet --saves saves.parquet
    captioner eval sample my.db sheets/       let people judge the captions
    captioner stats my.db                     count the pins that have text now
    captioner browse my.db                    look at the store in a browser
    captioner export my.db out/               write features for a trainer
    captioner embed train out/ model/         train a search embedding on them
    """


# In the order in which they are used.
cli.add_command(ingest)
cli.add_command(run)
cli.add_command(captions)
cli.add_command(aggregate)
cli.add_command(evaluate)
cli.add_command(export)
cli.add_command(stats)
cli.add_command(browse)
cli.add_command(embed)
cli.add_command(demo)
cli.add_command(doctor)


def main() -> None:
    """The console script."""
    if sys.stdout is not None:  # as it is where standard output was closed
        sys.stdout = cast(TextIO, ReaderMayLeave(sys.stdout))
    cli(prog_name="captioner")


if __name__ == "__main__":
    main()

"""hmseg-deploy cache."""

from dataclasses import asdict
from typing import Annotated

import typer

from deploy.cli import options
from deploy.cli.console import print_json, say
from deploy.object_cache import LIMIT, default_cache


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove what is kept.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show, or clear, the machine code that is kept.

    By compile, for the next time.
    """
    kept = default_cache()
    if clear:
        removed = kept.clear()
        say(f"removed {removed} {'entry' if removed == 1 else 'entries'}")
    usage = kept.usage()
    if as_json:
        print_json({"folder": str(kept.folder), **asdict(usage), "limit_bytes": kept.limit})
        return
    print(f"folder   {kept.folder}")
    print(f"entries  {usage.entries}")
    print(f"size     {usage.bytes / 1e6:.1f} MB of at most {kept.limit / 1e6:.0f} MB ({LIMIT})")

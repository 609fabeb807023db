"""`python -m development.samples [shop] [flights]` loads the samples into MONGODB_URI."""

import argparse
import os
import sys

from development.samples.loading import SAMPLES, SamplesError, load


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m development.samples", description="Load sample data into MONGODB_URI."
    )
    parser.add_argument("names", nargs="*", metavar="sample", help=f"which: {', '.join(SAMPLES)} (all, unless told)")
    names = parser.parse_args().names or list(SAMPLES)
    for name in names:
        if name not in SAMPLES:
            parser.error(f"there is no sample {name}: choose from {', '.join(SAMPLES)}")
    uri = os.environ.get("MONGODB_URI")
    if not uri:
        print('MONGODB_URI is not set. With bin/dev running, eval "$(bin/dev env)" sets it.', file=sys.stderr)
        return 1
    try:
        load(uri, names)
    except SamplesError as error:
        print(f"{error} Check MONGODB_URI.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Check that source, tests and documents use the field's words: `python -m tests.vocabulary`, part of `make quality`.

Prints each offence as `file:line: 'words found' -> words to use` and exits with 1 if there is one. Case does not
matter, and words are found in identifiers (`prepare_picture`, `PictureError`), across line breaks and in file names.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What not to write, as a regular expression over lower-case text, and what to write. A space matches whatever may
# separate two words: white space, a line break with a comment sign, `_` or `-`. With the group `fine`, words may stay.
WORDS = {
    r"pictur(e|es|ed)|photograph(s|ed)?": "image",
    r"image\s+links?": "image URL",
    r"runners? up": "alternative",
    r"wordings?": "prompt template",
    r"(?P<fine>ground )?truths?": "label, reference",
    r"withheld|withhold(s|ing)?": "abstain, below the threshold",
    r"surest": "most confident",
    r"taught": "trained",
    r"likeness(es)?": "near-duplicate",
    r"fitted (into|images?)": "resized",
    r"filling": "downloading",
    r"drafts?": "commit builder",
    r"(is|are|written) whole|whole or (absent|not at all)": "complete, atomic",
    r"blanks|(a|one|the|outer) blank(?! (line|image|page|canvas|string))": "space",
    r"(?P<fine>significant )?figures": "metrics, numbers",
    r"mend(s|ed|ing)?": "fix",
    r"beside": "next to, alongside, compared with",
    r"lies?(?! between)|lying|laid": "is, is stored, is defined",
    r"stood|stands?(?! (for|out|in|alone))": "is, is defined",
    r"told|said": "given, printed, named",
    r"(?P<fine>there )?(is|are|was|were) no(?! (longer|more|less|fewer|better|worse|later))": "is not a, there is no",
    r"be had": "be downloaded, loaded, found",
    r"left out|leav(e|es|ing) out": "dropped, filtered out",
    r"taken up|(go|goes|going|gone|went) on": "resumed, continues",
    r"start(s|ed|ing)? (it )?again": "rerun, restart",
    r"what becomes? of": "handling, normalization",
    r"(samples|rows|images|urls|tokens|steps|questions|answers|requests|bytes|mb) a second": "samples/s",
    r"(bytes|mb|tokens|questions|rows|steps) an? (row|step|image|answer)": "per row, per step",
    r"anew": "again",
    r"amid": "in the middle of",
    r"(will|would|can|could) hardly": "is unlikely to",
}

# Names that users and files already have: they stay.
ALLOWED = {
    "json-schema.org/draft/": "the name of a version of JSON Schema",
    "Draft202012Validator": "a class of jsonschema",
    "not_a_picture": "a reason recorded in image stores",
    "filling.lock": "a file in image stores",
    "left_out.csv": "a file of every dataset folder",
    '"left_out"': "a column of that file",
    "rows_left_out": "a key of build.json",
    "picture_source": "a key of build.json",
    "leave_out": "a value of --ranges",
    '"pictures"': "a key of the benchmarks' JSON, a column of the pretraining's log",
    "kb_a_picture": "a key of the benchmarks' JSON",
    '"photographs"': "a key of the benchmarks' JSON",
    "--pictures": "an option of benchmarks.model_card",
    "options.pictures": "its value",
    "test_pictures": "a key of quickstart.overlap's JSON",
    "pictures_in_both": "a key of quickstart.overlap's JSON",
    "image.draft(": "a method of Pillow's",
}
EXCEPTIONS = {
    "LICENSE",
    "requirements.lock",
    "requirements-cuda.lock",
    "tests/vocabulary.py",
    "tests/test_vocabulary.py",
}


def _pattern(words: str) -> re.Pattern[str]:
    separated = words.replace(" ", r"[\s_#-]+")
    return re.compile(f"(?<![a-z])(?:{separated})(?![a-z])")


PATTERNS = {_pattern(words): advice for words, advice in WORDS.items()}


def offences(text: str) -> Iterator[tuple[int, str, str]]:
    """(line from 1, the words found, the words to use) for each use of a word that is not ours."""
    for name in ALLOWED:
        text = text.replace(name, "")
    text = re.sub("(?<=[a-z])(?=[A-Z])", "_", text).lower()  # CamelCase to camel_case
    for pattern, advice in PATTERNS.items():
        for match in pattern.finditer(text):
            if match.groupdict().get("fine"):
                continue
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), advice


def main() -> int:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = 0
    for name in listed.splitlines():
        if name in EXCEPTIONS or not (ROOT / name).is_file():
            continue
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:  # a font, weights, an image
            text = ""
        for line, words, advice in sorted(offences(name + "\n" + text)):
            print(f"{name}:{max(line - 1, 1)}: {words!r} -> {advice}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

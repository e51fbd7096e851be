"""What a folder of images holds: its classes and files, what is wrong with them, its identity."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path

from convnext_steps.errors import DataError
from convnext_steps.files import expanded
from convnext_steps.text import few
from convnext_steps.training.decoding import FORMATS, suffixes
from convnext_steps.training.folder_index import VERSION, Entry, Stamp, read_entries, stamp

NAMED = 50  # broken images in a message
HALVES = ("train", "test")
JUNK = {  # what systems leave in folders, beside names that begin with a dot
    *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini"),
}

Listing = dict[str, list[str]]  # class -> the names of its files, from the root on


@dataclass(frozen=True)
class Folder:
    """The images of a folder, all of which can be read.

    In each half they are in an order that depends on their content alone, not on the files' names
    or dates: one of each class in turn, and within a class by their digests, so at random.
    """

    root: Path
    classes: tuple[str, ...]  # in alphabetical order, as torchvision's: 0, 1, 10, 11, 2
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    notes: tuple[str, ...]  # what was left out, one line each

    @property
    def content(self) -> str:
        """What tells the content from any other, wherever the folder is."""
        lines = sorted(
            f"{half}/{self.classes[entry.label]}/{entry.digest}"
            for half, entries in zip(HALVES, (self.train, self.test), strict=True)
            for entry in entries
        )
        digest = hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()
        return f"folder {VERSION} sha256 {digest}"


def read_folder(root: str | Path | None = None, skip_broken: bool = False) -> Folder:
    """List a folder of images, and read those that are new or have changed since the last time.

    Args:
        root: the folder with train/ and val/ (or else test/), one subfolder per class; by default
            $CONVNEXT_STEPS_DATA.
        skip_broken: go on without images that cannot be read.

    Raises:
        DataError: a half is missing, a class has no images, the halves' classes differ, or an image
            cannot be read.
    """
    root, halves = _find(root)
    stamps: dict[str, Stamp] = {}
    passed: Counter[str] = Counter()
    try:
        listed = [_list(half, stamps, passed) for half in halves]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    notes = []
    if passed:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in passed.most_common())
        notes = [f"passed over {kinds}: only {', '.join(FORMATS)} in class folders are read"]
    _check(halves, listed, notes)
    entries, broken = read_entries(root, stamps)
    if broken:
        line = f"{len(broken):,} of {len(stamps):,} images cannot be read"
        if not skip_broken:
            raise DataError(
                f"{root}: {line}: {few(broken, NAMED)}; repair or remove them, or go on without "
                "them by --set data.skip_broken=true"
            )
        notes.append(f"{line} and are left out: {few(broken)}")
        listed = [{c: [n for n in half[c] if n in entries] for c in half} for half in listed]
        _check(halves, listed, notes)
    train, test = (_in_order(half, entries) for half in listed)
    trained = {entry.digest for entry in train}
    if twins := sum(entry.digest in trained for entry in test):
        notes.append(f"{twins:,} of {len(test):,} test images are training images too")
    return Folder(root, tuple(sorted(listed[0])), train, test, tuple(notes))


def _find(root: str | Path | None) -> tuple[Path, tuple[Path, Path]]:
    """The folder, and the folders of its two halves."""
    root = root or os.environ.get("CONVNEXT_STEPS_DATA")
    if not root:
        raise DataError(
            "the data set 'folder' needs the folder with train/ and val/ (or test/): "
            "--set data.root=FOLDER, or the environment variable CONVNEXT_STEPS_DATA"
        )
    root = expanded(root)
    halves = root / "train", root / ("val" if (root / "val").is_dir() else "test")
    for half in halves:
        if not half.is_dir():
            layout = f"{root}/train/CLASS/IMAGE and {root}/val/CLASS/IMAGE (or test)"
            raise DataError(f"there is no folder {half}; the images must be in {layout}")
    return root, halves


def _list(half: Path, stamps: dict[str, Stamp], passed: Counter[str]) -> Listing:
    """The image files of each class; their stamps are noted, and what else is there is counted."""
    classes: Listing = {}
    for entry in _tidy(half):
        if not entry.is_dir():
            passed["in no class folder"] += 1
            continue
        images = classes[entry.name] = []
        for file in _files(entry.path):
            _, dot, suffix = file.name.lower().rpartition(".")
            if dot + suffix in suffixes():
                images.append(half.name + file.path[len(str(half)) :])
                stamps[images[-1]] = stamp(file)
            else:
                passed[dot + suffix if dot else "without a suffix"] += 1
    return classes


def _files(folder: str) -> "Iterator[os.DirEntry[str]]":
    for entry in _tidy(folder):
        if not entry.is_dir():
            yield entry
        elif not Path(folder).resolve().is_relative_to(Path(entry).resolve()):  # a circle of links
            yield from _files(entry.path)


def _tidy(folder: str | Path) -> "list[os.DirEntry[str]]":
    """What a person put into a folder, in order."""
    with os.scandir(folder) as entries:
        kept = [e for e in entries if e.name[0] != "." and e.name.lower() not in JUNK]
    return sorted(kept, key=attrgetter("name"))


def _check(halves: Sequence[Path], listed: Sequence[Listing], notes: Sequence[str]) -> None:
    """Refuse classes that are too few, differ between the halves, or have no images."""
    because = "".join(f" ({note})" for note in notes)
    forms: dict[str, tuple[str, Path]] = {}
    for half, classes in zip(halves, listed, strict=True):
        if len(classes) < 2:
            found = f"only one class folder, {min(classes)}" if classes else "no class folder"
            raise DataError(
                f"{half} has {found}{because}; it needs one subfolder per class, at least two"
            )
        for name in classes:
            twin, where = forms.setdefault(unicodedata.normalize("NFC", name), (name, half))
            if twin != name:
                raise DataError(
                    f"the class {name} has two names that look alike: in Unicode form "
                    f"{_form(twin)} in {where}, in {_form(name)} in {half}; rename one of them"
                )
    for half, classes in zip(halves, listed, strict=True):
        if lacking := sorted({*listed[0], *listed[1]} - {*classes}):
            raise DataError(
                f"{half} lacks {few(lacking)}; train/ and val/ (or test/) need the same classes"
            )
        if empty := [name for name, files in classes.items() if not files]:
            raise DataError(
                f"{half / min(empty)} has no images{because}; add some, or remove this class"
            )


def _form(name: str) -> str:
    forms = [form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, name)]
    return forms[0] if forms else "neither NFC nor NFD"


def _in_order(listed: Listing, known: Mapping[str, Entry]) -> tuple[Entry, ...]:
    """One image of each class in turn; see `Folder`."""
    by_digest = [
        sorted((known[name] for name in files), key=attrgetter("digest", "name"))
        for _, files in sorted(listed.items())
    ]
    return tuple(
        entry._replace(label=label)
        for turn in zip_longest(*by_digest)
        for label, entry in enumerate(turn)
        if entry
    )

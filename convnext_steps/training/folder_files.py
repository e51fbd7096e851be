"""What a folder of images holds: classes and files, what is wrong with them, its fingerprint."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from convnext_steps.errors import DataError
from convnext_steps.training.decoding import SUFFIXES
from convnext_steps.training.folder_index import VERSION, Facts, Stamp, read_facts

FEW = 3  # names in a message
JUNK = {"__macosx", "desktop.ini", "thumbs.db"}  # and whatever begins with a dot
READABLE = "BMP, GIF, JPEG, PNG, PNM, TIFF or WebP"
SKIP = "repair or remove them, or go on without them: skip_broken=True (--skip-broken)"


class Entry(NamedTuple):
    """One image of a folder."""

    name: str  # from the root on
    label: int
    facts: Facts


@dataclass(frozen=True)
class Folder:
    """The images of a folder, all of which can be read.

    In each half they are in an order of their content alone, which neither a file's name nor its
    date changes: one of each class in turn, within a class by their digests, and so at random.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    notes: tuple[str, ...]  # what was left out, one line each

    @cached_property
    def fingerprint(self) -> str:
        """What tells the content from any other, wherever the folder is."""
        halves = {"train": self.train, "test": self.test}
        lines = [
            f"{half}/{self.classes[entry.label]}/{entry.facts.digest}"
            for half, entries in halves.items()
            for entry in entries
        ]
        content = "\n".join(sorted(lines)).encode(errors="surrogateescape")
        return f"folder {VERSION} sha256 {hashlib.sha256(content).hexdigest()}"


def folder_fingerprint(root: str | Path | None = None, skip_broken: bool = False) -> str:
    """What tells the content of a folder of images from any other, wherever the folder is.

    Halves, classes and the files' content count, and neither the files' names nor their dates. The
    first time every file is read; after that new and changed files only.

    Args:
        root: the folder; see `load_folder`.
        skip_broken: go on without images that cannot be read; they do not count.

    Raises:
        DataError: as `load_folder`.
    """
    return read_folder(root, skip_broken).fingerprint


def read_folder(root: str | Path | None, skip_broken: bool = False) -> Folder:
    """List a folder of images, and read the files that the index does not know.

    Raises:
        DataError: a half is missing, a class has no images, the halves' classes differ, or a file
            cannot be read.
    """
    root = _find_root(root)
    halves = _halves(root)
    left_out: Counter[str] = Counter()
    try:
        listings = [_listing(half, left_out) for half in halves]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    notes = [f"{root}: left out {_counted(left_out)}"] if left_out else []
    _check_classes(halves, [set(listing) for listing in listings])
    classes = _ordered(listings[0])
    names = [[list(listing[c]) for c in classes] for listing in listings]
    _check_images(halves, classes, names, notes)
    stamps: dict[str, Stamp] = {}
    for own in (own for listing in listings for own in listing.values()):
        stamps |= own
    facts, broken = read_facts(root, stamps)
    if broken:
        line = f"{root}: {_named(broken, len(stamps))}"
        if not skip_broken:
            raise DataError(f"{line}; {SKIP}")
        notes.append(f"{line}; going on without them")
        names = [[[name for name in own if name in facts] for own in half] for half in names]
        _check_images(halves, classes, names, notes)
    train, test = (_in_order(half, facts) for half in names)
    return Folder(root, classes, train, test, tuple(notes))


def _find_root(root: str | Path | None) -> Path:
    chosen = root or os.environ.get("CONVNEXT_STEPS_DATA")
    found = Path(chosen).expanduser() if chosen else None
    if found is None or (root is None and not (found / "train").is_dir()):
        raise DataError(
            "the data set 'folder' needs a root: the folder that has train/ and val/ (or test/)"
        )
    return found


def _halves(root: Path) -> tuple[Path, Path]:
    training, test = root / "train", root / "val"
    if not test.is_dir():
        test = root / "test"
    for half in (training, test):
        if not half.is_dir():
            layout = f"{root}/train/CLASS/IMAGE and {root}/val/CLASS/IMAGE (or test)"
            raise DataError(f"there is no folder {half}; images are looked for in {layout}")
    return training, test


# ---- the files


Listing = dict[str, dict[str, Stamp]]  # class -> name from the root on -> stamp


def _listing(half: Path, left_out: "Counter[str]") -> Listing:
    """The images of each class; what else is there is counted."""
    listing: Listing = {}
    start = len(str(half))
    for entry in _tidy(half):
        if not entry.is_dir():
            left_out["in no class folder"] += 1
            continue
        images = listing[entry.name] = {}
        for file in _files(entry.path):
            _, dot, suffix = file.name.rpartition(".")
            if suffix.lower() in SUFFIXES:
                images[half.name + file.path[start:]] = _stamp(file)
            else:
                left_out[f".{suffix.lower()}" if dot else "without a suffix"] += 1
    return listing


def _files(folder: str) -> "Iterator[os.DirEntry[str]]":
    for entry in _tidy(folder):
        if entry.is_dir():
            yield from _files(entry.path)
        else:
            yield entry


def _tidy(folder: str | Path) -> "list[os.DirEntry[str]]":
    """What a person put into a folder, without what systems and notebooks leave there."""
    with os.scandir(folder) as entries:
        kept = (e for e in entries if e.name[0] != "." and e.name.lower() not in JUNK)
        return sorted(kept, key=lambda entry: entry.name)


def _stamp(file: "os.DirEntry[str]") -> Stamp:
    try:
        status = file.stat()
    except OSError:  # a link to nothing; reading it says so
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _counted(left_out: "Counter[str]") -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in left_out.most_common())
    return f"{kinds}: only {READABLE} in class folders are read, so convert others"


def _named(broken: Mapping[str, str], total: int) -> str:
    names = _few([f"{name} ({why})" for name, why in broken.items()])
    return f"{len(broken):,} of {total:,} images cannot be read: {names}"


def _few(names: Collection[str]) -> str:
    more = f" and {len(names) - FEW:,} more" if len(names) > FEW else ""
    return ", ".join(list(names)[:FEW]) + more


# ---- the classes


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted, by number where all names are whole numbers."""
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _check_classes(halves: Sequence[Path], names: Sequence[set[str]]) -> None:
    for half, classes in zip(halves, names, strict=True):
        if len(classes) < 2:
            found = f"only one class folder, {min(classes)}" if classes else "no class folder"
            raise DataError(
                f"{half} has {found}; at least two classes are needed, one subfolder per class"
            )
    only = [names[0] - names[1], names[1] - names[0]]
    forms = {unicodedata.normalize("NFC", name): name for name in only[0]}
    for name in sorted(only[1]):
        if twin := forms.get(unicodedata.normalize("NFC", name)):
            raise DataError(
                f"the class {name} has two names that look alike: Unicode form {_form(twin)} in "
                f"{halves[0]}, {_form(name)} in {halves[1]}; rename one of the two folders"
            )
    lacks = [
        f"{half} lacks {_few(sorted(missing))}"
        for half, missing in zip(halves, reversed(only), strict=True)
        if missing
    ]
    if lacks:
        raise DataError(f"{'; '.join(lacks)}; both halves need the same classes")


def _check_images(
    halves: Sequence[Path],
    classes: Sequence[str],
    names: Sequence[Sequence[Sequence[str]]],
    notes: Sequence[str],
) -> None:
    for half, by_class in zip(halves, names, strict=True):
        if not all(by_class):
            empty = half / classes[[bool(own) for own in by_class].index(False)]
            why = "".join(f" ({note})" for note in notes)
            raise DataError(f"{empty} has no images{why}; add some, or remove this class")


def _form(name: str) -> str:
    composed, decomposed = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return "NFC" if name == composed else "NFD" if name == decomposed else "neither NFC nor NFD"


def _in_order(names: Sequence[Sequence[str]], facts: Mapping[str, Facts]) -> tuple[Entry, ...]:
    """One image of each class in turn; see `Folder`."""
    by_digest = [sorted(own, key=lambda name: (facts[name].digest, name)) for own in names]
    return tuple(
        Entry(name, label, facts[name])
        for turn in zip_longest(*by_digest)
        for label, name in enumerate(turn)
        if name is not None
    )

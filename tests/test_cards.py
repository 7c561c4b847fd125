"""Data cards and their download: facts that parse, files that are checked."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from domainseg import catalog
from domainseg import shipped as shipped_module
from domainseg.errors import DomainsegError, InputError, MissingInputError, OutputError, RecipeError
from domainseg.loaders.cards import Archive, Card, find_card, list_cards, read_card
from domainseg.loaders.fetch import fetch, unpack
from domainseg.loaders.wafer_map import PATTERNS
from domainseg.shipped import shipped

ROOT = Path(__file__).parents[1]


class Loading(BaseModel):
    """How a recipe reads the name and options of a loader."""

    model_config = ConfigDict(extra="forbid")

    loader: Annotated[catalog.Loader, Field(discriminator="name")]


CARDS = sorted(path.stem for path in (ROOT / "datasets").glob("*.toml"))


@pytest.mark.parametrize("name", CARDS)
def test_every_card_parses_and_its_loader_takes_its_options(name: str) -> None:
    card = find_card(name)
    loader = Loading.model_validate({"loader": card.loader}).loader
    assert loader.name == card.loader["name"]
    assert len(set(card.classes)) == len(card.classes)
    assert card.archives or card.preparation


def test_the_cards_of_nuclei_and_of_wafer_maps_name_their_classes() -> None:
    for name in ("bbbc039", "dsb2018", "monuseg"):
        assert find_card(name).classes == ("nucleus",)
        assert find_card(name).licence in ("CC0-1.0", "CC-BY-NC-SA-4.0")
    for name in ("mixedwm38", "wm811k"):
        assert find_card(name).classes == PATTERNS


def test_the_list_holds_every_card_of_the_folder() -> None:
    assert list(list_cards()) == CARDS
    assert shipped("datasets") == ROOT / "datasets"


def test_an_installed_package_finds_its_own_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped_module, "__file__", str(tmp_path / "domainseg" / "shipped.py"))
    with pytest.raises(FileNotFoundError, match="wanted the recipes that come with domainseg"):
        shipped("recipes")
    (tmp_path / "domainseg" / "_recipes").mkdir(parents=True)
    (tmp_path / "recipes").mkdir()
    assert shipped("recipes") == tmp_path / "domainseg" / "_recipes"


def test_the_folder_of_cards_is_not_importable_from_the_repository() -> None:
    ask = "import importlib.util as u; s = u.find_spec('datasets'); print(s and s.origin)"
    for flags in (["-c"], ["-P", "-c"]):
        run = subprocess.run(
            [sys.executable, *flags, ask], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == "None", run.stdout


CARD = """\
title = "T"
url = "https://example.org"
licence = "CC0-1.0"
citation = "C"
contents = "10 images"
classes = ["cell"]
loader = { name = "mask_folder" }
"""


def refusal(kind: type[DomainsegError], action: Any) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            CARD + 'license = "MIT"\n',
            "found the key license, which a card does not have, wanted some of archives, citation, "
            "classes, contents, licence, loader, preparation, spacing_um, split, title, url; "
            "did you mean licence.",
        ),
        (
            CARD.replace('licence = "CC0-1.0"\n', ""),
            "found no licence, wanted every required key; add it.",
        ),
        (
            CARD.replace("https", "http"),
            "found the card: 'http://example.org' is not an https address, wanted a value that "
            "fits; correct it.",
        ),
        (
            CARD.replace('"CC0-1.0"', '""'),
            "found the card: licence is empty, wanted a value that fits; correct it.",
        ),
        (
            CARD + '[[archives]]\nurl = "https://example.org/a"\nsha256 = "12"\n',
            "found archives.0: sha256 is '12', wanted 64 hexadecimal digits or nothing, wanted a "
            "value that fits; correct it.",
        ),
        (
            CARD.replace('["cell"]', "3"),
            "found classes: Input should be a valid tuple, wanted a value that fits; correct it.",
        ),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    assert refusal(RecipeError, lambda: read_card(path)) == f"{path}: {sentence}"


def test_a_card_that_is_not_toml_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    assert refusal(MissingInputError, lambda: read_card(path)) == (
        f"{path}: found no file, wanted a data card; check the path."
    )
    path.write_text("title = \n")
    assert refusal(RecipeError, lambda: read_card(path)).startswith(f"{path}: found no TOML: ")
    assert refusal(MissingInputError, lambda: find_card("dsb2081")) == (
        f"dsb2081: found no data card of that name, wanted one of {', '.join(CARDS)}, "
        "or the path of a card; did you mean dsb2018."
    )


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Yield a folder and the loopback address that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def zipped(files: dict[str, str]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return memory.getvalue()


def card_of(*archives: Archive) -> Card:
    """Return a card of archives on loopback, whose plain http a card file would not pass."""
    card = Card(
        title="T",
        url="https://example.org",
        licence="CC0-1.0",
        citation="C",
        contents="",
        classes=("cell",),
        loader={"name": "mask_folder"},
    )
    object.__setattr__(card, "archives", archives)
    return card


def test_a_fetched_archive_is_checked_and_unpacked(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, address = served
    content = zipped({"images/a": "one", "labels/a": "two", "__MACOSX/._a": "litter"})
    (folder / "data.zip").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    archive = Archive(url=f"{address}/data.zip", sha256=digest, size_bytes=len(content), into="x")
    root = tmp_path / "root"
    (done,) = fetch(card_of(archive), root)
    assert (done.sha256, done.size_bytes, done.verified) == (digest, len(content), True)
    assert (root / "x/images/a").read_text() == "one"
    assert sorted(path.name for path in root.rglob("*")) == ["a", "a", "images", "labels", "x"]
    (unknown,) = fetch(card_of(Archive(url=f"{address}/data.zip")), root)
    assert (unknown.sha256, unknown.verified) == (digest, False)
    assert (root / "labels/a").read_text() == "two"


def test_a_wrong_checksum_or_size_leaves_nothing(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    content = zipped({"a": "one"})
    digest = hashlib.sha256(content).hexdigest()
    for name in ("good.zip", "bad.zip"):
        (folder / name).write_bytes(content)
    root, url = tmp_path / "root", f"{address}/bad.zip"
    good = Archive(url=f"{address}/good.zip", sha256=digest)
    bad = Archive(url=url, sha256="0" * 64)
    assert refusal(InputError, lambda: fetch(card_of(good, bad), root)) == (
        f"{url}: found {digest} as sha256, wanted {'0' * 64}, as its card records; "
        "try again; if it stays, the publisher has changed the file."
    )
    short = Archive(url=url, size_bytes=7)
    assert refusal(InputError, lambda: fetch(card_of(short), root)) == (
        f"{url}: found {len(content)} bytes, wanted 7, as its card records; "
        "try again; if it stays, the publisher has changed the file."
    )
    assert list(root.iterdir()) == []


def test_an_address_that_does_not_answer_is_one_sentence(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    url = f"{served[1]}/no.zip"
    assert refusal(InputError, lambda: fetch(card_of(Archive(url=url)), tmp_path / "r")) == (
        f"{url}: found HTTP status 404, wanted the file; "
        "check the connection, or look for a new address on the publisher's page."
    )
    url = "http://127.0.0.1:9/a.zip"
    assert refusal(InputError, lambda: fetch(card_of(Archive(url=url)), tmp_path / "r")) == (
        f"{url}: found no answer (ConnectionError), wanted the file; "
        "check the connection, or look for a new address on the publisher's page."
    )


def test_a_card_without_archives_says_where_to_get_the_data(tmp_path: Path) -> None:
    assert refusal(InputError, lambda: fetch(card_of(), tmp_path)) == (
        "T: found no archive that can be downloaded, wanted an address in its card; "
        "get it from https://example.org."
    )


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    card = card_of(Archive(url="https://example.org/a.zip"))
    assert refusal(OutputError, lambda: fetch(card, tmp_path / "file" / "r")) == (
        f"{tmp_path}/file/r: found Not a directory, wanted a folder to write to; "
        "free some space or choose another folder."
    )


def test_a_damaged_zip_or_one_that_leads_out_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a": "one"})[:-30])
    assert refusal(InputError, lambda: unpack(path, tmp_path / "out")) == (
        "a.zip: found no zip file, or a truncated one, wanted a whole zip file; download it again."
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil", "x")
    assert refusal(InputError, lambda: unpack(path, tmp_path / "out")) == (
        "a.zip: found the name '../evil', which leads out of the folder, wanted names below it; "
        "do not unpack it."
    )
    assert not (tmp_path / "evil").exists()

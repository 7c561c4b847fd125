"""A document as a PDF, by WeasyPrint, which the extra ``pdf`` installs."""

from __future__ import annotations

import hashlib
import importlib
import logging
from dataclasses import replace
from typing import Any

from domainseg.errors import MissingInputError, sentence
from domainseg.report import html
from domainseg.report.document import Block, Document, Table

ROWS = 60
"""Rows of a table that a reader of the page may sort: on paper the first of them."""


def require() -> Any:
    """Return WeasyPrint.

    Raises:
        MissingInputError: it, or the library that it draws text with, is not installed.
    """
    # It warns of every property of a style sheet that only browsers know.
    logging.getLogger("weasyprint").setLevel(logging.ERROR)
    try:
        return importlib.import_module("weasyprint")
    except (ImportError, OSError) as error:
        raise MissingInputError(
            sentence(
                "--formats pdf",
                found=f"no WeasyPrint ({type(error).__name__})",
                wanted="the extra pdf, and Pango",
                fix="run `pip install domainseg[pdf]`, or leave pdf out",
            )
        ) from error


def render(document: Document) -> bytes:
    """Return the document as a PDF; equal documents, equal bytes.

    Errors are those of `require`.
    """
    page = html.render(_shortened(document), paper=True)
    weasyprint = require()
    # Pictures are inside the page; nothing is fetched from anywhere else.
    inside = weasyprint.urls.URLFetcher(allowed_protocols={"data"})
    made = weasyprint.HTML(string=page, url_fetcher=inside)
    identifier = hashlib.sha256(page.encode()).digest()[:16]
    content: bytes = made.write_pdf(pdf_identifier=identifier, pdf_tags=True)
    return content


def _shortened(document: Document) -> Document:
    def on_paper(block: Block) -> Block:
        if isinstance(block, Table) and block.interactive:
            return replace(block, shown=min(block.shown, ROWS))
        return block

    return replace(
        document,
        sections=tuple(
            replace(section, blocks=tuple(on_paper(block) for block in section.blocks))
            for section in document.sections
        ),
    )

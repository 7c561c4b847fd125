"""A report as a document of plain blocks: sections build them, renderers write them out."""

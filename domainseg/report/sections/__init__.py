"""One file per section: a pure function from evidence to a `Section`, or None without evidence."""

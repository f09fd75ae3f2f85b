//! What there is to say about a plan or an artifact: as data, as tables, as a page.

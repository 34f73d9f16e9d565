//! Units of the import.

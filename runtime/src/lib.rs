//! Opens, checks, loads and runs artifacts.

//! The files of the flagship lake, which `livelake demo` writes and runs.

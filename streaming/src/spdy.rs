//! SPDY/3.1 over any byte stream.

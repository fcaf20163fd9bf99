//! Integration tests over a real daemon, with images, registries and faults made on the spot.

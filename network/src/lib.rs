//! Pod networks: the built-in bridge and the CNI runtime, as an isolator.

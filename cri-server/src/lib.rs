//! The tripod daemon: gRPC services on the engine, configuration, and the composition of all plugins.

//! tripod-shim: the one small process per pod that holds its namespaces, containers, logs and exit records.

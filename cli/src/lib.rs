//! Operator's commands of the tripod binary.
